"""decontam/near/window.py ↔ rapidfuzz: the best part scores what partial_ratio says."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from decontam.near.window import best_part


def partial_ratio(a: str, b: str, cutoff: float, starts: list[int]) -> float:
    part = best_part(a, b, cutoff, starts)
    score = fuzz.ratio(a, b[slice(*part)]) if part else 0.0
    return score if score >= cutoff else 0.0


@pytest.mark.parametrize(
    ("a", "b", "part"),
    [
        ("abc", "xxabcxx", (2, 5)),
        ("abcd", "bcdxxx", (0, 3)),  # a shorter part at the start: 2 * 3 / 7
        ("abcd", "xxxabc", (3, 6)),  # and at the end
        ("aaaa", "aaaa", (0, 4)),
        ("abcd", "wxyz", None),
        ("é中🙂\ud800", "..é中🙂\ud800..", (2, 6)),
        ("x" * 64, "y" + "x" * 64, (1, 65)),
        ("x" * 65, "y" + "x" * 65, (1, 66)),
    ],
)
def test_the_best_part_is_found(a: str, b: str, part: tuple[int, int] | None) -> None:
    assert best_part(a, b, 75.0, [0]) == part


@pytest.mark.parametrize(("cutoff", "at_least"), [(75.0, True), (75.1, False)])
def test_a_part_that_just_reaches_the_cutoff_is_one(cutoff: float, at_least: bool) -> None:
    # 3 of 4 characters in common: 2 * 3 / 8 = .75, and no shorter part does better
    assert (partial_ratio("abcd", "zabzdz", cutoff, [0]) > 0) is at_least
    assert (fuzz.partial_ratio("abcd", "zabzdz", score_cutoff=cutoff) > 0) is at_least


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    alphabet = draw(st.sampled_from(["ab", "abc ", "etaoin shr", "aé中🙂 "]))
    a = draw(st.text(alphabet, min_size=1, max_size=draw(st.sampled_from([3, 20, 70, 140]))))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        part = list(a)
        for at in draw(st.lists(st.integers(0, len(a) - 1), max_size=len(a) // 2)):
            part[at] = draw(st.sampled_from(["", alphabet[0], alphabet[-1] * 2]))
        cut = draw(st.integers(0, len(a)))
        parts += draw(st.sampled_from([part, part[cut:], part[:cut], list(draw(st.text(alphabet, max_size=99)))]))
    b = "".join(parts)
    return a, b + a[: max(0, len(a) - len(b))][::-1]


@settings(max_examples=300, deadline=None)
@given(pairs(), st.sampled_from([0.0, 40.0, 65.0, 75.0, 95.0]), st.lists(st.integers(-9, 400), min_size=1, max_size=3))
def test_the_score_is_that_of_partial_ratio(pair: tuple[str, str], cutoff: float, starts: list[int]) -> None:
    a, b = pair
    if len(a) == len(b):  # partial_ratio then looks for a part of either
        ours = max(partial_ratio(a, b, cutoff, starts), partial_ratio(b, a, cutoff, starts))
    else:
        ours = partial_ratio(a, b, cutoff, starts)
    assert ours == fuzz.partial_ratio(a, b, score_cutoff=cutoff)


@pytest.mark.parametrize("worn", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_long_texts_are_compared_in_seconds(worn: float) -> None:
    """20,000 characters in 100,000: a fifth of them other ones takes partial_ratio two minutes."""
    rng = random.Random(1)
    draw = lambda n: "".join(rng.choices("etaoin shrdlu", k=n))  # noqa: E731
    a = draw(20_000)
    b = draw(40_000) + "".join(c if rng.random() >= worn else rng.choice("etaoin") for c in a) + draw(40_000)
    best_part("ab", "abc", 75.0, [0])
    start = time.thread_time()
    part = best_part(a, b, 75.0, [40_000])
    assert time.thread_time() - start < 5
    assert (part is not None) == (worn < 0.5)
