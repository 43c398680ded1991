"""IFEval: every instruction of the prompt is checked by code (Zhou et al. 2023, arXiv 2311.07911)."""

from collections.abc import Iterable, Mapping
from importlib import import_module

from evalsuite.types import Doc, Score
from evalsuite.verify.constraints.benchmark import prompt, target
from evalsuite.verify.constraints.ifeval import IFEVAL_IDS, check_rows
from evalsuite.verify.constraints.ifeval import tools as tools_for
from evalsuite.verify.constraints.scoring import as_official_metrics, score, verdicts
from evalsuite.verify.lmeval import micro


def verify(response: str, doc: Doc) -> Score:
    """1 when every instruction is followed loosely. Parts: the other three official metrics, and both modes per id."""
    return score(response, doc)


process_results = as_official_metrics(verify)


def gold_response(doc: Doc) -> str:
    """A made-up response that follows all instructions of the row, where they can be followed together."""
    # By name: how an answer is made up is no part of the grading, so it stays out of the benchmark's digest.
    answers = import_module("evalsuite.verify.constraints.ifeval_answers")
    return str(answers.answer(doc["instruction_id_list"], doc["kwargs"]))


def tools() -> Mapping[str, str]:
    """Which language tools answer on this machine, for the scorecard: {"language": "langdetect 1.0.9", …}."""
    return tools_for(IFEVAL_IDS)


def process_docs(docs: Iterable[Doc]) -> Iterable[Doc]:
    """The rows as they are; raises DataError that names every row that cannot be judged."""
    check_rows(docs)
    return docs


__all__ = [
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
