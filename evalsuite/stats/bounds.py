"""Bounds of a test that looks several times: how large z must be at each look so that all looks together spend α.

Lan & DeMets spending functions; the bounds come from recursive integration of the path S_t = Z_t·√t.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, assert_never

import numpy as np

from evalsuite.stats.normal import Array, upper_tail, z_of_upper_tail

Spending = Literal["pocock", "obf"]

# 2^13 points over ±9 give the bounds four correct digits; at t ≤ 1 what lies outside weighs less than 1e-18.
_GRID = np.linspace(-9.0, 9.0, 2**13, endpoint=False)
_STEP = float(_GRID[1] - _GRID[0])
_SQUARED_FREQUENCY = (2 * math.pi * np.fft.rfftfreq(len(_GRID), _STEP)) ** 2
_NEGLIGIBLE = 1e-12


def spent(kind: Spending, alpha: float, t: float) -> float:
    """The share of α that may be spent by information time t: α·ln(1+(e−1)t), or 2(1−Φ(Φ⁻¹(1−α/2)/√t))."""
    if t <= 0:
        return 0.0
    match kind:
        case "pocock":
            return alpha * math.log1p((math.e - 1) * min(t, 1.0))
        case "obf":
            return 2 * float(upper_tail(z_of_upper_tail(alpha / 2) / math.sqrt(min(t, 1.0))))
        case _:
            assert_never(kind)


def bounds(kind: Spending, alpha: float, times: tuple[float, ...]) -> tuple[float, ...]:
    """One-sided bounds c_k at the information times, so that P(Z_j ≥ c_j for some j ≤ k) = spent(t_k) under Z ~ N(0,1).

    `math.inf` where nothing may be decided: less than 1e-12 was added to what may be spent. Times are rounded to 1e-4
    and results cached. Raises ValueError unless 0 ≤ t_1 ≤ t_2 ≤ … ≤ 1 and 0 < α < 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha!r}; it lies between 0 and 1")
    rounded = tuple(round(t, 4) for t in times)
    if any(not 0 <= t <= 1 for t in rounded) or list(rounded) != sorted(rounded):
        raise ValueError(f"information times rise from 0 to 1, not {times!r}")
    return _bounds(kind, alpha, rounded)


@lru_cache(maxsize=4096)
def _bounds(kind: Spending, alpha: float, times: tuple[float, ...]) -> tuple[float, ...]:
    found: list[float] = []
    density, now, lost = None, 0.0, 0.0
    for t in times:
        due = spent(kind, alpha, t) - lost
        if due < _NEGLIGIBLE:
            found.append(math.inf)
            continue
        density = _start(t) if density is None else _spread(density, t - now)
        now, lost = t, lost + due
        cut = _cut(density, due)
        found.append(cut / math.sqrt(t))
    return tuple(found)


def _start(t: float) -> Array:
    """The density of S_t on the grid while no look has taken anything away."""
    return np.asarray(np.exp(-(_GRID**2) / (2 * t)) / math.sqrt(2 * math.pi * t))


def _spread(density: Array, duration: float) -> Array:
    """The density after a further N(0, duration), by its characteristic function; no kernel has to be sampled."""
    transformed = np.fft.rfft(density) * np.exp(-_SQUARED_FREQUENCY * duration / 2)
    return np.maximum(np.fft.irfft(transformed, len(density)), 0.0)


def _cut(density: Array, mass: float) -> float:
    """Where the mass above is `mass`; takes it away from `density` in place."""
    # above[i] is the trapezoid mass above grid point i; its logarithm is nearly straight between two points.
    above = (np.cumsum(density[::-1])[::-1] - density / 2) * _STEP
    first = int(np.argmax(above < mass))
    high, low = math.log(above[first - 1]), math.log(max(above[first], 1e-300))
    share = (high - math.log(mass)) / (high - low)
    # The point below the cut keeps its left half cell and the part of the right one that lies below the cut.
    density[first - 1] *= 0.5 + share
    density[first:] = 0.0
    return float(_GRID[first - 1] + share * _STEP)
