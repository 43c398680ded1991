"""Rows that a benchmark draws instead of loading them: which questions are held out for its test set, and that set.

A question is held out or not by its own hash, whoever draws it: training rows and test rows can share none.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

Row = dict[str, str]
Draw = Callable[[random.Random], Row]

ONE_IN = 4  # of all questions, this share is held out


def held_out(question: str) -> bool:
    """Whether a question may stand in a test set alone; the others may be trained on."""
    return int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big") % ONE_IN == 0


def held_out_rows(draw: Draw, seed: str, n: int) -> list[Row]:
    """The first `n` different held-out rows that `draw` gives with this seed; always the same ones."""
    rng, rows = random.Random(seed), dict[str, Row]()
    while len(rows) < n:
        row = draw(rng)
        if held_out(row["question"]):
            rows[row["question"]] = row
    return list(rows.values())
