"""The near-duplicate stage, written down: one instance, one message. What `decontam.near` does must be this."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple

from decontam.text import analyze, spans_of

SIZE = 3  # words of a shingle
MAX_DF = 4  # instances that may own a shingle that is a seed
MIN_SEEDS = 3  # an instance with fewer is not covered, and a message with fewer of them is no candidate

Shingle = tuple[str, ...]


class Near(NamedTuple):
    """A hit: 0–100, and offsets in characters of the message and of the instance's fields joined by newlines."""

    score: float
    train_from: int
    train_to: int
    eval_from: int
    eval_to: int


def shingles(words: Sequence[str]) -> list[Shingle]:
    return [tuple(words[i : i + SIZE]) for i in range(len(words) - SIZE + 1)]


def seeds_of(texts: Sequence[str]) -> list[frozenset[Shingle]]:
    """The shingles of each instance that at most MAX_DF of all instances own; empty where they are too few."""
    each = [frozenset(shingles(analyze(text))) for text in texts]
    df = Counter(shingle for of_one in each for shingle in of_one)
    seeds = [frozenset(shingle for shingle in of_one if df[shingle] <= MAX_DF) for of_one in each]
    return [of_one if len(of_one) >= MIN_SEEDS else frozenset() for of_one in seeds]


def near(
    text: str, seeds: frozenset[Shingle], message: str, *, fraction: Fraction = Fraction(3, 20), cutoff: float = 75
) -> Near | None:
    """How near the message comes to an instance of this text; None below the cut-off or with too few seeds."""
    from rapidfuzz import fuzz

    sought, words = analyze(text), analyze(message)
    places = [i for i, shingle in enumerate(shingles(words)) if shingle in seeds]
    n_shared = len({tuple(words[i : i + SIZE]) for i in places})
    if n_shared < max(Fraction(MIN_SEEDS), fraction * (len(sought) - SIZE + 1)):
        return None
    a, whole = " ".join(sought), " ".join(words)
    edges = _edges(words)
    start = max(0, edges[places[0]][0] - 2 * len(a))
    stop = min(len(whole), edges[places[-1] + SIZE - 1][1] + 2 * len(a))
    b = whole[start:stop]
    if len(a) <= len(b):
        found = fuzz.partial_ratio_alignment(a, b, score_cutoff=cutoff)
        if found is None:
            return None
        score, mine, theirs = found.score, (found.src_start, found.src_end), (found.dest_start, found.dest_end)
    else:
        score, mine, theirs = fuzz.ratio(a, b, score_cutoff=cutoff), (0, len(a)), (0, len(b))
    if score < cutoff:
        return None
    train = _characters(message, edges, start + theirs[0], start + theirs[1])
    return Near(score, *train, *_characters(text, _edges(sought), *mine))


def _edges(words: Sequence[str]) -> list[tuple[int, int]]:
    """Where each word stands in the words joined by spaces."""
    stops = list(accumulate(len(word) + 1 for word in words))
    return [(stop - len(word) - 1, stop - 1) for word, stop in zip(words, stops, strict=True)]


def _characters(text: str, edges: Sequence[tuple[int, int]], start: int, stop: int) -> tuple[int, int]:
    """The stretch of `text` with the words that reach into start..stop of the joined ones."""
    inside = [i for i, (a, b) in enumerate(edges) if a < stop and b > start]
    spans = spans_of("pattern", text)
    return spans[inside[0]][0], spans[inside[-1]][1]
