"""Standard errors and tests against hand-worked numbers, scipy and simulation."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from evalsuite.distributions import mcnemar, normal_two_sided, t_quantile, t_two_sided
from evalsuite.scorecard import Metric
from evalsuite.stats import average_difference, interval, macro_stderr, mean_stderr, paired, ratio_stderr
from evalsuite.types import Ratio

D = (1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
CLUSTERS = list("0011122333")
scores = st.lists(st.floats(0, 1), min_size=2, max_size=40)


def error(metric_stderr: float | None) -> float:
    assert metric_stderr is not None
    return metric_stderr


def test_the_mean_of_ten_differences_has_the_worked_standard_error() -> None:
    # Σ(d−.1)² = 2(.9²) + 1.1² + 7(.1²) = 2.9; 2.9 / (10·9) = .0322222, whose root is .179505
    assert mean_stderr(D).value == pytest.approx(0.1)
    assert mean_stderr(D).stderr == pytest.approx(0.179505, abs=5e-7)


def test_clustered_errors_match_the_worked_example() -> None:
    # cluster sums of d−.1: .8, −1.3, −.2, .7; Σ² = .64+1.69+.04+.49 = 2.86; √(4/3 · 2.86 / 100) = .195278
    assert mean_stderr(D, CLUSTERS).stderr == pytest.approx(0.195278, abs=5e-7)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcde")), min_size=3, max_size=40))
def test_clustered_errors_equal_the_sandwich_of_a_regression_on_a_constant(rows: list[tuple[float, str]]) -> None:
    values, groups = [v for v, _ in rows], [g for _, g in rows]
    names = sorted(set(groups))
    result = mean_stderr(values, groups)
    if len(names) < 2:
        assert result.stderr is None
        return
    residuals = np.array(values) - np.mean(values)
    meat = sum(residuals[np.array(groups) == name].sum() ** 2 for name in names)
    expected = math.sqrt(len(names) / (len(names) - 1) * meat) / len(values)
    assert error(result.stderr) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(scores)
def test_one_cluster_per_value_is_no_clustering(values: list[float]) -> None:
    alone = mean_stderr(values, [str(i) for i in range(len(values))])
    assert error(alone.stderr) == pytest.approx(error(mean_stderr(values).stderr), abs=1e-12)


@pytest.mark.parametrize("clusters", [None, ["a"], ["a", "a", "a"]])
def test_one_value_or_one_cluster_has_no_standard_error(clusters: list[str] | None) -> None:
    values = [0.5] * len(clusters or ["a"])
    assert mean_stderr(values, clusters).stderr is None


def test_no_values_raise_instead_of_scoring_zero() -> None:
    for call in (lambda: mean_stderr([]), lambda: macro_stderr([], []), lambda: ratio_stderr([])):
        with pytest.raises(ValueError, match="no "):
            call()


def test_keys_of_the_wrong_length_raise() -> None:
    with pytest.raises(ValueError, match="zip"):
        mean_stderr([1.0, 0.0], ["a"])
    with pytest.raises(ValueError, match="zip"):
        macro_stderr([1.0, 0.0], ["a"])


def test_a_perfect_score_is_exactly_one_with_no_error() -> None:
    assert mean_stderr([1.0] * 7) == Metric(1.0, 0.0, 7)
    assert macro_stderr([1.0] * 7, list("aaabbcc")) == Metric(1.0, 0.0, 7)


@settings(deadline=None)
@given(scores, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_changes_no_digit(values: list[float], rng: random.Random) -> None:
    groups = [str(i % 3) for i in range(len(values))]
    order = list(range(len(values)))
    rng.shuffle(order)
    shuffled, regrouped = [values[i] for i in order], [groups[i] for i in order]
    assert mean_stderr(shuffled, regrouped) == mean_stderr(values, groups)
    assert macro_stderr(shuffled, regrouped) == macro_stderr(values, groups)


def test_a_ratio_counts_things_and_its_error_counts_documents() -> None:
    # R = 5/8; residuals h − R·o: 1−.625=.375, 2−1.25=.75, 0−1.25=−1.25, 2−1.875=.125; Σ² = 2.28125
    # SE = √(4/3 · 2.28125) / 8 = 1.744037 / 8 = .218005
    metric = ratio_stderr([Ratio(1, 1), Ratio(2, 2), Ratio(0, 2), Ratio(2, 3)])
    assert (metric.value, metric.n) == (0.625, 8)
    assert metric.stderr == pytest.approx(0.218005, abs=5e-7)


def test_ratios_of_equal_size_are_a_mean() -> None:
    hits = [0, 1, 2, 2, 1, 0, 2]
    ratio, mean = ratio_stderr([Ratio(h, 2) for h in hits]), mean_stderr([h / 2 for h in hits])
    assert ratio.value == pytest.approx(mean.value)
    assert error(ratio.stderr) == pytest.approx(error(mean.stderr))


def test_nothing_to_count_is_zero_of_zero() -> None:
    metric = ratio_stderr([Ratio(0, 0), Ratio(0, 0)])
    assert (metric.value, metric.stderr, metric.n) == (0.0, None, 0)


def test_the_delta_method_agrees_with_a_bootstrap_of_the_documents() -> None:
    rng = np.random.default_rng(1)
    of = rng.integers(1, 4, 300)
    hits = rng.binomial(of, rng.beta(2, 2, 300))
    draws = rng.integers(0, 300, (2000, 300))
    spread = (hits[draws].sum(1) / of[draws].sum(1)).std()
    metric = ratio_stderr([Ratio(float(h), float(o)) for h, o in zip(hits, of, strict=True)])
    assert error(metric.stderr) == pytest.approx(spread, rel=0.08)


def test_a_macro_mean_weighs_categories_and_sums_their_variances() -> None:
    # means .5 and 1.0 → .75; s² = 1/3 on n 4, and 0 on n 2: √((1/3)/4 + 0) / 2 = .144338
    metric = macro_stderr([1.0, 0.0, 1.0, 0.0, 1.0, 1.0], list("aaaabb"))
    assert (metric.value, metric.n) == (0.75, 6)
    assert metric.stderr == pytest.approx(0.144338, abs=5e-7)


def test_a_macro_mean_agrees_with_a_bootstrap_inside_the_categories() -> None:
    rng = np.random.default_rng(2)
    groups = {"a": rng.random(40), "b": rng.random(150) < 0.3, "c": rng.random(80) < 0.9}
    draws = [np.mean([rng.choice(v, len(v)).mean() for v in groups.values()]) for _ in range(2000)]
    values = [float(x) for v in groups.values() for x in v]
    categories = [k for k, v in groups.items() for _ in v]
    assert error(macro_stderr(values, categories).stderr) == pytest.approx(np.std(draws), rel=0.08)


def test_categories_that_are_clusters_count_as_a_sample_of_categories() -> None:
    # means 1, .5, 0 vary around .5: their own standard error is √(.5/2 / 3) = .288675
    values, names = [1.0, 1.0, 0.0, 1.0, 0.0], list("aabbc")
    metric = macro_stderr(values, names, names)
    assert metric.value == pytest.approx(0.5)
    assert metric.stderr == pytest.approx(0.288675, abs=5e-7)


def test_clusters_inside_categories_leave_the_categories_fixed() -> None:
    # Categories differ by 1 in mean and passages not at all: nothing is left to vary.
    metric = macro_stderr([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], list("aaabbb"), ["p", "q", "q", "r", "s", "s"])
    assert (metric.value, metric.stderr) == (0.5, 0.0)


def test_a_category_of_one_borrows_the_pooled_variance() -> None:
    alone = macro_stderr([1.0, 0.0, 1.0, 0.0, 1.0], list("aaaab"))
    # s² of a is 1/3, which b borrows: √(1/3/4 + 1/3/1) / 2
    assert alone.stderr == pytest.approx(math.sqrt(1 / 12 + 1 / 3) / 2)
    assert macro_stderr([1.0, 0.0, 1.0], list("abc")).stderr == mean_stderr([1.0, 0.0, 1.0]).stderr


@pytest.mark.parametrize(
    ("wins", "losses", "exact", "mid"),
    [
        (5, 15, 0.0206947, 0.0133018),
        (0, 30, 9.31323e-10, 4.65661e-10),
        (3, 9, 0.0729980, 0.0461426),
        (12, 12, 0.5, 0.5),
    ],
)
def test_mcnemar_gives_the_golden_p_values(wins: int, losses: int, exact: float, mid: float) -> None:
    # The golden values are one-sided; two-sided doubles them (and an even split is 1).
    assert mcnemar(wins, losses) == pytest.approx(2 * exact, rel=5e-6)
    assert mcnemar(wins, losses, mid=True) == pytest.approx(2 * mid, rel=5e-6)


@given(st.integers(0, 3000), st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_exact_mcnemar_equals_the_binomial_test_of_scipy(wins: int, losses: int) -> None:
    expected = scipy_stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(wins, losses) == pytest.approx(expected, rel=1e-8, abs=1e-290)
    assert mcnemar(wins, losses, mid=True) == mcnemar(losses, wins, mid=True) <= mcnemar(wins, losses)


@pytest.mark.parametrize("df", [1, 2, 3.5, 7, 26, 56, 1000, 1e5])
@pytest.mark.parametrize("t", [0.0, 0.01, 0.5, 1.0, 2.0, 5.0, 40.0, 300.0])
def test_students_t_equals_scipy_far_into_the_tail(t: float, df: float) -> None:
    assert t_two_sided(t, df) == pytest.approx(2 * scipy_stats.t.sf(t, df), rel=1e-8, abs=1e-290)


def test_quantiles_equal_scipy_and_the_golden_value() -> None:
    assert t_quantile(0.95, 3) == pytest.approx(2.353363, abs=5e-7)
    for probability in (0.025, 0.5, 0.9, 0.975, 0.9995):
        for df in (1, 4, 56, 2000):
            expected = scipy_stats.t.ppf(probability, df)
            assert t_quantile(probability, df) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert normal_two_sided(1.959964) == pytest.approx(0.05, abs=1e-7)
    assert 0 < normal_two_sided(37) < 1e-290


def sides(first: Sequence[float], second: Sequence[float]) -> tuple[dict[str, float], dict[str, float]]:
    return ({f"q{i}": x for i, x in enumerate(side)} for side in (first, second))  # type: ignore[return-value]


def test_right_and_wrong_answers_are_compared_by_their_flips() -> None:
    a, b = sides([1, 1, 1, 0, 0, 1, 1, 1], [1, 0, 0, 1, 0, 0, 0, 0])
    test = paired(a, b)
    assert test is not None
    assert (test.n, test.wins, test.losses, test.difference) == (8, 5, 1, 0.5)
    assert test.p == pytest.approx(mcnemar(5, 1, mid=True))
    assert test.test == "mid-p McNemar"


def test_swapping_the_sides_turns_the_sign_and_nothing_else() -> None:
    rng = random.Random(5)
    a, b = sides([rng.random() for _ in range(50)], [rng.random() for _ in range(50)])
    one, other = paired(a, b), paired(b, a)
    assert one is not None
    assert other is not None
    assert (one.p, one.stderr, one.wins, one.losses) == (other.p, other.stderr, other.losses, other.wins)
    assert (one.difference, one.low) == (-other.difference, -(other.high or 0))


def test_fractions_are_compared_by_the_paired_z_test_of_scipy() -> None:
    rng = random.Random(6)
    first = [rng.random() for _ in range(400)]
    second = [min(1.0, x + 0.02 * rng.random()) for x in first]
    a, b = sides(first, second)
    test = paired(a, b)
    assert test is not None
    assert test.stderr == pytest.approx(scipy_stats.sem(np.array(first) - np.array(second)))
    assert test.p == pytest.approx(2 * scipy_stats.norm.sf(abs(test.difference / error(test.stderr))), rel=1e-6)


def test_only_shared_samples_are_compared() -> None:
    test = paired({"a": 1.0, "b": 1.0, "only": 0.0}, {"a": 0.0, "b": 1.0, "other": 1.0})
    assert test is not None
    assert (test.n, test.difference) == (2, 0.5)
    assert paired({"a": 1.0}, {"b": 1.0}) is None


def test_the_difference_of_a_macro_benchmark_is_that_of_its_macro_means() -> None:
    a, b = sides([1, 1, 1, 1, 0, 1], [1, 1, 0, 0, 0, 0])
    categories = dict(zip(a, "aaaabb", strict=True))
    test = paired(a, b, aggregate="macro", categories=categories)
    assert test is not None
    assert test.difference == 0.5 * (2 / 4) + 0.5 * (1 / 2)
    assert test.test == "paired z"


def test_equal_sides_cannot_be_told_apart() -> None:
    a, b = sides([1.0, 0.5, 0.0], [1.0, 0.5, 0.0])
    test = paired(a, b)
    assert test is not None
    assert (test.p, test.difference, test.stderr) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("n", [1, 3, 10])
def test_a_constant_gap_on_few_samples_claims_no_more_than_a_sign_test(n: int) -> None:
    # The paired differences have no spread at all; an infinite z would call three samples a proof.
    a, b = sides([0.75] * n, [0.5] * n)
    test = paired(a, b)
    assert test is not None
    assert test.p == pytest.approx(min(1.0, 2 * 0.5**n) if n > 1 else 1.0)


def test_one_cluster_proves_nothing() -> None:
    a, b = sides([1.0] * 20, [0.0] * 20)
    test = paired(a, b, clusters=dict.fromkeys(a, "passage"))
    assert test is not None
    assert (test.p, test.stderr, test.low) == (1.0, None, None)


def test_clustered_pairs_keep_their_level_where_naive_ones_do_not() -> None:
    """27 tasks of 40 items whose differences share a task effect: H0 holds, a naive test rejects far too often."""
    rng = np.random.default_rng(7)
    ids = [f"q{i}" for i in range(27 * 40)]
    clusters = {q: f"task{i // 40}" for i, q in enumerate(ids)}
    naive = clustered = 0
    for _ in range(300):
        d = np.repeat(rng.normal(0, 0.1, 27), 40) + rng.normal(0, 0.5, len(ids))
        first = dict(zip(ids, d.tolist(), strict=True))
        zero = dict.fromkeys(ids, 0.0)
        plain, robust = paired(first, zero), paired(first, zero, clusters=clusters)
        assert plain is not None
        assert robust is not None
        naive += plain.p < 0.05
        clustered += robust.p < 0.05
    assert naive / 300 > 0.12
    assert 0.02 < clustered / 300 < 0.085


def test_an_interval_is_wider_with_few_clusters() -> None:
    assert interval(0.5, 0.1) == pytest.approx((0.5 - 0.1959964, 0.5 + 0.1959964))
    assert interval(0.5, 0.1, 4) == pytest.approx((0.5 - 0.3182446, 0.5 + 0.3182446))
    assert interval(0.5, None) == (None, None)


def test_the_average_difference_adds_variances() -> None:
    one, two = sides([1, 1, 1, 0], [0, 1, 1, 0]), sides([1, 0, 1, 1], [1, 0, 0, 0])
    parts = [p for p in (paired(*one), paired(*two)) if p is not None]
    average = average_difference(parts)
    assert average.difference == (0.25 + 0.5) / 2
    assert average.stderr == pytest.approx(math.hypot(error(parts[0].stderr), error(parts[1].stderr)) / 2)
    assert average.p == pytest.approx(normal_two_sided(average.difference / error(average.stderr)))
