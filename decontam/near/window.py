"""The part of a text that is most like a shorter one, exactly, in time that long texts can afford.

`rapidfuzz.fuzz.partial_ratio` is the best ratio of the shorter text and a part of the longer one: each part of equal
length, each shorter one at either end. It looks for it by halving ranges of starts, which takes 3 s for 5,000 in
25,000 characters and minutes for 20,000 in 100,000. Here starts are skipped by another bound that is as exact: what
two texts have in common can only grow with the longer one, so where `a` has fewer than L characters in common with
b[s:e], no part of it of a's length has L. A common subsequence is counted with one addition per 64 characters
(Hyyrö 2004, Bit-parallel LCS-length computation revisited).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

U = np.uint64
ONE, ZERO, ALL = U(1), U(0), U(0xFFFFFFFFFFFFFFFF)
NOTHING = np.int64(0)  # numba compiles a literal 0 as a type of its own
SCALE = 1000  # a cut-off is a whole number of 1/1000 per cent


def best_part(a: str, b: str, cutoff: float, starts: Any) -> tuple[int, int] | None:
    """(from, to) of the part of `b` that is most like `a`, no longer than it; None where no ratio reaches `cutoff`.

    `starts` are places in `b` where it may begin; they save time and decide only among equals.
    """
    symbols = {c: i for i, c in enumerate(dict.fromkeys(a))}
    known = np.full(ord(max(symbols)) + 2, len(symbols), np.uint32)
    known[[ord(c) for c in symbols]] = range(len(symbols))
    a_symbols, b_symbols = (known[np.minimum(_codes(text), known.size - 1)] for text in (a, b))
    start, stop = find_best(a_symbols, b_symbols, len(symbols), int(cutoff * SCALE), np.array(starts))
    return (int(start), int(stop)) if start >= 0 else None


def _codes(text: str) -> Any:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@njit(cache=True, nogil=True)
def find_best(a: Any, b: Any, n_symbols: Any, cutoff: Any, starts: Any) -> Any:
    """(from, to) in `b`, -1 where nothing reaches the cut-off. Symbols are numbers below `n_symbols`, which itself
    stands for all that are not in `a`; `a` is not empty and no longer than `b`."""
    n = a.size
    words = (n + 63) // 64
    masks, state = masks_of(a, n_symbols, words), np.empty(words, np.uint64)
    whole = 100 * SCALE
    need = (cutoff * n + whole - 1) // whole
    last = b.size - n
    best, best_start = climb(masks, b, n, state, starts, last)
    s = NOTHING
    while s <= last and best < n:
        wanted = max(need, best + 1)
        common, reached = common_from(masks, b, s, n, wanted, state)
        if common >= wanted:
            best, best_start = common, s
        s = max(s + 1, reached - n)
    # Shorter parts at the ends: the better of two ratios is that of the larger 2 * common / (length of both).
    start, stop = -1, -1
    top, of, equal = cutoff, whole, True
    if best >= need:
        start, stop, top, of, equal = best_start, best_start + n, 2 * best, 2 * n, False
    if best < n:
        common, length = best_end(masks, b, n, state, top, of, equal)
        if length:
            start, stop, top, of, equal = 0, length, 2 * common, n + length, False
        common, length = best_end(masks_of(a[::-1].copy(), n_symbols, words), b[::-1].copy(), n, state, top, of, equal)
        if length:
            start, stop = b.size - length, b.size
    return start, stop


@njit(cache=True, nogil=True)
def masks_of(a: Any, n_symbols: Any, words: Any) -> Any:
    """For each symbol the bits of its places in `a`, and an empty row for the rest."""
    masks = np.zeros((n_symbols + 1, words), np.uint64)
    for i in range(a.size):
        masks[a[i], i >> 6] |= ONE << U(i & 63)
    return masks


@njit(cache=True, nogil=True)
def advance(masks: Any, symbol: Any, state: Any) -> Any:
    """Takes in one more symbol of b; 1 when the longest common subsequence grew, else 0."""
    carry = ZERO
    for w in range(state.size):
        old = state[w]
        hit = old & masks[symbol, w]
        total = old + hit
        over = U(total < old)
        total += carry
        carry = over | U(total < carry)
        state[w] = total | (old & ~hit)
    return np.int64(carry)


@njit(cache=True, nogil=True)
def common_from(masks: Any, b: Any, start: Any, n: Any, wanted: Any, state: Any) -> Any:
    """(what a has in common with the n symbols from `start` on, the end of the shortest longer part with `wanted`)."""
    state[:] = ALL
    common = 0
    for i in range(start, start + n):
        common += advance(masks, b[i], state)
    longer, stop = common, start + n
    while longer < wanted:
        if stop == b.size:
            return common, stop + 1
        longer += advance(masks, b[stop], state)
        stop += 1
    return common, stop


@njit(cache=True, nogil=True)
def climb(masks: Any, b: Any, n: Any, state: Any, starts: Any, last: Any) -> Any:
    """(common, start) of a good part: uphill from the best of `starts`. It is only a lower bound for the search."""
    best, place = -1, 0
    for guess in starts:
        at = min(max(guess, 0), last)
        common, _ = common_from(masks, b, at, n, NOTHING, state)
        if common > best:
            best, place = common, at
    step = max(1, n // 8)
    while step and best >= 0:
        moved = False
        for at in (place - step, place + step):
            if 0 <= at <= last:
                common, _ = common_from(masks, b, at, n, NOTHING, state)
                if common > best:
                    best, place, moved = common, at, True
                    break
        if not moved:
            step //= 2
    return best, place


@njit(cache=True, nogil=True)
def best_end(masks: Any, b: Any, n: Any, state: Any, top: Any, of: Any, equal: Any) -> Any:
    """(common, length) of the best b[:length] shorter than a whose ratio is above top / of (or `equal`); else 0, 0."""
    state[:] = ALL
    common, best, best_length = 0, 0, 0
    for length in range(1, n):
        common += advance(masks, b[length - 1], state)
        ratio, bar = 2 * common * of, top * (n + length)
        if ratio > bar or (equal and ratio == bar):
            best, best_length, top, of, equal = common, length, 2 * common, n + length, False
    return best, best_length
