"""IFEval-OOD with prompts of the Tülu 3 era from the hub: 52 constraints, checked by code (arXiv 2411.15124)."""

from evalsuite.verify.constraints.benchmark import VARIANTS, ConstraintBenchmark, prompt, target
from evalsuite.verify.constraints.ood import OOD_IDS
from evalsuite.verify.constraints.registry import Variant
from evalsuite.verify.constraints.scoring import as_official_metrics
from evalsuite.verify.lmeval import micro

VARIANT: Variant = "tulu3"

_benchmark = ConstraintBenchmark(OOD_IDS, VARIANT)
verify = _benchmark.verify
verdicts = _benchmark.verdicts
process_results = as_official_metrics(verify)
process_docs = _benchmark.process_docs
gold_response = _benchmark.gold_response
tools = _benchmark.tools

__all__ = [
    "VARIANT",
    "VARIANTS",
    "gold_response",
    "micro",
    "process_docs",
    "process_results",
    "prompt",
    "target",
    "tools",
    "verdicts",
    "verify",
]
