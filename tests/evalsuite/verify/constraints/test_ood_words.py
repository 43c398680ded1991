"""IFEval-OOD's words: verdicts that the official code gives, both variants; what holds on any text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from evalsuite.verify.constraints.ood_words import IDS
from tests.evalsuite.verify.constraints.verdicts import ANY_TEXT, assert_sound, verdicts

VERDICTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("alphabet", {}, "Yak zebra apple bear", "1/1"),
    ("alphabet", {}, "Apple 2 cat", "0/0"),
    ("alphabet", {}, "Éa b", "0/0"),
    ("alphabet", {}, "İa b", "0/0"),  # lower-cased it is two characters
    ("alphabet", {}, "Apple -- bear", "1/1"),
    ("alphabet", {}, "Apple cat", "0/0"),
    ("alphabet", {}, "--", "0/0"),
    ("alphabet", {}, "Sure:\nApple bear", "0/1"),
    ("vowel", {}, "tip\ntop", "0/1"),
    ("vowel", {}, "Tip top tapé", "1/1"),
    ("vowel", {}, "Tip top tape", "0/0"),
    ("consonants", {}, "Stop string, my", "1/1"),
    ("consonants", {}, "stop -- start", "0/0"),
    ("consonants", {}, "stop a", "0/0"),
    ("palindrome", {}, "12321 " * 10, "1/1"),
    ("palindrome", {}, "12321 " * 9 + "noon", "0/0"),
    ("palindrome", {}, "Le-vel, " * 10, "1/1"),
    ("prime_lengths", {}, "to the -- words", "1/1"),
    ("prime_lengths", {}, "--", "1/1"),
    ("prime_lengths", {}, "to a", "0/0"),
    ("prime_lengths", {}, "x" * 97, "1/1"),
    ("prime_lengths", {}, "x" * 101, "0/0"),
    ("start_verb", {}, "Run fast.", "0/0"),
    ("start_verb", {}, "Is it so?", "1/1"),
    ("start_verb", {}, "Sure!\nIs it so?", "0/1"),
    ("repeats", {"small_n": 1}, "don't dont", "0/0"),
    ("repeats", {"small_n": 2}, "Don't dont", "1/1"),
    ("repeats", {"small_n": 0}, "--", "1/1"),
    ("odd_even_syllables", {}, "cat water dog table", "1/1"),
    ("odd_even_syllables", {}, "cat dog", "0/0"),
    ("odd_even_syllables", {}, "cat", "1/1"),
    ("last_first", {}, "I like cats. Cats sleep.", "1/1"),
    ("last_first", {}, 'He left. "Left" is fine.', "0/0"),
    ("last_first", {}, "One sentence", "1/1"),
    ("last_first", {}, "I like cats. Dogs sleep.", "0/0"),
    # Without its first line: "Two?" and "?", where upstream finds no first word and tulu3 gives up.
    ("last_first", {}, "One. One two.\nTwo? ?", "0/0 | 0/1"),
    ("paragraph_last_first", {}, "Go on and go.\n\nStop, then stop", "0/1"),
    ("paragraph_last_first", {}, "Go go\n---\nStop stop", "0/0 | 1/1"),
    ("paragraph_last_first", {}, "Go go\n**", "0/0 | 1/1"),  # without stars it would pass, but tulu3 gave up before
    ("paragraph_last_first", {}, "Go, stop and go!\n\nStop, go, stop", "0/0"),  # "go," is not "go"
    ("paragraph_last_first", {}, "Go stop and go!\n\n(Stop go, stop.)", "1/1"),
    ("no_consecutive", {}, "1 12", "0/0"),
    ("no_consecutive", {}, "big apples are", "0/0"),
    ("no_consecutive", {}, "big apples -- count", "1/1"),
]


@pytest.mark.parametrize(("id", "kwargs", "text", "expected"), VERDICTS)
def test_verdicts_are_those_of_the_official_code(id: str, kwargs: dict[str, Any], text: str, expected: str) -> None:
    assert verdicts(f"words:{id}", kwargs, text) == expected


ASKS = {f"words:{id}": kwargs for id, kwargs, _, _ in VERDICTS}


@pytest.mark.parametrize("id", IDS)
@given(text=ANY_TEXT)
@settings(max_examples=40, deadline=None)
def test_any_text_is_judged_and_strict_implies_loose(id: str, text: str) -> None:
    assert_sound(id, ASKS[id], text)


def test_the_eleven_ids_all_have_verdicts() -> None:
    assert len(IDS) == 11
    assert set(IDS) == set(ASKS)
