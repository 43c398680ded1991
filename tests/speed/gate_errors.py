"""How often the gate errs where it must not: clears a drop of its margin, or blocks where nothing dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

import numpy as np

from evalsuite.gate.margins import Spread
from evalsuite.gate.order import Order, order
from evalsuite.gate.policy import Policy
from evalsuite.gate.rule import Seen, Setup, course
from evalsuite.stats.inferiority import even_clusters
from tests.speed.gate_worlds import (
    Floats,
    World,
    binary_world,
    difference_chances,
    graded_looks,
    held_to,
    planned_pair,
    setup_of,
    variance_of,
)

PAIRS = 18  # of the gate that each cell is one pair of
BINARY = [(n, q) for n in (164, 320, 541, 1319, 2500, 6500, 14000) for q in (0.02, 0.05, 0.1, 0.15, 0.2)]
GRADED = [(164, 8), (320, 8), (541, 8), (817, 8), (1319, 4), (2500, 4)]
CLUSTERED = [(6500, 27, 0.0), (6500, 27, 0.01), (6500, 27, 0.03), (14000, 57, 0.01), (9500, 590, 0.05), (5000, 7, 0.01)]
Q = 0.15  # variance of a clustered difference
ORDERS = 40  # of uneven clusters: each has looks and bounds of its own


@dataclass(frozen=True)
class Cell:
    """Shares of runs of one pair: cleared at −margin with blocking off, blocked at 0 with clearing off (× PAIRS).

    Each alone is what is bounded; in a gate the two races shorten each other. `cost` is the share of its items that an
    equal checkpoint takes.
    """

    name: str
    runs: int
    margin: float
    cleared: float
    blocked: float
    cost: float

    @property
    def cleared_error(self) -> float:
        return float(np.sqrt(self.cleared * (1 - self.cleared) / self.runs))

    @property
    def blocked_error(self) -> float:
        share = self.blocked / PAIRS
        return float(PAIRS * np.sqrt(share * (1 - share) / self.runs))


def never_block(setup: Setup) -> Setup:
    return replace(setup, block=np.full_like(setup.block, np.inf), log_e_block=np.inf)


def never_clear(setup: Setup) -> Setup:
    return replace(setup, clear=np.full_like(setup.clear, np.inf), log_e_clear=np.inf)


def binary_cell(policy: Policy, n: int, q: float, runs: int, rng: np.random.Generator) -> Cell:
    """One pair of n items that differ with chance q; q is raised to the margin where a drop of it needs that."""
    planned = np.full((runs, 1), q)
    margin = float(held_to(policy, [(n, 1)], planned[:1], PAIRS)[0].margin[0, 0])
    truth = np.full((runs, 1), max(q, margin))
    zero = np.zeros((runs, 1))
    worse = binary_world(policy, rng, truth, zero - margin, planned=planned, sizes=[n], n_tests=PAIRS)
    equal = binary_world(policy, rng, planned, zero, planned=planned, sizes=[n], n_tests=PAIRS)
    return _cell(f"n {n}, disagreement {q:g}", worse, equal)


def graded_cell(policy: Policy, n: int, k: int, runs: int, rng: np.random.Generator) -> Cell:
    """One pair of n items with K samples each, by the latent model."""
    variance = variance_of(difference_chances(k, 0.0))
    setup, items = held_to(policy, [(n, k)], np.full((1, 1), variance), PAIRS)
    zero = np.zeros((runs, 1))
    worse = graded_looks(rng, setup, items, np.array([k]), zero - float(setup.margin[0, 0]))
    equal = graded_looks(rng, setup, items, np.array([k]), zero)
    return _cell(f"n {n}, K {k}", worse, equal)


def clustered_cell(
    policy: Policy, n: int, groups: int, icc: float, runs: int, rng: np.random.Generator, *, uneven: bool
) -> Cell:
    """One pair of n items in clusters; differences are normal, the share `icc` of their variance is the clusters'."""
    batches = ORDERS if uneven else 1
    worse, equal = [], []
    for _ in range(batches):
        items = clustered_order(_cluster_sizes(n, groups, rng, uneven=uneven), policy.method.looks)
        plan = planned_pair(policy, items, 1, Spread(Q, icc), PAIRS)
        noise = clustered_noise(items, icc, max(1, runs // batches), rng)
        setup = setup_of(policy, [plan], np.array([[plan.margin]]), PAIRS)
        sizes = np.array([items.sizes])
        one = np.ones(1, np.int64)
        worse.append(World(setup, clustered_looks(items, noise, -plan.margin, icc), sizes, one, one))
        equal.append(World(setup, clustered_looks(items, noise, 0.0, icc), sizes, one, one))
    name = f"n {n}, {groups} {'uneven ' if uneven else ''}clusters, ICC {icc:g}"
    return _together(name, [_cell(name, *both) for both in zip(worse, equal, strict=True)])


def _cell(name: str, worse: World, equal: World) -> Cell:
    cleared = course(never_block(worse.setup), worse.looks).promoted
    blocked = course(never_clear(equal.setup), equal.looks).blocked
    cost = equal.cost(course(equal.setup, equal.looks)).mean() / equal.samples[0]
    margin = float(np.mean(worse.setup.margin))
    return Cell(name, len(cleared), margin, float(cleared.mean()), PAIRS * float(blocked.mean()), float(cost))


def _together(name: str, cells: Sequence[Cell]) -> Cell:
    def mean(field: str) -> float:
        return float(np.mean([getattr(c, field) for c in cells]))

    runs = sum(c.runs for c in cells)
    return Cell(name, runs, mean("margin"), mean("cleared"), mean("blocked"), mean("cost"))


def _cluster_sizes(n: int, groups: int, rng: np.random.Generator, *, uneven: bool) -> list[int]:
    """Sizes that add up to n: equal, or in proportion to a Dirichlet(2) draw with at least one item each."""
    shares = rng.dirichlet(np.full(groups, 2.0)) if uneven else np.full(groups, 1 / groups)
    edges = np.round(np.cumsum(shares) * (n - groups)).astype(int)
    return [int(size) + 1 for size in np.diff(edges, prepend=0)]


def clustered_order(cluster_sizes: Sequence[int], n_looks: int) -> Order:
    """The gate's own order of clusters of these sizes; which of them comes first is the hash's choice."""
    clusters = {f"{c}-{i}": f"c{c}" for c, size in enumerate(cluster_sizes) for i in range(size)}
    return order("benchmark", list(clusters), clusters, f"{sum(cluster_sizes[:3]):064x}", n_looks)


def clustered_noise(items: Order, icc: float, runs: int, rng: np.random.Generator) -> Floats:
    """Sums of the differences of each cluster in the gate's order, around 0, (R, G)."""
    s = _lengths(items)
    shared = rng.standard_normal((runs, len(s))) * np.sqrt(icc * Q)
    own = rng.standard_normal((runs, len(s))) * np.sqrt((1 - icc) * Q)
    return np.asarray(s * shared + np.sqrt(s) * own)


def clustered_looks(items: Order, noise: Floats, effect: float, icc: float) -> tuple[Seen, ...]:
    """What the looks see of cluster sums: mean and CR2 error of each prefix of whole clusters; `icc` is the planned."""
    s = _lengths(items)
    sums = noise + s * effect
    ends = {size: g for g, size in enumerate(accumulate(int(x) for x in s), start=1)}
    return tuple(_clustered(sums[:, : ends[size]], s[: ends[size]], icc) for size in items.sizes)


def _clustered(sums: Floats, s: Floats, icc: float) -> Seen:
    """CR2 by sums: SE² = n⁻²·Σ(S_c − s_c·D)²/(1 − s_c/n)."""
    runs = len(sums)
    n = float(s.sum())
    mean = sums.sum(axis=1) / n
    residual = sums - s * mean[:, None]
    apart = np.maximum(1 - s / n, 1e-9)
    stderr = np.sqrt((residual**2 / apart).sum(axis=1)) / n
    groups = even_clusters(s, icc) if len(s) > 1 else 1.0
    half = np.full((runs, 1), n / 2)  # normal differences are never 0
    column = np.full((runs, 1), 1.0)
    return Seen(n * column, half, half, mean[:, None], stderr[:, None], groups * column, column < 0, column)


def _lengths(items: Order) -> Floats:
    assert len(Counter(items.clusters)) == len([0 for _ in groupby(items.clusters)]), "clusters lie together"
    return np.array([float(len(list(members))) for _, members in groupby(items.clusters)])
