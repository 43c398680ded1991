"""Corrections for many tests: golden values, scipy, statsmodels where installed, and error rates by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, norm

from evalsuite import stats
from evalsuite.distributions import chi_squared_tail
from evalsuite.stats.multiple import attempt_alpha, chi_bar, holm, simes

GOLDEN = [0.001, 0.02, 0.03, 0.2, 0.5]


def test_holm_gives_the_golden_adjustment_in_any_order() -> None:
    assert holm([0.001, 0.02, 0.03, 0.2, 0.5]) == pytest.approx([0.005, 0.08, 0.09, 0.4, 0.5])
    assert holm([0.5, 0.03, 0.001, 0.2, 0.02]) == pytest.approx([0.5, 0.09, 0.005, 0.4, 0.08])
    assert holm([]) == ()
    assert holm([0.9, 0.8]) == (1.0, 1.0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_its_step_down_procedure_rejects(p_values: list[float], alpha: float) -> None:
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected: set[int] = set()
    for rank, i in enumerate(order):
        if p_values[i] * (len(p_values) - rank) >= alpha:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p < alpha} == rejected


def test_holm_is_found_where_it_always_was() -> None:
    assert stats.holm is holm


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_and_simes_equal_statsmodels(p_values: list[float]) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])
    # The smallest p-value that Benjamini–Hochberg adjusts is that of Simes.
    assert simes(p_values) == pytest.approx(multitest.multipletests(p_values, method="fdr_bh")[1].min())


def test_simes_has_its_golden_value() -> None:
    # min(.001·5/1, .02·5/2, .03·5/3, .2·5/4, .5·5/5) = .005
    assert simes(GOLDEN) == simes(GOLDEN[::-1]) == pytest.approx(0.005)
    assert simes([]) == 1.0
    assert simes([0.4]) == 0.4


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_simes_lies_between_the_largest_p_value_and_bonferroni(p_values: list[float]) -> None:
    assert simes(p_values) <= min(max(p_values), len(p_values) * min(p_values)) * (1 + 1e-12)
    assert simes(p_values) <= min(holm(p_values)) * (1 + 1e-12) or min(holm(p_values)) == 1.0


def test_simes_keeps_its_level_exactly_for_independent_tests() -> None:
    p_values = np.random.default_rng(9).random((20_000, 18)).tolist()
    share = np.mean([simes(p) <= 0.05 for p in p_values])
    assert abs(share - 0.05) < 3 * math.sqrt(0.05 * 0.95 / 20_000)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 18, 57])
@pytest.mark.parametrize("x", [0.0, 0.01, 1.0, 17.855, 120.0, 1200.0])
def test_chi_squared_tails_equal_scipy(x: float, df: int) -> None:
    assert chi_squared_tail(x, df) == pytest.approx(chi2.sf(x, df), rel=1e-11)


@pytest.mark.parametrize(("statistic", "p"), [(17.8551, 0.05), (20.1808, 0.025)])
def test_chi_bar_has_its_golden_critical_values(statistic: float, p: float) -> None:
    # One z of −√statistic and 17 that are positive: only the drops count.
    found, tail = chi_bar([-math.sqrt(statistic), *[1.5] * 17])
    assert found == pytest.approx(statistic)
    assert tail == pytest.approx(p, rel=2e-5)


def test_chi_bar_keeps_its_level_where_nothing_changed() -> None:
    z = np.random.default_rng(10).normal(size=(20_000, 6))
    share = np.mean([chi_bar(row)[1] <= 0.05 for row in z.tolist()])
    assert abs(share - 0.05) < 3 * math.sqrt(0.05 * 0.95 / 20_000)


def test_chi_bar_sees_many_small_drops_that_no_single_test_sees() -> None:
    # Eighteen times z = −1: one-sided p .159 each, Simes .159; T = 18, just over the critical 17.855
    assert simes([float(norm.cdf(-1))] * 18) == pytest.approx(0.1587, abs=1e-4)
    assert chi_bar([-1.0] * 18)[1] < 0.05


def test_no_drop_at_all_is_no_evidence() -> None:
    assert chi_bar([0.3, 0.0, 2.0]) == (0.0, 1.0)
    assert chi_bar([]) == (0.0, 1.0)


@pytest.mark.parametrize(("t", "z"), [(1, 1.960), (2, 2.394), (3, 2.638), (10, 3.317), (100, 4.419), (500, 5.069)])
def test_later_attempts_need_a_larger_z(t: int, z: float) -> None:
    assert norm.isf(attempt_alpha(0.05, t)) == pytest.approx(z, abs=6e-4)


@settings(deadline=None)
@given(st.floats(0.001, 0.2), st.integers(1, 400))
def test_all_attempts_together_spend_no_more_than_alpha(alpha: float, attempts: int) -> None:
    # 1/(t(t+1)) = 1/t − 1/(t+1): the sum telescopes to α(1 − 1/(T+1)).
    total = math.fsum(attempt_alpha(alpha, t) for t in range(1, attempts + 1))
    assert total == pytest.approx(alpha * (1 - 1 / (attempts + 1)))
    assert total <= alpha


def test_attempts_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="first attempt is 1"):
        attempt_alpha(0.05, 0)
