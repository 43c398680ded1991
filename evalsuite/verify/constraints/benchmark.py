"""What the verify.py of IFEval-OOD and of its relatives expose: the constraints of one benchmark in one variant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import get_args

from evalsuite.types import Doc, Score
from evalsuite.verify.constraints import scoring
from evalsuite.verify.constraints.language_tools import tools
from evalsuite.verify.constraints.registry import Variant
from evalsuite.verify.constraints.rows import check_rows
from evalsuite.verify.constraints.scoring import Verdict

VARIANTS: tuple[Variant, ...] = get_args(Variant)


@dataclass(frozen=True, slots=True)
class ConstraintBenchmark:
    """A benchmark whose rows hold ids out of `ids`. It is judged by `variant` where a call names no other."""

    ids: tuple[str, ...]
    variant: Variant

    def verify(self, response: str, doc: Doc, variant: Variant | None = None) -> Score:
        """1 when all instructions are followed loosely. Parts: the other official metrics, and both modes per id."""
        return scoring.score(response, doc, variant or self.variant)

    def verdicts(self, response: str, doc: Doc, variant: Variant | None = None) -> tuple[Verdict, ...]:
        """Both modes on each instruction of the row, with reasons."""
        return scoring.verdicts(response, doc, variant or self.variant)

    def gold_response(self, doc: Doc) -> str:
        """A made-up response that follows the row's instruction; two only where one text happens to follow both."""
        # By name: how an answer is made up is no part of the grading, so it stays out of the benchmark's digest.
        answers = import_module("evalsuite.verify.constraints.ood_answers")
        return str(answers.answer(doc["instruction_id_list"], doc["kwargs"], self.variant))

    def tools(self) -> Mapping[str, str]:
        """Which language tools answer on this machine, for the scorecard."""
        return tools(self.ids, self.variant)

    def process_docs(self, docs: Iterable[Doc]) -> Iterable[Doc]:
        """The rows as they are; raises DataError that names every row that cannot be judged."""
        check_rows(docs, self.variant)
        return docs


def prompt(doc: Doc) -> str:
    """The row's prompt, verbatim."""
    return str(doc["prompt"])


def target(doc: Doc) -> str:
    """Nothing: there is no one right answer."""
    return ""
