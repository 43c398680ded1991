"""Checkpoints, registries and scorecards of a release, made in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from evalsuite.checkpoint import Checkpoint, digest_of
from evalsuite.gate.policy import Floor, Policy, Unseen
from evalsuite.registry import Registry
from evalsuite.release import Release
from evalsuite.scorecard import Result, Scorecard
from evalsuite.suite import Suite
from tests.evalsuite.cards import make_card, make_result

START = datetime(2026, 1, 1, tzinfo=UTC)
HELD_OUT = Suite("held-out", "house", "unseen", {})


@dataclass
class Clock:
    """A clock that stands still until it is set."""

    now: datetime = field(default=START)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, days: float) -> None:
        self.now += timedelta(days=days)


def registry_at(results: Path, clock: Callable[[], datetime]) -> Registry:
    return Registry.at(results, clock=clock, actor="ann", host="desk")


def checkpoint(folder: Path, name: str) -> Checkpoint:
    """A folder with one file; nothing here loads it."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(f'{{"name": "{name}"}}')
    files = {"config.json": name.encode().hex().ljust(64, "0")}
    return Checkpoint(path, name, digest_of(files), files, False, "float32", "Toy", 1)


def clear(registry: Registry, chosen: Checkpoint, ref: str = "champion", outcome: str = "promote", **facts: Any) -> str:
    """Gives a checkpoint a verdict on development, and a ref; returns the verdict's digest."""
    raw = {"schema": "gate/1", "final": True, "outcome": outcome, "suite": {"name": "demo"}, **facts}
    verdict = registry.put({**raw, "candidate": {"name": chosen.name, "digest": chosen.digest}})
    registry.record("verdict", ref="champion", id=chosen.digest, verdict=verdict)
    manifest = {"checkpoint": chosen.digest}
    registry.promote(ref, checkpoint_id=chosen.digest, manifest=manifest, expected_generation=None, verdict=verdict)
    return verdict


def wish(registry: Registry, chosen: Checkpoint, results: Path, clock: Clock, **changes: Any) -> Release:
    """A release of a checkpoint on `HELD_OUT`; `unseen` and `floors` go into its policy."""
    policy = Policy(unseen=changes.pop("unseen", Unseen()), safety=changes.pop("floors", {}))
    facts: dict[str, Any] = {"clock": clock, "reopen": lambda path: chosen, **changes}
    return Release(registry, chosen, HELD_OUT, policy, results, **facts)


def card(chosen: Checkpoint, *scores: Sequence[float] | Result) -> Scorecard:
    """A scorecard on `HELD_OUT` with a column a, b, … for each list of scores."""
    named = dict(zip("abcdef", scores, strict=False))
    results = {n: s if isinstance(s, Result) else make_result(n, s, split="unseen") for n, s in named.items()}
    return make_card(chosen.name, results, digest=chosen.digest, suite="held-out", suite_digest=HELD_OUT.digest)


def floor(value: float) -> Floor:
    return Floor(floor=value)
