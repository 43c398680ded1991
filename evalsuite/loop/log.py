"""`<out>/loop.jsonl`: everything the loop did, in order. It is the loop's only memory; a restart replays it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalsuite.errors import UsageError
from evalsuite.recipe import Recipe
from evalsuite.trainers.events import Event, append_event, cut_torn_line, read_events
from evalsuite.trainers.files import differences

KINDS = ("loop", "stage", "checkpoint", "gated", "lost_race", "promoted", "control", "stage_end")
FAULT = "EVALSUITE_LOOP_FAULT"
_BEFORE = {"gated": "gate-returned", "promoted": "promote-returned", "stage_end": "control-written"}
POINTS = tuple(
    point
    for kind in KINDS
    for point in (*([_BEFORE[kind]] if kind in _BEFORE else []), f"before-{kind}", f"torn-{kind}", f"after-{kind}")
)
"""Where a test may have the loop killed, in the order in which a stage passes them first."""


def fault(point: str) -> None:
    """Where a test has the loop killed: EVALSUITE_LOOP_FAULT=point, or point:3 for the third time it is passed."""
    wanted, _, number = os.environ.get(FAULT, "").partition(":")
    if wanted != point:
        return
    _passed[point] = _passed.get(point, 0) + 1
    if _passed[point] == int(number or 1):
        os.kill(os.getpid(), signal.SIGKILL)


_passed: dict[str, int] = {}


@dataclass(slots=True)
class StageState:
    """What was done in one stage. Checkpoints go by content digest, in the order they were seen."""

    start: Mapping[str, str] | None = None
    begun: bool = False
    seen: dict[str, Event] = field(default_factory=dict)
    gated: dict[str, Event] = field(default_factory=dict)
    void: set[str] = field(default_factory=set)
    promoted: dict[str, int] = field(default_factory=dict)
    controls: dict[str, Event] = field(default_factory=dict)
    ended: str | None = None

    @property
    def outcomes(self) -> tuple[str, ...]:
        return tuple(str(event["outcome"]) for digest, event in self.gated.items() if digest not in self.void)

    @property
    def n_rollbacks(self) -> int:
        return sum(event["decision"] == "rollback" for event in self.controls.values())

    def blocked_in_a_row(self) -> int:
        """Newest blocked checkpoints with nothing else judged between them, none counted before a rollback."""
        n = 0
        for digest, event in self.gated.items():
            if digest in self.void:
                continue
            n = n + 1 if event["outcome"] == "block" else 0
            if digest in self.controls and self.controls[digest]["decision"] == "rollback":
                n = 0
        return n


class LoopLog:
    """The open log of one loop; every change of state goes through `add`."""

    def __init__(self, out: Path) -> None:
        self.path = out / "loop.jsonl"
        self.stages: dict[str, StageState] = {}
        self.seq = 0
        self.recipe: Mapping[str, Any] | None = None
        cut_torn_line(self.path)
        for event in read_events(self.path):
            self._apply(event)

    def add(self, kind: str, /, **fields: Any) -> None:
        """Appends an event; it counts from the moment this returns."""
        fault(f"before-{kind}")
        if os.environ.get(FAULT, "").startswith(f"torn-{kind}"):
            self._tear(kind, fields)
        event = append_event(self.path, kind, **fields)
        fault(f"after-{kind}")
        self._apply(event)

    def stage(self, name: str) -> StageState:
        return self.stages.setdefault(name, StageState())

    def open_recipe(self, recipe: Recipe) -> None:
        """Writes which recipe this is, or refuses another one than the loop began with, naming what changed."""
        if self.recipe is None:
            self.add("loop", schema=1, recipe=recipe.digest, content=recipe.content)
        elif self.recipe["recipe"] != recipe.digest:
            changed = "; ".join(differences(self.recipe["content"], json.loads(json.dumps(recipe.content))))
            raise UsageError(
                f"{self.path.parent}: the recipe changed since this loop began ({changed}); "
                "use another --out, or put the recipe back"
            )

    def _apply(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "loop":
            self.recipe = event
            return
        state, digest = self.stage(event["stage"]), event.get("digest", "")
        if kind == "stage":
            state.start, state.begun = event["start"], True
        elif kind == "checkpoint":
            state.seen[digest] = event
        elif kind == "gated":
            state.gated[digest] = event
            if event["void"]:
                state.void.add(digest)
        elif kind == "lost_race":
            state.gated.pop(digest, None)
        elif kind == "promoted":
            state.promoted[digest] = event["generation"]
        elif kind == "control":
            state.controls[digest] = event
            self.seq = max(self.seq, event["seq"])
        elif kind == "stage_end":
            state.ended = event["reason"]

    def _tear(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Leaves what a power cut may leave of a line, then dies (tests only)."""
        data = json.dumps({"kind": kind, **fields}).encode()
        with self.path.open("ab") as file:
            file.write(data[: len(data) // 2])
        fault(f"torn-{kind}")
        cut_torn_line(self.path)


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Holds the folder: a second loop on it is refused, not queued, for the first one is doing its work."""
    out.mkdir(parents=True, exist_ok=True)
    fd = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise UsageError(f"{out}: another evalsuite loop is working here; wait for it, or use another --out") from None
    try:
        yield
    finally:
        os.close(fd)
