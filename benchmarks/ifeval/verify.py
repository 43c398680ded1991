"""IFEval: every instruction of the prompt is checked by code (Zhou et al. 2023, arXiv 2311.07911)."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from evalsuite.types import Doc, Ratio, Score
from evalsuite.verify.constraints.ifeval import IFEVAL_IDS, Check, check_rows, followed_both
from evalsuite.verify.constraints.ifeval import tools as tools_for
from evalsuite.verify.lmeval import as_process_results, micro

HEADLINE = "prompt_level_loose_acc"
OTHERS = ("prompt_level_strict_acc", "inst_level_loose_acc", "inst_level_strict_acc")


def verify(response: str, doc: Doc) -> Score:
    """1 when every instruction is followed loosely. Parts: the other three official metrics, and both modes per id.

    Raises DataError for a row with an unknown instruction id or bad parameters, never for a response.
    """
    strict, loose = followed_both(response, doc["instruction_id_list"], doc["kwargs"])
    parts: dict[str, float | Ratio] = {"prompt_level_strict_acc": float(all(c.ok for c in strict))}
    for mode, checks in (("loose", loose), ("strict", strict)):
        parts[f"inst_level_{mode}_acc"] = _ratio(checks)
        for id in sorted({c.id for c in checks}):
            parts[f"{id}/{mode}"] = _ratio([c for c in checks if c.id == id])
    why = "; ".join(f"{c.id}: {c.why}" for c in loose if not c.ok)
    return Score(float(all(c.ok for c in loose)), parts, why=why)


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """The four official metrics. The parts per id are left out: lm-eval would print fifty more lines."""
    row = _all_results(doc, results)
    return {name: row[name] for name in (HEADLINE, *OTHERS)}


def gold_response(doc: Doc) -> str:
    """A made-up response that follows all instructions of the row, where they can be followed together."""
    # By name: how an answer is made up is no part of the grading, so it stays out of the benchmark's digest.
    answers = import_module("evalsuite.verify.constraints.ifeval_answers")
    return str(answers.answer(doc["instruction_id_list"], doc["kwargs"]))


def tools() -> Mapping[str, str]:
    """Which language tools answer on this machine, for the scorecard: {"language": "langdetect 1.0.9", …}."""
    return tools_for(IFEVAL_IDS)


def prompt(doc: Doc) -> str:
    """The row's prompt, verbatim."""
    return str(doc["prompt"])


def target(doc: Doc) -> str:
    """Nothing: there is no one right answer."""
    return ""


def process_docs(docs: Iterable[Doc]) -> Iterable[Doc]:
    """The rows as they are; raises DataError that names every row that cannot be judged."""
    check_rows(docs)
    return docs


def _ratio(checks: Sequence[Check]) -> Ratio:
    return Ratio(sum(c.ok for c in checks), len(checks))


_all_results = as_process_results(verify, HEADLINE)

__all__ = ["gold_response", "micro", "process_docs", "process_results", "prompt", "target", "tools", "verify"]
