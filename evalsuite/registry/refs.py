"""Refs: which checkpoint is champion, candidate, anchor, release. Small files that repeat the last move in the log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from evalsuite.errors import RegistryError, did_you_mean
from evalsuite.registry import durable
from evalsuite.registry.canonical import canonical
from evalsuite.registry.chain import Event

REFS = ("champion", "candidate", "anchor", "release")
MOVES = ("bootstrap", "promote", "rollback", "anchor")
"""The events that move a ref."""


@dataclass(frozen=True, slots=True)
class Ref:
    """`id` is a checkpoint's digest; `generation` counts the moves of this ref, 1, 2, 3 …"""

    id: str
    generation: int
    event_seq: int
    event_hash: str


class Refs:
    """The files of `refs/`. Reading needs no lock: a file is replaced in one step."""

    def __init__(self, root: Path) -> None:
        self.root = root / "refs"

    def path(self, name: str) -> Path:
        return self.root / f"{check_name(name)}.json"

    def read(self, name: str) -> Ref | None:
        """None when there is no such ref. Raises RegistryError for a file that is no ref."""
        path = self.path(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RegistryError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        found = parse(data)
        if found is None:
            raise RegistryError(
                f"{path}: damaged; move the file away, and the next command that writes makes it again from the log"
            )
        return found

    def write(self, name: str, ref: Ref) -> None:
        durable.make_folder(self.root)
        durable.replace(self.path(name), content(ref), "ref")

    def names(self) -> tuple[str, ...]:
        return tuple(name for name in REFS if (self.root / f"{name}.json").is_file())

    def sweep(self) -> None:
        """Removes temporary files that a killed process left. Hold the lock."""
        for part in self.root.glob(f".*{durable.PART}"):
            with suppress(OSError):
                part.unlink()


def check_name(name: str) -> str:
    if name not in REFS:
        raise RegistryError(f"no ref named {name!r}{did_you_mean(name, REFS)} (there are: {', '.join(REFS)})")
    return name


def content(ref: Ref) -> bytes:
    return canonical(asdict(ref)) + b"\n"


def parse(data: bytes) -> Ref | None:
    """The ref that these exact bytes stand for, or None."""
    try:
        raw = json.loads(data)
        ref = Ref(str(raw["id"]), int(raw["generation"]), int(raw["event_seq"]), str(raw["event_hash"]))
    except (ValueError, KeyError, TypeError):
        return None
    return ref if content(ref) == data else None


def moves(events: Iterable[Event], name: str) -> tuple[Event, ...]:
    """The events that moved this ref, oldest first."""
    return tuple(event for event in events if event.ref == name and event.event in MOVES)


def ref_of(event: Event) -> Ref:
    """What the ref's file holds after this event."""
    return Ref(str(event.id), int(event.generation or 0), event.seq, event.hash)


def rolled_back(history: Sequence[Event], to: int | None) -> Event:
    """The move whose checkpoint a rollback brings back: that of generation `to`, else the one before the present.

    "Before" sees through rollbacks: after 1 A, 2 B, 3 C and a rollback to 2, the one before is 1, not 3.
    """
    wanted = to if to is not None else _before(history, len(history))
    if not history:
        raise RegistryError("nothing to roll back: nothing was promoted yet (see: evalsuite registry log)")
    if to is None and wanted == 0:
        raise RegistryError("nothing to roll back to: the present one is the first (see: evalsuite registry log)")
    if not 1 <= wanted <= len(history):
        raise RegistryError(f"no generation {wanted} (there are 1 to {len(history)}; see: evalsuite registry log)")
    return history[_origin(history, wanted) - 1]


def _origin(history: Sequence[Event], generation: int) -> int:
    """The generation in which the checkpoint of this one was promoted."""
    while generation and history[generation - 1].event == "rollback":
        generation = int(history[generation - 1].detail["to"])
    return generation


def _before(history: Sequence[Event], generation: int) -> int:
    return _origin(history, _origin(history, generation) - 1) if generation else 0
