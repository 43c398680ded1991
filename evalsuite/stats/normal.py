"""The normal distribution by its upper tail, for floats and arrays. A tail is never formed as 1 − cdf.

Numbers go in as floats or arrays; what comes back is typed as an array and is a NumPy float (a `float`) for a float.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

SMALLEST_TAIL, LARGEST_TAIL = 1e-300, 1 - 1e-16
_erfc = np.frompyfunc(math.erfc, 1, 1)
_quantile = np.frompyfunc(NormalDist().inv_cdf, 1, 1)


def upper_tail(z: ArrayLike) -> Array:
    """P(Z > z) = erfc(z/√2)/2, with all its digits far into the tail; 0 at z = ∞."""
    return np.asarray(0.5 * _erfc(np.asarray(z, np.float64) / math.sqrt(2)), np.float64)[()]


def z_of_upper_tail(p: ArrayLike) -> Array:
    """The z with P(Z > z) = p, always finite: p is first clipped to [1e-300, 1 − 1e-16], so −8.2 ≤ z ≤ 37.05."""
    return np.asarray(0.0 - _quantile(np.clip(np.asarray(p, np.float64), SMALLEST_TAIL, LARGEST_TAIL)), np.float64)[()]
