"""MATH-500: a mathematically equal final answer (Hendrycks et al. 2021, arXiv 2103.03874; subset of arXiv 2305.20050).

Prompt, exemplars and grading are those of allenai/olmes @5a51f50, `minerva_math::tulu`, on the 500 problems of
HuggingFaceH4/MATH-500. The part `exact_match` is the Minerva score.
"""

from collections.abc import Mapping
from typing import Any

from evalsuite import exemplars
from evalsuite.types import Score
from evalsuite.verify.lmeval import as_process_results
from evalsuite.verify.math import QUIRKS as GRADING_QUIRKS
from evalsuite.verify.math import gold_answer, judge_math

QUIRKS = GRADING_QUIRKS | {"minerva-exemplar-typos"}


def verify(response: str, doc: Mapping[str, Any], quirks: frozenset[str] = QUIRKS) -> Score:
    verdict = judge_math(response, gold_answer(doc["solution"], quirks), quirks)
    return Score(
        float(verdict.flex),
        parts={"exact_match": float(verdict.minerva)},
        extracted=verdict.answer,
        format_ok=verdict.phrase,
    )


process_results = as_process_results(verify, metric="exact_match_flex")


def gold_response(doc: Mapping[str, Any]) -> str:
    return f"{doc['solution']}\nFinal Answer: The final answer is ${doc['answer']}$. I hope it is correct."


def doc_to_text(doc: Mapping[str, Any]) -> str:
    return f"Problem:\n{doc['problem']}\n\nSolution:"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    return str(doc["solution"])


def shots(quirks: frozenset[str] = QUIRKS) -> list[dict[str, str]]:
    return exemplars.minerva(typos="minerva-exemplar-typos" in quirks)
