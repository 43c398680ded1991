"""The gate: which lines or messages hold a word window that a flagged message must hold.

Of every instance's windows enough are kept that no message can be flagged without one of them (see index.gate); each
kept window is known by one run of five words in it, or three, two, one where its phrase is short. So a text without a
key cannot be flagged, and what the gate passes is judged exactly later.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from decontam.kernel.bits import rotate
from decontam.kernel.jsonl import HIT
from decontam.kernel.words import BACKSLASH, PRIME, STEP, U, tokenise

STRETCH = 1 << 14  # bytes that are tokenised at a time, so that everything stays in the first caches
CARRIED = 4  # words before a stretch that its first windows need
ORDERS = (5, 3, 2, 1)  # words in a key


@njit(cache=True, nogil=True)
def keys_of(hashes: Any, first: Any, n: Any, order: Any, keys: Any) -> None:
    """keys[j] of the window of `order` words that ends at word j, first <= j < n (see words.window_key)."""
    if order == 5:
        for j in range(first, n):
            key = hashes[j] + rotate(hashes[j - 1], 1 + STEP) + rotate(hashes[j - 2], 1 + 2 * STEP)
            key += rotate(hashes[j - 3], 1 + 3 * STEP) + rotate(hashes[j - 4], 1 + 4 * STEP)
            keys[j] = key * PRIME | U(1)
    elif order == 4:
        for j in range(first, n):
            key = hashes[j] + rotate(hashes[j - 1], 1 + STEP) + rotate(hashes[j - 2], 1 + 2 * STEP)
            keys[j] = (key + rotate(hashes[j - 3], 1 + 3 * STEP)) * PRIME | U(1)
    elif order == 3:
        for j in range(first, n):
            key = hashes[j] + rotate(hashes[j - 1], 1 + STEP) + rotate(hashes[j - 2], 1 + 2 * STEP)
            keys[j] = key * PRIME | U(1)
    elif order == 2:
        for j in range(first, n):
            keys[j] = (hashes[j] + rotate(hashes[j - 1], 1 + STEP)) * PRIME | U(1)
    else:
        for j in range(first, n):
            keys[j] = hashes[j] * PRIME | U(1)


@njit(cache=True, nogil=True, inline="always")
def in_table(table: Any, key: Any) -> Any:
    """Slot of the key in an open-addressing table whose size is a power of two and whose empty slots are 0; or -1."""
    mask = U(table.size - 1)
    slot = (key >> U(20)) & mask
    while table[slot]:
        if table[slot] == key:
            return np.int64(slot)
        slot = (slot + U(1)) & mask
    return np.int64(-1)


@njit(cache=True, nogil=True, inline="always")
def sieve(keys: Any, first: Any, n: Any, bitmap: Any, left: Any) -> Any:
    """Writes the indices first <= j < n whose key's bit is set; their number. No branch hangs on the data."""
    mask = U(bitmap.size * 64 - 1)
    k = 0
    for j in range(first, n):
        bit = (keys[j] >> U(40)) & mask
        left[k] = j
        k += np.int64((bitmap[bit >> U(6)] >> (bit & U(63))) & U(1))
    return k


@njit(cache=True, nogil=True)
def mark(
    hashes: Any, begins: Any, first: Any, n: Any, order: Any, bitmap: Any, table: Any, keys: Any, left: Any,
    starts: Any, line: Any, n_lines: Any, status: Any,
) -> None:  # fmt: skip
    """Sets HIT on the lines, from `line` on, in which a window of `order` words ends whose key is in the table."""
    keys_of(hashes, first, n, order, keys)
    for c in range(sieve(keys, first, n, bitmap, left)):
        j = left[c]
        if in_table(table, keys[j]) < 0:
            continue
        while line + 1 < n_lines and starts[line + 1] <= begins[j]:
            line += 1
        status[line] |= HIT


@njit(cache=True, nogil=True)
def gate_lines(
    buf: Any, end: Any, separators: Any, lower: Any, starts: Any, n_lines: Any, status: Any,
    bitmap5: Any, table5: Any, bitmap3: Any, table3: Any, bitmap2: Any, table2: Any, bitmap1: Any, table1: Any,
    gaps: Any, hashes: Any, begins: Any, ends: Any, keys: Any, left: Any, side: Any,
) -> Any:  # fmt: skip
    """Sets HIT on the raw JSON lines of buf[:end] that hold a key. Returns 0, or the room the scratch arrays need."""
    i, line = 0, 0
    for k in range(CARRIED):
        hashes[k], begins[k] = U(0), 0
    while i < end:
        stop = min(i + STRETCH, end)
        # A stretch ends after a separator that no backslash could have escaped.
        while stop < end and not (
            separators[buf[stop - 1]] and buf[stop - 1] != BACKSLASH and buf[stop - 2] != BACKSLASH
        ):
            stop += 1
        if stop - i + CARRIED + 1 > gaps.size:
            return stop - i + CARRIED + 1
        n = tokenise(buf, i, stop, True, separators, lower, gaps, side, hashes, begins, ends, CARRIED)
        while line + 1 < n_lines and starts[line + 1] <= i:
            line += 1
        if table5.size:
            mark(hashes, begins, CARRIED, n, 5, bitmap5, table5, keys, left, starts, line, n_lines, status)
        if table3.size:
            mark(hashes, begins, CARRIED, n, 3, bitmap3, table3, keys, left, starts, line, n_lines, status)
        if table2.size:
            mark(hashes, begins, CARRIED, n, 2, bitmap2, table2, keys, left, starts, line, n_lines, status)
        if table1.size:
            mark(hashes, begins, CARRIED, n, 1, bitmap1, table1, keys, left, starts, line, n_lines, status)
        for k in range(CARRIED):
            hashes[k], begins[k] = hashes[n - CARRIED + k], begins[n - CARRIED + k]
        i = stop
    return 0


@njit(cache=True, nogil=True)
def gate_texts(
    buf: Any, text_starts: Any, text_stops: Any, separators: Any, lower: Any, passed: Any,
    bitmap5: Any, table5: Any, bitmap3: Any, table3: Any, bitmap2: Any, table2: Any, bitmap1: Any, table1: Any,
    gaps: Any, hashes: Any, begins: Any, ends: Any, keys: Any, left: Any, side: Any,
) -> Any:  # fmt: skip
    """passed[t] = HIT for the decoded texts that hold a key. Returns 0, or the room the scratch arrays need."""
    one = np.zeros(1, np.int64)
    for t in range(text_starts.size):
        start, stop = text_starts[t], text_stops[t]
        if stop - start + 1 > gaps.size:
            return stop - start + 1
        n = tokenise(buf, start, stop, False, separators, lower, gaps, side, hashes, begins, ends, 0)
        state = passed[t : t + 1]
        if table5.size:
            mark(hashes, begins, min(4, n), n, 5, bitmap5, table5, keys, left, one, 0, 1, state)
        if table3.size:
            mark(hashes, begins, min(2, n), n, 3, bitmap3, table3, keys, left, one, 0, 1, state)
        if table2.size:
            mark(hashes, begins, min(1, n), n, 2, bitmap2, table2, keys, left, one, 0, 1, state)
        if table1.size:
            mark(hashes, begins, 0, n, 1, bitmap1, table1, keys, left, one, 0, 1, state)
    return 0
