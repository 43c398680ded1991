"""Text comparison against its definitions: HF's exact match, and the plain regexes behind the linear searches."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.text import exact_match, found_alias, last_after

# Every shape of answer that BBH looks for.
ANSWERS = [r"\([A-Z]\)", "[nN]o|[yY]es", r"[\]\)\}\> ]+", r"-?\d+", "[a-z ]+", "[iI]nvalid|[vV]alid"]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["answer", "Answer:", "ANSWER", "answer:", ":", " ", "(B)", "b", "no", "]", "7", "\n", "valid"]
        ),
        max_size=40,
    ).map("".join),
    st.sampled_from(ANSWERS),
    st.sampled_from([r"answer:", r"answer\b"]),
)
def test_last_after_finds_what_the_quadratic_regex_finds(text: str, answer: str, head: str) -> None:
    found = re.findall(rf"(?i){head}.*?({answer})", text)
    expected = found[-1] if found else None
    assert last_after(re.compile(f"(?i){head}"), re.compile(f"(?i){answer}"), text) == expected


@given(st.text(max_size=20), st.text(max_size=20), st.booleans(), st.booleans())
def test_exact_match_is_that_of_hf_evaluate(one: str, other: str, case: bool, punctuation: bool) -> None:
    a, b = (one.lower(), other.lower()) if case else (one, other)
    if punctuation:
        a, b = ("".join(c for c in x if c not in string.punctuation) for x in (a, b))
    assert exact_match(one, other, ignore_case=case, ignore_punctuation=punctuation) == (a == b)


def test_white_space_counts_in_exact_match() -> None:
    assert not exact_match("a ", "a")


@pytest.mark.parametrize(
    ("text", "aliases", "found"),
    [
        ("I met Ada.", ["Bob", "Ada"], "Ada"),
        ("ada", ["Ada"], "Ada"),
        ("Politician", ["politician"], "politician"),
        ("ADA", ["Ada"], None),
        ("anything", ["", " "], None),  # a blank alias would make every response right
    ],
)
def test_an_alias_is_found_in_three_spellings(text: str, aliases: list[str], found: str | None) -> None:
    assert found_alias(text, aliases) == found
