"""Evidence that may be looked at after every item: the wealth of bets against "the mean difference is at most μ₀".

Under the hypothesis no strategy is expected to gain, so P(the wealth ever reaches 1/α) ≤ α (Ville), however the looks
are chosen (Waudby-Smith & Ramdas, arXiv 2010.09686). Ten fixed stakes are held side by side and their wealth averaged.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from evalsuite.stats.normal import Array

Side = Literal["clear", "block"]

_STAKES = np.geomspace(0.01, 0.8, 10)


def log_e_counts(wins: ArrayLike, losses: ArrayLike, ties: ArrayLike, null: ArrayLike, side: Side = "clear") -> Array:
    """log E after so many wins (d = 1), losses (d = −1) and ties; a `float` for floats, arrays broadcast.

    `clear` bets that the mean lies above the null, `block` that it lies below.
    """
    counts = (np.asarray(x, np.float64)[..., np.newaxis] for x in (wins, losses, ties))
    null = np.asarray(null, np.float64)[..., np.newaxis]
    bets = _bets(null, side)
    gains = (np.log1p(bets * (d - null)) for d in (1, -1, 0))
    return _average(sum((n * gain for n, gain in zip(counts, gains, strict=True)), np.zeros(1)))


def log_e(differences: Array, null: float, side: Side = "clear") -> Array:
    """log E after each of the differences in [−1, 1], in their order; its running maximum may be used."""
    shifted = np.asarray(differences, np.float64)[:, np.newaxis] - null
    return _average(np.cumsum(np.log1p(_bets(np.float64(null), side) * shifted), axis=0))


def _bets(null: ArrayLike, side: Side) -> Array:
    """The ten stakes; the largest loses .8 of the wealth at worst, so that no wealth becomes zero or negative."""
    stakes = _STAKES / (1 + np.abs(null))
    return np.asarray(stakes if side == "clear" else -stakes)


def _average(logs: Array) -> Array:
    return np.asarray(np.logaddexp.reduce(logs, axis=-1) - np.log(len(_STAKES)))[()]
