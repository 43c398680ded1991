"""IFEval-OOD's sentences: verdicts that the official code gives, both variants; what holds on any text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from evalsuite.verify.constraints import row_problems, tools
from evalsuite.verify.constraints.ood_sentence import IDS
from tests.evalsuite.verify.constraints.verdicts import ANY_TEXT, assert_sound, verdicts

VERDICTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("alliteration_increment", {}, "No run here at all.", "1/1"),
    ("alliteration_increment", {}, "No run here. Big bears run.", "1/1"),
    ("alliteration_increment", {}, "Big bears run. Nobody sees them.", "0/0"),
    ("alliteration_increment", {}, "Big bad bears run. We watch two tall bears.", "1/1"),  # 3, then 2 + 2
    ("alliteration_increment", {}, "Big (bad) bears run. Some see -- them.", "0/0"),  # 3, then 2
    ("increment", {"small_n": 4}, "Single sentence", "1/1"),
    ("increment", {"small_n": 1}, "One two. One two three. One - two three four.", "1/1"),
    ("increment", {"small_n": 1}, "One two. One two.", "0/0"),
    ("increment", {"small_n": 0}, "One two. One two.", "1/1"),
    ("increment", {"small_n": 1}, "Sure, here it is:\nOne two. One two three.", "0/1"),
    ("keyword", {"word": "cat", "N": 1}, "The cathedral is old.", "1/1 | 0/0"),
    ("keyword", {"word": "cat", "N": 2.0}, "A b. A cat.", "0/0 | 1/1"),
    ("keyword", {"word": "CAT", "N": 2}, "It is old. A Cat!", "1/1"),
    ("keyword", {"word": "c++", "N": 1}, "I like c++x a lot.", "1/1"),  # a plain word, not a pattern
    ("keyword", {"word": "cat", "N": 3}, "It is old. A Cat!", "0/0"),
]


@pytest.mark.parametrize(("id", "kwargs", "text", "expected"), VERDICTS)
def test_verdicts_are_those_of_the_official_code(id: str, kwargs: dict[str, Any], text: str, expected: str) -> None:
    assert verdicts(f"sentence:{id}", kwargs, text) == expected


ASKS = {f"sentence:{id}": kwargs for id, kwargs, _, _ in VERDICTS}


@pytest.mark.parametrize("id", IDS)
@given(text=ANY_TEXT)
@settings(max_examples=40, deadline=None)
def test_any_text_is_judged_and_strict_implies_loose(id: str, text: str) -> None:
    assert_sound(id, ASKS[id], text)


def test_the_three_ids_all_have_verdicts() -> None:
    assert len(IDS) == 3
    assert set(IDS) == set(ASKS)


def test_only_the_ifbench_variant_needs_a_tool_for_sentences() -> None:
    assert tools(IDS) == {}
    assert list(tools(IDS, "ifbench")) == ["sentences"]


def test_a_sentence_is_counted_from_one() -> None:
    (problem,) = row_problems(["sentence:keyword"], [{"word": "cat", "N": 0}])
    assert "expected a number from 1 up" in problem
