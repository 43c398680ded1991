"""The decision on one pair after one look, and the course of a whole gate: arrays in, arrays out.

The gate itself, `gate plan` and the simulation behind results/GATE.md all call these functions, so that what is
measured is what decides. A pair is one (benchmark, reference) comparison; the last axis of every array is P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalsuite.stats.inferiority import clustered_z, loss_bound, score_z
from evalsuite.stats.normal import upper_tail

FEW = 10  # discordant items below which a variance says nothing
FEW_GRADED = 30  # the same for graded differences, whose variance rests on their largest ones
OPEN, CLEAR, BLOCK = 0, 1, 2
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """What one look saw; every array has shape (..., P).

    `wins` and `losses` count items where the candidate is higher and lower, `mean` is the mean difference. Where
    `binary` holds the standard error comes from wins and losses; elsewhere it is `stderr`, with `groups` clusters (0:
    independent items). `few` is the p-value that clears a pair of few discordant items that is not binary.
    `log_e_clear` and `log_e_block` are the betting processes' running maxima, for the method that uses them.
    """

    n: Floats
    wins: Floats
    losses: Floats
    mean: Floats
    stderr: Floats
    groups: Floats
    binary: Bools
    few: Floats | None = None
    log_e_clear: Floats | None = None
    log_e_block: Floats | None = None


@dataclass(frozen=True)
class Setup:
    """What P pairs are held to. `clear` and `block` are bounds on z, shape (P, L); inf where a look may not decide.

    `margin` is the allowed drop, `null` the difference that a block must be proven to lie below (0 or −margin). With
    betting a pair also clears at log E ≥ `log_e_clear` and blocks at ≥ `log_e_block`.
    """

    margin: Floats
    null: Floats
    clear: Floats
    block: Floats
    log_e_clear: float = math.inf
    log_e_block: float = math.inf

    @property
    def n_looks(self) -> int:
        return int(self.clear.shape[-1])


@dataclass(frozen=True)
class Course:
    """How a gate went. `status` is OPEN, CLEAR or BLOCK for each pair and `at` the look (from 0) of that, −1 for none.

    `stop` is the look after which nothing more was asked: the first block, the last clear, or the last look.
    """

    status: NDArray[np.int8]
    at: NDArray[np.int64]
    stop: NDArray[np.int64]

    @property
    def blocked(self) -> Bools:
        found: Bools = (self.status == BLOCK).any(axis=-1)
        return found

    @property
    def promoted(self) -> Bools:
        found: Bools = (self.status == CLEAR).all(axis=-1)
        return found


def z_against(seen: Seen, null: Any) -> Floats:
    """How many standard errors the difference lies above `null`, by the test that fits each pair; finite.

    Binary: the score test. Clustered: t on G−1 degrees of freedom. Graded (several samples an item): t on n−1 with the
    variance under the null, s² + (D − null)²; without the few large losses that an early look has not met, s² is small.
    """
    binary = np.zeros(1)
    if seen.binary.any():
        binary = np.asarray(score_z(seen.wins, seen.losses, seen.n, null), dtype=float)
        if seen.binary.all():
            return binary
    found = np.broadcast_to(binary, np.broadcast_shapes(seen.mean.shape, np.shape(null))).copy()
    other = np.broadcast_to(~seen.binary, found.shape)
    sides = (seen.mean, seen.stderr, seen.groups, seen.n, null)
    mean, stderr, groups, n, against = (np.broadcast_to(a, found.shape)[other] for a in sides)
    clustered = groups > 1
    spread = np.where(clustered, stderr, np.sqrt(np.square(stderr) + np.square(mean - against) / n))
    found[other] = clustered_z(mean, spread, np.where(clustered, groups, np.maximum(n, 2)), against)
    return found


def look(setup: Setup, k: int, seen: Seen) -> tuple[Bools, Bools]:
    """(clear, block) of each pair at look k (from 0), never both: a proven drop wins.

    Fewer than ten discordant items cannot block, and clear by the chance of so few losses at the margin: under a drop
    of m the chance of a loss is at least m, whatever the wins (conservative). Without that, two nearly equal
    checkpoints could never be promoted. Graded differences clear that way below thirty: at eight samples an item a
    normal test of 17 items is wrong half as often again as it says (results/GATE.md).
    """
    discordant = seen.wins + seen.losses
    few = discordant < np.where(seen.binary | (seen.groups > 0), FEW, FEW_GRADED)
    small = np.ones(few.shape)
    n, losses, margin = (np.broadcast_to(a, few.shape)[few] for a in (seen.n, seen.losses, setup.margin))
    small[few] = loss_bound(n, losses, margin)
    if seen.few is not None:
        small = np.where(seen.binary, small, seen.few)
    bound = setup.clear[..., k]
    # Among thousands of items the chance of no loss underflows to 0, which is no more than the tail of a bound of inf.
    rare = np.isfinite(bound) & (small <= upper_tail(bound))
    clear = np.where(few, rare, z_against(seen, -setup.margin) >= bound)
    block = (discordant >= FEW) & (-z_against(seen, setup.null) >= setup.block[..., k])
    if seen.log_e_clear is not None and seen.log_e_block is not None:
        clear |= seen.log_e_clear >= setup.log_e_clear
        block |= (discordant >= FEW) & (seen.log_e_block >= setup.log_e_block)
    return clear & ~block, block


def course(setup: Setup, looks: Sequence[Seen]) -> Course:
    """All looks in order. A decided pair is not tested again, and the run stops at the first block."""
    shape = looks[0].n.shape
    status = np.zeros(shape, dtype=np.int8)
    at = np.full(shape, -1, dtype=np.int64)
    stop = np.full(shape[:-1], len(looks) - 1, dtype=np.int64)
    running = np.ones(shape[:-1], dtype=bool)
    for k, seen in enumerate(looks):
        clear, block = look(setup, k, seen)
        free = (status == OPEN) & running[..., None]
        status = np.where(free & clear, CLEAR, np.where(free & block, BLOCK, status)).astype(np.int8)
        at = np.where(free & (clear | block), k, at)
        ended = running & ((status == BLOCK).any(axis=-1) | (status == CLEAR).all(axis=-1))
        stop = np.where(ended, k, stop)
        running &= ~ended
        if not running.any():
            break
    return Course(status, at, stop)
