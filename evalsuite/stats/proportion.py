"""One-sided statements on one proportion, and on wins against losses. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from evalsuite.distributions import binomial_half, incomplete_beta


def mcnemar_less(wins: int, losses: int, *, mid: bool = True) -> float:
    """One-sided p-value that wins are no rarer than losses, X ~ Bin(w+l, ½): P(X < w) + ½P(X = w), or exactly P(X ≤ w).

    Without discordant items the mid-p is ½ and the exact value 1.
    """
    n, fewer = wins + losses, min(wins, losses)
    half_tie = binomial_half(n, fewer) / 2
    p = math.fsum([half_tie, *(binomial_half(n, i) for i in range(fewer))])
    if wins > losses:  # the value is above ½, so a difference from 1 costs no digits
        p = 1 - p
    return min(1.0, p if mid else p + half_tie)


def clopper_pearson_lower(hits: int, n: int, level: float = 0.95) -> float:
    """The proportion at which so many hits or more have probability 1 − level: a one-sided exact lower bound."""
    _check(hits, n)
    return 0.0 if hits == 0 else _root(lambda p: incomplete_beta(p, hits, n - hits + 1) > 1 - level)


def clopper_pearson_upper(hits: int, n: int, level: float = 0.95) -> float:
    """The proportion at which so few hits or fewer have probability 1 − level: a one-sided exact upper bound."""
    return 1 - clopper_pearson_lower(n - hits, n, level)


def wilson_lower(hits: int, n: int, level: float = 0.95) -> float:
    """The one-sided lower bound by the score test: the p with (hits/n − p)/√(p(1−p)/n) = z_level."""
    _check(hits, n)
    z = NormalDist().inv_cdf(level)
    share = hits / n
    width = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return max(0.0, (share + z * z / (2 * n) - width) / (1 + z * z / n))


def wilson_upper(hits: int, n: int, level: float = 0.95) -> float:
    """The one-sided upper bound by the score test."""
    return 1 - wilson_lower(n - hits, n, level)


def _check(hits: int, n: int) -> None:
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"{hits!r} hits of {n!r} is no proportion")


def _root(above: Callable[[float], bool]) -> float:
    """Where in (0, 1) a rising condition becomes true, by bisection down to neighbouring floats."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if above(middle) else (middle, high)
    return (low + high) / 2
