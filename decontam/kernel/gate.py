"""The gate: which lines or messages hold a word window that a flagged message must hold.

Of every instance's windows enough are kept that no message can be flagged without one of them (see index.gate); each
kept window is known by a key, one run of five words in it, or three, two, one where its phrase is short. Where a key
stands, the hashes of a whole phrase that it serves must stand too. So a text that does not pass cannot be flagged, and
what the gate passes is judged exactly later.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from decontam.kernel.bits import rotate
from decontam.kernel.jsonl import HIT
from decontam.kernel.words import BACKSLASH, PRIME, STEP, U, tokenise

STRETCH = 1 << 14  # bytes that are tokenised at a time, so that everything stays in the first caches
CARRIED = 16  # words before a stretch that its first phrases may begin with
AT_ONCE = 3 << 10  # words after which short texts are looked up together
SHIFT, COUNT, LOW32 = U(20), U((1 << 20) - 1), U(0xFFFFFFFF)
ORDERS = (5, 3, 2, 1)  # words in a key


@njit(cache=True, nogil=True)
def keys_of(hashes: Any, first: Any, n: Any, order: Any, keys: Any) -> None:
    """keys[j] of the window of `order` words that ends at word j, order - 1 <= first <= j < n (see words.window_key).

    Slices, because a loop over them becomes vector code: an index that could be negative keeps it from that.
    """
    if first >= n:
        return
    made, a = keys[first:n], hashes[first:n]
    if order == 1:
        for j in range(made.size):
            made[j] = a[j] * PRIME | U(1)
        return
    b = hashes[first - 1 : n - 1]
    if order == 2:
        for j in range(made.size):
            made[j] = (a[j] + rotate(b[j], 1 + STEP)) * PRIME | U(1)
        return
    c = hashes[first - 2 : n - 2]
    if order == 3:
        for j in range(made.size):
            made[j] = (a[j] + rotate(b[j], 1 + STEP) + rotate(c[j], 1 + 2 * STEP)) * PRIME | U(1)
        return
    d = hashes[first - 3 : n - 3]
    if order == 4:
        for j in range(made.size):
            key = a[j] + rotate(b[j], 1 + STEP) + rotate(c[j], 1 + 2 * STEP) + rotate(d[j], 1 + 3 * STEP)
            made[j] = key * PRIME | U(1)
        return
    e = hashes[first - 4 : n - 4]
    for j in range(made.size):
        key = a[j] + rotate(b[j], 1 + STEP) + rotate(c[j], 1 + 2 * STEP) + rotate(d[j], 1 + 3 * STEP)
        made[j] = (key + rotate(e[j], 1 + 4 * STEP)) * PRIME | U(1)


@njit(cache=True, nogil=True, inline="always")
def in_table(table: Any, base: Any, mask: Any, key: Any) -> Any:
    """Slot of the key, or -1, in the open-addressing table of mask + 1 slots from `base` on; an empty slot is 0.

    A slot is a key and what it stands for, side by side: the first of its entries << 20 | how many.
    """
    slot = (key >> U(20)) & mask
    while table[base + slot, 0]:
        if table[base + slot, 0] == key:
            return np.int64(base + slot)
        slot = (slot + U(1)) & mask
    return np.int64(-1)


@njit(cache=True, nogil=True, inline="always")
def sieve(keys: Any, first: Any, n: Any, bitmap: Any, base: Any, mask: Any, left: Any) -> Any:
    """Writes the indices first <= j < n whose key's two bits, of mask + 1 from word `base` on, are set; their number.

    Both bits of a key stand in one word, so that a key costs one access to memory (see index.tables).
    """
    k = 0
    for j in range(first, n):  # no branch hangs on the data
        key = keys[j]
        word = bitmap[base + (((key >> U(40)) & mask) >> U(6))]
        left[k] = j
        k += np.int64((word >> ((key >> U(40)) & U(63))) & (word >> ((key >> U(34)) & U(63))) & U(1))
    return k


@njit(cache=True, nogil=True, inline="always")
def check_of(hashes: Any, at: Any, n: Any) -> Any:
    """A hash over the hashes of the n words from word `at` on."""
    check = U(0)
    for w in range(n):
        check = (check ^ hashes[at + w]) * PRIME
    return check


@njit(cache=True, nogil=True)
def stands(hashes: Any, last: Any, n: Any, more: Any, entries: Any, first: Any, count: Any) -> Any:
    """Whether a phrase of a key, whose last word is word `last`, may stand there whole.

    A row of `entries` is the check of a phrase, and the place in it of the last word of the key << 32 | its words. With
    `more` there are words before the first and after the n-th that are not at hand; they are taken to fit.
    """
    for e in range(first, first + count):
        size = np.int64(entries[e, 1] & LOW32)
        at = last - np.int64(entries[e, 1] >> U(32))
        if at < 0 or at + size > n:
            if more:
                return True
        elif check_of(hashes, at, size) == entries[e, 0]:
            return True
    return False


@njit(cache=True, nogil=True)
def mark(
    hashes: Any, begins: Any, first: Any, n: Any, more: Any, orders: Any, bitmap: Any, table: Any, entries: Any,
    keys: Any, left: Any, starts: Any, line: Any, n_lines: Any, status: Any,
) -> None:  # fmt: skip
    """Sets HIT on the lines, from `line` on, in which a phrase of a key stands that ends at one of the words from
    `first` on. A row of `orders` is words of a key and where the bitmap and the table of that order lie, see `tables`.
    """
    for o in range(orders.shape[0]):
        order = np.int64(orders[o, 0])
        begin = min(n, max(first, order - 1))
        keys_of(hashes, begin, n, order, keys)
        at = line
        for c in range(sieve(keys, begin, n, bitmap, orders[o, 1], orders[o, 2], left)):
            j = np.int64(left[c])
            slot = in_table(table, orders[o, 3], orders[o, 4], keys[j])
            if slot < 0:
                continue
            while at + 1 < n_lines and starts[at + 1] <= begins[j]:
                at += 1
            told = table[slot, 1]
            if not status[at] & HIT and stands(
                hashes, j, n, more, entries, np.int64(told >> SHIFT), np.int64(told & COUNT)
            ):
                status[at] |= HIT


@njit(cache=True, nogil=True)
def gate_lines(
    buf: Any, end: Any, separators: Any, lower: Any, starts: Any, n_lines: Any, status: Any,
    orders: Any, bitmap: Any, table: Any, entries: Any,
    mask: Any, hashes: Any, begins: Any, ends: Any, keys: Any, left: Any, side: Any,
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
        if stop - i + CARRIED + 1 > hashes.size:
            return stop - i + CARRIED + 1
        n = tokenise(buf, i, stop, True, separators, lower, mask, side, hashes, begins, ends, CARRIED)
        while line + 1 < n_lines and starts[line + 1] <= i:
            line += 1
        mark(
            hashes, begins, CARRIED, n, True, orders, bitmap, table, entries, keys, left, starts, line, n_lines, status,
        )  # fmt: skip
        for k in range(CARRIED):
            hashes[k], begins[k] = hashes[n - CARRIED + k], begins[n - CARRIED + k]
        i = stop
    return 0


@njit(cache=True, nogil=True)
def gate_texts(
    buf: Any, text_starts: Any, text_stops: Any, separators: Any, lower: Any, passed: Any,
    orders: Any, bitmap: Any, table: Any, entries: Any,
    mask: Any, hashes: Any, begins: Any, ends: Any, keys: Any, left: Any, side: Any,
) -> Any:  # fmt: skip
    """passed[t] = HIT for the decoded texts that hold a key. Returns 0, or the room the scratch arrays need."""
    one = np.zeros(1, np.int64)
    for t in range(text_starts.size):
        start, stop = text_starts[t], text_stops[t]
        if stop - start + 1 > hashes.size:
            return stop - start + 1
        n = tokenise(buf, start, stop, False, separators, lower, mask, side, hashes, begins, ends, 0)
        mark(
            hashes, begins, 0, n, False, orders, bitmap, table, entries, keys, left, one, 0, 1, passed[t : t + 1],
        )  # fmt: skip
    return 0


@njit(cache=True, nogil=True)
def gate_spans(
    buf: Any, spans: Any, separators: Any, lower: Any, starts: Any, n_lines: Any, status: Any,
    orders: Any, bitmap: Any, table: Any, entries: Any,
    mask: Any, hashes: Any, begins: Any, ends: Any, keys: Any, left: Any, side: Any,
) -> Any:  # fmt: skip
    """The same for the raw JSON strings `spans` alone. Windows that reach over two strings only pass too much."""
    n, line, span = 0, 0, 0
    while span < spans.shape[0]:
        start, stop = spans[span, 0], spans[span, 1]
        room = n + stop - start + 1
        if room <= hashes.size and n < AT_ONCE:
            n = tokenise(buf, start, stop, True, separators, lower, mask, side, hashes, begins, ends, n)
            span += 1
            if span < spans.shape[0]:
                continue
        elif n == 0:
            return room
        while line + 1 < n_lines and starts[line + 1] <= begins[0] and n:
            line += 1
        mark(
            hashes, begins, 0, n, False, orders, bitmap, table, entries, keys, left, starts, line, n_lines, status,
        )  # fmt: skip
        n = 0
    return 0
