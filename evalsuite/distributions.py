"""Tail probabilities that the tests need, without scipy: binomial at one half, Student's t, normal, chi-squared."""

from __future__ import annotations

import math


def mcnemar(wins: int, losses: int, *, mid: bool = False) -> float:
    """Two-sided p-value that wins and losses are equally likely: exact binomial, or its mid-p (half the tie's weight).

    Exact: min(1, 2·P(X ≤ k)) with X ~ Bin(w+l, ½) and k = min(w, l). Mid-p: 2·(P(X < k) + ½·P(X = k)), less
    conservative and close to the nominal level (Fagerland, Lydersen & Laake 2013).
    """
    n, k = wins + losses, min(wins, losses)
    if n == 0 or wins == losses:
        return 1.0
    at = binomial_half(n, k)
    below = math.fsum(binomial_half(n, i) for i in range(k))
    return min(1.0, 2 * (below + at / 2)) if mid else min(1.0, 2 * (below + at))


def t_two_sided(t: float, df: float) -> float:
    """P(|T| ≥ |t|) for Student's t. Never formed as 1 − cdf, so small p-values keep their digits."""
    if math.isinf(t):
        return 0.0
    return incomplete_beta(df / (df + t * t), df / 2, 0.5)


def t_quantile(probability: float, df: float) -> float:
    """The t with P(T ≤ t) = probability, by bisection on the tail; `probability` lies strictly between 0 and 1."""
    if probability < 0.5:
        return -t_quantile(1 - probability, df)
    tail = 2 * (1 - probability)
    low, high = 0.0, 1.0
    while t_two_sided(high, df) > tail:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_two_sided(middle, df) > tail else (low, middle)
    return (low + high) / 2


def normal_two_sided(z: float) -> float:
    """P(|Z| ≥ |z|) for the standard normal."""
    return math.erfc(abs(z) / math.sqrt(2))


def chi_squared_tail(x: float, df: int) -> float:
    """P(χ²_df ≥ x) for a whole number of degrees of freedom: one or two, and two more with every further term."""
    if x <= 0:
        return 1.0
    half, odd = x / 2, df % 2
    first = math.erfc(math.sqrt(half)) if odd else math.exp(-half)
    terms = [half ** (j / 2) * math.exp(-half - math.lgamma(j / 2 + 1)) for j in range(2 - odd, df, 2)]
    return min(1.0, math.fsum([first, *terms]))


def binomial_half(n: int, k: int) -> float:
    """P(X = k) for X ~ Bin(n, ½), through logarithms: 2**-n underflows at 1,075 discordant pairs."""
    return math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction in Lentz's form (DLMF 8.17.22)."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    # The fraction converges fast only left of the mean; the symmetry I_x(a,b) = 1 − I_{1−x}(b,a) gives the other side.
    if x > (a + 1) / (a + b + 2):
        return 1.0 - incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d, tiny)
            c = _away_from_zero(1 + term / c, tiny)
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return math.exp(log_front) * fraction / a


def _away_from_zero(x: float, tiny: float) -> float:
    return x if abs(x) > tiny else tiny
