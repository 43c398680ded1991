"""The four analyzers: which words they give, and where these stand."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decontam.errors import DecontamError
from decontam.rules import Analyzer
from decontam.text import SEPARATORS, analyze, fold, spans_of, words_of

ANALYZERS: tuple[Analyzer, ...] = ("pattern", "standard", "words", "plain")
TRICKY = SEPARATORS + "\t\r\f\b\x00'’/*+=$%{}[]<>_|#@&~`\xa0\u2028ÉİßΣσςKﬁ中🙂\u0301aBz09"


def test_every_separator_splits_and_nothing_else_does() -> None:
    assert analyze(SEPARATORS.join("ab")) == ["a", "b"]
    for separator in SEPARATORS:
        assert analyze(f"a{separator}b") == ["a", "b"]
    for sign in "\t\r\f\b\v\xa0\u2028'’/*+=$%{}[]<>_|#@&~`–":
        assert analyze(f"a{sign}b") == [f"a{sign}b"]


def test_lower_case_is_the_simple_mapping_of_every_code_point() -> None:
    for code in range(0x110000):
        letter = chr(code)
        assert fold(letter) == ("i" if letter == "İ" else letter.lower())
    # A sigma at the end of a word would be ς under str.lower, İ would be two code points.
    assert analyze("ΟΔΟΣ İSTANBUL") == ["οδοσ", "istanbul"]


def test_white_space_that_is_no_separator_stays_in_the_word() -> None:
    assert analyze("a  b\tc\nd") == ["a", "b\tc", "d"]


@pytest.mark.parametrize(
    ("analyzer", "words"),
    [
        ("pattern", ["it's", "a", "state", "of", "the", "art", "v2", "0", "don't", "ὀδόσ"]),
        ("standard", ["it's", "a", "state", "of", "the", "art", "v2.0", "don't", "ὀδόσ"]),
        ("words", ["it's", "a", "state-of-the-art", "(v2.0)", "-", "don't!", "ὀδός"]),
        ("plain", ["its", "a", "stateoftheart", "v20", "dont", "ὈΔΌΣ"]),
    ],
)
def test_the_words_of_each_analyzer(analyzer: Analyzer, words: list[str]) -> None:
    assert words_of(analyzer, "It's a state-of-the-art (v2.0) - don't! ὈΔΌΣ") == words


def test_a_space_with_a_sign_on_it_is_no_word() -> None:
    assert words_of("standard", "a \u0345 b _c x\u0345") == ["a", "b", "_c", "x\u0345"]  # U+0345 is a letter by Unicode


def test_standard_drops_signs_and_cuts_long_words() -> None:
    assert words_of("standard", "a == b 🙂 … 中文 3,14") == ["a", "b", "中", "文", "3,14"]
    assert [len(word) for word in words_of("standard", "x" * 600)] == [255, 255, 90]


@given(st.text(st.sampled_from(TRICKY), max_size=40) | st.text(max_size=40), st.sampled_from(ANALYZERS))
def test_spans_are_where_the_words_stand(text: str, analyzer: Analyzer) -> None:
    words, spans = words_of(analyzer, text), spans_of(analyzer, text)
    assert len(words) == len(spans)
    assert all(0 <= a < b <= len(text) for a, b in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    if analyzer in ("pattern", "standard"):
        assert words == [fold(text[a:b]) for a, b in spans]
    assert [words_of(analyzer, text[a:b]) for a, b in spans] == [[word] for word in words] or analyzer == "standard"


@pytest.mark.parametrize("analyzer", ANALYZERS)
@pytest.mark.parametrize("piece", ["a", "!", "a!", "!a ", "don't panic, ", "É ", "\n"])
def test_long_texts_are_read_in_linear_time(analyzer: Analyzer, piece: str) -> None:
    text = piece * (100_000 // len(piece))
    began = time.process_time()
    assert len(spans_of(analyzer, text)) == len(words_of(analyzer, text))
    assert time.process_time() - began < 10  # a quadratic one takes minutes; `standard` a second a megabyte


def test_an_unknown_analyzer_is_named_with_its_near_miss() -> None:
    with pytest.raises(DecontamError, match="no analyzer named 'patern'; did you mean 'pattern'"):
        words_of("patern", "text")  # type: ignore[arg-type]
