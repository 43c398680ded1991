"""Which messages may share enough seeds with which texts: words, hashes and counts of a batch, in one compiled pass.

A hash stands for its words here, so the pass errs in one direction: equal words have equal hashes and no candidate is
missed, unequal words may collide and add one. The caller decides each candidate on its words.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from decontam.text import SEPARATORS, fold

U = np.uint64
BASIS, PRIME, SPREAD = U(0xCBF29CE484222325), U(0x9E3779B97F4A7C15), U(0xD6E8FEB86659FD93)
HALF, TAIL, ONE, LOW6 = U(32), U(29), U(1), U(63)


@cache
def alphabet() -> tuple[Any, Any]:
    """(1 for each byte that separates words, the lower case of each code point up to the highest that has one)."""
    separators = np.zeros(256, np.uint8)
    separators[[ord(c) for c in SEPARATORS]] = 1
    every = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    folded = fold(every.tobytes().decode("utf-32-le", "surrogatepass")).encode("utf-32-le", "surrogatepass")
    lower = np.frombuffer(folded, np.uint32)
    return separators, lower[: np.flatnonzero(lower != every)[-1] + 1].copy()


@njit(cache=True, nogil=True)
def joined(a: Any, b: Any, c: Any) -> Any:
    """The hash of three words, from theirs."""
    h = (a * PRIME + b) * PRIME + c
    h = (h ^ (h >> HALF)) * SPREAD
    return h ^ (h >> TAIL)


@njit(cache=True, nogil=True)
def hash_words(data: Any, start: Any, stop: Any, separators: Any, lower: Any, hashes: Any) -> Any:
    """Writes the hash of each word of valid UTF-8 `data[start:stop]`; returns how many words there are."""
    n, h, inside = 0, BASIS, False
    i = start
    while i < stop:
        c = np.int64(data[i])
        i += 1
        if separators[c]:
            if inside:
                hashes[n] = h
                n += 1
                h, inside = BASIS, False
            continue
        if c >= 0xF0:
            c = (c & 7) << 18 | (np.int64(data[i]) & 63) << 12
            c |= (np.int64(data[i + 1]) & 63) << 6 | np.int64(data[i + 2]) & 63
            i += 3
        elif c >= 0xE0:
            c = (c & 15) << 12 | (np.int64(data[i]) & 63) << 6 | np.int64(data[i + 1]) & 63
            i += 2
        elif c >= 0xC0:
            c = (c & 31) << 6 | np.int64(data[i]) & 63
            i += 1
        if c < lower.size:
            c = np.int64(lower[c])
        h = (h ^ U(c)) * PRIME
        h ^= h >> HALF
        inside = True
    if inside:
        hashes[n] = h
        n += 1
    return n


@njit(cache=True, nogil=True)
def shingle_hashes(
    data: Any, offsets: Any, separators: Any, lower: Any, words: Any, shingles: Any, counts: Any
) -> None:
    """Writes the number of words of each text, and one after the other the hashes of its shingles."""
    at = 0
    for text in range(offsets.size - 1):
        n = hash_words(data, offsets[text], offsets[text + 1], separators, lower, words)
        counts[text] = n
        for i in range(n - 2):
            shingles[at] = joined(words[i], words[i + 1], words[i + 2])
            at += 1


@njit(cache=True, nogil=True)
def fill(keys: Any, table: Any, bits: Any) -> None:
    """Enters distinct keys in an open table of 1 + their place, at most half full, and in a bitmap; sizes are powers
    of two."""
    mask = table.size - 1
    bit_mask = U(bits.size * 64 - 1)
    for k in range(keys.size):
        at = np.int64(keys[k]) & mask
        while table[at]:
            at = (at + 1) & mask
        table[at] = k + 1
        bit = (keys[k] >> HALF) & bit_mask
        bits[np.int64(bit >> U(6))] |= ONE << (bit & LOW6)


@njit(cache=True, nogil=True)
def candidates(
    data: Any, offsets: Any, first: Any, separators: Any, lower: Any,
    keys: Any, table: Any, bits: Any, posting_starts: Any, postings: Any, need: Any,
    words: Any, key_seen: Any, text_seen: Any, shared: Any, touched: Any, stamp: Any, messages: Any, texts: Any,
) -> Any:  # fmt: skip
    """Writes (message, text) pairs that share `need` of the text's seeds or more; (pairs, next message) where they
    filled the room, which must be at least one message's.

    `stamp` must be above everything in `key_seen` and `text_seen` and goes up by one a message.
    """
    n_pairs = 0
    mask, bit_mask = table.size - 1, U(bits.size * 64 - 1)
    for m in range(first, offsets.size - 1):
        mark = stamp + m
        n_words = hash_words(data, offsets[m], offsets[m + 1], separators, lower, words)
        n_touched = 0
        for i in range(n_words - 2):
            key = joined(words[i], words[i + 1], words[i + 2])
            bit = (key >> HALF) & bit_mask
            if not (bits[np.int64(bit >> U(6))] >> (bit & LOW6)) & ONE:
                continue
            at = np.int64(key) & mask
            while table[at] and keys[np.int64(table[at]) - 1] != key:
                at = (at + 1) & mask
            k = np.int64(table[at]) - 1
            if k < 0 or key_seen[k] == mark:
                continue
            key_seen[k] = mark
            for p in range(posting_starts[k], posting_starts[k + 1]):
                t = np.int64(postings[p])
                if text_seen[t] != mark:
                    text_seen[t] = mark
                    shared[t] = 0
                    touched[n_touched] = t
                    n_touched += 1
                shared[t] += 1
        if n_pairs + n_touched > messages.size:
            return n_pairs, m
        for j in range(n_touched):
            t = touched[j]
            if shared[t] >= need[t]:
                messages[n_pairs], texts[n_pairs] = m, t
                n_pairs += 1
    return n_pairs, offsets.size - 1
