"""What a gate is told besides two scorecards: the items it may look at, and evidence that no score holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from evalsuite.gate.margins import Spread


@dataclass(frozen=True, slots=True)
class Items:
    """One benchmark as planned: every sample id, what it belongs to, and how many responses each gets.

    `clusters` is empty when items are independent; `strata` says that the clusters are fixed categories. `macro` means
    that the benchmark's value is a mean over `categories`, which floors follow. `base` responses an item is what the
    regime itself asks, and `of` how many of them one score needs (pass@10).
    """

    ids: tuple[str, ...]
    clusters: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)
    k: int = 1
    base: int = 1
    of: int = 1
    strata: bool = False
    macro: bool = False
    safety: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One infra check of the candidate: whether it passed, and what was seen."""

    name: str
    passed: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Contamination:
    """What decontamination found for one training data set. `fractions` and `touched` are by benchmark.

    `touched` names the items that the training data carries, where a report lists them.
    """

    data: str
    complete: bool
    fractions: Mapping[str, float]
    touched: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Training:
    """What a checkpoint was trained on, as its trainer declared it: name to digest of each data set.

    `declared` is false when nothing is known, `waived` the reason that was given for training without a report, and
    `reports` the decontamination of each data set, by digest, against the suite of this gate. `digest` is that of the
    declaration (`registry.manifest.declared_digest`), which is no part of the checkpoint's own digest.
    """

    declared: bool = False
    data: Mapping[str, str] = field(default_factory=dict)
    reports: Mapping[str, Contamination] = field(default_factory=dict)
    waived: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that `judge` knows beyond the scorecards. The caller does all I/O.

    `columns` maps each column of the suite to its benchmarks (several for a group). `exhausted` says that nothing more
    can be asked, so what is absent stays absent. `spreads` comes from the last gate. `generation` and
    `anchor_generation` are those of the refs the references came from. `engine` is the fingerprint of what answers,
    `again` how many other gates there were of this candidate against this champion, `complete` that every item was
    answered before the first look, `partial` how much of the suite is gated ("" for all of it).
    """

    items: Mapping[str, Items]
    columns: Mapping[str, tuple[str, ...]]
    ref: str | None = None
    generation: int | None = None
    anchor_generation: int | None = None
    attempt: int = 1
    bootstrap: bool = False
    exhausted: bool = False
    infra: tuple[Check, ...] = ()
    training: Training = Training()
    spreads: Mapping[tuple[str, str, int], Spread] = field(default_factory=dict)
    unsandboxed: frozenset[str] = frozenset()
    engine: Mapping[str, str] = field(default_factory=dict)
    again: int = 0
    complete: bool = False
    dry_run: bool = False
    partial: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def gate_id(policy: str, suite: str, regime: str, sides: tuple[str, ...], sampling: Mapping[str, object]) -> str:
    """The identity of a gate, 64 hex characters: the same inputs are the same gate.

    `sides` are the digests of candidate, champion and anchor ("" for none), `sampling` how answers are drawn: the K of
    each benchmark and the engine.
    """
    raw = {"policy": policy, "suite": suite, "regime": regime, "sides": list(sides), "sampling": dict(sampling)}
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def needed(metric: str) -> int:
    """How many samples one score of a metric needs: 10 for pass@10, else 1."""
    k = metric.removeprefix("pass@")
    return int(k) if k != metric and k.isdigit() else 1


def order_key(suite: str, regime: str, candidate: str, champion: str) -> str:
    """What the order of items hangs on, 64 hex characters: not the policy, or trying policies would draw it anew."""
    text = json.dumps([suite, regime, candidate, champion], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
