"""How alike is alike: the profiles of the near-duplicate stage, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple

from decontam.errors import DecontamError, did_you_mean

WIDTH = 3  # words of a shingle
MAX_DF = 4  # a shingle that more texts than these own is no seed
MIN_SEEDS = 3


@dataclass(frozen=True, slots=True)
class Profile:
    """A message is a candidate for an instance of n words when they share at least `need(n)` distinct seeds, and a
    near-duplicate when the candidate scores `cutoff` (0–100) or more."""

    name: str
    fraction: Fraction
    cutoff: float

    def need(self, n_words: int) -> int:
        return max(MIN_SEEDS, -(-self.fraction.numerator * (n_words - WIDTH + 1) // self.fraction.denominator))


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {each.name: each for each in (Profile("default", Fraction(3, 20), 75.0), Profile("wide", Fraction(1, 20), 65.0))}
)


class Near(NamedTuple):
    """A message that nearly holds an instance: `score` is 0–100.

    `message` is its index in the texts given, `inst` the number of the instance over all evals. Offsets are characters
    of the message and of the instance's fields joined by a newline.
    """

    message: int
    inst: int
    score: float
    train_from: int
    train_to: int
    eval_from: int
    eval_to: int


def find_profile(name: str) -> Profile:
    """The profile of that name; raises DecontamError naming the near miss."""
    if name not in PROFILES:
        raise DecontamError(
            f"no near-duplicate profile named {name!r}{did_you_mean(name, PROFILES)} (known: {', '.join(PROFILES)})"
        )
    return PROFILES[name]
