"""Everything wrong with a registry: chains, refs, objects, and that they agree. Reads only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from evalsuite.registry.chain import Chain, Event
from evalsuite.registry.refs import REFS, Refs, content, moves, ref_of
from evalsuite.registry.store import Store


def faults(log: Chain, peeks: Chain, refs: Refs, store: Store) -> tuple[str, ...]:
    """One line per fault. A promotion that was killed between log and ref is none: the next writer finishes it."""
    events, broken = log.examine()
    found = [*broken, *peeks.faults()]
    for name in REFS:
        found += _ref_faults(events, refs, name)
        found += _generation_faults(log, moves(events, name))
    found += [f"{path}: not a ref" for path in _strangers(refs)]
    return (*found, *_cut_peeks(peeks, events), *store.faults(), *_missing_objects(log, events, store))


def _cut_peeks(peeks: Chain, events: Sequence[Event]) -> Iterator[str]:
    """Intents that the log repeats and the ledger has no more: a chain does not show that its end is gone."""
    known = {event.hash for event in peeks.examine()[0]}
    for event in events:
        if event.event == "peek" and event.detail.get("intent") not in known:
            yield f"{peeks.path}: event {event.seq} of the log repeats an intent that is gone: the ledger was cut"


def _ref_faults(events: Sequence[Event], refs: Refs, name: str) -> Iterator[str]:
    history = moves(events, name)
    path = refs.path(name)
    data = path.read_bytes() if path.is_file() else b""
    expected = content(ref_of(history[-1])) if history else b""
    if data == expected:
        return
    before = content(ref_of(history[-2])) if len(history) > 1 else b""
    if history and data == before and events[-1] == history[-1]:
        return
    if not history:
        yield f"{path}: no event of the log moved it; the log was cut, or this file is not ours"
    elif not data:
        yield f"{path}: gone, the log has generation {history[-1].generation}; the next command that writes restores it"
    elif any(data == content(ref_of(event)) for event in history):
        yield f"{path}: older than the log, which has generation {history[-1].generation}"
    else:
        yield f"{path}: not what the log says: damaged, or the log was cut; expected {_shown(expected)}"


def _shown(ref: bytes) -> str:
    raw = json.loads(ref)
    return f"generation {raw['generation']}, id {raw['id'][:12]}"


def _generation_faults(log: Chain, history: Sequence[Event]) -> Iterator[str]:
    for expected, event in enumerate(history, 1):
        if (event.generation, event.prev_generation) != (expected, expected - 1):
            yield f"{log.path}: event {event.seq}: generation {event.generation} of {event.ref}, expected {expected}"
            return


def _strangers(refs: Refs) -> list[str]:
    known = {f"{name}.json" for name in REFS}
    return sorted(str(path) for path in refs.root.glob("*") if path.name not in known and path.name[0] != ".")


def _missing_objects(log: Chain, events: Sequence[Event], store: Store) -> Iterator[str]:
    for event in events:
        for what, name in (("verdict", event.verdict), ("manifest", event.detail.get("manifest"))):
            if name and not store.has(str(name)):
                yield f"{log.path}: event {event.seq}: its {what} {str(name)[:12]} is not among the objects"
