"""The ladders of the unseen suite against the regexes they stand for; these are quadratic, ours are linear."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.choices_ladders import agieval_letter, gpqa_letter, mmlu_pro_letter
from tests.evalsuite.verify.test_linear_time import LINES, seconds

Found = tuple[str, int]
PIECES = [
    *"ABCDEFGHIJabcde().:$\n ",
    *(
        "answer",
        "is",
        "Therefore",
        "Therefore, the answer is (",
        "the answer is ",
        "answer is: ",
        "Answer:",
        "answer: ",
    ),
    *("The correct answer is: ", "(A)", "(E).", "ſ", "ı", "é", "\t", "\r"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=60).map(lambda pieces: "".join(pieces)[:400])


def mmlu_pro_by_regex(text: str) -> Found:
    if found := re.findall(r"Therefore, the answer is \(([A-J])\)", text):
        return found[-1], 1
    if match := re.search(r"(?i)answer is:?\s*\(?([A-J])\)?", text):
        return match.group(1), 2
    if match := re.search(r".*[aA]nswer:\s*([A-J])", text):
        return match.group(1), 3
    if found := re.findall(r".*\b([A-J])\b", text):
        return found[-1], 4
    return "", 0


def gpqa_by_regex(text: str) -> Found:
    if found := re.findall(r"Therefore, the answer is \(([A-D])\)", text):
        return found[-1], 1
    if found := re.findall(r"\(([A-D])\)", text):
        return found[-1], 2
    if match := re.search(r"(?<=The correct answer is: )([A-D])", text):
        return match.group(1), 3
    if found := re.findall(r".*\b([A-D])\b", text):
        return found[-1], 4
    return "", 0


def agieval_by_regex(text: str) -> Found:
    if found := re.findall(r"Therefore, the answer is \(([A-F])\)", text):
        return found[-1], 1
    spans = re.findall(r"(?<=the answer is )(.*?)(?=\.)", text)
    if found := re.findall(r"\(([A-E])\)", spans[-1] if spans else text):
        return found[-1], 2
    if found := re.findall(r"[A-E]", text):
        return found[-1], 3
    return "", 0


LADDERS: dict[str, tuple[Callable[[str], Found], Callable[[str], Found]]] = {
    "mmlu_pro": (mmlu_pro_letter, mmlu_pro_by_regex),
    "gpqa": (gpqa_letter, gpqa_by_regex),
    "agieval": (agieval_letter, agieval_by_regex),
}


@settings(max_examples=2500, deadline=None)
@given(texts)
def test_the_linear_ladders_read_what_the_regexes_read(text: str) -> None:
    for name, (linear, by_regex) in LADDERS.items():
        assert linear(text) == by_regex(text), name


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("mmlu_pro", "answer: Answer: B", ("B", 3)),  # the second word begins with the first one's letter
        ("mmlu_pro", "Answer: C\nAnswer: B", ("C", 3)),
        ("mmlu_pro", "Answer:\n\n B", ("B", 3)),
        ("mmlu_pro", "answer ıs: b", ("b", 2)),  # without case, the dotless i is an i
        ("agieval", "the answer is .x (B).", ("B", 2)),  # an empty hit is followed by a longer one
        ("agieval", "the answer is (A) the answer is .", ("A", 3)),  # the last hit is the empty one at the end
        ("agieval", "the answer is (B)\nand (C).", ("C", 2)),  # no full stop on the phrase's line
    ],
)
def test_corners_of_the_ladders(name: str, text: str, found: Found) -> None:
    linear, by_regex = LADDERS[name]
    assert linear(text) == by_regex(text) == found


@pytest.mark.parametrize(
    ("text", "quirk", "repaired"),
    [("an EASY one", "A", ""), ("E is BIG", "B", "E"), ("A, said Bob", "B", "A"), ("none", "", "")],
)
def test_without_the_quirk_agieval_takes_no_letter_from_inside_a_word(text: str, quirk: str, repaired: str) -> None:
    assert agieval_letter(text)[0] == quirk
    assert agieval_letter(text, frozenset())[0] == repaired


MORE_LINES = {
    **LINES,
    "phrases": "the answer is ",
    "phrases with stops": "the answer is .",
    "open phrase": "Therefore, the answer is (",
    "answer and spaces": "answer is  (",
    "colon and spaces": "Answer:   ",
    "correct": "The correct answer is: ",
}


@pytest.mark.parametrize("line", MORE_LINES.values(), ids=MORE_LINES)
@pytest.mark.parametrize("name", LADDERS)
def test_a_line_of_200_000_characters_takes_a_moment(name: str, line: str) -> None:
    # The goal is 50 ms on an idle core (measured: 22 ms at most); a busy machine doubles CPU time.
    text = (line * (200_000 // len(line) + 1))[:200_000]
    assert seconds(LADDERS[name][0], text, 0.1) < 0.1
    assert seconds(lambda s: agieval_letter(s, frozenset()), text, 0.1) < 0.1


@pytest.mark.parametrize("name", LADDERS)
def test_a_megabyte_takes_less_than_half_a_second(name: str) -> None:
    for line in ("A ", "answer: ", "the answer is .", "((("):
        assert seconds(LADDERS[name][0], (line * 1_000_000)[:1_000_000], 0.5) < 0.5
