"""The registry: which checkpoint is champion, since when and by which verdict. The audit log is the truth.

    objects/sha256/ab/cdef…   manifests, evidence, policies, verdicts: canonical JSON, written once
    refs/champion.json        {id, generation, event_seq, event_hash}: repeats the last move in the log
    log/audit.jsonl           one hash-chained event per line
    peeks.jsonl               the unseen ledger, chained the same way
    lock                      what writers hold

A promotion is a compare-and-swap on a ref's generation. Reading takes no lock and creates nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from evalsuite.errors import LostRace, RegistryError
from evalsuite.registry import checking, durable
from evalsuite.registry.chain import GENESIS, Chain, Event, code_identity, utc_now
from evalsuite.registry.faults import FAULTS, reached
from evalsuite.registry.lock import LOCK_KINDS, TERM_S, LockKind, held
from evalsuite.registry.recovery import recover
from evalsuite.registry.refs import MOVES, REFS, Ref, Refs, moves, ref_of, rolled_back
from evalsuite.registry.store import Store
from evalsuite.registry.unlogged import unlogged

__all__ = ["FAULTS", "LOCK_KINDS", "MOVES", "REFS", "Chain", "Event", "LockKind", "Ref", "Registry"]

RECORDS = ("attempt", "verdict", "override", "epoch", "export", "peek")
"""The events that `record` writes; the others move a ref or repair the log."""


class Registry:
    """A registry folder. Many processes may hold one of these at once; `say` hears of recoveries and of waiting."""

    def __init__(
        self,
        root: Path,
        *,
        clock: Callable[[], datetime] = utc_now,
        actor: str | None = None,
        host: str | None = None,
        lock: LockKind = "flock",
        term_s: float = TERM_S,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.root = root
        self.log = Chain(root / "log" / "audit.jsonl", clock=clock, actor=actor, host=host)
        self.peeks = Chain(root / "peeks.jsonl", clock=clock, actor=actor, host=host)
        self._refs = Refs(root)
        self._store = Store(root)
        self._lock: LockKind = lock
        self._term_s = term_s
        self._say = say
        self._guard = threading.RLock()
        self._still_held: Callable[[], None] | None = None

    @classmethod
    def at(cls, results: Path, **options: Any) -> Self:
        """The registry of a results folder; options as of the class."""
        return cls(results / "registry", **options)

    # -- reading --

    def ref(self, name: str) -> Ref | None:
        return self._refs.read(name)

    def refs(self) -> dict[str, Ref]:
        found = {name: self._refs.read(name) for name in self._refs.names()}
        return {name: ref for name, ref in found.items() if ref is not None}

    def events(self) -> tuple[Event, ...]:
        """Every event, oldest first. Raises RegistryError when the log is damaged before its last line."""
        return self.log.read()

    def get(self, name: str) -> Any:
        """The object of a digest, or of its first four or more digits."""
        return self._store.get(name)

    def find(self, name: str) -> str:
        """The whole digest of an object, from its first four or more digits."""
        return self._store.find(name)

    def manifest(self, checkpoint_id: str) -> Mapping[str, Any] | None:
        """The newest manifest of a checkpoint; None when it was never promoted."""
        for event in reversed(self.events()):
            if event.id == checkpoint_id and "manifest" in event.detail:
                found: Mapping[str, Any] = self.get(event.detail["manifest"])
                return found
        return None

    def verdict_of(self, checkpoint_id: str, ref: str = "champion") -> tuple[str, Mapping[str, Any], Event] | None:
        """(digest, verdict, event) of the newest verdict on a checkpoint for a ref."""
        for event in reversed(self.events()):
            if event.event == "verdict" and event.id == checkpoint_id and event.ref == ref and event.verdict:
                return event.verdict, self.get(event.verdict), event
        return None

    def override_of(self, verdict: str) -> Event | None:
        """The newest override of a verdict."""
        found = (e for e in reversed(self.events()) if e.event == "override" and e.verdict == verdict)
        return next(found, None)

    def attempts(self, ref: str, suite: str) -> int:
        """How often a claim was made for this ref on this suite (a digest) since the last epoch of the two."""
        count = 0
        for event in self.events():
            if event.ref == ref and event.detail.get("suite") == suite:
                if event.event == "epoch":
                    count = 0
                elif event.event == "attempt" and event.detail.get("claim"):
                    count += 1
        return count

    def verify(self, pause_s: float = 0.1) -> tuple[str, ...]:
        """Every fault of chains, refs and objects, re-hashed from disk; empty when all is well.

        Takes no lock: a fault counts when a second look, after the pause, finds it too; a writer may be between two
        steps.
        """
        return _twice(self._faults, pause_s)

    def unlogged(self, pause_s: float = 0.1) -> tuple[str, ...]:
        """What lies beside the log and in the results folder, and no event tells of: the log was cut, or a command
        killed before its last line. No fault by itself; looked for twice, as `verify` does.
        """
        return _twice(self._unlogged, pause_s)

    def head(self) -> tuple[int, str]:
        """(seq, hash) of the newest event; (0, zeros) of an empty log. Kept elsewhere, it shows that no end was cut."""
        events = self.events()
        return (events[-1].seq, events[-1].hash) if events else (0, GENESIS)

    # -- writing --

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock and recovers from crashes first. One thread may enter it again while it is inside."""
        with self._guard:
            if self._still_held is not None:
                yield
                return
            code_identity()  # asks git, which may take long; done before others are kept waiting
            with held(self.root, self._lock, self._say, self._term_s) as self._still_held:
                try:
                    reached("lock")
                    recover(self.log, self._refs, self._store, self._say)
                    reached("recover")
                    yield
                    reached("unlock")
                finally:
                    self._still_held = None

    def put(self, obj: Any) -> str:
        """Stores an object and returns its digest."""
        with self.locked():
            return self._store.put(obj)

    def record(
        self,
        event: str,
        ref: str | None = None,
        id: str | None = None,
        verdict: str | None = None,
        reason: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> Event:
        """Writes an event that moves no ref. Attempts and epochs name their suite's digest in `detail["suite"]`."""
        if event not in RECORDS:
            raise RegistryError(f"no event {event!r} to record; expected one of {', '.join(RECORDS)}")
        with self.locked():
            return self._append(event, ref=ref, id=id, verdict=verdict, reason=reason, detail=dict(detail or {}))

    def promote(
        self,
        ref: str,
        *,
        checkpoint_id: str,
        manifest: Mapping[str, Any],
        expected_generation: int | None,
        verdict: str | None,
        reason: str = "",
        event: str = "promote",
        detail: Mapping[str, Any] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Ref:
        """Moves a ref to a checkpoint, if its generation is still the expected one (0: no such ref; None: any).

        `check` runs while the lock is held and before anything is written; what it raises stops the promotion. Raises
        LostRace when the ref was moved meanwhile, RegistryError when the disk refuses; then nothing was changed.
        """
        if event not in MOVES:
            raise RegistryError(f"no event {event!r} that moves a ref; expected one of {', '.join(MOVES)}")
        with self.locked():
            current = self._refs.read(ref)
            if expected_generation is not None and expected_generation != (current.generation if current else 0):
                raise LostRace(_moved(ref, current, expected_generation))
            check()
            stored = self._store.put(manifest)
            facts = {**(detail or {}), "manifest": stored}
            return self._move(ref, current, event, id=checkpoint_id, verdict=verdict, reason=reason, detail=facts)

    def rollback(self, ref: str, *, to: int | None, reason: str) -> Ref:
        """Brings back the checkpoint of an earlier generation (None: the one before), as a new generation."""
        with self.locked():
            current = self._refs.read(ref)
            target = rolled_back(moves(self.events(), ref), to)
            if current is not None and current.id == target.id:
                raise RegistryError(f"{ref} is the checkpoint of generation {target.generation} already; nothing to do")
            facts = {"to": target.generation, "manifest": target.detail.get("manifest")}
            return self._move(
                ref, current, "rollback", id=target.id, verdict=target.verdict, reason=reason, detail=facts
            )

    # -- steps --

    def _move(self, name: str, current: Ref | None, event: str, **facts: Any) -> Ref:
        before = current.generation if current else 0
        written = self._append(event, ref=name, generation=before + 1, prev_generation=before, **facts)
        ref = ref_of(written)
        path = self._refs.path(name)
        try:
            self._check_held()
            with durable.step("moving the ref", path):
                self._refs.write(name, ref)
        except RegistryError as error:
            if self._refs.read(name) == ref:
                raise RegistryError(
                    f"{path}: moved to generation {ref.generation}, but the disk did not confirm it "
                    f"({error.__cause__}); look at the disk, then: evalsuite registry verify"
                ) from error
            with durable.step("taking the event back", self.log.path, "the next command moves the ref after it"):
                self.log.retract(written)
            raise
        return ref

    def _append(self, event: str, **facts: Any) -> Event:
        if facts.get("verdict") and not self._store.has(facts["verdict"]):
            raise RegistryError(f"no verdict {facts['verdict']!r} among the objects; store it first (Registry.put)")
        if facts.get("ref"):
            self._refs.path(facts["ref"])
        self._check_held()
        return self.log.append(event, **facts)

    def _check_held(self) -> None:
        if self._still_held is not None:
            self._still_held()

    def _faults(self) -> tuple[str, ...]:
        with durable.step("reading the registry", self.root):
            return checking.faults(self.log, self.peeks, self._refs, self._store)

    def _unlogged(self) -> tuple[str, ...]:
        with durable.step("reading the registry", self.root):
            return unlogged(self.log, self.peeks, self._store, self.root.parent)


def _twice(look: Callable[[], tuple[str, ...]], pause_s: float) -> tuple[str, ...]:
    """What is found now and after the pause too."""
    found = look()
    if not found:
        return found
    time.sleep(pause_s)
    again = set(look())
    return tuple(each for each in found if each in again)


def _moved(name: str, current: Ref | None, expected: int) -> str:
    now = f"generation {current.generation} ({current.id[:12]})" if current else "gone"
    return (
        f"{name} is {now}, the verdict was against generation {expected}; gate again against it: "
        "what was answered is reused, only new items are paid for"
    )
