"""The last number: upstream's two regexes restated, and what changes without the quirks."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.numbers import QUIRKS, last_number, same_number

NONE: frozenset[str] = frozenset()


def upstream_match(response: str, gold: str) -> bool:
    """regime.md 9.2, regex by regex."""

    def extract(text: str) -> str:
        numbers = re.findall(r"[-+]?\d*\.\d+|\d+", re.sub(r"(\d),(\d)", r"\1\2", text))
        return numbers[-1] if numbers else text

    def clean(text: str) -> str:
        for ignored in (",", r"\$", r"(?s).*#### ", r"\.$"):
            text = re.sub(ignored, "", text)
        return text.lower()

    return clean(extract(response)) == clean(extract(gold))


texts = st.text(alphabet="0123456789,.-+$/# \nab", max_size=30)


@settings(max_examples=2000, deadline=None)
@given(texts, texts)
def test_the_quirky_grader_agrees_with_upstream_on_any_two_texts(response: str, gold: str) -> None:
    answer = last_number(response)
    right = last_number(gold)
    ours = same_number(response if answer is None else answer, gold if right is None else right)
    assert ours == upstream_match(response, gold)


@pytest.mark.parametrize(
    ("response", "quirks", "number"),
    [
        ("1,234,567.", QUIRKS, "1234567"),
        ("-10", QUIRKS, "10"),
        ("-10", NONE, "-10"),
        ("7-3", NONE, "3"),  # a minus between two numbers is an operator
        ("(7)-3", NONE, "3"),
        ("= -3", NONE, "-3"),
        ("1/2", QUIRKS, "2"),
        ("1/2", NONE, "1/2"),
        ("1,2,3", QUIRKS, "3"),
        ("-.5", QUIRKS, "-.5"),
        ("none", QUIRKS, None),
        ("٣", QUIRKS, "٣"),  # \d takes every script's digits, upstream and here
    ],
)
def test_the_last_number_is_read(response: str, quirks: frozenset[str], number: str | None) -> None:
    assert last_number(response, quirks) == number


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [("18.00", "18", True), ("1/2", "0.5", True), ("-10", "10", False), ("1/0", "1", False), ("9" * 5000, "9", False)],
)
def test_without_quirks_values_are_compared(answer: str, gold: str, equal: bool) -> None:
    assert same_number(answer, gold, NONE) is equal
