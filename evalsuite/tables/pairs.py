"""Every two rows of a table on their shared samples: ids are joined once a column, and each test is array arithmetic.

The formulas are those of `evalsuite.compare.compare_results`, which joins one pair at a time by dictionary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evalsuite.compare import is_mean
from evalsuite.distributions import mcnemar, normal_two_sided, t_two_sided
from evalsuite.scorecard import Result

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Difference:
    """The first row minus the second. `wins` and `losses` count samples, `units` the independent groups of them.

    `n_clusters` is None where samples are independent; `exact` where all scores are 0 or 1 as well and the number is
    their plain mean, so that wins against losses is the whole story.
    """

    value: float
    stderr: float | None
    wins: int
    losses: int
    units: tuple[int, int]
    n_clusters: int | None = None
    exact: bool = False

    @cached_property
    def p(self) -> float:
        """Two-sided p-value that there is no difference, as `evalsuite.stats.paired` and `average_difference` say."""
        if self.exact:
            return mcnemar(self.wins, self.losses, mid=True)
        if self.stderr is None or self.wins + self.losses == 0:
            return 1.0
        if self.stderr <= 1e-12 * max(1.0, abs(self.value)):
            return mcnemar(*self.units)
        z = self.value / self.stderr
        return normal_two_sided(z) if self.n_clusters is None else t_two_sided(z, self.n_clusters - 1)


class Pairs:
    """Differences of rows by number; a column maps to the result of each row, None where it has none."""

    def __init__(self, columns: Mapping[str, Sequence[Result | None]]) -> None:
        self._columns = columns
        self._joined: dict[tuple[str, ...], _Joined] = {}
        self._known: dict[tuple[str, int, int], Difference | None] = {}
        self._means: dict[int, bool] = {}

    def column(self, column: str, first: int, second: int) -> Difference | None:
        """First minus second in one column; None without a shared sample."""
        if first > second:
            mirrored = self.column(column, second, first)
            return _mirrored(mirrored) if mirrored is not None else None
        key = column, first, second
        if key not in self._known:
            self._known[key] = self._difference((column,), self._columns[column], first, second)
        return self._known[key]

    def by_samples(self, column: str, rows: Iterable[int]) -> bool:
        """Whether samples tell which of these rows' numbers is better: each is the mean of its samples' scores."""
        return all(
            result is not None and self._is_mean(result) for result in map(self._columns[column].__getitem__, rows)
        )

    def average(self, columns: Collection[str], first: int, second: int) -> Difference | None:
        """The mean of the columns' differences, the columns being independent; None when one of them has none."""
        return _mean([self.column(column, first, second) for column in columns])

    def _difference(
        self, path: tuple[str, ...], results: Sequence[Result | None], first: int, second: int
    ) -> Difference | None:
        a, b = results[first], results[second]
        if a is None or b is None:
            return None
        if a.members and b.members:
            parts = []
            for member in a.members:
                of = [_member(result, member.benchmark) for result in results]
                parts.append(self._difference((*path, member.benchmark), of, first, second))
            return _mean(parts)
        if not (self._is_mean(a) and self._is_mean(b)):
            return _apart(a, b)
        if path not in self._joined:
            self._joined[path] = _join(results)
        return _paired(self._joined[path], first, second)

    def _is_mean(self, result: Result) -> bool:
        if id(result) not in self._means:
            self._means[id(result)] = is_mean(result)
        return self._means[id(result)]


@dataclass(frozen=True)
class _Joined:
    """Scores (row, sample) with NaN where a row lacks the sample; group numbers by sample, None without groups."""

    scores: Floats
    binary: tuple[bool, ...]
    categories: Codes | None
    clusters: Codes | None


def _mirrored(difference: Difference) -> Difference:
    wins, losses = difference.units
    return replace(
        difference, value=-difference.value, wins=difference.losses, losses=difference.wins, units=(losses, wins)
    )


def _member(result: Result | None, benchmark: str) -> Result | None:
    return next((m for m in result.members if m.benchmark == benchmark), None) if result is not None else None


def _mean(parts: Sequence[Difference | None]) -> Difference | None:
    """As `evalsuite.stats.average_difference`."""
    there = [part for part in parts if part is not None]
    if not there or len(there) < len(parts):
        return None
    errors = [part.stderr for part in there if part.stderr is not None]
    stderr = math.sqrt(math.fsum(e * e for e in errors)) / len(there) if len(errors) == len(there) else None
    wins, losses = sum(part.wins for part in there), sum(part.losses for part in there)
    value = math.fsum(part.value for part in there) / len(there)
    return Difference(value, stderr, wins, losses, (wins, losses))


def _apart(first: Result, second: Result) -> Difference | None:
    """The difference of two numbers that are no means of samples (a length-controlled win rate), as if unpaired.

    Both were measured against the same answers, so the true error is smaller and this claims too little, never too
    much. None when they share no sample or an error is unknown.
    """
    if not first.scores.keys() & second.scores.keys() or first.stderr is None or second.stderr is None:
        return None
    value = (first.value or 0.0) - (second.value or 0.0)
    return Difference(value, math.hypot(first.stderr, second.stderr), int(value > 0), int(value < 0), (0, 0))


