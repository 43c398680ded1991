"""Which beginnings of the prompts are computed once, and in which order prompts are taken. No torch."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

MIN_SAVING = 64
"""A shared stretch is kept when computing it once instead of per prompt saves at least this many tokens."""

Ids: TypeAlias = "array[int]"
"""Token ids of one prompt, four bytes each (a benchmark has millions of them); typecode "i"."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens `start` to `end` of prompt number `prompt`, which other prompts share together with all before them."""

    prompt: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PrefixPlan:
    """Shared stretches, and for every prompt the numbers of those on its path from the start.

    A path covers the prompt up to the end of its last stretch, and always leaves at least one token, because
    the first new token is read from a forward of the prompt's own.
    """

    stretches: tuple[Stretch, ...]
    paths: tuple[tuple[int, ...], ...]

    def n_shared(self, prompt: int) -> int:
        """How many of the prompt's tokens its path covers."""
        path = self.paths[prompt]
        return self.stretches[path[-1]].end if path else 0


def plan_prefixes(prompts: Sequence[Ids], min_saving: int = MIN_SAVING) -> PrefixPlan:
    """The shared stretches of all prompts: a radix tree with the nodes that do not pay taken out.

    It depends on all the prompts of a benchmark, not on those still to be answered, so that a resumed run computes
    every prompt in the same pieces. Prompts without a path are those that share too little.
    """
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])
    common = [common_length(prompts[a], prompts[b]) for a, b in pairwise(order)]
    stretches: list[Stretch] = []
    paths: list[tuple[int, ...]] = [()] * len(prompts)
    todo: list[tuple[int, int, int, tuple[int, ...]]] = [(0, len(order), 0, ())]  # order[low:high] shares `path`
    while todo:
        low, high, start, path = todo.pop()
        for i in order[low:high]:
            paths[i] = path
        inner = common[low : high - 1]
        if not inner or (high - low - 1) * (max(inner) - start) < min_saving:
            continue
        shortest = min(inner)
        end = min(shortest, min(len(prompts[i]) for i in order[low:high]) - 1)
        if (high - low - 1) * (end - start) >= min_saving:
            stretches.append(Stretch(min(order[low:high]), start, end))
            start, path = end, (*path, len(stretches) - 1)
        cuts = [low + 1 + k for k, n in enumerate(inner) if n == shortest]
        if max(inner) == shortest:  # nobody shares more with anybody
            for i in order[low:high]:
                paths[i] = path
            continue
        bounds = [low, *cuts, high]
        for a, b in pairwise(bounds):
            todo.append((a, b, start, path))
    return PrefixPlan(tuple(stretches), tuple(paths))


def generation_order(plan: PrefixPlan, prompts: Sequence[Ids]) -> list[int]:
    """Prompts with the same beginning together, and among those the longest first.

    The groups follow their earliest prompt, so a benchmark is answered roughly from its start.
    """
    first: dict[tuple[int, ...], int] = {}
    for i, path in enumerate(plan.paths):
        for depth in range(1, len(path) + 1):
            first.setdefault(path[:depth], i)
    alone = len(prompts)

    def key(i: int) -> tuple[list[int], int, int]:
        path = plan.paths[i]
        groups = [first[path[:depth]] for depth in range(1, len(path) + 1)]
        # Prompts that share nothing (more) come after the groups at the same level.
        return [*groups, alone], -len(prompts[i]), i

    return sorted(range(len(prompts)), key=key)


def common_length(a: Ids, b: Ids) -> int:
    """How many leading tokens two prompts share; found by halving, so slices are compared in C."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
