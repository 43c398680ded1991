"""Tests against a margin: hand-worked numbers, scipy, a numerical restricted MLE, and error rates by simulation."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm
from scipy.stats import t as student

from evalsuite.stats import mean_stderr
from evalsuite.stats.inferiority import (
    cluster_robust,
    clustered_stderr,
    clustered_z,
    even_clusters,
    loss_bound,
    paired_stderr,
    plain_z,
    score_variance,
    score_z,
    stratified_stderr,
)

D = np.array([1.0, 0, 0, -1, 0, 0, 0, 1, 0, 0])
CLUSTERS = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3, 3])
counts = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 2000)).filter(lambda c: sum(c) > 0)
nulls = st.floats(-0.5, 0.5).filter(lambda d: d == 0 or abs(d) > 1e-6)


def test_the_score_test_has_its_golden_values() -> None:
    # q .0663229: V = 2(.0663229) − .03·1.03 = .101746; Z = (−.02 + .03)/√(.101746/1000) = .991383
    assert score_variance(40, 60, 1000, -0.03) == pytest.approx(0.101746, abs=5e-7)
    assert score_z(40, 60, 1000, -0.03) == pytest.approx(0.991383, abs=5e-7)


def test_the_plug_in_variance_is_the_smaller_one_at_the_margin() -> None:
    # SE² = (.1 − .02²)/1000 = 9.96e-5; .01/.00997998 = 1.002006
    plug_in = plain_z(-0.02, math.sqrt((0.1 - 0.02**2) / 1000), -0.03)
    assert plug_in == pytest.approx(1.002006, abs=5e-7)
    assert plug_in > score_z(40, 60, 1000, -0.03)


@pytest.mark.parametrize(
    ("wins", "losses", "n", "null"),
    [
        (40, 60, 1000, -0.03),
        (0, 5, 164, -0.147),
        (30, 2, 320, -0.1),
        (12, 12, 541, 0.05),
        (0, 40, 164, 0.0),
        (50, 1, 200, 0.2),
    ],
)
def test_the_score_variance_is_that_of_a_numerical_restricted_mle(wins: int, losses: int, n: int, null: float) -> None:
    def surprise(q: float) -> float:
        chances = ((wins, q + null), (losses, q), (n - wins - losses, 1 - 2 * q - null))
        return -sum(k * math.log(p) for k, p in chances if k)

    low, high = max(0.0, -null) + 1e-12, (1 - null) / 2 - 1e-12
    q = minimize_scalar(surprise, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    assert score_variance(wins, losses, n, null) == pytest.approx(2 * q + null - null**2, abs=2e-7)


def test_against_zero_the_score_test_is_mcnemars() -> None:
    assert score_z(5, 15, 700, 0) == pytest.approx(-10 / math.sqrt(20))
    assert score_variance(5, 15, 700, 0) == pytest.approx(20 / 700)


def test_no_discordant_item_is_no_evidence_of_a_drop_and_some_against_a_margin() -> None:
    assert score_z(0, 0, 164, 0) == 0.0
    # q = m, so V = 2m − m(1+m) = m(1−m) and Z = m/√(m(1−m)/n)
    assert score_z(0, 0, 164, -0.1) == pytest.approx(0.1 / math.sqrt(0.09 / 164))


@settings(deadline=None)
@given(counts, nulls)
def test_every_count_gives_a_finite_z(count: tuple[int, int, int], null: float) -> None:
    wins, losses, n = count[0], count[1], sum(count)
    assert math.isfinite(score_z(wins, losses, n, null))
    if null != 0:
        assert score_variance(wins, losses, n, null) > 0


@settings(deadline=None)
@given(counts, nulls)
def test_swapping_the_sides_turns_the_sign_of_z(count: tuple[int, int, int], null: float) -> None:
    wins, losses, n = count[0], count[1], sum(count)
    assert score_z(wins, losses, n, 0) == -score_z(losses, wins, n, 0)
    # Near V = 0 two roots nearly cancel, so the mirrored formula agrees to fewer digits there.
    assert score_z(wins, losses, n, null) == pytest.approx(-score_z(losses, wins, n, -null), rel=1e-5, abs=1e-7)
    assert plain_z(0.1, 0.04, 0.0) == -plain_z(-0.1, 0.04, 0.0)
    assert clustered_z(0.1, 0.04, 27, 0.0) == -clustered_z(-0.1, 0.04, 27, 0.0)


@settings(deadline=None)
@given(counts, st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_a_wider_margin_never_makes_clearing_harder(count: tuple[int, int, int], one: float, other: float) -> None:
    wins, losses, n = count[0], count[1], sum(count)
    narrow, wide = sorted((one, other))
    assert score_z(wins, losses, n, -wide) >= score_z(wins, losses, n, -narrow) - 1e-9
    assert loss_bound(n, losses, wide) <= loss_bound(n, losses, narrow) * (1 + 1e-9)
    assert plain_z(-0.01, 0.02, -wide) >= plain_z(-0.01, 0.02, -narrow)
    assert clustered_z(-0.01, 0.02, 12, -wide) >= clustered_z(-0.01, 0.02, 12, -narrow)


@settings(deadline=None)
@given(counts)
def test_one_loss_more_never_looks_less_like_a_drop(count: tuple[int, int, int]) -> None:
    wins, losses, ties = count
    assume(ties > 0)
    n = sum(count)
    assert score_z(wins, losses + 1, n, 0) < score_z(wins, losses, n, 0) or wins == losses == 0
    assert score_z(wins + 1, losses, n, 0) > score_z(wins, losses, n, 0)


def test_arrays_broadcast_and_equal_what_floats_give() -> None:
    wins, losses = np.array([[1], [40]]), np.array([5, 60, 80])
    z = score_z(wins, losses, 1000, -0.03)
    assert z.shape == (2, 3)
    assert z[1, 1] == score_z(40, 60, 1000, -0.03)
    assert isinstance(score_z(40, 60, 1000, -0.03), float)
    assert isinstance(loss_bound(33, 0, 0.149), float)
    assert isinstance(clustered_z(0.1, 0.1, 4, 0.0), float)
    assert loss_bound(np.array([[33], [164]]), losses, 0.1).shape == (2, 3)


def test_a_plain_z_stays_finite_without_a_spread() -> None:
    assert plain_z([0.2, -0.2, 0.0, 0.3], [0.0, 0.0, 0.0, 0.1], 0.0).tolist() == pytest.approx([38, -38, 0, 3])


def test_the_loss_bound_has_its_golden_values() -> None:
    assert loss_bound(33, 0, 0.149) == pytest.approx(0.00487164, rel=1e-6)
    assert loss_bound(164, 3, 0.0861) == pytest.approx(0.000285634, rel=2e-6)


def test_identical_responses_clear_by_the_chance_of_no_loss_at_all() -> None:
    assert loss_bound(164, 0, 0.05) == pytest.approx(0.95**164)


def test_the_loss_bound_equals_the_binomial_distribution_of_scipy() -> None:
    n = np.array([1, 5, 33, 164, 2500, 14000])[:, None, None]
    losses = np.arange(10)[:, None]
    margin = np.array([1e-6, 0.01, 0.05, 0.149, 0.5, 0.9])
    expected = binom.cdf(losses, n, margin)
    np.testing.assert_allclose(loss_bound(n, losses, margin), expected, rtol=1e-9, atol=1e-290)


def test_ten_losses_prove_nothing_by_the_loss_bound() -> None:
    assert loss_bound(14000, 10, 0.15) == 1.0
    assert loss_bound(14000, [9, 4000], 0.15).tolist() == [pytest.approx(0, abs=1e-300), 1.0]


@pytest.mark.parametrize("groups", [2, 3, 8, 27, 57, 590, 14000])
@pytest.mark.parametrize("t", [1e-4, 0.3, 1.0, 1.7, 2.4, 5.0, 12.0, 36.0])
def test_a_clustered_z_has_the_tail_of_students_t(t: float, groups: int) -> None:
    expected = norm.isf(student.sf(t, groups - 1))
    assert clustered_z(t, 1.0, groups, 0.0) == pytest.approx(expected, rel=1e-8)
    assert clustered_z(-t, 1.0, groups, 0.0) == pytest.approx(-expected, rel=1e-8)


def test_a_clustered_z_is_finite_where_the_tail_underflows() -> None:
    assert 37 < clustered_z(1e6, 1.0, 3000, 0.0) < 38


def test_fewer_than_two_clusters_tell_nothing() -> None:
    assert clustered_z([0.3, 0.3], [math.inf, 0.0], [1, 0], -0.1).tolist() == [0.0, 0.0]


def test_clusters_without_any_spread_prove_no_more_than_their_common_sign() -> None:
    # Ten clusters all above the null: 2^−10 = .000977, z 3.0973. Two clusters: .25, z .6745.
    assert clustered_z([0.0, 0.0, -0.2], 0.0, [10, 2, 2], -0.05).tolist() == pytest.approx(
        [norm.isf(2**-10), norm.isf(0.25), -norm.isf(0.25)]
    )
    assert clustered_z(0.0, 0.0, 10, 0.0) == 0.0


def test_the_worked_example_has_its_errors() -> None:
    # plain: Σ(d−.1)² = 2.9, √(2.9/90); clusters: sums of d−.1 are .8 −1.3 −.2 .7, √(4/3 · 2.86)/10
    assert paired_stderr(D) == pytest.approx(0.179505, abs=5e-7)
    stderr, groups = clustered_stderr(D, CLUSTERS)
    assert (stderr, groups) == (pytest.approx(0.195278, abs=5e-7), 4)
    # strata 2 3 2 3: means .5 −1/3 0 1/3; Σ n_k s_k² = 2(.5) + 3(1/3) + 0 + 3(1/3) = 3; √3/10
    assert stratified_stderr(D, CLUSTERS) == pytest.approx(math.sqrt(3) / 10)


rows = st.lists(st.tuples(st.integers(-8, 8), st.integers(0, 6)), min_size=2, max_size=60)


@settings(deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_errors_are_those_of_the_reports_and_the_order_of_the_items_changes_no_digit(
    items: list[tuple[int, int]], rng: random.Random
) -> None:
    values, clusters = np.array([d / 8 for d, _ in items]), np.array([c for _, c in items])
    stderr, groups = clustered_stderr(values, clusters)
    assert groups == len(set(clusters.tolist()))
    expected = mean_stderr(values.tolist(), [str(c) for c in clusters]).stderr
    assert stderr == (math.inf if expected is None else pytest.approx(expected, abs=1e-15))
    assert paired_stderr(values) == pytest.approx(mean_stderr(values.tolist()).stderr, abs=1e-15)
    order = rng.sample(range(len(items)), len(items))
    assert clustered_stderr(values[order], clusters[order]) == (stderr, groups)


def test_clustered_errors_equal_the_robust_regression_of_statsmodels() -> None:
    regression = pytest.importorskip("statsmodels.regression.linear_model", reason="statsmodels is not installed")
    rng = np.random.default_rng(4)
    values, clusters = rng.choice([-1.0, 0, 1], 500), rng.integers(0, 20, 500)
    fit = regression.OLS(values, np.ones(500)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    assert clustered_stderr(values, clusters)[0] == pytest.approx(fit.bse[0], rel=1e-9)


def test_one_cluster_and_one_item_have_no_error_to_speak_of() -> None:
    assert clustered_stderr(D, np.zeros(10, int)) == (math.inf, 1)
    assert paired_stderr(np.array([0.5])) == math.inf


def test_stratified_errors_are_the_spread_of_a_resampling_inside_the_strata() -> None:
    rng = np.random.default_rng(5)
    strata = np.repeat([0, 1, 2], [40, 200, 60])
    values = np.where(rng.random(300) < np.array([0.9, 0.2, 0.5])[strata], 1.0, 0.0)
    draws = np.concatenate([rng.choice(values[strata == k], (4000, sum(strata == k))) for k in range(3)], axis=1)
    assert stratified_stderr(values, strata) == pytest.approx(draws.mean(axis=1).std(), rel=0.05)
    assert stratified_stderr(values, strata) < paired_stderr(values)


def test_a_stratum_of_one_borrows_the_pooled_variance() -> None:
    # s² of stratum 0 is 1/3, which stratum 1 borrows: √(4·(1/3) + 1·(1/3)) / 5
    assert stratified_stderr(np.array([1.0, 0, 1, 0, 1]), np.array([0, 0, 0, 0, 7])) == pytest.approx(
        math.sqrt(5 / 3) / 5
    )
    assert stratified_stderr(D, np.arange(10)) == paired_stderr(D)


@pytest.mark.parametrize("n", [164, 541, 1319, 14000])
@pytest.mark.parametrize("disagreement", [0.02, 0.1, 0.2])
def test_a_drop_of_the_margin_clears_one_time_in_twenty_at_most(n: int, disagreement: float) -> None:
    """One look at z .95 over 40,000 runs; s.e. √(.05·.95/40,000) = .0011."""
    rng = np.random.default_rng(n)
    margin = max(0.01, 4.871 * math.sqrt(0.15 / n))
    q = max(disagreement, margin)
    wins, losses, _ = rng.multinomial(n, [(q - margin) / 2, (q + margin) / 2, 1 - q], 40_000).T
    few = wins + losses < 10
    exact = loss_bound(n, np.where(few, losses, 0), margin) <= 0.05
    cleared = np.where(few, exact, score_z(wins, losses, n, -margin) >= norm.isf(0.05))
    assert cleared.mean() <= 0.0505 + 3 * 0.0011


def test_the_plug_in_variance_would_clear_such_drops_more_often() -> None:
    rng = np.random.default_rng(6)
    n, q = 164, 0.2
    margin = 4.871 * math.sqrt(0.15 / n)
    wins, losses, _ = rng.multinomial(n, [(q - margin) / 2, (q + margin) / 2, 1 - q], 100_000).T
    mean = (wins - losses) / n
    stderr = np.sqrt(((wins + losses) / n - mean**2) / n)
    plug_in = (plain_z(mean, stderr, -margin) >= norm.isf(0.05)).mean()
    score = (score_z(wins, losses, n, -margin) >= norm.isf(0.05)).mean()
    assert plug_in > 0.055 > 0.0505 + 0.003 > score


@pytest.mark.parametrize(("groups", "size", "icc"), [(27, 240, 0.01), (27, 240, 0.03), (7, 714, 0.01)])
def test_items_that_come_in_clusters_keep_their_level_only_with_t(groups: int, size: int, icc: float) -> None:
    """10,000 runs where nothing changed: cluster means N(0, q(ICC + (1−ICC)/size)), q = .15; s.e. .0022."""
    rng = np.random.default_rng(groups)
    means = rng.normal(0, math.sqrt(0.15 * (icc + (1 - icc) / size)), (10_000, groups))
    spread = means.std(axis=1, ddof=1) / math.sqrt(groups)  # CR1 of clusters of equal size
    z = clustered_z(means.mean(axis=1), spread, groups, 0.0)
    naive = plain_z(means.mean(axis=1), math.sqrt(0.15 / (groups * size)), 0.0)
    assert abs((z <= norm.ppf(0.05)).mean() - 0.05) < 3 * 0.0022
    assert (naive <= norm.ppf(0.05)).mean() > 0.15


def test_even_clusters_are_what_cr1_says_and_uneven_ones_tell_less() -> None:
    even = np.repeat(np.arange(6), 5)
    d = np.random.default_rng(3).standard_normal(30)
    # 1 − 5/30 = 5/6, so that Σ/(5/6) is G/(G−1)·Σ with G = 6.
    assert cluster_robust(d, even, 0.01) == (pytest.approx(clustered_stderr(d, even)[0]), pytest.approx(6.0))
    assert 2 <= even_clusters([100, 5, 5, 5, 5, 5], 0.01) < 3.5
    assert cluster_robust(d, np.zeros(30, int), 0.01) == (math.inf, 1.0)


def test_two_uneven_clusters_by_hand() -> None:
    # Sizes 1 and 3, sums 1 and 0: D = 1/4, residuals 3/4 and −3/4; Σ r²/(1 − s/n) = .5625/.75 + .5625/.25 = 3.
    stderr, groups = cluster_robust(np.array([1.0, 0.0, 0.0, 0.0]), np.array([0, 1, 1, 1]), 0.0)
    assert stderr == pytest.approx(math.sqrt(3) / 4)
    assert groups == 2.0
