"""What a test can see before it is run: the margin its items allow, its power, and the items that would do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evalsuite.stats.normal import Array, upper_tail, z_of_upper_tail

DISAGREEMENT, LEAST_DISAGREEMENT = 0.15, 0.05  # variance of one paired 0/1 difference: expected, and never below


def critical(last_clear: float, beta: float, pairs: int) -> float:
    """C = last_clear + Φ⁻¹(1 − β/pairs): a margin of C·SE lets an equal checkpoint clear every pair, but for a share β.

    `last_clear` is the bound of the last look; β is split over the pairs.
    """
    return last_clear + float(z_of_upper_tail(beta / pairs))


def design_effect(sizes: Sequence[int], icc: float) -> float:
    """How many times the variance of a mean grows because items come in clusters: 1 + (Σs²/n − 1)·ICC."""
    n = sum(sizes)
    return 1 + (sum(s * s for s in sizes) / n - 1) * icc if n else 1.0


def intraclass(differences: Array, cluster_index: NDArray[np.integer]) -> float:
    """The intra-cluster correlation by analysis of variance, clipped to [0, 1].

    (MSB − MSW) / (MSB + (s₀ − 1)·MSW) with s₀ = (n − Σs²/n)/(G − 1). 0 where it cannot be known: fewer than two
    clusters, no cluster with two items, or no spread.
    """
    sizes = np.bincount(cluster_index)
    sums = np.bincount(cluster_index, weights=differences)[sizes > 0]
    sizes = sizes[sizes > 0]
    n, groups = len(differences), len(sizes)
    if groups < 2 or n == groups:
        return 0.0
    mean = float(sums.sum()) / n
    between = float(sizes @ (sums / sizes - mean) ** 2)
    within = max(float(np.sum((differences - mean) ** 2)) - between, 0.0)
    msb, msw = between / (groups - 1), within / (n - groups)
    usual_size = (n - float(sizes @ sizes) / n) / (groups - 1)
    spread = msb + (usual_size - 1) * msw
    return min(max((msb - msw) / spread, 0.0), 1.0) if spread > 0 else 0.0


def k_ratio(k: float) -> float:
    """The variance of an item's difference at K samples over that at one: 0.04 + 0.96/K.

    The first part is the item's own shift between the checkpoints and stays; the second is the noise of sampling. The
    two constants give 1, .52, .28, .16 and .10 at K = 1, 2, 4, 8 and 16 (ours, from a latent model of item difficulty;
    within .02 for agreements of .81 to .87) and extend them to any K.
    """
    if k < 1:
        raise ValueError(f"K is {k!r}; an item is answered at least once")
    return 0.04 + 0.96 / k


def planned_variance(
    k: float = 1,
    *,
    measured: float | None = None,
    disagreement: float = DISAGREEMENT,
    least: float = LEAST_DISAGREEMENT,
) -> float:
    """The variance of d that a margin is planned with: `measured`, else `disagreement` at K; never under `least` at K.

    `measured` comes from an earlier gate with the same K, never from the candidate at hand: a margin cut from its own
    results inflates the error at that margin. The floor leaves exact tests of near-identical checkpoints their room.
    """
    ratio = k_ratio(k)
    return max(disagreement * ratio if measured is None else measured, least * ratio)


def power_at(margin: float, effect: float, se_plan: float, critical_last: float) -> float:
    """P(a pair clears its margin by the last look) where the true difference is `effect`: Φ((m + Δ)/SE − c_L).

    A lower bound for a test with several looks: earlier looks only add chances to clear.
    """
    return float(upper_tail(critical_last - (margin + effect) / se_plan))


def items_needed(
    variance: float, margin: float, critical_last: float, power: float, *, effect: float = 0.0, deff: float = 1.0
) -> int:
    """The fewest items with `power_at` ≥ power: ⌈(c_L + z_power)²·v·deff / (m + Δ)²⌉. `variance` is that of one d."""
    if margin + effect <= 0:
        raise ValueError(f"no number of items clears a margin of {margin!r} where the true difference is {effect!r}")
    multiple = critical_last - float(z_of_upper_tail(power))
    return max(1, math.ceil(multiple**2 * variance * deff / (margin + effect) ** 2)) if multiple > 0 else 1
