"""Tests whether a difference lies above a null value, from counts or from a mean and its error. Arrays broadcast.

A null of −m asks "is the drop smaller than the margin m?", a null of 0 "is there a drop at all?" (by a small z).
Numbers go in as floats or arrays; what comes back is typed as an array and is a NumPy float (a `float`) for floats.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalsuite.stats.normal import SMALLEST_TAIL, Array, z_of_upper_tail

Z_MAX = 38.0  # a tail of 1e-315, beyond what a float holds with all its digits
MANY = 500  # groups above which Student's t is so nearly normal that its z has a short formula
FEW = 10  # discordant items from which a normal approximation is trusted; below, `loss_bound` decides

_lgamma = np.frompyfunc(math.lgamma, 1, 1)


def score_variance(wins: ArrayLike, losses: ArrayLike, n: ArrayLike, null: ArrayLike) -> Array:
    """The variance of one paired 0/1 difference where its mean is `null`: V = 2q + null·(1−null).

    q is the maximum-likelihood P(loss) under P(win) = P(loss) + null (Tango 1998). V is positive unless null = 0 and no
    item is discordant.
    """
    wins, losses, n, null = _floats(wins, losses, n, null)
    # q solves 2n·q² + b·q + c = 0.
    b = (2 * n - wins + losses) * null - (wins + losses)
    c = -losses * null * (1 - null)
    q = (np.sqrt(np.maximum(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    return np.asarray(2 * q + null * (1 - null))[()]


def score_z(wins: ArrayLike, losses: ArrayLike, n: ArrayLike, null: ArrayLike) -> Array:
    """(D − null) / √(V/n) with D = (wins − losses)/n and V the score variance; 0 where V is 0.

    The plug-in variance would let the error at the margin reach 6 % of a nominal 5 on a few hundred items.
    """
    wins, losses, n, null = _floats(wins, losses, n, null)
    variance = np.maximum(score_variance(wins, losses, n, null), 0.0) / n
    return _ratio((wins - losses) / n - null, np.sqrt(variance))


def plain_z(mean: ArrayLike, stderr: ArrayLike, null: ArrayLike) -> Array:
    """(mean − null) / stderr, kept within ±38; 0 where both are 0."""
    mean, stderr, null = _floats(mean, stderr, null)
    return np.clip(_ratio(mean - null, stderr), -Z_MAX, Z_MAX)


def clustered_z(mean: ArrayLike, stderr: ArrayLike, groups: ArrayLike, null: ArrayLike) -> Array:
    """The z whose tail equals that of T = (mean − null)/stderr under Student's t with groups − 1 degrees of freedom.

    Fewer than two groups tell nothing: 0. Groups that do not differ at all have no spread to measure T by; what they
    show is then no more than that every one of them has the same sign, 2^−groups.
    """
    mean, error, count, null = np.broadcast_arrays(*_floats(mean, stderr, groups, null))
    distance = mean - null
    known = count >= 2
    flat = known & (error <= 1e-12 * np.maximum(1.0, np.abs(mean)))
    t = np.abs(np.divide(distance, error, out=np.zeros_like(distance), where=known & ~flat))
    z = np.zeros(t.shape)
    many = known & ~flat & (count > MANY)
    few = known & ~many
    z[many] = _z_of_t(t[many], count[many] - 1)
    z[few] = z_of_upper_tail(np.where(flat[few], 0.5 ** count[few], _t_upper_tail(t[few], count[few] - 1)))
    return np.asarray(np.sign(distance) * z)[()]


def loss_bound(n: ArrayLike, losses: ArrayLike, margin: ArrayLike) -> Array:
    """P(Bin(n, margin) ≤ losses): how rare so few losses are where the mean drops by the margin or more.

    A drop of at least the margin makes a loss at least that likely on every item, whatever the wins. For fewer than 10
    losses; 1, which proves nothing, for more.
    """
    n, losses, margin = _floats(n, losses, margin)
    margin = np.clip(margin, SMALLEST_TAIL, 1 - 1e-16)
    odds = np.log(margin) - np.log1p(-margin)
    # In logarithms: (1−m)^n underflows long before its sum with the next terms is negligible.
    term = n * np.log1p(-margin)
    total = np.where(losses >= 0, term, -np.inf)
    with np.errstate(divide="ignore"):
        for i in range(FEW - 1):
            term = term + np.log(np.maximum(n - i, 0.0) / (i + 1)) + odds
            total = np.where(losses > i, np.logaddexp(total, term), total)
    return np.asarray(np.where(losses < FEW, np.exp(np.minimum(total, 0.0)), 1.0))[()]


def paired_stderr(differences: Array) -> float:
    """√(Σ(d−D)² / (n(n−1))), the error of a mean of independent differences; infinite for fewer than two."""
    n = len(differences)
    if n < 2:
        return math.inf
    return math.sqrt(float(np.sum((differences - differences.mean()) ** 2)) / (n * (n - 1)))


def clustered_stderr(differences: Array, cluster_index: NDArray[np.integer]) -> tuple[float, int]:
    """The error of the mean over G clusters, and G: SE² = G/(G−1) · n⁻² · Σ_c (Σ_{i∈c} (d_i − D))² (CR1).

    `cluster_index[i]` is a number from 0 that names the cluster of item i; numbers without items are no clusters. The
    error is infinite for fewer than two clusters.
    """
    sizes = np.bincount(cluster_index)
    groups = int(np.count_nonzero(sizes))
    if groups < 2:
        return math.inf, groups
    # Sums first, mean later: differences of K samples are multiples of 1/K, so the order of the items changes no digit.
    sums = np.bincount(cluster_index, weights=differences)
    residuals = sums - sizes * (float(sums.sum()) / len(differences))
    return math.sqrt(groups / (groups - 1) * math.fsum(residuals**2)) / len(differences), groups


def cluster_robust(differences: Array, cluster_index: NDArray[np.integer], icc: float) -> tuple[float, float]:
    """The error of the mean over clusters of uneven size, and the number of even clusters that tell as much.

    CR2 (Bell & McCaffrey 2002): SE² = n⁻² Σ_c (Σ_{i∈c} (d_i − D))² / (1 − s_c/n), the CR1 form where all clusters have
    one size s. T is referred to Student's t on `groups` − 1 degrees of freedom, `groups` as in `even_clusters`. With
    CR1 and G − 1, 27 uneven clusters clear a drop of the margin 7 times in 100 at a nominal 5 (results/GATE.md).
    """
    sizes = np.bincount(cluster_index)
    kept = sizes > 0
    if int(kept.sum()) < 2:
        return math.inf, float(kept.sum())
    n = len(differences)
    sums = np.bincount(cluster_index, weights=differences)[kept]
    sizes = sizes[kept]
    residuals = sums - sizes * (float(sums.sum()) / n)
    return math.sqrt(math.fsum(residuals**2 / (1 - sizes / n))) / n, even_clusters(sizes, icc)


def even_clusters(sizes: ArrayLike, icc: float) -> float:
    """1 + the degrees of freedom of CR2 for a mean over clusters of these sizes; G where they are all alike.

    Satterthwaite's f = tr(B)²/tr(B²) with B = D^-½ (I − p1ᵀ) W (I − 1pᵀ) D^-½, p_c = s_c/n, D = diag(1 − p_c), and the
    working variance W = diag(s_c (1 + (s_c − 1)·icc)) of a cluster's sum. At least 2, at most G.
    """
    s = np.asarray(sizes, dtype=float)
    p = s / s.sum()
    w = s * (1 + (s - 1) * icc)
    b = np.diag(w) - np.outer(p, w) - np.outer(w, p) + np.outer(p, p) * w.sum()
    b /= np.sqrt(np.outer(1 - p, 1 - p))
    freedom = float(np.trace(b)) ** 2 / float((b * b).sum())
    return 1 + min(max(freedom, 1.0), len(s) - 1)


def stratified_stderr(differences: Array, stratum_index: NDArray[np.integer]) -> float:
    """The error of the mean "on exactly these strata": SE² = n⁻² Σ_k n_k·s_k², the variance inside strata only.

    A stratum with one item takes the pooled variance; where all have one, nothing is known of the inside and the items
    count as one sample.
    """
    strata = np.unique(stratum_index, return_inverse=True)[1]
    sizes = np.bincount(strata)
    freedom = len(differences) - len(sizes)
    if freedom == 0:
        return paired_stderr(differences)
    means = np.bincount(strata, weights=differences) / sizes
    squares = np.bincount(strata, weights=(differences - means[strata]) ** 2)
    pooled = float(squares.sum()) / freedom
    variances = np.where(sizes > 1, squares / np.maximum(sizes - 1, 1), pooled)
    return math.sqrt(float(sizes @ variances)) / len(differences)


def _floats(*numbers: ArrayLike) -> tuple[Array, ...]:
    return tuple(np.asarray(x, np.float64) for x in numbers)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator; ±∞ over 0, and 0 for 0/0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(numerator == 0.0, 0.0, numerator / denominator))[()]


def _z_of_t(t: Array, df: Array) -> Array:
    """The z with the upper tail of t ≥ 0 under Student's t of many degrees of freedom (Hill 1970, CACM 395).

    From 500 on it is right to 1e-14 below z = 8 and to 1e-7 far out, without a loop.
    """
    a = df - 0.5
    b = 48 * a * a
    y = a * np.log1p(t * t / df)
    series = (((-0.4 * y - 3.3) * y - 24) * y - 85.5) / (0.8 * y * y + 100 + b) + y + 3
    return np.asarray(np.minimum((series / b + 1) * np.sqrt(y), z_of_upper_tail(SMALLEST_TAIL)))


def _t_upper_tail(t: Array, df: Array) -> Array:
    """P(T > t) for t ≥ 0 under Student's t: half of I_x(df/2, 1/2) at x = df/(df + t²)."""
    a, b = df / 2, 0.5
    x = df / (df + t * t)
    # The fraction converges fast only left of the mean; the symmetry I_x(a,b) = 1 − I_{1−x}(b,a) gives the other side,
    # where the tail is large and a difference from 1 costs no digits.
    mirrored = x > (a + 1) / (a + b + 2)
    near, far = np.where(mirrored, b, a), np.where(mirrored, a, b)
    left = _incomplete_beta(np.where(mirrored, t * t / (df + t * t), x), near, far)
    return np.asarray(np.where(mirrored, 1 - left, left) / 2)


def _incomplete_beta(x: Array, a: Array, b: Array) -> Array:
    """I_x(a, b) left of its mean, by the continued fraction in Lentz's form (DLMF 8.17.22), all elements at once."""
    log_beta = np.asarray(_lgamma(a) + _lgamma(b) - _lgamma(a + b), np.float64)
    with np.errstate(divide="ignore"):
        front = np.exp(a * np.log(x) + b * np.log1p(-x) - log_beta) / a
    c, d = np.ones_like(x), 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 1000):
        before = fraction
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            fraction = fraction * c * d
        # The beta function in front has fewer digits; a finer limit is never met by thousands of degrees of freedom.
        if not np.any(np.abs(fraction - before) > 1e-14 * np.abs(fraction)):
            break
    return np.asarray(front * fraction)


def _away_from_zero(x: Array) -> Array:
    return np.where(np.abs(x) > SMALLEST_TAIL, x, SMALLEST_TAIL)
