"""Bounds of repeated looks against published digits, multivariate normal probabilities and simulated paths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from evalsuite.stats.bounds import Spending, bounds, spent

INF = math.inf


def even(looks: int) -> tuple[float, ...]:
    return tuple((k + 1) / looks for k in range(looks))


TABLE: list[tuple[Spending, float, list[float]]] = [
    ("pocock", 0.05, [2.4122, 2.3626, 2.3166, 2.2797, 2.2498, 2.2251, 2.2044, 2.1867, 2.1713, 2.1579]),
    ("obf", 0.025 / 18, [INF, INF, 5.7202, 4.9218, 4.3776, 3.9786, 3.6710, 3.4249, 3.2224, 3.0520]),
    ("obf", 0.05, [6.0879, 4.2292, 3.3962, 2.9061, 2.5790, 2.3417, 2.1598, 2.0146, 1.8953, 1.7949]),
    ("pocock", 0.025, [2.4380, 2.4268, 2.4102, 2.3966, 2.3860]),
    ("obf", 0.025, [4.8769, 3.3570, 2.6803, 2.2898, 2.0310]),
]


@pytest.mark.parametrize(("kind", "alpha", "expected"), TABLE)
def test_bounds_have_four_correct_decimals(kind: Spending, alpha: float, expected: list[float]) -> None:
    assert bounds(kind, alpha, even(len(expected))) == pytest.approx(expected, abs=1.1e-4)


@pytest.mark.parametrize("expected", [[2.100, 2.077, 2.053, 2.035], [2.176, 2.144, 2.113, 2.090, 2.071]])
def test_pocock_bounds_of_four_and_five_looks_have_three_correct_decimals(expected: list[float]) -> None:
    assert bounds("pocock", 0.05, even(len(expected))) == pytest.approx(expected, abs=5.1e-4)


@pytest.mark.parametrize("kind", ["pocock", "obf"])
@pytest.mark.parametrize("alpha", [0.05, 0.025 / 36, 1e-9])
def test_one_look_is_the_fixed_test(kind: Spending, alpha: float) -> None:
    assert bounds(kind, alpha, (1.0,)) == pytest.approx([norm.isf(alpha)], abs=1e-4)


@pytest.mark.parametrize("kind", ["pocock", "obf"])
@pytest.mark.parametrize("times", [(0.3, 1.0), (0.62, 0.67, 1.0), (0.4, 0.9), (0.11, 0.5, 0.8, 1.0)])
def test_unevenly_spaced_looks_spend_what_they_may(kind: Spending, times: tuple[float, ...]) -> None:
    # Cov(Z_i, Z_j) = √(t_i/t_j): the chance that none is crossed, from scipy, must be 1 − a(t_last).
    found = bounds(kind, 0.05, times)
    covariance = [[math.sqrt(min(s, t) / max(s, t)) for s in times] for t in times]
    inside = multivariate_normal(np.zeros(len(times)), covariance, maxpts=400_000, abseps=1e-7).cdf(found)
    assert 1 - inside == pytest.approx(spent(kind, 0.05, times[-1]), abs=2e-5)


def crossed(found: tuple[float, ...], times: tuple[float, ...], seed: int, paths: int = 200_000) -> list[float]:
    """The share of simulated paths over a bound by each look."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, np.sqrt(np.diff([0.0, *times])), (paths, len(times)))
    z = np.cumsum(steps, axis=1) / np.sqrt(times)
    return [float(x) for x in np.logical_or.accumulate(z >= np.array(found), axis=1).mean(axis=0)]


@pytest.mark.parametrize(
    ("kind", "alpha", "times"),
    [
        ("pocock", 0.05, even(10)),
        ("obf", 0.025 / 18, even(10)),
        ("obf", 0.05, even(10)),
        ("pocock", 0.05, (0.3001, 0.3307, 0.9, 0.96)),
    ],
)
def test_two_hundred_thousand_paths_cross_as_often_as_planned(
    kind: Spending, alpha: float, times: tuple[float, ...]
) -> None:
    for share, t in zip(crossed(bounds(kind, alpha, times), times, seed=3), times, strict=True):
        planned = spent(kind, alpha, t)
        assert abs(share - planned) <= 4 * math.sqrt(planned * (1 - planned) / 200_000) + 1e-9


@pytest.mark.parametrize("kind", ["pocock", "obf"])
@settings(deadline=None)
@given(st.floats(1e-6, 0.5), st.floats(0, 1), st.floats(0, 1))
def test_spending_rises_from_nothing_to_alpha(kind: Spending, alpha: float, s: float, t: float) -> None:
    assert spent(kind, alpha, 0.0) == 0.0
    assert spent(kind, alpha, min(s, t)) <= spent(kind, alpha, max(s, t)) <= alpha * (1 + 1e-12)
    assert spent(kind, alpha, 1.0) == pytest.approx(alpha)
    assert spent(kind, alpha, 1.3) == spent(kind, alpha, 1.0)


def test_half_way_each_spending_function_has_its_worked_value() -> None:
    # .05·ln(1 + 1.718282/2) = .05 · .620115; 2·(1 − Φ(1.959964/√.5)) = 2·P(Z > 2.771808) = .005574
    assert spent("pocock", 0.05, 0.5) == pytest.approx(0.0310057, abs=1e-7)
    assert spent("obf", 0.05, 0.5) == pytest.approx(0.005575, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["pocock", "obf"]), st.lists(st.integers(1, 100), min_size=1, max_size=6, unique=True))
def test_a_stricter_level_never_has_a_lower_bound(kind: Spending, percents: list[int]) -> None:
    times = tuple(p / 100 for p in sorted(percents))
    strict, lenient = bounds(kind, 0.01, times), bounds(kind, 0.05, times)
    assert all(s >= loose - 1e-4 for s, loose in zip(strict, lenient, strict=True))


def test_a_look_that_adds_no_items_decides_nothing_and_costs_nothing() -> None:
    once, twice = bounds("pocock", 0.05, (0.5, 1.0)), bounds("pocock", 0.05, (0.0, 0.5, 0.5, 1.0))
    assert twice == (INF, once[0], INF, once[1])


def test_what_a_skipped_look_did_not_spend_is_left_for_the_next() -> None:
    # O'Brien–Fleming at .025/18 may spend 2·P(Z > 3.197/√.1) = 5e-24 by t = .1: no bound, and nothing lost later.
    late = (0.3, 0.6, 1.0)
    assert bounds("obf", 0.025 / 18, (0.1, *late)) == (INF, *bounds("obf", 0.025 / 18, late))


def test_times_are_rounded_so_that_looks_of_nearly_equal_size_share_their_bounds() -> None:
    assert bounds("pocock", 0.05, (1 / 3, 1.0)) is bounds("pocock", 0.05, (0.33329, 1.0))


@pytest.mark.parametrize("times", [(0.5, 0.4), (0.5, 1.1), (-0.1, 1.0), (math.nan,)])
def test_times_that_do_not_rise_from_zero_to_one_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="information times"):
        bounds("pocock", 0.05, times)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_a_level_outside_zero_and_one_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        bounds("pocock", alpha, (1.0,))
