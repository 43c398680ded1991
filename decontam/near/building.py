"""Builds the near-duplicate index: the shingles of all texts, and which of them are rare enough to be seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from decontam.near import kernel
from decontam.near.index import NearIndex, encode
from decontam.near.profiles import MAX_DF, MIN_SEEDS, PROFILES, WIDTH
from decontam.near.window import best_part
from decontam.text import analyze
from decontam.types import EvalSet

Array = np.ndarray[Any, Any]


def build(evals: Sequence[EvalSet]) -> NearIndex:
    """The index of these evals.

    Equal texts are one text, whatever instances and evals own it: copies of an eval do not make its shingles common.
    An instance that lacks a field is skipped, as the rules skip it.
    """
    texts: dict[str, int] = {}
    owner = []  # the text of each instance, -1 for a skipped one
    for each in evals:
        for fields in each.texts:
            present = [text for text in fields if text is not None]
            whole = present and len(present) == len(fields)
            owner.append(texts.setdefault("\n".join(present), len(texts)) if whole else -1)
    arrays = _seeds([analyze(text) for text in texts], list(texts))
    arrays["owner"] = np.array(owner, np.int32)
    n_seeds = np.diff(arrays["place_starts"])
    few = [text >= 0 and n_seeds[text] < MIN_SEEDS for text in owner]
    ids = [(each.name, sample) for each in evals for sample in each.ids]
    uncovered: dict[str, list[str]] = {each.name: [] for each in evals}
    for (name, sample), is_few in zip(ids, few, strict=True):
        if is_few:
            uncovered[name].append(sample)
    index = NearIndex(arrays, {name: tuple(samples) for name, samples in uncovered.items()})
    _compile(index)
    return index


def _compile(index: NearIndex) -> None:
    """Runs the compiled parts once, so that they are in numba's cache and no scan waits for them."""
    index.find([""], PROFILES["default"])
    best_part("ab", "ba", 0.0, [0])


def _seeds(words: Sequence[Sequence[str]], texts: Sequence[str]) -> dict[str, Array]:
    """Seeds of each text and texts of each seed; which shingles are equal is decided on their words."""
    n_words = np.array([len(each) for each in words], np.int64)
    shingle, text, place = _shingles(words, n_words)
    hashes, data, offsets = _hashes(texts, n_words)
    # One row a text and distinct shingle, at the first place where the text has it.
    _, first = np.unique(shingle * max(1, len(texts)) + text, return_index=True)
    df = np.bincount(shingle[first])
    seeds = np.sort(first[df[shingle[first]] <= MAX_DF])
    keys, slot = np.unique(hashes[seeds], return_inverse=True)
    table = np.zeros(_power(2 * keys.size + 1), np.uint32)
    bits = np.zeros(_power(8 * keys.size + 64) // 64, np.uint64)
    kernel.fill(keys, table, bits)
    return {
        "keys": keys,
        "table": table,
        "bits": bits,
        "posting_starts": _starts(np.bincount(slot, minlength=keys.size)),
        "postings": text[seeds][np.argsort(slot, kind="stable")].astype(np.uint32),
        "n_words": n_words,
        "place_starts": _starts(np.bincount(text[seeds], minlength=len(texts))),
        "places": place[seeds].astype(np.uint32),
        "text": data,
        "text_starts": offsets,
    }


def _shingles(words: Sequence[Sequence[str]], n_words: Array) -> tuple[Array, Array, Array]:
    """Of each shingle of each text in order: a number that only equal shingles share, its text, its first word."""
    vocabulary: dict[str, int] = {}
    ids = np.array([vocabulary.setdefault(word, len(vocabulary)) for each in words for word in each], np.int64)
    counts = np.maximum(n_words - WIDTH + 1, 0)
    text = np.repeat(np.arange(counts.size), counts)
    place = np.arange(counts.sum()) - np.repeat(_starts(counts)[:-1], counts)
    at = place + np.repeat(_starts(n_words)[:-1], counts)
    number = ids[at] if at.size else at
    for i in range(1, WIDTH):
        number = np.unique(number << 32 | ids[at + i], return_inverse=True)[1] if at.size else at
    return number, text, place


def _hashes(texts: Sequence[str], n_words: Array) -> tuple[Array, Array, Array]:
    """(hash of each shingle in order, all texts in UTF-8, where each begins)."""
    data, offsets = encode(texts)
    longest = int(np.diff(offsets).max(initial=0)) // 2 + 1
    hashes = np.empty(int(np.maximum(n_words - WIDTH + 1, 0).sum()), np.uint64)
    counts = np.empty(len(texts), np.int64)
    kernel.shingle_hashes(data, offsets, *kernel.alphabet(), np.empty(longest, np.uint64), hashes, counts)
    if not np.array_equal(counts, n_words):
        raise AssertionError("the kernel sees other words than decontam.text.analyze")
    return hashes, data, offsets


def _starts(counts: Array) -> Array:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _power(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << (n - 1).bit_length()
