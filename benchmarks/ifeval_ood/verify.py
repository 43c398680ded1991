"""IFEval-OOD with our own prompts: 52 constraints outside of IFEval, checked as Tülu 3 did (arXiv 2411.15124)."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalsuite.errors import BenchmarkError
from evalsuite.verify.constraints.benchmark import VARIANTS, ConstraintBenchmark, prompt, target
from evalsuite.verify.constraints.ood import OOD_IDS
from evalsuite.verify.constraints.registry import Variant
from evalsuite.verify.constraints.scoring import as_official_metrics
from evalsuite.verify.lmeval import micro

VARIANT: Variant = "tulu3"
PROMPTS = Path(__file__).with_name("prompts.jsonl")

_benchmark = ConstraintBenchmark(OOD_IDS, VARIANT)
verify = _benchmark.verify
verdicts = _benchmark.verdicts
process_results = as_official_metrics(verify)
process_docs = _benchmark.process_docs
gold_response = _benchmark.gold_response
tools = _benchmark.tools


def dataset(sha256: str = "", **_: Any) -> Mapping[str, Any]:
    """prompts.jsonl as split `train`, with the category of each constraint; refuses prompts of another digest."""
    # Not at the top: a reward needs the verifier without the data library.
    import datasets

    raw = PROMPTS.read_bytes()
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise BenchmarkError(f"{PROMPTS}: not the prompts that {PROMPTS.parent.name}.yaml names; run compose.py again")
    rows = [json.loads(line) for line in raw.decode().split("\n") if line]
    for row in rows:
        row["category"] = row["cluster"].partition(":")[0]
    return {"train": datasets.Dataset.from_list(rows)}


__all__ = [
    "VARIANT",
    "VARIANTS",
    "dataset",
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
