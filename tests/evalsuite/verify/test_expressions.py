"""Expressions: what sympy says in the worker, and that nothing but arithmetic ever reaches it."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify import expressions, sympy_pool
from evalsuite.verify.expressions import LONGEST, is_harmless, same_answer
from evalsuite.verify.sympy_worker import close
from tests.evalsuite.verify.test_linear_time import LINES, seconds


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("4", "4", True),
        ("C", "c", True),
        ("-0", "0", True),
        ("4", "5", False),
        ("0.5", "1/2", True),
        ("0.333333333", "1/3", False),  # close at the random point, and not equal
        ("2*(x + 1)", "2*x + 2", True),
        ("x**2 - 1", "(x - 1)*(x + 1)", True),
        ("x + 1", "y + 1", False),
        ("5*sqrt(13)", "sqrt(325)", True),
        ("1,5,156", "1, 5, 156", True),
        ("5, 1, 156", "1, 5, 156", False),
        ("(4)", "4", True),
        ("4,", "4", False),  # a list of one
        ("yes", "True", True),
        ("NO", "false", True),
        ("1", "True", False),
        ("", "4", None),
        ("1:58 PM", "1:58 AM", None),
        ("x = 4", "4", None),
        ("four", "4", None),
        ("1a", "1b", None),
        ("sqrt(x - 2)", "(x - 2)**(1/2)", None),  # not real at the random point
    ],
)
def test_answers_are_equal_as_text_as_truth_or_by_sympy(answer: str, gold: str, same: bool | None) -> None:
    assert same_answer(answer, gold) is same


@pytest.mark.parametrize(
    "text",
    [
        *(
            "2*x**2",
            "-5/4, 0, 3/8, 1",
            "t**(-594/5)",
            "x**(4895/399)",
            "sqrt(5)",
            "1e5",
            ".5",
            "5.",
            "pi",
            "()",
            "f(x)",
        ),
        *("(x + 1)**100", "--1", "x**y", "3//2"),
    ],
)
def test_arithmetic_is_harmless(text: str) -> None:
    assert is_harmless(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "__import__('os')",
            "().__class__",
            "x.y",
            "1 .real",
            "sqrt.x",
            "open",
            "exec",
            "lambda x: x",
            "x if y else z",
        ),
        *("[1]", "{1}", "'a'", '"a"', "x==1", "x=1", "f(x=1)", "*x, y", "x:=1", "x;y", "x\ny", "x_1", "_", "1_0", "2x"),
        *("9**9**9", "(9**99)**999", "x**100000", "2**(-10**9)", "2**(1/0)", "2**((-8)**0.5)", "1e9999", "9**(9**9)"),
        *(
            "",
            " ",
            "4)",
            "(" * 300 + ")" * 300,
            "-" * 999 + "1",
            "1" * (LONGEST + 1),
            "２",
            "ｘ",
            "²",
            "\x00",
            "\ud800",
        ),
    ],
)
def test_everything_else_is_kept_from_sympy(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "equal_plain", lambda *_: pytest.fail("sympy was asked"))
    assert not is_harmless(text)
    assert same_answer(text, "x + 4") is None


@settings(max_examples=1000, deadline=None)
@given(st.text(alphabet="01.9eEx_sqrtpin()*+-/,= '[", max_size=40))
def test_what_passes_is_made_of_known_words_and_arithmetic(text: str) -> None:
    import ast

    if not is_harmless(text):
        return
    tree = ast.parse(text, mode="eval")
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert all(len(name) == 1 or name in expressions.FUNCTIONS for name in names)
    kinds = (ast.Attribute, ast.Subscript, ast.Lambda, ast.Compare, ast.Starred, ast.keyword, ast.JoinedStr)
    assert not any(isinstance(node, kinds) for node in ast.walk(tree))


def test_a_hanging_question_is_given_up_and_the_next_one_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sympy_pool, "LIMIT_S", 1.0)
    sympy_pool.close_workers()
    assert same_answer("y + x", "x + y")  # the worker is up
    start = time.monotonic()
    assert same_answer("9**(9**9 + x - x)", "x") is None
    assert time.monotonic() - start < 2.5
    assert same_answer("z + x", "x + z")
    sympy_pool.close_workers()


@settings(max_examples=500, deadline=None)
@given(st.floats(), st.floats())
def test_close_is_numpys_allclose(one: float, other: float) -> None:
    for b in (other, one, one * (1 + 9e-6), one + 9e-9):
        with np.errstate(all="ignore"):
            assert close(one, b) == bool(np.allclose(one, b)), (one, b)
    assert close(math.inf, math.inf)
    assert not close(math.nan, math.nan)


def test_importing_the_comparison_starts_nothing_and_loads_no_heavy_library() -> None:
    code = (
        "import sys; import evalsuite.verify.expressions as e; from evalsuite.verify import sympy_pool as p\n"
        "assert e.same_answer('4', '5') is False and e.same_answer('No', 'False')\n"
        "print(len(p._idle), [n for n in ('sympy', 'torch', 'numpy', 'lm_eval') if n in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "0 []"


@pytest.mark.parametrize("line", [*LINES.values(), "x**2+", "(((", "9**"])
def test_a_line_of_200_000_characters_takes_a_moment(line: str) -> None:
    text = (line * (200_000 // len(line) + 1))[:200_000]
    assert seconds(lambda s: same_answer(s, "2*x"), text, 0.05) < 0.05  # measured: 2 ms at most
