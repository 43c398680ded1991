"""Strict and loose: which texts are tried, what a blank response gets, and that no text breaks a check."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.constraints import IFEVAL_IDS, followed, followed_both
from evalsuite.verify.constraints.loose import loose_texts
from tests.evalsuite.verify.constraints.oracle import cases

ASKS: dict[str, dict[str, Any]] = {
    id: given
    for case in cases()
    for id, given in zip(case["doc"]["instruction_id_list"], case["doc"]["kwargs"], strict=True)
}


def test_the_eight_texts_come_in_the_official_order() -> None:
    assert list(loose_texts("*a*\n  b*\n\n*c")) == [
        "*a*\n  b*\n\n*c",
        "a\n  b\n\nc",
        "b*\n\n*c",
        "*a*\n  b*",
        "b*",
        "b\n\nc",
        "a\n  b",
        "b",
    ]


def test_a_shortened_text_is_stripped_before_its_stars_go_and_doubles_are_tried_once() -> None:
    assert list(loose_texts("x\n* y")) == ["x\n* y", "x\n y", "* y", "x", " y"]
    assert list(loose_texts("one line")) == ["one line"]
    assert list(loose_texts(" \n ")) == []


@pytest.mark.parametrize("text", ["", " ", "\n\n\t", "\u2003"])
def test_a_blank_response_follows_nothing(text: str) -> None:
    for id, kwargs in ASKS.items():
        for mode in ("strict", "loose"):
            (check,) = followed(text, [id], [kwargs], mode=mode)  # type: ignore[arg-type]
            assert (check.ok, check.why) == (False, "the response is blank")


def test_two_instructions_of_one_prompt_may_pass_on_different_texts() -> None:
    ids = ["punctuation:no_comma", "startend:end_checker"]
    # Only the second line has no comma, and only without its star does the text end with the phrase.
    checks = followed("Well, so.\nPeace!*", ids, [{}, {"end_phrase": "so.\nPeace!"}], mode="loose")
    assert [c.ok for c in checks] == [True, True]
    assert [c.ok for c in followed("Well, so.\nPeace!*", ids, [{}, {"end_phrase": "so.\nPeace!"}], mode="strict")] == [
        False,
        False,
    ]


def test_a_failed_check_says_why_and_which_tools_answered() -> None:
    (check,) = followed(
        "One. Two.",
        ["length_constraints:number_sentences"],
        [{"num_sentences": 5, "relation": "at least"}],
        mode="strict",
    )
    assert check.why == "sentences: 2, asked for at least 5"
    assert check.backend in ("sentences: rules", "sentences: punkt")
    (check,) = followed("a, b, c", ["punctuation:no_comma"], [{}], mode="loose")
    assert (check.why, check.backend) == ("commas: 2", "")


def test_a_response_that_is_no_text_is_our_bug_and_never_a_verdict() -> None:
    with pytest.raises(TypeError, match="not NoneType"):
        followed(None, ["punctuation:no_comma"], [{}], mode="loose")  # type: ignore[arg-type]


def test_the_two_modes_at_once_equal_the_modes_alone() -> None:
    for case in cases():
        ids, kwargs = case["doc"]["instruction_id_list"], case["doc"]["kwargs"]
        both = followed_both(case["response"], ids, kwargs)
        assert both[0] == followed(case["response"], ids, kwargs, mode="strict")
        assert both[1] == followed(case["response"], ids, kwargs, mode="loose")


@given(st.text(max_size=300), st.sampled_from(IFEVAL_IDS))
@settings(max_examples=800, deadline=None)
def test_no_text_breaks_a_check_and_strict_implies_loose(text: str, id: str) -> None:
    (strict,), (loose,) = followed_both(text, [id], [ASKS[id]])
    assert loose.ok or not strict.ok


@pytest.mark.parametrize("id", IFEVAL_IDS)
def test_verdicts_do_not_depend_on_order_or_on_earlier_calls(id: str) -> None:
    texts = [case["response"] for case in cases()][:40]
    forward = [followed_both(t, [id], [ASKS[id]]) for t in texts]
    backward = [followed_both(t, [id], [ASKS[id]]) for t in reversed(texts)]
    assert forward == backward[::-1]


HOSTILE = {
    "one letter": "a" * 1_000_000,
    "spaces": " " * 999_999 + "a",
    "newlines": "\n" * 999_999 + "a",
    "stars": "*" * 1_000_000,
    "spaced stars": "* " * 500_000,
    "opening brackets": "[" * 1_000_000,
    "opening titles": "<<" * 500_000,
    "braces": '{"a":' * 200_000,
    "full stops": "." * 1_000_000,
    "sentences": "A b. " * 200_000,
    "question marks": "a?)" * 333_333,
    "quotes": "'" * 500_000 + '"' * 500_000,
    "clitics": "a's" * 333_333,
    "commas": "a," * 500_000,
    "capitals": "NASA " * 200_000,
    "mail addresses": "a@b " * 250_000,
    "almost a mail address": "a." * 500_000,
    "backslashes": '"' + "\\" * 999_999,
    "digits": "1" * 1_000_000,
    "controls": "".join(map(chr, range(32))) * 31_250,
    "surrogates": "\ud800\udfff" * 500_000,
    "carriage returns": "a\r\n" * 333_333,
    "emoji": "😀" * 1_000_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_of_anything_is_judged_in_linear_time(name: str) -> None:
    text = HOSTILE[name]
    for id, kwargs in ASKS.items():
        began = time.process_time()
        followed_both(text, [id], [kwargs])
        assert time.process_time() - began < 20, id  # eight texts at about a second each; quadratic would take hours
