"""Arithmetic of uncertainty: standard errors, paired tests, corrections for many tests. Pure, standard library only.

Sums go through `math.fsum`, so that the order of the samples changes no digit of a result.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from evalsuite.distributions import mcnemar, normal_two_sided, t_quantile, t_two_sided
from evalsuite.scorecard import Aggregate, Metric
from evalsuite.stats.multiple import holm as holm
from evalsuite.types import Ratio


def mean_stderr(values: Sequence[float], clusters: Sequence[str] | None = None) -> Metric:
    """The mean with its standard error; `clusters[i]` names the group that value i is not independent of.

    Unclustered: SE² = Σ(x−m)² / (n(n−1)). Clustered: SE² = G/(G−1) · n⁻² · Σ_c (Σ_{i∈c} (x_i−m))², the CR1 form for a
    mean, over G clusters. The error is None for fewer than two values or clusters. Raises ValueError without values.
    """
    if not values:
        raise ValueError("a mean over no values does not exist")
    mean = math.fsum(values) / len(values)
    return Metric(mean, _sandwich([(x - mean) / len(values) for x in values], clusters), len(values))


def ratio_stderr(ratios: Sequence[Ratio], clusters: Sequence[str] | None = None) -> Metric:
    """Σhits / Σof with its delta-method standard error over documents; `n` is Σof, the number of things counted.

    The error is None for fewer than two documents or clusters. Nothing to count (Σof = 0) gives 0.0 with n = 0. Raises
    ValueError without ratios.
    """
    if not ratios:
        raise ValueError("a ratio over no documents has no value")
    of = math.fsum(r.of for r in ratios)
    if of <= 0:
        return Metric(0.0, None, 0)
    value = math.fsum(r.hits for r in ratios) / of
    residuals = [(r.hits - value * r.of) / of for r in ratios]
    return Metric(value, _sandwich(residuals, clusters), round(of))


def macro_stderr(values: Sequence[float], categories: Sequence[str], clusters: Sequence[str] | None = None) -> Metric:
    """The mean of the category means with its standard error; `n` is the number of values.

    Three cases. No clusters: the categories are fixed and SE² = K⁻² Σ_k s_k²/n_k, "on exactly these K categories" (a
    category with one value borrows the pooled variance). Clusters inside categories (passages of a subject): the same
    with clustered errors. Categories inside clusters (each subject is a cluster): the categories are themselves a
    sample, and their means vary around the whole. Raises ValueError without values.
    """
    if not values:
        raise ValueError("a mean over no values does not exist")
    means = {k: math.fsum(v) / len(v) for k, v in _grouped(values, categories).items()}
    value = math.fsum(means.values()) / len(means)
    if clusters is None:
        return Metric(value, _stratified(values, categories), len(values))
    random = _nested(categories, clusters)
    sizes = Counter(categories)
    residuals = [
        (x - (value if random else means[k])) / (len(means) * sizes[k]) for x, k in zip(values, categories, strict=True)
    ]
    return Metric(value, _sandwich(residuals, clusters), len(values))


@dataclass(frozen=True, slots=True)
class Paired:
    """The first side minus the second on their shared samples.

    `low` and `high` bound the 95 % interval: normal, or Student's t on G−1 degrees of freedom when clustered. They and
    `stderr` are None when there are fewer than two samples or clusters, and then `p` is 1.0: nothing can be told.
    `wins` counts samples where the first side is higher, `losses` where the second is.
    """

    n: int
    difference: float
    stderr: float | None
    low: float | None
    high: float | None
    p: float
    wins: int
    losses: int
    n_clusters: int | None
    test: str


def paired(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    aggregate: Aggregate = "mean",
    categories: Mapping[str, str] | None = None,
    clusters: Mapping[str, str] | None = None,
) -> Paired | None:
    """Compares two sides on the sample ids that they share; None when they share none.

    The difference is that of the benchmark's own aggregate (macro: mean of category means). The two-sided p-value is
    mid-p McNemar for 0/1 scores averaged over independent samples, else a z test on the paired differences, referred to
    t with G−1 degrees of freedom when clustered.
    """
    ids = list(first.keys() & second.keys())  # in no order: every sum below is exact before it is rounded
    if not ids:
        return None
    differences = [first[i] - second[i] for i in ids]
    groups = [clusters.get(i, i) for i in ids] if clusters else None
    if aggregate == "macro" and categories:
        metric = macro_stderr(differences, [categories.get(i, "") for i in ids], groups)
    else:
        metric = mean_stderr(differences, groups)
    n_clusters = len(set(groups)) if groups else None
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    binary = {0.0, 1.0}.issuperset(map(first.__getitem__, ids)) and {0.0, 1.0}.issuperset(map(second.__getitem__, ids))
    low, high = interval(metric.value, metric.stderr, n_clusters)
    if binary and groups is None and not (aggregate == "macro" and categories):
        p, test = mcnemar(wins, losses, mid=True), "mid-p McNemar"
    else:
        p = _z_test(metric, wins, losses, differences, groups)
        test = "paired z" if n_clusters is None else f"paired t on {n_clusters} clusters"
    return Paired(len(ids), metric.value, metric.stderr, low, high, p, wins, losses, n_clusters, test)


def average_difference(parts: Sequence[Paired]) -> Paired:
    """The mean of the differences on B benchmarks, SE = √(Σ SE_b²) / B, with a two-sided z test.

    The benchmarks count as independent. `stderr` is None when that of any part is. Raises ValueError without parts.
    """
    if not parts:
        raise ValueError("an average over no benchmarks does not exist")
    difference = math.fsum(p.difference for p in parts) / len(parts)
    errors = [p.stderr for p in parts if p.stderr is not None]
    stderr = math.sqrt(math.fsum(e * e for e in errors)) / len(parts) if len(errors) == len(parts) else None
    wins, losses = sum(p.wins for p in parts), sum(p.losses for p in parts)
    low, high = interval(difference, stderr)
    if stderr is None or wins + losses == 0:
        p_value = 1.0
    else:
        p_value = normal_two_sided(difference / stderr) if stderr > 0 else mcnemar(wins, losses)
    n = sum(p.n for p in parts)
    return Paired(n, difference, stderr, low, high, p_value, wins, losses, None, f"z over {len(parts)} benchmarks")


def interval(
    value: float, stderr: float | None, n_clusters: int | None = None, level: float = 0.95
) -> tuple[float, float] | tuple[None, None]:
    """value ± quantile · stderr: normal, or t with n_clusters − 1 degrees of freedom; (None, None) without an error."""
    if stderr is None:
        return None, None
    tail = (1 - level) / 2
    width = stderr * (-NormalDist().inv_cdf(tail) if n_clusters is None else t_quantile(1 - tail, n_clusters - 1))
    return value - width, value + width


def _z_test(
    metric: Metric, wins: int, losses: int, differences: Sequence[float], groups: Sequence[str] | None
) -> float:
    """Two-sided p-value of the hypothesis that the paired difference is zero."""
    if metric.stderr is None or wins + losses == 0:
        return 1.0
    # Equal differences (or cluster means) have no spread, and an infinite z would claim certainty from a handful of
    # samples. What can be claimed is the sign test over the independent units.
    if metric.stderr <= 1e-12 * max(1.0, abs(metric.value)):
        if groups is None:
            return mcnemar(wins, losses)
        sums = [math.fsum(members) for members in _grouped(differences, groups).values()]
        return mcnemar(sum(s > 0 for s in sums), sum(s < 0 for s in sums))
    z = metric.value / metric.stderr
    return normal_two_sided(z) if groups is None else t_two_sided(z, len(set(groups)) - 1)


def _sandwich(residuals: Sequence[float], clusters: Sequence[str] | None) -> float | None:
    """√(G/(G−1) · Σ_c (Σ_{i∈c} r_i)²); without clusters every residual is its own. None when G < 2."""
    if clusters is None:
        sums: Sequence[float] = residuals
    else:
        sums = [math.fsum(members) for members in _grouped(residuals, clusters).values()]
    groups = len(sums)
    if groups < 2:
        return None
    return math.sqrt(groups / (groups - 1) * math.fsum(s * s for s in sums))


def _stratified(values: Sequence[float], categories: Sequence[str]) -> float | None:
    """√(K⁻² Σ_k s_k²/n_k); a category with one value takes the pooled variance. None when no category has two."""
    squares: dict[str, float] = {}
    groups = _grouped(values, categories)
    for name, members in groups.items():
        mean = math.fsum(members) / len(members)
        squares[name] = math.fsum((x - mean) ** 2 for x in members)
    freedom = len(values) - len(groups)
    if freedom == 0:
        # One value per category: nothing is known of the spread inside, so the values are taken as one sample.
        return mean_stderr(values).stderr
    pooled = math.fsum(squares.values()) / freedom
    variances = [
        (squares[name] / (len(members) - 1) if len(members) > 1 else pooled) / len(members)
        for name, members in groups.items()
    ]
    return math.sqrt(math.fsum(variances)) / len(groups)


def _nested(categories: Sequence[str], clusters: Sequence[str]) -> bool:
    """Whether every category lies inside one cluster."""
    return len(set(zip(categories, clusters, strict=True))) == len(set(categories))


def _grouped(values: Sequence[float], keys: Sequence[str]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for key, value in zip(keys, values, strict=True):
        groups[key].append(value)
    return groups
