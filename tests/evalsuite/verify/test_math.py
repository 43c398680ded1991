"""The flexible MATH score: which candidates a response offers, and in which version identical text is equal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalsuite.verify.math import LONGEST_LATEX, QUIRKS, gold_answer, judge_math
from evalsuite.verify.math_text import last_box

NONE: frozenset[str] = frozenset()
SAID = "Final Answer: The final answer is ${}$. I hope it is correct."


@pytest.mark.parametrize(
    ("response", "gold", "flex", "minerva"),
    [
        (SAID.format("5"), "5", True, True),
        (SAID.format("\\frac12"), "0.5", True, True),
        (SAID.format("6") + " or $\\boxed{5}$", "5", True, False),
        ("$\\boxed{5}$", "5", True, False),
        ("$\\boxed{5\\text{ cm}}$", "5", True, False),  # a boxed answer is brought to normal form as well
        ("it is $4$ or $5$", "5", True, False),
        ("it is $5$ or $4$", "5", False, False),
        ("so x = 5", "5", True, False),
        ("\\fbox{5}", "5", False, False),
        ("", "5", False, False),
    ],
)
def test_candidates_are_tried_in_the_published_order(response: str, gold: str, flex: bool, minerva: bool) -> None:
    verdict = judge_math(response, gold)
    assert (verdict.flex, verdict.minerva) == (flex, minerva)


def test_an_interval_equals_itself_for_minerva_only_without_the_quirk() -> None:
    response = SAID.format("[0,1)")
    assert judge_math(response, "[0,1)").flex
    assert not judge_math(response, "[0,1)").minerva
    assert judge_math(response, "[0,1)", NONE).minerva


def test_an_answer_too_long_for_sympy_is_compared_as_text_only() -> None:
    long = "+".join(["x"] * LONGEST_LATEX)
    assert judge_math(f"$\\boxed{{{long}}}$", long).flex
    assert not judge_math(f"$\\boxed{{{long}}}$", f"{LONGEST_LATEX}x").flex  # equal, and not asked


def test_a_solution_without_a_box_is_a_broken_row() -> None:
    with pytest.raises(ValueError, match=r"no .boxed answer"):
        gold_answer("It is five.")


def test_every_math500_solution_boxes_its_answer_and_is_accepted(hub_data: Path) -> None:
    path = hub_data / "HuggingFaceH4/MATH-500/default/test.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert sum(last_box(row["solution"]) == row["answer"] for row in rows) == 500
    for quirks in (QUIRKS, NONE):
        golds = [gold_answer(row["solution"], quirks) for row in rows]
        assert sum(judge_math(row["solution"], gold, quirks).flex for row, gold in zip(rows, golds, strict=True)) == 500
        assert max(map(len, golds)) < LONGEST_LATEX / 4
