"""What MATH and its subset of 500 problems share: the prompt, the exemplars and the grading of a response.

Prompt, exemplars and grading are those of allenai/olmes @5a51f50, `minerva_math::tulu`. The part `exact_match` is the
Minerva score.
"""

from __future__ import annotations

from evalsuite import exemplars
from evalsuite.types import Doc, Score
from evalsuite.verify.lmeval import ProcessResults, as_process_results
from evalsuite.verify.math import QUIRKS as GRADING_QUIRKS
from evalsuite.verify.math import gold_answer, judge_math

QUIRKS = GRADING_QUIRKS | {"minerva-exemplar-typos"}


def verify(response: str, doc: Doc, quirks: frozenset[str] = QUIRKS) -> Score:
    verdict = judge_math(response, gold_answer(doc["solution"], quirks), quirks)
    return Score(
        float(verdict.flex),
        parts={"exact_match": float(verdict.minerva)},
        extracted=verdict.answer,
        format_ok=verdict.phrase,
    )


def process_results(category: str | None = None) -> ProcessResults:
    return as_process_results(verify, metric="exact_match_flex", category=category)


def solved(doc: Doc, answer: str) -> str:
    """The worked solution of a row, ended in the way that the exemplars teach."""
    return f"{doc['solution']}\nFinal Answer: The final answer is ${answer}$. I hope it is correct."


def doc_to_text(doc: Doc) -> str:
    return f"Problem:\n{doc['problem']}\n\nSolution:"


def doc_to_target(doc: Doc) -> str:
    return str(doc["solution"])


def shots(quirks: frozenset[str] = QUIRKS) -> list[dict[str, str]]:
    return exemplars.minerva(typos="minerva-exemplar-typos" in quirks)


def shots_repaired() -> list[dict[str, str]]:
    """Without the quirk minerva-exemplar-typos."""
    return shots(frozenset())
