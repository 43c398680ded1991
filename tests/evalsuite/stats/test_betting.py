"""Betting: golden values, the fairness of the game, and how often a fair game reaches 1/α."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.stats.betting import Side, log_e, log_e_counts

SIDES: tuple[Side, ...] = ("clear", "block")


def test_the_golden_values() -> None:
    assert log_e_counts(100, 90, 1310, -0.02) == pytest.approx(2.598627, abs=5e-7)
    assert log_e_counts(60, 140, 1800, 0.0, "block") == pytest.approx(13.784171, abs=5e-7)


def test_one_win_against_zero_gains_the_average_stake() -> None:
    # E = mean(1 + λ) over the ten stakes of geomspace(.01, .8)
    stakes = [0.01 * 80 ** (j / 9) for j in range(10)]
    assert math.exp(log_e_counts(1, 0, 0, 0.0)) == pytest.approx(1 + sum(stakes) / 10)
    assert math.exp(log_e_counts(0, 1, 0, 0.0)) == pytest.approx(1 - sum(stakes) / 10)


@settings(deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=80), st.floats(-0.3, 0.3))
def test_counts_give_what_the_sequence_gives_at_every_length(differences: list[float], null: float) -> None:
    d = np.array(differences)
    for side in SIDES:
        counts = [np.cumsum(d == value) for value in (1, -1, 0)]
        np.testing.assert_allclose(log_e(d, null, side), log_e_counts(*counts, null, side), rtol=1e-9, atol=1e-11)


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.floats(-0.5, 0.5))
def test_swapping_the_sides_swaps_clearing_and_blocking(wins: int, losses: int, ties: int, null: float) -> None:
    mirrored = log_e_counts(losses, wins, ties, -null, "block")
    assert log_e_counts(wins, losses, ties, null, "clear") == pytest.approx(mirrored, rel=1e-12, abs=1e-12)


@settings(deadline=None)
@given(st.floats(-0.6, 0.6), st.floats(0.01, 0.99))
def test_the_game_is_fair_where_the_mean_is_the_null(null: float, weight: float) -> None:
    # P(win) − P(loss) = null; then the expected wealth after one item, ΣP·E, is exactly 1.
    loss = weight * (1 - abs(null)) / 2 + max(0.0, -null)
    chances = (loss + null, loss, 1 - 2 * loss - null)
    for side in SIDES:
        wealth = [math.exp(log_e_counts(*count, null, side)) for count in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
        assert sum(p * e for p, e in zip(chances, wealth, strict=True)) == pytest.approx(1.0)


@pytest.mark.parametrize("side", SIDES)
def test_a_fair_game_reaches_twenty_times_the_stake_in_a_run_at_most_once_in_twenty(side: Side) -> None:
    """3,000 runs of 400 items at the null, looked at after every item; s.e. √(.05·.95/3,000) = .004."""
    rng = np.random.default_rng(8)
    null = -0.05 if side == "clear" else 0.0
    runs = rng.choice([1.0, -1.0, 0.0], (3000, 400), p=[0.1 + min(null, 0), 0.1, 0.8 - min(null, 0)])
    reached = np.mean([log_e(run, null, side).max() >= math.log(20) for run in runs])
    assert 0 < reached <= 0.05 + 3 * 0.004


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.floats(-0.9, 0.9), st.sampled_from(SIDES))
def test_the_wealth_never_runs_out(differences: list[float], null: float, side: Side) -> None:
    running = log_e(np.array(differences), null, side)
    assert running.shape == (len(differences),)
    assert np.isfinite(running).all()


def test_long_runs_stay_in_logarithms() -> None:
    # 14,000 wins multiply the wealth by 1.8 each: e^8,000 is no float.
    assert log_e_counts(14000, 0, 0, 0.0) == pytest.approx(14000 * math.log(1.8) - math.log(10), rel=1e-6)
    assert log_e_counts(np.array([[1], [2]]), np.array([0, 1, 2]), 5, -0.1).shape == (2, 3)
    assert isinstance(log_e_counts(1, 2, 3, 0.0), float)
