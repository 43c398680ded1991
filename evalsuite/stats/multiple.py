"""Many tests at once: corrections for several benchmarks, and for several attempts at one. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evalsuite.distributions import chi_squared_tail


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down adjusted p-values, in the order given: below α exactly where the hypothesis is rejected at α."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = highest
    return tuple(adjusted)


def simes(p_values: Sequence[float]) -> float:
    """The p-value that all hypotheses hold: min_k p_(k)·P/k. Needs independence or positive dependence; 1 for none."""
    return min((p * len(p_values) / k for k, p in enumerate(sorted(p_values), start=1)), default=1.0)


def chi_bar(z: Sequence[float]) -> tuple[float, float]:
    """T = Σ min(z_b, 0)² and its p-value where no z is negative on average; needs independent z.

    P(T ≥ t) = Σ_j C(B,j)·2^−B·P(χ²_j ≥ t): j of the B are negative, each as likely as not. It gathers many small drops
    that no single test sees.
    """
    statistic = math.fsum(min(x, 0.0) ** 2 for x in z)
    if statistic == 0:
        return 0.0, 1.0
    weights = [math.comb(len(z), j) / 2 ** len(z) for j in range(1, len(z) + 1)]
    return statistic, math.fsum(w * chi_squared_tail(statistic, j) for j, w in enumerate(weights, start=1))


def attempt_alpha(alpha: float, t: int) -> float:
    """What attempt t = 1, 2, 3, … may spend: α/(t(t+1)), which over all attempts sums to α."""
    if t < 1:
        raise ValueError(f"attempt {t!r}: the first attempt is 1")
    return alpha / (t * (t + 1))
