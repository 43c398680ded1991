"""What the loop asks others for: a verdict, a promotion, the champion. Tests put fakes here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evalsuite.recipe import Stage

Outcome = Literal["promote", "block", "hold"]


@dataclass(frozen=True, slots=True)
class Gated:
    """A verdict in short: its digest in the registry, one line for people, cost in units of one full suite run."""

    outcome: Outcome
    verdict: str
    line: str
    cost: Mapping[str, float] = field(default_factory=dict)


GateFn = Callable[[Path, Stage], Gated]
"""Judges a checkpoint folder. After a kill it may be asked for the same folder again: what is stored is not redone."""

PromoteFn = Callable[[Path, str], int]
"""Makes the checkpoint with this verdict the champion; returns the generation. When it is champion through this very
verdict already, the generation it has. Raises LostRace when another one became champion since the verdict."""


def no_champion() -> Path | None:
    return None


@dataclass(frozen=True, slots=True)
class Hooks:
    """`champion` is the folder of the registry's champion, None where there is none."""

    gate: GateFn
    promote: PromoteFn
    champion: Callable[[], Path | None] = no_champion
