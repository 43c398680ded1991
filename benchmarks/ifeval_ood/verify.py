"""IFEval-OOD with our own prompts: 52 constraints outside of IFEval, checked as Tülu 3 did (arXiv 2411.15124)."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from evalsuite.errors import BenchmarkError
from evalsuite.types import Doc, Score
from evalsuite.verify.constraints import scoring
from evalsuite.verify.constraints.ood import OOD_IDS, check_rows
from evalsuite.verify.constraints.ood import tools as tools_for
from evalsuite.verify.constraints.registry import Variant
from evalsuite.verify.constraints.scoring import Verdict, as_official_metrics
from evalsuite.verify.lmeval import micro

VARIANTS = ("tulu3", "ifbench")
VARIANT: Variant = "tulu3"
PROMPTS = Path(__file__).with_name("prompts.jsonl")


def verify(response: str, doc: Doc, variant: Variant = VARIANT) -> Score:
    """1 when every instruction is followed loosely. Parts: the other three official metrics, and both modes per id."""
    return scoring.score(response, doc, variant)


process_results = as_official_metrics(verify)


def verdicts(response: str, doc: Doc, variant: Variant = VARIANT) -> tuple[Verdict, ...]:
    """Both modes on each instruction of the row, with reasons."""
    return scoring.verdicts(response, doc, variant)


def gold_response(doc: Doc) -> str:
    """A made-up response that follows the row's instruction; two at once only where one text happens to follow both."""
    # By name: how an answer is made up is no part of the grading, so it stays out of the benchmark's digest.
    answers = import_module("evalsuite.verify.constraints.ood_answers")
    return str(answers.answer(doc["instruction_id_list"], doc["kwargs"], VARIANT))


def tools() -> Mapping[str, str]:
    """Which language tools answer on this machine, for the scorecard."""
    return tools_for(OOD_IDS, VARIANT)


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


def prompt(doc: Doc) -> str:
    """The row's prompt, verbatim."""
    return str(doc["prompt"])


def target(doc: Doc) -> str:
    """Nothing: there is no one right answer."""
    return ""


def process_docs(docs: Iterable[Doc]) -> Iterable[Doc]:
    """The rows as they are; raises DataError that names every row that cannot be judged."""
    check_rows(docs, VARIANT)
    return docs


__all__ = [
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
