"""States and checkpoints on disk: written under a temporary name, made durable, then renamed. Nothing is written twice.

    <out>/checkpoints/step-000100/   a model folder, what is judged
    <out>/state/step-000100/         what going on from there needs
The order is state, checkpoint, event, so whatever was announced is complete and can be resumed from.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.errors import DiskFull, TrainerFailed
from evalsuite.trainers.events import Event
from evalsuite.trainers.files import load_json, sync_folder
from train_plugins.pinning import remove_leftovers

FAULT = "EVALSUITE_TRAIN_FAULT"
POINTS = (
    "step-logged", "state-written", "state-renamed", "checkpoint-written", "checkpoint-renamed", "event-appended",
    "rollback-logged", "control-obeyed",
)  # fmt: skip
NAME = re.compile(r"step-(\d{6,})(?:-a(\d+))?")
COUNTERS = "run.json"
KEEP_STATES = 2
# What safetensors says, and torch, which does not say why it could not write.
FULL = ("No space left", "os error 28", "PytorchStreamWriter failed", "inline_container.cc", "iostream error")
ADVICE = "delete the folder to go on from the state before it"


@dataclass(frozen=True, slots=True)
class Point:
    """Where a run goes on: the state of a step. `rollback` is the event that sent it there."""

    name: str
    step: int
    attempt: int
    folder: Path
    rollback: Event | None = None


def fault(point: str) -> None:
    """Where a test has the worker killed: EVALSUITE_TRAIN_FAULT=point, or point:3 for the third time it is passed."""
    wanted, _, number = os.environ.get(FAULT, "").partition(":")
    if wanted != point:
        return
    _passed[point] = _passed.get(point, 0) + 1
    if _passed[point] == int(number or 1):
        os.kill(os.getpid(), signal.SIGKILL)


_passed: dict[str, int] = {}


def step_name(step: int, attempt: int) -> str:
    """`step-000250`, after a rollback `step-000250-a1`."""
    return f"step-{step:06d}" + (f"-a{attempt}" if attempt else "")


def read_name(name: str) -> tuple[int, int] | None:
    """(step, attempt) of a folder's name; None for another name."""
    match = NAME.fullmatch(name)
    return (int(match[1]), int(match[2] or 0)) if match else None


def states(out: Path) -> tuple[Point, ...]:
    """Complete states, oldest first."""
    folder = out / "state"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    known = sorted((at[1], at[0], name) for name in names if (at := read_name(name)))
    return tuple(Point(name, step, attempt, folder / name) for attempt, step, name in known)


def resume_point(out: Path, events: Sequence[Event]) -> Point | None:
    """Where a start of the worker goes on, None for the beginning.

    A state without its checkpoint, which a kill left, counts: the checkpoint is written from it. Raises TrainerFailed
    where checkpoints were published but no state is left.
    """
    rollbacks = [event for event in events if event["kind"] == "rollback"]
    attempt = len(rollbacks)
    here = [point for point in states(out) if point.attempt == attempt]
    if here:
        return here[-1]
    if rollbacks:
        return rolled_back(out, rollbacks[-1])
    if any(event["kind"] == "checkpoint" for event in events):
        raise TrainerFailed(
            f"{out / 'state'}: no state to go on from, although checkpoints were published; put it back, or use "
            "another --out to start anew"
        )
    return None


def rolled_back(out: Path, event: Event) -> Point:
    """The state that a rollback event goes to. Raises TrainerFailed when it is gone."""
    name = str(event["to_name"])
    at = read_name(name)
    if at is None or not (out / "state" / name).is_dir():
        raise TrainerFailed(f"{out / 'state' / name}: the state to roll back to is gone; use another --out")
    return Point(name, at[0], int(event["attempt"]), out / "state" / name, event)


def read_counters(point: Point) -> dict[str, Any]:
    """What the run had counted when the state was written. Raises TrainerFailed for a state without it."""
    try:
        found = load_json(point.folder / COUNTERS)
    except (OSError, ValueError) as error:
        raise TrainerFailed(f"{point.folder / COUNTERS}: {error}; {ADVICE}") from error
    if found is None:
        raise TrainerFailed(f"{point.folder}: no {COUNTERS} in it; {ADVICE}")
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def finish(temporary: Path, final: Path, what: str) -> None:
    """Makes a folder durable and gives it its name. `what` names the fault points."""
    for parent, _, names in os.walk(temporary):
        for name in names:
            _sync_file(Path(parent) / name)
        sync_folder(Path(parent))
    fault(f"{what}-written")
    if final.exists():
        raise TrainerFailed(f"{final}: it is there already, and what was published is not written again")
    os.rename(temporary, final)
    sync_folder(final.parent)
    fault(f"{what}-renamed")


def link_weights(source: Path, into: Path) -> bool:
    """Gives a checkpoint the weight files of its state, by hard links or else copies; False where it has none."""
    found = sorted(source.glob("model*.safetensors*"))
    for path in found:
        try:
            os.link(path, into / path.name)
        except OSError:
            shutil.copy2(path, into / path.name)
    return bool(found)


def prune_states(out: Path, protected: frozenset[str]) -> None:
    """Removes all states but the last two and the protected ones."""
    for point in states(out)[:-KEEP_STATES]:
        if point.name not in protected:
            shutil.rmtree(point.folder, ignore_errors=True)


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """A disk that filled up during a save of the run in `folder` becomes DiskFull, whichever library met it, and what
    was half-written goes: its room is needed to say so."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or any(words in str(error) for words in FULL):
            for kind in ("state", "checkpoints"):
                remove_leftovers(folder / kind)
            raise DiskFull(
                f"{folder}: the disk filled up during a save; free some space and run the same command again"
            ) from error
        raise


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
