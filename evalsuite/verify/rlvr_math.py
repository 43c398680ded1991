r"""The reward for competition mathematics ("flex" in Tülu 3, arXiv 2411.15124): an answer of the response is the label.

Answers are the last `\boxed` and Minerva's "Final Answer"; without either what stands between the last two dollar
signs; without these everything. A response is right when one of them, in Minerva's normal form, equals the label as the
benchmark `math` has it: as text (Hendrycks et al. 2021) or by sympy (Lewkowycz et al. 2022); or as text before that
normal form, which spoils `\left`. open-instruct @e6c3044aa brings answers into normal form and never the label.

A blank response is never right. A hole that the original has too: sympy reads "x, y" as x and 10_{3} as 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalsuite.types import Score
from evalsuite.verify.hendrycks import same_text
from evalsuite.verify.math import judge_math
from evalsuite.verify.math_text import final_answer, last_box, last_dollars, normalize
from evalsuite.verify.rlvr_text import BLANK


def verify(response: str, row: Mapping[str, Any]) -> Score:
    label = str(row["ground_truth"])
    if not response.strip():
        return Score(0.0, why=BLANK)
    # First, because it costs nothing; sympy takes milliseconds, and seconds for what it cannot simplify.
    plain = next((answer for answer in _as_written(response) if same_text(answer, label)), None)
    if plain is not None:
        return Score(1.0, extracted=plain)
    verdict = judge_math(response, normalize(label))
    return Score(float(verdict.flex), extracted=verdict.answer)


def label_problem(label: Any) -> str:
    """What was expected, where the label is not it; else the empty string."""
    return "" if isinstance(label, str) and label.strip() else "a text that is not blank"


def _as_written(response: str) -> list[str]:
    found = [text for text in (last_box(response), final_answer(response)) if text is not None]
    if found:
        return found
    dollars = last_dollars(response)
    return [response if dollars is None else dollars]
