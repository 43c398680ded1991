"""What a gate can see: the published margins, power arithmetic, design effects and the reason margins are planned."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import f_oneway, norm

from evalsuite.stats.inferiority import score_z
from evalsuite.stats.power import (
    critical,
    design_effect,
    intraclass,
    items_needed,
    k_ratio,
    planned_variance,
    power_at,
)

LAST_CLEAR = 2.1579  # the tenth Pocock bound at .05
C = critical(LAST_CLEAR, 0.06, 18)


def test_the_constant_of_the_margins_has_its_published_values() -> None:
    # 2.158 + Φ⁻¹(1 − .06/18) = 2.158 + 2.713; with a distinct anchor 36 pairs: 2.158 + 2.935
    assert pytest.approx(4.871, abs=5e-4) == C
    assert critical(LAST_CLEAR, 0.06, 36) == pytest.approx(5.09, abs=5e-3)


@pytest.mark.parametrize(
    ("n", "points"),
    [
        (14000, 1.59), (12000, 1.72), (9500, 1.94), (6500, 2.34), (5000, 2.67), (2500, 3.77), (2210, 4.01),
        (1725, 4.54), (1319, 5.19), (817, 6.60), (541, 8.11), (450, 8.89), (320, 10.6), (300, 10.9), (164, 14.7),
    ],
)  # fmt: skip
def test_one_sample_per_item_resolves_the_published_margins(n: int, points: float) -> None:
    digits = 0.005001 if points < 10 else 0.0551  # 10.546 was rounded to 10.55 and that to 10.6
    assert 100 * C * math.sqrt(planned_variance(1) / n) == pytest.approx(points, abs=digits)


@pytest.mark.parametrize(
    ("n", "points"),
    [
        (2500, 2.00), (2210, 2.12), (1725, 2.40), (1319, 2.75), (817, 2.64), (541, 3.24), (450, 3.56), (320, 4.22),
        (300, 4.36), (164, 5.89),
    ],
)  # fmt: skip
def test_the_k_plan_resolves_the_published_margins(n: int, points: float) -> None:
    k = 8 if n < 1000 else 4
    assert 100 * C * math.sqrt(planned_variance(k) / n) == pytest.approx(points, abs=0.005001)


@pytest.mark.parametrize(("k", "ratio"), [(1, 1.0), (2, 0.52), (4, 0.28), (8, 0.16), (16, 0.10)])
def test_more_samples_per_item_shrink_the_variance_by_the_published_ratios(k: int, ratio: float) -> None:
    assert k_ratio(k) == pytest.approx(ratio)


def test_no_number_of_samples_takes_the_items_own_shift_away() -> None:
    assert k_ratio(1) > k_ratio(1.5) > k_ratio(3) > k_ratio(32) > k_ratio(10**6) > 0.0399
    assert (
        k_ratio(32) >= 0.10 * 16 / 32
    )  # a variance that were all noise of sampling would halve with twice the samples
    with pytest.raises(ValueError, match="at least once"):
        k_ratio(0)


def test_a_measured_variance_is_used_down_to_the_floor() -> None:
    assert planned_variance(1, measured=0.22) == 0.22
    assert planned_variance(1, measured=0.001) == pytest.approx(0.05)
    assert planned_variance(4, measured=0.001) == pytest.approx(0.05 * 0.28)
    assert planned_variance(4, disagreement=0.3) == pytest.approx(0.3 * 0.28)


def test_a_margin_cut_from_the_candidates_own_variance_lets_a_noisier_one_through() -> None:
    """1,319 items, a true drop of the planned margin (5.19 pt), disagreement .30 where .15 was planned; 20,000 runs."""
    n, margin = 1319, C * math.sqrt(planned_variance(1) / 1319)
    chances = [(0.3 - margin) / 2, (0.3 + margin) / 2, 0.7]
    wins, losses, _ = np.random.default_rng(11).multinomial(n, chances, 20_000).T
    own = C * np.sqrt((wins + losses) / n / n)
    z = norm.isf(0.05)
    assert (score_z(wins, losses, n, -margin) >= z).mean() < 0.05 + 3 * 0.0016
    assert (score_z(wins, losses, n, -own) >= z).mean() > 0.3


def test_power_arithmetic_has_its_published_value() -> None:
    # (1.644854 + .841621)²·.15/.02² = 6.182557·375 = 2,318.5: 2,318 are a hair too few
    assert items_needed(0.15, 0.02, norm.isf(0.05), 0.8) == 2319
    assert power_at(0.02, 0.0, math.sqrt(0.15 / 2319), norm.isf(0.05)) == pytest.approx(0.8, abs=1e-4)


@settings(deadline=None)
@given(
    variance=st.floats(0.005, 0.3),
    margin=st.floats(0.005, 0.2),
    last=st.floats(1.5, 3),
    power=st.floats(0.1, 0.99),
    effect=st.floats(0, 0.1),
    deff=st.floats(1, 9),
)
def test_the_items_needed_are_enough_and_one_fewer_is_not(
    variance: float, margin: float, last: float, power: float, effect: float, deff: float
) -> None:
    n = items_needed(variance, margin, last, power, effect=effect, deff=deff)
    assert power_at(margin, effect, math.sqrt(variance * deff / n), last) >= power - 1e-9
    if n > 1:
        assert power_at(margin, effect, math.sqrt(variance * deff / (n - 1)), last) < power + 1e-9


def test_no_number_of_items_clears_a_drop_of_the_margin() -> None:
    with pytest.raises(ValueError, match="no number of items"):
        items_needed(0.15, 0.02, 1.645, 0.8, effect=-0.02)


def test_calibrated_margins_let_an_equal_checkpoint_clear_every_pair() -> None:
    # Each of 18 pairs clears with Φ(C − c_L) = 1 − .06/18, all of them with (1 − .06/18)^18 = .9417 ≥ 1 − .06.
    stderr = 0.004
    assert power_at(C * stderr, 0.0, stderr, LAST_CLEAR) ** 18 == pytest.approx((1 - 0.06 / 18) ** 18)
    assert (1 - 0.06 / 18) ** 18 > 0.94


def test_the_design_effect_grows_with_cluster_size_and_its_unevenness() -> None:
    # equal clusters: 1 + (240 − 1)·.01 = 3.39; sizes 1 and 3: Σs²/n = 10/4
    assert design_effect([240] * 27, 0.01) == pytest.approx(3.39)
    assert design_effect([1, 3], 0.5) == pytest.approx(1 + 1.5 * 0.5)
    assert design_effect([1] * 50, 0.7) == pytest.approx(1.0)
    assert design_effect([], 0.01) == 1.0


def test_a_wide_cluster_field_needs_a_wide_margin() -> None:
    # MATH has 7 types of 714 items: 1 + 713·.01 = 8.13, so the margin is 2.85 times that of independent items.
    assert math.sqrt(design_effect([714] * 7, 0.01)) == pytest.approx(2.85, abs=5e-3)


def test_the_intraclass_correlation_is_that_of_an_analysis_of_variance() -> None:
    # F of scipy's one-way test; s₀ = (n − Σs²/n)/(G − 1); ICC = (F − 1)/(F + s₀ − 1)
    rng = np.random.default_rng(12)
    sizes = [30, 10, 25, 60]
    parts = [rng.normal(shift, 1.0, s) for shift, s in zip((0.0, 1.0, -1.0, 0.4), sizes, strict=True)]
    f = f_oneway(*parts).statistic
    n = sum(sizes)
    usual = (n - sum(s * s for s in sizes) / n) / 3
    found = intraclass(np.concatenate(parts), np.repeat([0, 1, 5, 2], sizes))
    assert found == pytest.approx((f - 1) / (f + usual - 1))
    assert 0 < found < 1


def test_the_intraclass_correlation_finds_what_was_put_in() -> None:
    rng = np.random.default_rng(13)
    clusters = np.repeat(np.arange(400), 50)
    effects = rng.normal(0, math.sqrt(0.05), 400)[clusters]
    values = effects + rng.normal(0, math.sqrt(0.95), len(clusters))
    assert intraclass(values, clusters) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(
    ("differences", "clusters"),
    [
        ([1.0, -1.0, 1.0, -1.0], [0, 0, 1, 1]),  # clusters more alike than chance: below zero, so zero
        ([1.0, 0.0, 1.0], [0, 0, 0]),
        ([1.0, 0.0, 1.0], [0, 1, 2]),
        ([0.5, 0.5, 0.5, 0.5], [0, 0, 1, 1]),
    ],
)
def test_what_cannot_be_known_of_clusters_is_no_correlation(differences: list[float], clusters: list[int]) -> None:
    assert intraclass(np.array(differences), np.array(clusters)) == 0.0


def test_clusters_that_are_each_of_one_mind_correlate_fully() -> None:
    assert intraclass(np.array([1.0, 1, 0, 0, -1, -1]), np.array([0, 0, 1, 1, 2, 2])) == pytest.approx(1.0)
