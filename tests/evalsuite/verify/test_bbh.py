"""The BBH extractions against the regexes they stand for (regime.md 9.5)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.exemplars import BBH_TASKS
from evalsuite.verify.bbh import ANSWERS, LETTER, MARKS, QUIRKS, ladder, same_answer, strict

NONE: frozenset[str] = frozenset()
PIECES = [
    *"ABCDEabcde().:$\n \b*`'\"[]{}<>-7",
    *("answer", "answer:", "Answer", "So the answer is ", "the answer is ", "(A)", "(B)", "yes", "No", "TRUE", "Valid"),
    *("invalid", "] ) }", "-12", "**Answer**: ", "is", "ſo the anſwer is ", "\\(", "\\)"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=50).map("".join)


def by_regex(text: str, task: str, dead: bool) -> tuple[str, int]:
    answer = ANSWERS.get(task, LETTER)
    letter = answer == LETTER
    patterns = [
        rf"(?i)So the answer is ({answer})\.?",
        rf"(?i)answer is ({answer})",
        rf"(?i)answer:.*?({answer})",
        rf"(?i)answer\b.*?({answer})",
        f"({answer})",
        ("\b([A-Z])\b" if dead else r"\b([A-Z])\b") if letter else None,
        f"(?i)({answer})",
    ]
    found, step = "", 0
    for number, pattern in enumerate(patterns, 1):
        hits = re.findall(pattern, text) if pattern else []
        if hits:
            found, step = hits[-1], number
            break
    for left, right in MARKS:
        if not re.match(answer, left):
            found = re.sub(f"^{re.escape(left)}(.*){re.escape(right)}$", r"\1", found).strip()
    return (f"({found})" if letter and len(found) == 1 else found), step


@settings(max_examples=3000, deadline=None)
@given(texts, st.sampled_from(BBH_TASKS), st.booleans())
def test_the_linear_ladder_reads_what_the_regexes_read(text: str, task: str, dead: bool) -> None:
    assert ladder(text, task, QUIRKS if dead else NONE) == by_regex(text, task, dead)


@settings(max_examples=1000, deadline=None)
@given(texts)
def test_the_strict_extraction_is_the_regex_of_the_old_regime(text: str) -> None:
    match = re.search(r"(?<=the answer is )(.*)(?=.)", text)
    assert strict(text) == (match.group().strip(".") if match else "")


@pytest.mark.parametrize(
    ("text", "quirky", "repaired"),
    [("the answer is True", "Tru", "True"), ("the answer is (A).", "(A)", "(A)"), ("", "", "")],
)
def test_strict_loses_the_last_character_of_a_line_only_as_a_quirk(text: str, quirky: str, repaired: str) -> None:
    assert strict(text) == quirky
    assert strict(text, NONE) == repaired


def test_a_bare_letter_is_found_only_without_the_quirk() -> None:
    assert ladder("The answer is B.", "snarks") == ("", 0)
    assert ladder("The answer is B.", "snarks", NONE) == ("(B)", 6)


def test_brackets_are_compared_as_they_stand_and_other_answers_without_punctuation() -> None:
    assert not same_answer("] )", "] }", "dyck_languages")
    assert same_answer("(a)", "A", "snarks")
    assert not same_answer("(a)", "A", "snarks", keep_punctuation=True)
