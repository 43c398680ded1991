"""An append-only log whose every line carries the hash of the line before: what was written cannot quietly change.

One event per line, `hash = sha256(prev_hash ‖ canonical JSON of the rest)`. `seq` orders events, never `ts`: a clock
may run backwards. Writers hold a lock of their own (see `Registry.locked`); readers need none and leave a line that is
just being written alone.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from evalsuite import __version__
from evalsuite.errors import RegistryError
from evalsuite.provenance import git_commit
from evalsuite.registry import durable
from evalsuite.registry.canonical import canonical

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a chain. `detail` holds what only some events have; absent facts are None."""

    seq: int
    ts: str
    actor: str
    host: str
    code: str
    event: str
    ref: str | None = None
    id: str | None = None
    generation: int | None = None
    prev_generation: int | None = None
    verdict: str | None = None
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    prev_hash: str = GENESIS
    hash: str = ""


_FIELDS = {f.name for f in fields(Event)}


def utc_now() -> datetime:
    return datetime.now(UTC)


def actor_name() -> str:
    """EVALSUITE_ACTOR, else the login name, else the user's number."""
    try:
        return os.environ.get("EVALSUITE_ACTOR") or getpass.getuser()
    except (OSError, KeyError):  # no entry in the password file, as in many containers
        return f"uid {os.getuid()}"


@cache
def code_identity() -> str:
    """The commit this code runs from, "+dirty" where files differ; outside of a checkout, its version."""
    return git_commit() or f"evalsuite {__version__}"


