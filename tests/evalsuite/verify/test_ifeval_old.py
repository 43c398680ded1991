"""The 25 functions of Tülu 3's instruction reward: what each accepts and rejects, and which labels it takes."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.errors import DataError
from evalsuite.verify.ifeval_old import FUNCTIONS, label_problem, verify

FOUR = {"N": 4, "quantifier": "at least"}
GERMAN = "Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter und die Berge im Süden des Landes."
ENGLISH = "This is quite an ordinary sentence about the weather and the mountains in the south of the country."

# (function, arguments, accepted, rejected)
CASES: tuple[tuple[str, Mapping[str, Any], tuple[str, ...], tuple[str, ...]], ...] = (
    ("verify_keywords", {"keyword_list": ["Cat", "sun"]}, ("Concatenate on SUNDAY", "cat sun"), ("cat", "c a t sun")),
    (
        "verify_keyword_frequency",
        {"word": "Cat", "N": 2},
        ("cat, CAT.", "a cat-cat"),
        ("cat", "cat cat cat", "cat cats"),
    ),
    ("verify_keyword_frequency", {"word": "big cat", "N": 1}, (), ("big cat",)),  # two words are no word
    ("verify_keyword_frequency", {"word": "cat", "N": 0}, ("cats",), ("cat",)),
    ("validate_forbidden_words", {"forbidden_words": ["cat", "dog"]}, ("a mouse",), ("Category", "DOGS")),
    ("verify_letter_frequency", {"letter": "l", "N": 3}, ("hello world", "lll L"), ("hello", "llll", "LLL")),
    ("verify_letter_frequency", {"letter": "#", "N": 1}, ("a # b",), ("##",)),
    ("validate_response_language", {"language": "de"}, (GERMAN,), (ENGLISH, "12345")),
    ("validate_response_language", {"language": "en"}, (ENGLISH,), (GERMAN, "?!")),
    (
        "verify_paragraph_count",
        {"N": 2},
        ("a\n* * *\nb", "a * * * b", "a\n * * * \nb"),
        ("a\n***\nb", "a\n* * *"),
    ),
    ("verify_paragraph_count", {"N": 1}, ("a\n\nb",), ("a* * *b",)),
    ("validate_word_constraint", FOUR, ("a b c d", "a b c d e"), ("a b c",)),
    ("validate_word_constraint", {"N": 2, "quantifier": "at most"}, ("a", "a-b c"), ("a b c",)),
    # a tenth of 25 is 2.5, rounded to the even 2: 23 to 27; of 4 it is 0, and at least 1: 3 to 5
    ("validate_word_constraint", {"N": 25, "quantifier": "around"}, ("w " * 23, "w " * 27), ("w " * 22, "w " * 28)),
    ("validate_word_constraint", {"N": 4, "quantifier": "around"}, ("a b c", "a b c d e"), ("a b", "a b c d e f")),
    (
        "verify_sentence_constraint",
        {"N": 2, "quantifier": "at least"},
        ("One. Two?", "A! B! C!"),
        ("A.B.", "Mr. X"),
    ),
    (
        "verify_sentence_constraint",
        {"N": 1, "quantifier": "at most"},
        ("Use, e.g. it", "3.5 is it"),
        ("One. Two.",),
    ),
    # one more or less, however many are asked for
    (
        "verify_sentence_constraint",
        {"N": 30, "quantifier": "around"},
        ("Yes. " * 29, "Yes. " * 31),
        ("Yes. " * 28, "Yes. " * 32),
    ),
    (
        "validate_paragraphs",
        {"N": 2, "first_word": "Two", "i": 2},
        ("One\n\nTwo b", "One\n\n Twofold"),
        ("One\n\ntwo", "Two\n\nOne", "One\n\n\n\nTwo", "Two"),
    ),
    (
        "verify_postscript",
        {"postscript_marker": "P.S."},
        ("Hi. P.S. a", "P.S. first, a"),
        ("Hi. P.S.", "p.s. x"),
    ),
    ("validate_placeholders", {"N": 2}, ("[a] and [b]", "[] [c] [d]", "[[a] [b]"), ("[a]", "[a\n] [b]", "[[[[")),
    ("verify_bullet_points", {"N": 2}, ("* a\n- b", " **bold** text\n---"), ("* a", "* a\n* b\n* c", "a * b\n* c")),
    ("validate_title", {}, ("<<a>> text", "x <<>>"), ("<a>", "<<a\n>>", ">> <<", "<<>")),
    ("validate_choice", {"options": ["A", "maybe"]}, ("Apple", "well, maybe"), ("banana", "Maybe")),
    ("validate_highlighted_sections", {"N": 2}, ("*a* *b*", "**a**"), ("*a*", "*a *", "*a\n* *b\n*")),
    (
        "validate_sections",
        {"N": 2, "section_splitter": "Section"},
        ("Section 1 a Section 2 b", "An introduction. Section 1"),
        ("section 1 section 2", "Section 1", "Intro Section 1 Section 2"),
    ),
    ("validate_json_format", {}, ('{"a": [1, 2]}', "7", "[]"), ("```json\n{}\n```", "{'a': 1}", "[" * 5000)),
    ("validate_repeat_prompt", {"original_prompt": "Say it."}, ("Say it. It is said.",), ("say it.", "So: Say it.")),
    ("validate_two_responses", {}, ("a ****** b", "****** b", "a*******b"), ("a ****** a", "a", "a****** b ******c")),
    ("validate_uppercase", {}, ("ABC, 1!", "123"), ("ABc",)),
    ("validate_lowercase", {}, ("abc, 1!", "123"), ("abC",)),
    (
        "validate_frequency_capital_words",
        {"N": 2, "quantifier": "at least"},
        ("NASA and I", "A-B"),
        ("Nasa AND", "NASA2 B"),
    ),
    ("validate_frequency_capital_words", {"N": 1, "quantifier": "at most"}, ("none", "ONE"), ("ONE TWO",)),
    (
        "validate_frequency_capital_words",
        {"N": 3, "quantifier": "around"},
        ("A B", "A B C D"),
        ("A", "A B C D E"),
    ),
    ("validate_end", {"end_phrase": "Bye."}, ("Good Bye.",), ("Bye. Now", "bye.", "Bye.**")),
    ("validate_quotation", {}, ('"a"', '"'), ('"a', "“a”", "'a'")),
    ("validate_no_commas", {}, ("a. b", "a，b"), ("a, b",)),
)


def row(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"ground_truth": json.dumps({"func_name": name, **arguments}), "dataset": "ifeval", "messages": []}


def test_every_function_is_accepted_and_rejected_once_at_least() -> None:
    assert len(FUNCTIONS) == 25
    assert {name for name, _, accepted, _ in CASES if accepted} == set(FUNCTIONS)
    assert {name for name, _, _, rejected in CASES if rejected} == set(FUNCTIONS)


@pytest.mark.parametrize(("name", "arguments", "accepted", "rejected"), CASES)
def test_a_function_accepts_and_rejects(
    name: str, arguments: Mapping[str, Any], accepted: tuple[str, ...], rejected: tuple[str, ...]
) -> None:
    assert label_problem({"func_name": name, **arguments}) == ""
    for text in accepted:
        assert verify(text, row(name, arguments)).value == 1.0, text
        assert verify(text, row(name, arguments)).why == ""
    for text in rejected:
        assert verify(text, row(name, arguments)).value == 0.0, text
        assert verify(text, row(name, arguments)).why


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("validate_no_commas", {}),
        ("validate_uppercase", {}),
        ("validate_lowercase", {}),
        ("validate_forbidden_words", {"forbidden_words": ["a"]}),
        ("verify_sentence_constraint", {"N": 1, "quantifier": "at least"}),
        ("verify_letter_frequency", {"letter": "a", "N": 0}),
    ],
)
@pytest.mark.parametrize("blank", ["", " \n", "<think>a, B</think>\n", "<answer></answer>", "<|assistant|>"])
def test_an_empty_answer_is_never_right(name: str, arguments: Mapping[str, Any], blank: str) -> None:
    assert verify(blank, row(name, arguments)).value == 0.0
    assert verify(blank, row(name, arguments)).why == "the response is blank"


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("<think>one, two</think> three", 1.0),
        ("<think>a</think>x, y</think>three", 1.0),  # the last one counts
        ("<|assistant|>three", 1.0),
        ("one, two", 0.0),
        ("<think>three", 1.0),  # never closed: all of it is judged
        ("three</think> one, two", 0.0),
    ],
)
def test_what_follows_the_last_thought_is_judged(response: str, value: float) -> None:
    assert verify(response, row("validate_no_commas", {})).value == value


def test_marks_around_an_answer_do_not_count() -> None:
    label = row("validate_end", {"end_phrase": "Bye."})
    assert verify("<think>x</think><answer>Good Bye.</answer>\n", label).value == 1.0


def test_a_second_call_with_the_same_row_says_the_same_and_the_row_is_unchanged() -> None:
    for name, arguments, accepted, rejected in CASES:
        label = {"func_name": name, "options": None, **arguments}  # null ones do not count
        same = {"ground_truth": label, "dataset": "ifeval"}
        before = copy.deepcopy(same)
        for text in (*accepted, *rejected):
            assert verify(text, same) == verify(text, same) == verify(text, row(name, arguments))
        assert same == before


BAD: tuple[tuple[Any, str], ...] = (
    ("not JSON", "an object with func_name"),
    ("[]", "an object with func_name"),
    (7, "an object with func_name"),
    (None, "an object with func_name"),
    ({}, "an object with func_name"),
    ({"func_name": None}, "an object with func_name"),
    ({"func_name": "validate_no_comma"}, "did you mean 'validate_no_commas'?"),
    ({"func_name": "validate_no_commas", "N": 1}, "unknown argument 'N'"),
    ({"func_name": "verify_bullet_points"}, "N is missing"),
    ({"func_name": "verify_bullet_points", "N": None}, "N is missing"),
    ({"func_name": "verify_bullet_points", "N": 1.5}, "N is 1.5: expected a whole number"),
    ({"func_name": "verify_bullet_points", "N": -1}, "expected a number from 0 up"),
    ({"func_name": "verify_bullet_points", "N": "3"}, "expected a whole number"),
    ({"func_name": "validate_word_constraint", "N": 3, "quantifier": "less than"}, "expected one of at least, at most"),
    ({"func_name": "verify_letter_frequency", "letter": "ab", "N": 1}, "expected one character"),
    ({"func_name": "validate_response_language", "language": "German"}, "a language code"),
    ({"func_name": "validate_paragraphs", "N": 2, "first_word": "A", "i": 3}, "i is 3, of 2 paragraphs"),
    ({"func_name": "validate_paragraphs", "N": 2, "first_word": "A", "i": 0}, "expected a number from 1 up"),
    ({"func_name": "verify_keywords", "keyword_list": []}, "expected a list of texts"),
    ({"func_name": "validate_end", "end_phrase": " "}, "expected text that is not blank"),
)


@pytest.mark.parametrize(("label", "problem"), BAD)
def test_a_label_that_cannot_be_used_is_told_before_any_response(label: Any, problem: str) -> None:
    assert problem in label_problem(label)
    with pytest.raises(DataError):
        verify("text", {"ground_truth": label})


def test_integral_floats_python_literals_and_one_text_with_commas_are_taken() -> None:
    assert verify("* a\n* b", {"ground_truth": {"func_name": "verify_bullet_points", "N": 2.0}}).value == 1.0
    assert verify("a b", {"ground_truth": "{'func_name': 'validate_no_commas', 'N': None}"}).value == 1.0
    options = {"ground_truth": {"func_name": "validate_choice", "options": "Option A, Option B"}}
    assert [verify(t, options).value for t in ("It is Option B.", "It is Option C, or t.")] == [1.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=400))
def test_no_text_makes_a_function_raise(text: str) -> None:
    for name, arguments, _, _ in CASES:
        assert verify(text, row(name, arguments)).value in (0.0, 1.0)


@pytest.mark.parametrize("text", ["[" * 100_000, "<<" * 50_000, "*" * 100_001, "A" * 100_000 + "a", ". " * 50_000])
def test_a_long_text_of_marks_takes_no_time(text: str) -> None:
    for name, arguments, _, _ in CASES:
        start = time.process_time()
        verify(text, row(name, arguments))
        assert time.process_time() - start < 1.0, name
