"""Evals and messages for the tests of near-duplicates, and what the written-down stage says of them."""

from __future__ import annotations

from collections.abc import Sequence

from decontam.near import PROFILES, Profile
from decontam.reference_near import Near as Told
from decontam.reference_near import near, seeds_of
from decontam.types import EvalSet

DEFAULT, WIDE = PROFILES["default"], PROFILES["wide"]
CAT = "The grey cat sleeps on a warm stone wall while two small dogs dig for bones behind the old garden shed."
SHIP = "A ship with ninety sailors leaves the northern harbour at dawn and needs eleven days to reach the island."
COOK = "Anna bakes forty rolls, sells a third of them at the market and gives the rest to her seven neighbours."


def evals_of(*texts: str | tuple[str | None, ...], name: str = "made") -> EvalSet:
    """One eval with these instances, `made-0`, `made-1`, …"""
    fields = tuple((text,) if isinstance(text, str) else text for text in texts)
    width = max(map(len, fields), default=1)
    ids = tuple(f"{name}-{i}" for i in range(len(fields)))
    return EvalSet(name, "development", tuple(f"field{i}" for i in range(width)), ids, fields, "")


def told(texts: Sequence[str], messages: Sequence[str], profile: Profile) -> dict[tuple[int, int], Told]:
    """{(message, text): hit} by the specification; texts are distinct."""
    seeds = seeds_of(texts)
    pairs = {
        (m, t): near(text, seeds[t], message, fraction=profile.fraction, cutoff=profile.cutoff)
        for m, message in enumerate(messages)
        for t, text in enumerate(texts)
    }
    return {pair: found for pair, found in pairs.items() if found is not None}
