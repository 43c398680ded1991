"""Bounds of one proportion and one-sided McNemar against golden values, scipy and statsmodels where installed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest

from evalsuite.distributions import mcnemar
from evalsuite.stats.proportion import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    mcnemar_less,
    wilson_lower,
    wilson_upper,
)

shares = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_330_of_400_has_its_golden_bounds() -> None:
    assert clopper_pearson_lower(330, 400) == pytest.approx(0.790732, abs=5e-7)
    assert wilson_lower(330, 400) == pytest.approx(0.791596, abs=5e-7)


@settings(max_examples=60, deadline=None)
@given(shares, st.sampled_from([0.9, 0.95, 0.999]))
def test_exact_bounds_are_quantiles_of_the_beta_distribution(share: tuple[int, int], level: float) -> None:
    hits, n = share
    lower = beta.ppf(1 - level, hits, n - hits + 1) if hits else 0.0
    upper = beta.ppf(level, hits + 1, n - hits) if hits < n else 1.0
    assert clopper_pearson_lower(hits, n, level) == pytest.approx(lower, rel=1e-8)
    assert clopper_pearson_upper(hits, n, level) == pytest.approx(upper, rel=1e-8)


@settings(max_examples=60, deadline=None)
@given(shares)
def test_wilson_bounds_equal_scipy(share: tuple[int, int]) -> None:
    hits, n = share
    above = binomtest(hits, n, alternative="greater").proportion_ci(0.95, method="wilson")
    below = binomtest(hits, n, alternative="less").proportion_ci(0.95, method="wilson")
    assert wilson_lower(hits, n) == pytest.approx(above.low, rel=1e-9, abs=1e-12)
    assert wilson_upper(hits, n) == pytest.approx(below.high, rel=1e-9, abs=1e-12)


def test_the_lower_bound_covers_at_its_level_for_every_number_of_hits() -> None:
    """P(bound > p) summed over the binomial distribution itself: at most 5 %, for any true p."""
    bounds = [clopper_pearson_lower(k, 60) for k in range(61)]
    for p in (0.05, 0.3, 0.5, 0.8, 0.97):
        missed = sum(binom.pmf(k, 60, p) for k, bound in enumerate(bounds) if bound > p)
        assert missed <= 0.05


@pytest.mark.parametrize(("hits", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_counts_that_are_no_proportion_are_refused(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        clopper_pearson_lower(hits, n)
    with pytest.raises(ValueError, match="no proportion"):
        wilson_upper(hits, n)


@pytest.mark.parametrize(
    ("wins", "losses", "exact", "mid"),
    [(5, 15, 0.0206947, 0.0133018), (0, 30, 9.31323e-10, 4.65661e-10), (3, 9, 0.0729980, 0.0461426)],
)
def test_one_sided_mcnemar_has_its_golden_values(wins: int, losses: int, exact: float, mid: float) -> None:
    assert mcnemar_less(wins, losses, mid=False) == pytest.approx(exact, rel=5e-6)
    assert mcnemar_less(wins, losses, mid=True) == pytest.approx(mid, rel=5e-6)


def test_an_even_split_is_one_half_and_nothing_discordant_too() -> None:
    assert mcnemar_less(12, 12) == pytest.approx(0.5)
    assert mcnemar_less(0, 0) == 0.5
    assert mcnemar_less(0, 0, mid=False) == 1.0


@given(st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_one_sided_mcnemar_equals_the_binomial_distribution_of_scipy(wins: int, losses: int) -> None:
    n = wins + losses
    below, at = binom.cdf(wins - 1, n, 0.5), binom.pmf(wins, n, 0.5)
    assert mcnemar_less(wins, losses, mid=False) == pytest.approx(below + at, rel=1e-9, abs=1e-290)
    assert mcnemar_less(wins, losses) == pytest.approx(below + at / 2, rel=1e-9, abs=1e-290)
    assert mcnemar_less(wins, losses) + mcnemar_less(losses, wins) == pytest.approx(1.0)


@given(st.integers(0, 300), st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_twice_the_smaller_side_is_the_two_sided_test(wins: int, losses: int) -> None:
    smaller = min(mcnemar_less(wins, losses, mid=False), mcnemar_less(losses, wins, mid=False))
    assert mcnemar(wins, losses) == pytest.approx(min(1.0, 2 * smaller))


@pytest.mark.parametrize(("wins", "losses"), [(5, 15), (40, 60), (3, 3)])
def test_exact_mcnemar_equals_statsmodels(wins: int, losses: int) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason="statsmodels is not installed")
    assert mcnemar(wins, losses) == pytest.approx(tables.mcnemar([[10, wins], [losses, 10]], exact=True).pvalue)
