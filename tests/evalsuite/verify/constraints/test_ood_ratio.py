"""IFEval-OOD's ratios: verdicts that the official code gives, both variants; what holds on any text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from evalsuite.verify.constraints import Variant, followed_both, row_problems
from evalsuite.verify.constraints.language_tools import backend
from evalsuite.verify.constraints.ood_ratio import IDS, STOP_WORDS
from tests.evalsuite.verify.constraints.verdicts import ANY_TEXT, assert_sound, verdicts

VERDICTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("stop_words", {"percentage": 50}, "...", "0/0"),
    ("stop_words", {"percentage": 50}, "don't stop", "0/0"),
    ("stop_words", {"percentage": 50}, "½.", "1/1"),  # one word, where nltk from 3.10 on finds none
    ("stop_words", {"percentage": 67}, "don't stop", "1/1"),
    ("stop_words", {"percentage": 50}, "The cat", "1/1"),
    ("stop_words", {"percentage": 0}, "Cats sleep", "1/1"),
    ("sentence_type", {}, "no terminal punctuation", "1/1"),
    ("sentence_type", {}, "One. Two. Three?", "1/1"),
    ("sentence_type", {}, "One. Three?", "0/0"),
    ("sentence_type", {}, 'He said "Go." Then left. Why?', "1/1 | 0/0"),
    ("sentence_type", {}, "Sure!\nOne. Three?\nBye!", "0/0"),
    ("sentence_balance", {}, "It rains. Why? Oh!", "1/1"),
    ("sentence_balance", {}, "Wait... what? Yes! Ok.", "0/0 | 1/1"),
    ("overlap", {"reference_text": "abcd", "percentage": 100}, "abc", "1/1"),
    ("overlap", {"reference_text": "abcd", "percentage": 0}, "ab", "0/0"),
    ("overlap", {"reference_text": "abcd", "percentage": 50}, "abcx", "1/1"),
    ("overlap", {"reference_text": "abcd", "percentage": 48}, "abcx", "1/1"),
    ("overlap", {"reference_text": "abcd", "percentage": 47}, "abcx", "0/0"),
    ("overlap", {"reference_text": "abcd", "percentage": 100}, "*abcd*", "0/1"),
    ("sentence_words", {}, "Cat sat. Cat sat. Cat sat.", "1/1"),
    ("sentence_words", {}, "Cat sat. Dogs run. Cat sat.", "0/0"),
    ("sentence_words", {}, "Cat sat. Cat sat.", "0/0"),
    ("sentence_words", {}, "So:\nCat sat. Cat sat. Cat sat.", "0/1"),
]


@pytest.mark.parametrize(("id", "kwargs", "text", "expected"), VERDICTS)
def test_verdicts_are_those_of_the_official_code(id: str, kwargs: dict[str, Any], text: str, expected: str) -> None:
    assert verdicts(f"ratio:{id}", kwargs, text) == expected


ASKS = {f"ratio:{id}": kwargs for id, kwargs, _, _ in VERDICTS}


@pytest.mark.parametrize("id", IDS)
@given(text=ANY_TEXT)
@settings(max_examples=40, deadline=None)
def test_any_text_is_judged_and_strict_implies_loose(id: str, text: str) -> None:
    assert_sound(id, ASKS[id], text)


@pytest.mark.parametrize("variant", ["tulu3", "ifbench"])
def test_one_letter_sentences_balance_for_punkt_only(variant: Variant) -> None:
    if variant == "ifbench" and backend("sentences") != "punkt":
        pytest.skip("the rules that stand in for punkt take 'A. B' for the start of a name; punkt's data are absent")
    (strict,), (loose,) = followed_both("A. B? C!", ["ratio:sentence_balance"], [{}], variant=variant)
    assert (strict.ok, loose.ok) == ((False, False) if variant == "tulu3" else (True, True))


def test_the_five_ids_all_have_verdicts() -> None:
    assert len(IDS) == 5
    assert set(IDS) == set(ASKS)


def test_the_stop_words_are_153() -> None:
    assert len(STOP_WORDS) == 153
    assert {"don", "t", "ll"} <= STOP_WORDS


def test_a_text_too_short_to_divide_by_ends_the_loose_search_in_tulu3() -> None:
    """Without its first line the text is "ab", where upstream divides by zero; without its last one it would pass."""
    assert verdicts("ratio:overlap", {"reference_text": "abc", "percentage": 100}, "abc\nab") == "0/0 | 0/1"


@pytest.mark.parametrize("percentage", [101, -1, 2.5, "50", None])
def test_a_percentage_is_whole_and_at_most_a_hundred(percentage: Any) -> None:
    assert len(list(row_problems(["ratio:stop_words"], [{"percentage": percentage}]))) == 1