def _join(results: Sequence[Result | None]) -> _Joined:
    there = [result for result in results if result is not None]
    ids, scores = _matrix(results)
    binary = tuple(bool(np.all((row == 0) | (row == 1) | np.isnan(row))) for row in scores)
    macro = any(result.aggregate == "macro" for result in there)
    categories: dict[str, str] = {}
    clusters: dict[str, str] = {}
    for result in there:
        categories |= result.categories if macro else {}
        clusters |= result.clusters
    return _Joined(
        scores,
        binary,
        _codes([categories.get(i, "") for i in ids]) if categories else None,
        _codes([clusters.get(i, i) for i in ids]) if clusters else None,
    )


def _matrix(results: Sequence[Result | None]) -> tuple[list[str], Floats]:
    """(ids, scores (row, id)). Rows mostly hold the same ids in the same order, and then nothing is looked up."""
    ids = next(list(result.scores) for result in results if result is not None)
    alike = [result is not None and list(result.scores) == ids for result in results]
    odd = [result for result, same in zip(results, alike, strict=True) if result is not None and not same]
    ids = list(dict.fromkeys([*ids, *(i for result in odd for i in result.scores)]))
    place = {sample: i for i, sample in enumerate(ids)} if odd else {}
    scores = np.full((len(results), len(ids)), np.nan)
    for row, (result, same) in enumerate(zip(results, alike, strict=True)):
        if result is not None:
            n = len(result.scores)
            at = slice(n) if same else np.fromiter(map(place.__getitem__, result.scores), np.intp, n)
            scores[row, at] = np.fromiter(result.scores.values(), np.float64, n)
    return ids, scores


def _codes(names: Sequence[str]) -> Codes:
    known: dict[str, int] = {}
    return np.fromiter((known.setdefault(name, len(known)) for name in names), np.intp, len(names))


def _paired(joined: _Joined, first: int, second: int) -> Difference | None:
    differences = joined.scores[first] - joined.scores[second]
    categories, clusters = joined.categories, joined.clusters
    shared = ~np.isnan(differences)
    if not shared.all():
        differences = differences[shared]
        categories = categories[shared] if categories is not None else None
        clusters = clusters[shared] if clusters is not None else None
    if not differences.size:
        return None
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    exact = joined.binary[first] and joined.binary[second] and categories is None and clusters is None
    flat = Difference(0.0, None, wins, losses, (wins, losses), None, exact)
    if clusters is not None:
        sums = np.bincount(clusters, differences)
        n_clusters = int(np.count_nonzero(np.bincount(clusters)))
        flat = replace(flat, units=(int((sums > 0).sum()), int((sums < 0).sum())), n_clusters=n_clusters)
    value, stderr = (
        _macro(differences, categories, clusters) if categories is not None else _plain(differences, clusters)
    )
    return replace(flat, value=value, stderr=stderr)


def _plain(differences: Floats, clusters: Codes | None) -> tuple[float, float | None]:
    """As `evalsuite.stats.mean_stderr`."""
    mean = float(differences.mean())
    return mean, _sandwich((differences - mean) / len(differences), clusters)


def _macro(differences: Floats, categories: Codes, clusters: Codes | None) -> tuple[float, float | None]:
    """As `evalsuite.stats.macro_stderr`, in its three cases."""
    sizes = np.bincount(categories)
    present = sizes > 0
    k = int(present.sum())
    means = np.bincount(categories, differences) / np.maximum(sizes, 1)
    value = float(means[present].mean())
    inside = differences - means[categories]
    if clusters is None:
        return value, _stratified(differences, inside, categories, sizes, k)
    pairs = len(np.unique(categories * (int(clusters.max()) + 1) + clusters))
    residuals = (differences - value if pairs == k else inside) / (k * sizes[categories])
    return value, _sandwich(residuals, clusters)


def _stratified(differences: Floats, inside: Floats, categories: Codes, sizes: Codes, k: int) -> float | None:
    freedom = len(differences) - k
    if freedom == 0:
        return _plain(differences, None)[1]
    squares = np.bincount(categories, inside * inside)
    own = squares / np.maximum(sizes - 1, 1)
    variances = np.where(sizes > 1, own, squares.sum() / freedom) / np.maximum(sizes, 1)
    return math.sqrt(float(variances[sizes > 0].sum())) / k


def _sandwich(residuals: Floats, clusters: Codes | None) -> float | None:
    """√(G/(G−1) · Σ_c (Σ_{i∈c} r_i)²); None when G < 2."""
    sums = residuals if clusters is None else np.bincount(clusters, residuals)
    groups = len(residuals) if clusters is None else int(np.count_nonzero(np.bincount(clusters)))
    return math.sqrt(groups / (groups - 1) * float(sums @ sums)) if groups > 1 else None
