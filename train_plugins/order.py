"""Which rows an optimizer step has: a function of the seed alone, so that resuming needs no data cursor."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from train_plugins.plan import steps_per_epoch

T = TypeVar("T")


class Order:
    """Every epoch is a permutation of the rows, cut into steps of `batch`; the last step of an epoch may be short.

    `shuffles` holds (step, seed): from that step on, counted from 0, this seed decides. A shuffle in the middle of an
    epoch permutes what is left of it, so that no row is seen twice in one epoch.
    """

    def __init__(self, n_rows: int, batch: int, shuffles: Sequence[tuple[int, int]]) -> None:
        self.n_rows, self.batch = n_rows, batch
        self.shuffles = sorted(shuffles)
        self.steps_per_epoch = steps_per_epoch(n_rows, batch)
        self._epoch: tuple[int, list[int]] = (-1, [])

    def rows(self, step: int) -> tuple[int, ...]:
        """Indices of the rows of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._permuted(epoch)
        return tuple(self._epoch[1][place * self.batch : (place + 1) * self.batch])

    def _permuted(self, epoch: int) -> list[int]:
        begin = epoch * self.steps_per_epoch
        end = begin + self.steps_per_epoch
        before = [seed for step, seed in self.shuffles if step <= begin]
        rows = list(range(self.n_rows))
        random.Random(f"{before[-1]}:{epoch}").shuffle(rows)
        for step, seed in self.shuffles:
            if begin < step < end:
                seen = (step - begin) * self.batch
                left = sorted(rows[seen:])
                random.Random(f"{seed}:{epoch}:{step}").shuffle(left)
                rows[seen:] = left
        return rows


def share(items: Sequence[T], rank: int, processes: int, per_pass: int) -> tuple[tuple[T, ...], ...]:
    """What one process takes of a step, in passes of at most `per_pass`. All processes get as many passes, since each
    pass may need them all; some of the last passes may be empty."""
    unit = processes * per_pass
    starts = range(rank * per_pass, max(1, -(-len(items) // unit)) * unit, unit)
    return tuple(tuple(items[start : start + per_pass]) for start in starts)
