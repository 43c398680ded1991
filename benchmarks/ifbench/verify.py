"""IFBench: 58 constraints outside of IFEval, checked by code as its authors do (arXiv 2507.02833)."""

from evalsuite.verify.constraints.benchmark import VARIANTS, ConstraintBenchmark, prompt, target
from evalsuite.verify.constraints.ood import IFBENCH_IDS
from evalsuite.verify.constraints.registry import Variant
from evalsuite.verify.constraints.scoring import as_official_metrics
from evalsuite.verify.lmeval import micro

VARIANT: Variant = "ifbench"

_benchmark = ConstraintBenchmark(IFBENCH_IDS, VARIANT)
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