class Chain:
    """A hash-chained JSONL file. It is created by the first `append`; reading an absent one finds no events."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], datetime] = utc_now,
        actor: str | None = None,
        host: str | None = None,
    ) -> None:
        self.path = path
        self._clock = clock
        self._actor = actor or actor_name()
        self._host = host or socket.gethostname()
        self._known = _NOTHING

    def read(self) -> tuple[Event, ...]:
        """All events. A last line that was cut off is left out; any other fault raises RegistryError."""
        return self._read()[0].events

    def torn(self) -> bytes:
        """What stands after the last whole line: empty, or the beginning of a line whose writer was killed."""
        return self._read()[1]

    def append(self, event: str, **facts: Any) -> Event:
        """Writes one event, on disk when this returns. Hold the lock. A cut-off last line is repaired first."""
        if self.torn():
            self.repair()
        return self._append(event, facts)

    def retract(self, event: Event) -> None:
        """Takes back the event this process has just appended, while the lock is still held."""
        known, torn = self._read()
        if torn or known.events[-1:] != (event,):
            raise RegistryError(f"{self.path}: event {event.seq} is not the last one")
        durable.cut(self.path, known.size - len(_line(event)))

    def repair(self) -> tuple[Event, ...]:
        """Moves a cut-off last line to `torn-<seq>.bin` and says so in a `repair` event. Hold the lock."""
        known, torn = self._read()
        if torn:
            with durable.step("saving the cut-off last line", self.path):
                durable.replace(self._free_name(len(known.events) + 1, torn), torn)
                durable.cut(self.path, known.size)
        # Found by looking, not remembered: the process that cut the line may have been killed before it said so.
        recorded = {e.detail.get("file") for e in known.events if e.event == "repair"}
        missing = [path for path in self._torn_files() if path.name not in recorded]
        return tuple(self._append("repair", _repair_facts(path)) for path in missing)

    def faults(self) -> tuple[str, ...]:
        """Everything wrong with the file, one line each, from its bytes alone; empty when it is whole."""
        return self.examine()[1]

    def examine(self) -> tuple[tuple[Event, ...], tuple[str, ...]]:
        """(every event that can be read, every fault); raises nothing, whatever stands in the file."""
        lines, torn = _split(self._bytes())
        found: list[str] = []
        events: list[Event] = []
        before = GENESIS
        for number, line in enumerate(lines, 1):
            event, wrong = _check(line, number, before)
            found += [f"{self.path}: line {number}: {what}" for what in wrong]
            events += [event] if event else []
            before = event.hash if event else _hash_in(line)
        if torn:
            found.append(f"{self.path}: line {len(lines) + 1}: cut off; the next command that writes moves it away")
        return tuple(events), (*found, *self._torn_faults(events))

    # -- reading --

    def _read(self) -> tuple[_Known, bytes]:
        """(what is known, cut-off rest). Only what was appended since the last time is parsed and checked."""
        try:
            with open(self.path, "rb") as file:
                known = self._known if _begins_with(file, self._known) else _NOTHING
                file.seek(known.size)
                lines, torn = _split(file.read())
        except FileNotFoundError:
            return _NOTHING, b""
        except OSError as error:
            raise RegistryError(f"{self.path}: cannot be read ({error.strerror}); check its permissions") from error
        events = list(known.events)
        for line in lines:
            event, wrong = _check(line, len(events) + 1, events[-1].hash if events else GENESIS)
            if wrong or event is None:
                raise RegistryError(
                    f"{self.path}: line {len(events) + 1}: {wrong[0]}; the log was damaged or edited, restore it from "
                    "a copy (evalsuite registry verify lists every fault)"
                )
            events.append(event)
        if lines:
            size = known.size + sum(len(line) + 1 for line in lines)
            self._known = known = _Known(size, lines[-1] + b"\n", tuple(events))
        return known, torn

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    # -- writing --

    def _append(self, event: str, facts: Mapping[str, Any]) -> Event:
        events = self.read()
        last = events[-1] if events else None
        bare = Event(
            seq=last.seq + 1 if last else 1,
            ts=self._clock().astimezone(UTC).isoformat(timespec="milliseconds"),
            actor=self._actor,
            host=self._host,
            code=code_identity(),
            event=event,
            prev_hash=last.hash if last else GENESIS,
            **facts,
        )
        made = _from_raw({**_to_raw(bare), "hash": _hash(_to_raw(bare))})
        with durable.step("writing the event", self.path):
            durable.make_folder(self.path.parent)
            durable.append(self.path, _line(made))
        return made

    # -- cut-off lines --

    def _torn_files(self) -> list[Path]:
        found = [path for path in self.path.parent.glob("torn-*.bin") if path.stem[5:].isdigit()]
        return sorted(found, key=lambda path: int(path.stem[5:]))

    def _free_name(self, seq: int, torn: bytes) -> Path:
        path = self.path.with_name(f"torn-{seq}.bin")
        while path.exists() and path.read_bytes() != torn:
            seq += 1
            path = self.path.with_name(f"torn-{seq}.bin")
        return path

    def _torn_faults(self, events: list[Event]) -> list[str]:
        found = []
        for event in events:
            if event.event != "repair" or "file" not in event.detail:
                continue
            path = self.path.with_name(str(event.detail["file"]))
            if not path.is_file():
                found.append(f"{path}: gone; event {event.seq} says that a cut-off line was kept there")
            elif hashlib.sha256(path.read_bytes()).hexdigest() != event.detail.get("sha256"):
                found.append(f"{path}: changed since event {event.seq} was written")
        return found


@dataclass(frozen=True, slots=True)
class _Known:
    """The part of a file that was read and found whole; `last` is its last line."""

    size: int
    last: bytes
    events: tuple[Event, ...]


_NOTHING = _Known(0, b"", ())


def _begins_with(file: BinaryIO, known: _Known) -> bool:
    """Whether the file still begins with what is known: a writer may have taken a line back and written another.

    The last line alone is looked at, since its hash covers all before it. (`verify` reads everything.)
    """
    file.seek(known.size - len(known.last))
    return file.read(len(known.last)) == known.last


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """(whole lines, cut-off rest). A last line that is no JSON counts as cut off: a crash can leave zeros behind."""
    keep = data.rfind(b"\n") + 1
    lines, torn = data[:keep].split(b"\n")[:-1], data[keep:]
    if lines and not torn and _parse(lines[-1]) is None:
        torn = lines.pop() + b"\n"
    return lines, torn


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) else None


def _check(line: bytes, seq: int, before: str) -> tuple[Event | None, list[str]]:
    """The event in a line, and what is wrong with it as the `seq`th one, following hash `before`."""
    raw = _parse(line)
    if raw is None:
        return None, ["not JSON"]
    if set(raw) != _FIELDS:
        return None, [f"not an event (expected the fields {', '.join(sorted(_FIELDS))})"]
    try:
        event, fits = _from_raw(raw), raw["hash"] == _hash(raw) and canonical(raw) == line
    except ValueError:  # an infinity, which Python's JSON reads and the canonical form has not
        return None, ["not canonical JSON"]
    wrong = [] if fits else ["its hash does not fit its content"]
    if event.prev_hash != before:
        wrong.append("does not follow the line before (prev_hash)")
    if event.seq != seq:
        wrong.append(f"seq is {event.seq!r}, expected {seq}")
    return event, wrong


def _hash(raw: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in raw.items() if name not in ("prev_hash", "hash")}
    return hashlib.sha256(str(raw["prev_hash"]).encode() + canonical(rest)).hexdigest()


def _hash_in(line: bytes) -> str:
    return str((_parse(line) or {}).get("hash", ""))


def _line(event: Event) -> bytes:
    return canonical(_to_raw(event)) + b"\n"


def _to_raw(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in _FIELDS}


def _from_raw(raw: Mapping[str, Any]) -> Event:
    """An event as it will be read again: tuples become lists, so that what was written equals what comes back."""
    return Event(**json.loads(canonical(raw)))


def _repair_facts(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    detail = {"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {"reason": "the last line was cut off by a crash", "detail": detail}
