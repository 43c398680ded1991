"""Near-duplicates: instances that a message holds in other words. It is reported apart and changes no exact verdict.

    index = build(evals)
    for near in index.find(messages, PROFILES["default"]): ...

A message and an instance that share enough rare runs of three words are a candidate; rapidfuzz scores the candidates.
Stages of plugins judge candidates too: see `decontam.near.stages`.
"""

from __future__ import annotations

from collections.abc import Sequence

from decontam.near.index import NearIndex
from decontam.near.profiles import PROFILES, Near, Profile, find_profile
from decontam.types import EvalSet

__all__ = ["PROFILES", "Near", "NearIndex", "Profile", "build", "find_profile"]


def build(evals: Sequence[EvalSet]) -> NearIndex:
    """The near-duplicate index of these evals; instances are numbered on from one eval to the next."""
    from decontam.near.building import build as build_index

    return build_index(evals)
