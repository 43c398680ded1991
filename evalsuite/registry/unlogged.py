"""What lies in a results folder and no event tells of: a chain cannot show that its end was cut off, its traces can.

A command that was killed between two writes leaves such things too, until it is typed again. Against somebody who also
removes the traces only a copy of the head helps, kept where they cannot write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalsuite.registry.canonical import digest
from evalsuite.registry.chain import Chain, Event
from evalsuite.registry.store import Store

WHY = "not in the log: the log may have been cut"
KINDS: Mapping[str, str] = {"gate/1": "a verdict", "manifest/1": "a manifest"}
SEALED = "sealed"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def unlogged(log: Chain, peeks: Chain, store: Store, results: Path) -> tuple[str, ...]:
    """One line for each object, verdict in results/gates, sealed look or intent that no event names."""
    events, looks = log.examine()[0], peeks.examine()[0]
    return (
        *_objects(events, store),
        *_verdicts(events, results / "gates"),
        *_sealed(looks, results / SEALED),
        *_unrepeated(events, looks, peeks.path),
    )


def _objects(events: Sequence[Event], store: Store) -> Iterator[str]:
    named = _named(events, store)
    for name, path in store.all():
        if name not in named:
            raw = _read(path)
            kind = KINDS.get(str(raw.get("schema")), "an object") if isinstance(raw, dict) else "an object"
            yield f"{path}: {kind}, {WHY}"


def _named(events: Sequence[Event], store: Store) -> set[str]:
    """Objects that events name, and those that these name in turn, as a verdict does its policy."""
    found: set[str] = set()
    todo = [d for event in events for d in _digests([event.verdict, event.detail])]
    while todo:
        name = todo.pop()
        if name not in found and store.has(name):
            found.add(name)
            todo += _digests(_read(store.path(name)))
    return found


def _digests(raw: Any) -> Iterator[str]:
    if isinstance(raw, str):
        if _DIGEST.fullmatch(raw):
            yield raw
    elif isinstance(raw, Mapping):
        yield from _each(raw.values())
    elif isinstance(raw, Sequence):
        yield from _each(raw)


def _each(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield from _digests(value)


def _verdicts(events: Sequence[Event], folder: Path) -> Iterator[str]:
    known = {event.verdict for event in events if event.event == "verdict"}
    for path in sorted(folder.glob("*.json")):
        if _digest_in(path) not in known:
            yield f"{path}: a verdict, {WHY}"


def _sealed(looks: Sequence[Event], folder: Path) -> Iterator[str]:
    """Answers of a checkpoint at which nobody looked, and scorecards that no look has ended with."""
    seen = {str(event.id)[:12] for event in looks if event.event == "intent"}
    kept = {(event.detail.get("card") or {}).get("file") for event in looks if event.event == "result"}
    for path in sorted((folder / "journal").glob("*")):
        if path.name not in seen:
            yield f"{path}: answers to unseen questions, {WHY.replace('log', 'ledger')}"
    for path in sorted((folder / "released").glob("*.json")):
        if str(path.relative_to(folder)) not in kept:
            yield f"{path}: the scorecard of a look, {WHY.replace('log', 'ledger')}"


def _unrepeated(events: Sequence[Event], looks: Sequence[Event], path: Path) -> Iterator[str]:
    repeated = {event.detail.get("intent") for event in events if event.event == "peek"}
    for look in looks:
        if look.event == "intent" and look.hash not in repeated:
            yield f"{path}: the intent of line {look.seq}, {WHY}"


def _digest_in(path: Path) -> str:
    """The digest of what a JSON file holds; empty for what has none."""
    try:
        return digest(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return ""


def _read(path: Path) -> Any:
    """What a JSON file holds; None where it cannot be read, which other checks report."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
