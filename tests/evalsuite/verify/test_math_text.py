"""Finding MATH answers and their normal form, against lm-eval's own functions and the regexes of version 0.4.3."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.math_text import final_answer, last_box, last_dollars, normalize

pytest.importorskip("math_verify", reason="lm-eval's MATH functions need math-verify (pip install math-verify)")
from lm_eval.tasks.minerva_math import utils as minerva

PIECES = [
    *"0123456789,.=+-/()[]{}$\\ \nxyabπ^_%!\"'",
    *("\\frac", "\\frac{", "\\dfrac", "\\tfrac", "\\sqrt", "\\sqrt[3]", "\\sqrt{", "\\text{", "\\text{ ", "\\textbf{"),
    *(
        "\\boxed{",
        "\\boxed ",
        "\\boxed",
        "\\fbox{",
        "\\overline{",
        "\\left",
        "\\right",
        "\\mbox{",
        "^\\circ",
        "^{\\circ}",
    ),
    *(
        "an ",
        "a ",
        "cm",
        "ft",
        "square",
        "units",
        " dollars",
        "\\ldots",
        "su",
        "sue",
        "x=",
        "0.5",
        "1,000",
        "\\$",
        "\\%",
    ),
    *("\\text{and}", ",\\text{and}", "\\text{m}", "\\text{s}", "\\;", ",\\!", "\\mathrm{th}", "3/4", "10", "\\pi"),
    *("Final Answer: The final answer is", ". I hope it is correct.", " I hope it is correct", "\x00", "\ud800"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=16).map("".join)


def normal_form_of_0_4_3(answer: str) -> str:
    """lm-eval 0.4.3's rules: the tables are those of the installed version, the regexes stand in regime.md 9.4."""
    answer = answer.split("=")[-1]
    for old, new in minerva.SUBSTITUTIONS:
        answer = answer.replace(old, new)
    for word in minerva.REMOVED_EXPRESSIONS:
        answer = answer.replace(word, "")
    for pattern, new in (
        (r"(.*?)(\$)(.*?)(\$)(.*)", r"$\3$"),
        (r"(\\text\{)(.*?)(\})", r"\2"),
        (r"(\\textbf\{)(.*?)(\})", r"\2"),
        (r"(\\overline\{)(.*?)(\})", r"\2"),
        (r"(\\boxed\{)(.*)(\})", r"\2"),
        (r"(frac)([^{])(.)", r"frac{\2}{\3}"),
        (r"(sqrt)([^{])", r"sqrt{\2}"),
    ):
        answer = re.sub(pattern, new, answer)
    answer = answer.replace("$", "")
    return answer.replace(",", "") if answer.replace(",", "").isdigit() else answer


def box_of_lm_eval(text: str) -> str | None:
    box = minerva.last_boxed_only_string(text)
    try:
        return None if box is None else minerva.remove_boxed(box)
    except AssertionError:
        return None


@settings(max_examples=2000, deadline=None)
@given(texts)
def test_the_old_normal_form_is_that_of_0_4_3(text: str) -> None:
    assert normalize(text) == normal_form_of_0_4_3(text)


@settings(max_examples=2000, deadline=None)
@given(texts)
def test_the_repaired_normal_form_is_that_of_the_installed_lm_eval(text: str) -> None:
    assert normalize(text, legacy=False) == minerva.normalize_final_answer(text)


@settings(max_examples=2000, deadline=None)
@given(texts)
def test_answers_are_found_where_lm_eval_finds_them(text: str) -> None:
    theirs = minerva.get_unnormalized_answer(text)
    assert final_answer(text) == (None if theirs == "[invalidanswer]" else theirs)
    assert last_box(text) == box_of_lm_eval(text)


@settings(max_examples=1000, deadline=None)
@given(st.text(alphabet="$ab\n", max_size=12))
def test_the_last_two_dollars_enclose_the_last_formula(text: str) -> None:
    places = [n for n, c in enumerate(text) if c == "$"]
    assert last_dollars(text) == (text[places[-2] + 1 : places[-1]] if len(places) > 1 else None)


@pytest.mark.parametrize(
    ("answer", "old", "repaired"),
    [
        ("\\left(3,4\\right)", "\\le(3,4\\right)", "\\left(3,4\\right)"),  # "ft" is a unit, but not inside a command
        ("0,1", "01", "0,1"),
        ("1,000", "1000", "1000"),
        ("\\sqrt[3]8", "\\sqrt{[}3]8", "\\sqrt[3]{8}"),
        ("5\\text{ cm}", "5", "5"),
    ],
)
def test_the_two_versions_differ_where_the_spec_says(answer: str, old: str, repaired: str) -> None:
    assert normalize(answer) == old
    assert normalize(answer, legacy=False) == repaired
