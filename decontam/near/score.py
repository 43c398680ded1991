"""Scores one candidate: how much of the instance stands in the stretch of the message around the shared seeds.

`decontam.reference_near` says what comes out; where several parts of a message score alike the place may differ.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from decontam.near.profiles import WIDTH
from decontam.text import analyze, spans_of

MARGIN = 2  # lengths of the instance that the stretch is widened by on each side
Shingle = tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """A text's words, joined by spaces, and where its characters stand in the text."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        return analyze(self.text)

    @cached_property
    def joined(self) -> str:
        return " ".join(self.words)

    @cached_property
    def starts(self) -> list[int]:
        """Where each word begins in `joined`."""
        return list(accumulate((len(word) + 1 for word in self.words), initial=0))[:-1]

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        return spans_of("pattern", self.text)

    def places(self, sought: Container[Shingle]) -> dict[Shingle, tuple[int, int]]:
        """The first and the last word at which each of these shingles begins."""
        places: dict[Shingle, tuple[int, int]] = {}
        for at, shingle in enumerate(zip(*(self.words[i:] for i in range(WIDTH)), strict=False)):
            if shingle in sought:
                places[shingle] = (places[shingle][0] if shingle in places else at, at)
        return places

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """The characters of the text from the first to the last word that reaches into joined[start:stop]."""
        first, last = bisect_right(self.starts, start) - 1, bisect_right(self.starts, stop - 1) - 1
        if start == self.starts[first] + len(self.words[first]):  # on the space behind it
            first += 1
        return self.spans[first][0], self.spans[last][1]


class Shared(NamedTuple):
    """A seed that both sides own: the word at which it begins in the instance, first and last in the message."""

    own: int
    first: int
    last: int


class Scored(NamedTuple):
    """0–100, and what is alike in characters of both texts."""

    score: float
    train: tuple[int, int]
    eval: tuple[int, int]


def score(instance: Words, message: Words, shared: Sequence[Shared], cutoff: float) -> Scored | None:
    """The score of a candidate, None below the cut-off. `shared` is not empty.

    It is `partial_ratio` of the joined words of the instance and of a stretch of the message, and `ratio` where the
    instance is the longer one. Parts that score alike are told apart by the shared seeds.
    """
    from rapidfuzz import fuzz

    a = instance.joined
    begin, end = _stretch(message, shared, MARGIN * len(a))
    b = message.joined[begin:end]
    ways = []
    if len(a) > len(b):
        ways.append((fuzz.ratio(a, b, score_cutoff=cutoff), (0, len(a)), (0, len(b))))
    else:
        starts = [message.starts[each.first] - begin - instance.starts[each.own] for each in shared]
        if (part := _best(a, b, cutoff, starts)) is not None:
            ways.append((fuzz.ratio(a, b[slice(*part)]), (0, len(a)), part))
        # Neither of two equally long texts is the longer one, so either may be the part.
        if len(a) == len(b) and (part := _best(b, a, cutoff, [-start for start in starts])) is not None:
            ways.append((fuzz.ratio(a[slice(*part)], b), part, (0, len(b))))
    value, own, other = max(ways, key=lambda way: way[0], default=(0.0, (0, 0), (0, 0)))
    if value < cutoff:
        return None
    return Scored(value, message.span(begin + other[0], begin + other[1]), instance.span(*own))


def _stretch(message: Words, shared: Sequence[Shared], margin: int) -> tuple[int, int]:
    """From the first to the last shared seed in the joined words, widened on each side."""
    first = min(each.first for each in shared)
    last = max(each.last for each in shared) + WIDTH - 1
    end = message.starts[last] + len(message.words[last]) + margin
    return max(0, message.starts[first] - margin), min(len(message.joined), end)


def _best(short: str, long: str, cutoff: float, starts: Sequence[int]) -> tuple[int, int] | None:
    """The part of the longer text that is most like the shorter one, None where none reaches the cut-off."""
    from decontam.near.window import best_part

    at = long.find(short)
    if at >= 0:
        return at, at + len(short)
    return best_part(short, long, cutoff, [starts[0], starts[len(starts) // 2], starts[-1]])
