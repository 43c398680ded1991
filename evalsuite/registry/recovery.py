"""What a crash left behind is put right by the next writer; what no crash can explain is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evalsuite.errors import RegistryError
from evalsuite.registry import durable
from evalsuite.registry.chain import Chain, Event
from evalsuite.registry.refs import REFS, Ref, Refs, moves, ref_of
from evalsuite.registry.store import Store


def recover(log: Chain, refs: Refs, store: Store, say: Callable[[str], None]) -> None:
    """Repairs a cut-off last line, rolls refs forward to the log, removes temporary files. Hold the lock.

    Raises RegistryError, and changes nothing, when a ref is ahead of the log or the log is damaged before its end.
    """
    events = log.read()
    # Looked at before the log is touched: a line that a ref already points to was whole once, and no crash cut it.
    behind = {name: ref for name in REFS if (ref := newer(events, refs, name)) is not None}
    for event in log.repair():
        say(f"{log.path}: the last line was cut off by a crash; kept in {event.detail['file']}, said in the log")
    for name, ref in behind.items():
        say(f"{refs.path(name)}: rolled forward to generation {ref.generation}, which the log already has")
        with durable.step("rolling the ref forward", refs.path(name)):
            refs.write(name, ref)
    refs.sweep()
    store.sweep()


def newer(events: Sequence[Event], refs: Refs, name: str) -> Ref | None:
    """What the log says a ref is, where its file is behind; None where they agree. Raises RegistryError otherwise."""
    found = refs.read(name)
    history = [ref_of(event) for event in moves(events, name)]
    if found is not None and found not in history:
        raise RegistryError(
            f"{refs.path(name)}: its event {found.event_seq} (generation {found.generation}) is not in the log: the "
            "log was cut or replaced; restore log/audit.jsonl from a copy (evalsuite registry verify lists every fault)"
        )
    return history[-1] if history and history[-1] != found else None
