"""What the loop asks others for: a verdict, a promotion, the champion. Tests put fakes here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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


CheckFn = Callable[[Stage, bool], None]
"""Raises what would keep the checkpoints of a stage from being judged. Called for every stage before the first one
trains, and again, with True, when a stage is the next to train: from then on a missing champion counts as well."""


def no_champion() -> Path | None:
    return None


def no_check(stage: Stage, begins: bool) -> None:
    return None


def no_refs() -> Collection[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Hooks:
    """`champion` is the folder of the registry's champion, None where there is none.

    `refs` are the digests of all checkpoints that a ref of the registry points to: they are never removed.
    """

    gate: GateFn
    promote: PromoteFn
    champion: Callable[[], Path | None] = no_champion
    check: CheckFn = no_check
    refs: Callable[[], Collection[str]] = no_refs
