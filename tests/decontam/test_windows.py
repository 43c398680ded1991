"""The windows of eval texts: the golden ones, and all of them by definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decontam.rules import RULES
from decontam.text import analyze
from decontam.types import Window
from decontam.windows import SPACY_VERSION, fields_of, short_field
from tests.decontam.test_text import TRICKY

TULU3 = RULES["tulu3"]
GOLDEN = "It's a state-of-the-art (v2.0) test: don't panic!"


def test_golden_windows_of_a_sentence_full_of_edges() -> None:
    (field,) = fields_of(TULU3, [GOLDEN])
    tokens = [GOLDEN[a:b] for a, b in field.spans]
    assert "|".join(tokens) == "It|'s|a|state|-|of|-|the|-|art|(|v2.0|)|test|:|do|n't|panic|!"
    assert field.n == 19
    assert [" ".join(window.phrase) for window in field.windows] == [
        "it's a state of the",
        "'s a state of the",  # an edge inside a word: stands in no text with this word
        "a state of the art",
        "state of the art",
        "of the art v2 0",
        "of the art v2 0",
        "the art v2 0 test",
        "the art v2 0 test",
        "art v2 0 test do",
        "art v2 0 test don't",
        "v2 0 test don't panic",
        "v2 0 test don't panic",
    ]
    assert [(window.start, window.stop) for window in field.windows] == [(i, i + 8) for i in range(12)]


def test_standard_words_keep_versions_whole_and_drop_signs() -> None:
    (field,) = fields_of(RULES["tulu3-standard"], [GOLDEN])
    assert field.n == 19  # the positions are spaCy's all the same
    assert [" ".join(window.phrase) for window in field.windows[8:]] == [
        "art v2.0 test do",  # `pattern`: art v2 0 test do
        "art v2.0 test don't",
        "v2.0 test don't panic",
        "v2.0 test don't panic",
    ]
    (operators,) = fields_of(RULES["tulu3-standard"], ["x += 1 if a == b else c"])
    assert operators.windows[0].phrase == ("x", "1", "if", "a")  # no operators: why upstream meant another


def test_compat_keeps_the_last_of_equal_slices() -> None:
    text = "a b c d e f g h " * 2 + "a b c d e f g h"  # 24 tokens: 17 windows, of 8 texts each twice and one thrice
    (whole,), (compat,) = fields_of(TULU3, [text]), fields_of(RULES["tulu3-compat"], [text])
    assert (compat.n, len(compat.windows)) == (whole.n, len(whole.windows)) == (24, 17)
    assert [window.phrase for window in compat.windows[:9]] == [()] * 9
    assert compat.windows[9:] == whole.windows[9:]
    # Slices that differ in signs alone are two texts, though their words are the same.
    signs = fields_of(RULES["tulu3-compat"], ["a b c d e f g h i ! a b c d e f g h, i"])[0]
    assert signs.windows[0].phrase == ()
    assert [window.phrase for window in signs.windows].count(tuple("bcdefghi")) == 1


def test_golden_windows_of_a_price() -> None:
    (field,) = fields_of(TULU3, ["$2 per fresh duck egg at the farmers' market daily"])
    assert (field.n, len(field.windows)) == (12, 5)
    assert field.windows[0].phrase[0] == "$2"
    assert field.windows[1].phrase[0] == "2"


def test_white_space_tokens_count() -> None:
    (field,) = fields_of(TULU3, ["a  b\tc\nd"])
    assert (field.n, field.windows) == (7, ())


@given(st.lists(st.sampled_from([*TRICKY, "don't ", "v2.0", " the", "U.S.", "\ud800"]), max_size=30).map("".join))
def test_each_phrase_is_what_the_analyzer_makes_of_the_slice(text: str) -> None:
    (field,) = fields_of(TULU3, [text])
    assert len(field.windows) == max(0, field.n - 7)
    assert "".join(text[a:b] for a, b in field.spans).replace(" ", "") == text.replace(" ", "")
    for i, window in enumerate(field.windows):
        start, stop = field.spans[i][0], field.spans[i + 7][1]
        assert window == Window(i, i + 8, tuple(analyze(text[start:stop])))


def test_windows_of_words_are_slices_of_the_words() -> None:
    (field,) = fields_of(RULES["idf"], ["One, two; three FOUR five-six"])
    assert [window.phrase for window in field.windows] == [
        ("one", "two", "three", "four", "five"),
        ("two", "three", "four", "five", "six"),
    ]
    assert field.spans[4:] == ((21, 25), (26, 29))
    (short,) = fields_of(RULES["any-8"], ["one two three four five six seven"])
    assert (short.n, short.windows) == (7, ())


def test_the_rule_exact_has_one_window_over_everything_or_none() -> None:
    text, empty = fields_of(RULES["exact"], ["Is it so?", " ... "])
    assert (text.n, text.windows) == (3, (Window(0, 3, ("is", "it", "so")),))
    assert (empty.n, empty.windows) == (0, ())


def test_an_empty_text_has_no_positions() -> None:
    for rule in RULES.values():
        (field,) = fields_of(rule, [""])
        assert (field.n, field.spans, field.windows) == (0, (), ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Who wrote Black Beauty?", 4),  # 5 tokens
        ("Who wrote Beauty?", None),  # 3 words
        ("Who was the producer of Black Beauty?", None),  # 8 tokens
        ("Who produced and filmed Black Beauty", 6),
    ],
)
def test_short_texts_are_one_window_of_their_words(text: str, words: int | None) -> None:
    field = short_field(text)
    assert (field and field.n) == words
    if field:
        assert field.windows == (Window(0, field.n, tuple(analyze(text))),)


def test_many_texts_at_once_are_as_one_by_one() -> None:
    texts = [GOLDEN, "", "a lone \ud800 surrogate keeps its place in a text of words", GOLDEN.upper()]
    assert fields_of(TULU3, texts) == [fields_of(TULU3, [text])[0] for text in texts]


def test_the_tokenizer_is_of_the_version_that_the_golden_windows_are_of() -> None:
    assert SPACY_VERSION.startswith("3.8.")
