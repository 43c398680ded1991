"""The letter ladder against the five regexes it stands for, and mc2 against lm-eval's."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.choices import best, mmlu_letter, share_of_true

LADDER = (  # regime.md 9.1
    r"(?i)therefore,?\s*the\s*answer\s*is:?\s*\(?([A-D])\b",
    r"(?i)answer\s*is:?\s*\(?([A-D])\b",
    r"(?i)([A-D])\)?\s+is\s+correct",
    r"\(([A-D])\)",
    r".*\b([A-D])\b",
)
PIECES = [
    *"ABCDEFGHIJabcde().:$\n ",
    *("answer", "is", "Therefore", "therefore, the answer is", "The answer is: ", "is correct", "ſ", "é", "\t"),
]


def by_regex(text: str) -> tuple[str, int]:
    for step, pattern in enumerate(LADDER, 1):
        if match := re.search(pattern, text):
            return match.group(1).upper(), step
    return "", 0


@settings(max_examples=2500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_the_linear_ladder_reads_what_the_regexes_read(text: str) -> None:
    assert mmlu_letter(text) == by_regex(text)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("It is not (A) but (B)", "A", "B"),
        ("Therefore, the answer is A. Wait. Therefore, the answer is C.", "A", "C"),
        ("A or B\nand then D", "B", "D"),
        ("nothing", "", ""),
    ],
)
def test_without_the_quirk_the_last_hit_counts(text: str, first: str, last: str) -> None:
    assert mmlu_letter(text)[0] == first
    assert mmlu_letter(text, first=False)[0] == last


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.floats(-300, 0), st.integers(0, 1)), min_size=1, max_size=12))
def test_mc2_is_that_of_lm_eval_wherever_that_is_defined(rows: list[tuple[float, int]]) -> None:
    pytest.importorskip("sacrebleu")
    from lm_eval.tasks.truthfulqa.utils import process_results_mc2

    totals, labels = [t for t, _ in rows], [label for _, label in rows]
    theirs: Any = process_results_mc2({"mc2_targets": {"labels": labels}}, [(t, False) for t in totals])["acc"]
    assert share_of_true(totals, labels) == pytest.approx(float(theirs), abs=1e-12)


def test_mc2_survives_likelihoods_that_underflow() -> None:
    # Upstream: exp(-4000) is 0, and 0 / 0 is not a number. Here: 1 / (1 + e**-1).
    assert share_of_true([-4000.0, -4001.0], [1, 0]) == pytest.approx(1 / (1 + math.exp(-1)))


@pytest.mark.parametrize("totals", [[], [math.nan, -1.0], [-math.inf, -math.inf]])
def test_a_sample_without_usable_likelihoods_fails_instead_of_scoring_zero(totals: list[float]) -> None:
    with pytest.raises(ValueError, match=r"probability zero|expected one number"):
        share_of_true(totals, [1] * len(totals))


def test_the_first_of_equally_likely_options_is_best() -> None:
    assert best([-2.0, -1.0, -1.0]) == 1
