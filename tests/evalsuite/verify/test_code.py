"""pass@k against counting, what is cut out of a response, and that no text makes the cutting slow."""

from __future__ import annotations

import math
import time
from itertools import combinations

import pytest

from evalsuite.types import Score
from evalsuite.verify.code import calibrated, combine, inside_fence, pass_at_k, process_samples, wanted_names


@pytest.mark.parametrize("n", [1, 2, 5, 10, 20])
def test_pass_at_k_is_one_minus_the_share_of_draws_that_all_fail(n: int) -> None:
    for n_correct in range(n + 1):
        for k in range(1, n + 1):
            exact = 1 - math.comb(n - n_correct, k) / math.comb(n, k)
            assert pass_at_k(n, n_correct, k) == pytest.approx(exact, abs=1e-12)


def test_pass_at_k_counted_by_hand() -> None:
    # 5 samples, 2 pass: of the 10 pairs only those among the 3 failing ones miss, which are 3.
    drawn = list(combinations([True, True, False, False, False], 2))
    assert sum(any(pair) for pair in drawn) / len(drawn) == 0.7
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7)


@pytest.mark.parametrize(("n", "k"), [(9, 10), (0, 1), (1, 2)])
def test_fewer_samples_than_k_are_an_error(n: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} needs at least {k} samples, found {n}"):
        pass_at_k(n, 0, k)


def test_the_samples_of_a_document_become_one_score() -> None:
    scores = [Score(1.0), *[Score(0.0, why="wrong")] * 19]
    found = combine(scores, k=10, others=(1, 10, 100))
    assert found.value == pytest.approx(0.5)  # 1 of 20 is among 10 drawn in half of all draws
    assert found.parts == {"pass@1": pytest.approx(0.05)}
    assert found.why == ""
    assert combine([Score(0.0, why="wrong")] * 10, k=10).why == "wrong"
    with pytest.raises(ValueError, match="pass@10"):
        combine(scores[:9], k=10)
    assert combine([Score(1.0)]).value == 1.0
    assert combine([Score(1.0)]).parts == {}


def test_lm_eval_hands_over_all_samples_as_one_list() -> None:
    results = process_samples(
        lambda pairs: [Score(float(r == doc["a"])) for r, doc in pairs], lambda s: combine(s, k=2), "pass@2"
    )
    assert results({"a": "x"}, [["x", "y", "y", "y"]]) == {"pass@2": pytest.approx(0.5), "pass@1": 0.25}
    assert process_samples(lambda pairs: [Score(1.0)], combine, "pass@1")({}, ["x"]) == {"pass@1": 1.0}


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ("    return 1\n", "    return 1\n"),
        ("```python\nx = 1\n```\nDone.", "x = 1"),
        ("\n ```\nx = 1", "x = 1"),
        ("Here:\n```python\nx = 1\n```", "Here:\n```python\nx = 1\n```"),
        ("```", ""),
        ("", ""),
    ],
)
def test_only_a_fence_at_the_very_beginning_is_taken_off(response: str, code: str) -> None:
    assert inside_fence(response) == code


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("import os\ndef f(): return 1\nprint(f())", "import os\n\ndef f():\n    return 1"),
        ("A = 1\nB = 2\ndef g(): return A\ndef f(): return g()",
         "A = 1\ndef g():\n    return A\ndef f():\n    return g()"),
        ("class C: pass\nclass D(C): pass\ndef f(x: D): pass",
         "class C:\n    pass\nclass D(C):\n    pass\ndef f(x: D):\n    pass"),
        ("def f(): return 1\nThis is it.", "def f():\n    return 1"),
        ("def f(): return f2()\ndef f2(): return f()", "def f():\n    return f2()\n\ndef f2():\n    return f()"),
        ("def other(): pass\nx = 1", "def other(): pass\nx = 1"),
        ("f = lambda: 1\ny = 2", "f = lambda: 1"),
        ("not python at all", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_calibration_keeps_the_entry_point_and_what_it_needs(code: str, kept: str) -> None:
    assert "\n".join(line for line in calibrated(code, "f").split("\n") if line) == "\n".join(
        line for line in kept.split("\n") if line
    )


def test_names_that_the_model_has_to_define_and_imports_that_come_with_the_gold() -> None:
    assert wanted_names("assert f(1) == set(g(2))", "def f(x): pass") == (("f", "g"), "")
    assert wanted_names("assert sum(1, 2) == 3", "def sum(a, b): pass") == (("sum",), "")
    assert wanted_names("assert f() == sys.maxsize", "import sys, os\ndef f(): pass") == (("f",), "import sys, os")
    assert wanted_names("def help2(): pass\nhelp2()\nimport math\nf()", "") == (("f",), "")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1_000_000,
        "x = 1\n" * 160_000,
        "def f():\n" * 100_000,
        "\n".join(f"broken line {i}" for i in range(60_000)),
        "-" * 1_000_000,
        "```" * 300_000,
        "f" * 1_000_000,
        '"""' + "a" * 1_000_000,
        "[" * 199_999,
        "f(" * 99_000,
        "a.b" * 66_000,
    ],
)
def test_a_megabyte_is_read_in_under_a_second(text: str) -> None:
    start = time.process_time()
    calibrated(inside_fence(text), "f")
    inside_fence("```" + text)
    assert time.process_time() - start < 1.0
