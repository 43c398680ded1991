"""A bad row is refused when it is loaded, with everything that is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from evalsuite.errors import DataError
from evalsuite.verify.constraints import check_rows, followed, row_problems


@pytest.mark.parametrize(
    ("id", "kwargs", "problem"),
    [
        ("keywords:existance", {"keywords": ["a"]}, "did you mean 'keywords:existence'?"),
        ("keywords:existence", {}, "keywords is missing"),
        ("keywords:existence", {"keywords": None}, "keywords is missing"),
        ("keywords:existence", {"keywords": "cat"}, "expected a list of words"),
        ("keywords:existence", {"keywords": ["cat", " "]}, "expected text that is not blank"),
        ("keywords:existence", {"keywords": ["("]}, "'(' is no regular expression"),
        (
            "keywords:existence",
            {"keywords": ["a"], "keyword": "b"},
            "unknown parameter 'keyword'; did you mean 'keywords'?",
        ),
        ("keywords:frequency", {"keyword": "a", "frequency": 1, "relation": "at most"}, "'less than' or 'at least'"),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
            "one character",
        ),
        ("language:response_language", {"language": "xx"}, "expected one of en es pt"),
        ("length_constraints:number_words", {"num_words": 2.5, "relation": "at least"}, "expected a whole number"),
        ("length_constraints:number_words", {"num_words": -1, "relation": "at least"}, "from 0 up"),
        ("length_constraints:number_words", {"num_words": True, "relation": "at least"}, "expected a whole number"),
        ("length_constraints:number_words", {"num_words": float("inf"), "relation": "at least"}, "num_words is inf"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"},
            "nth_paragraph 3 is beyond num_paragraphs 2",
        ),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 0, "first_word": "a"},
            "from 1 up",
        ),
    ],
)
def test_what_is_wrong_with_a_row_is_said(id: str, kwargs: dict[str, Any], problem: str) -> None:
    (found,) = row_problems([id], [kwargs])
    assert problem in found
    with pytest.raises(DataError):
        followed("text", [id], [kwargs], mode="loose")


def test_ids_and_kwargs_of_different_length_are_refused() -> None:
    assert list(row_problems(["punctuation:no_comma"], [])) == ["1 instruction ids but 0 kwargs"]


def test_all_bad_rows_are_named_and_beyond_twenty_counted() -> None:
    good = {"key": 7, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    bad = [{"key": n, "instruction_id_list": ["no:such_id"], "kwargs": [{}]} for n in range(100, 123)]
    check_rows([good])
    with pytest.raises(DataError) as error:
        check_rows([good, *bad, good])
    message = str(error.value)
    assert message.startswith("24 problems in the rows: row 100: no instruction id 'no:such_id'")
    assert "row 119:" in message
    assert "row 120:" not in message
    assert message.endswith("(and 4 more)")


def test_nulls_and_whole_floats_change_nothing() -> None:
    ragged = {"num_words": 3, "relation": "at least"}
    filled = {"num_words": 3.0, "relation": "at least", "keywords": None, "letter": None, "language": None}
    for text in ("one two three", "one"):
        verdicts = {
            followed(text, ["length_constraints:number_words"], [kwargs], mode="loose") for kwargs in (ragged, filled)
        }
        assert len(verdicts) == 1
