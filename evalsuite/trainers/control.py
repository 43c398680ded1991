"""The control file: what the loop tells a trainer after a verdict. Only the loop's process writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from evalsuite.trainers.files import load_json, replace_json
from evalsuite.trainers.types import Decision

SCHEMA = 1
NAME = "control.json"


@dataclass(frozen=True, slots=True)
class Control:
    """`about` is the checkpoint folder's name ("for" on disk). `seq` only grows: a trainer obeys each number once."""

    seq: int
    about: str
    decision: Decision
    to: str | None = None
    adjust: Mapping[str, Any] | None = None
    why: str = ""


def write_control(out: Path, control: Control) -> None:
    """Puts the decision in place of the last one, unless the file holds this number or a later one already."""
    last = read_control(out)
    if last is not None and last.seq >= control.seq:
        return
    content = {"schema": SCHEMA, "seq": control.seq, "for": control.about, "decision": control.decision}
    replace_json(out / NAME, {**content, "to": control.to, "adjust": control.adjust, "why": control.why})


def read_control(out: Path) -> Control | None:
    """The decision in the file; None when there is none, or when the file cannot be understood."""
    try:
        raw = load_json(out / NAME)
        if raw is None or raw["schema"] != SCHEMA or raw["decision"] not in get_args(Decision):
            return None
        decision = cast("Decision", raw["decision"])
        return Control(int(raw["seq"]), str(raw["for"]), decision, raw.get("to"), raw.get("adjust"), raw.get("why", ""))
    except (OSError, ValueError, KeyError, TypeError):
        return None


class ControlReader:
    """A trainer's view of the file: each decision once. A file that is broken three looks in a row means stop."""

    PATIENCE = 3

    def __init__(self, out: Path, seen: int = 0) -> None:
        self._out = out
        self._seen = seen
        self._broken = 0

    @property
    def is_broken(self) -> bool:
        """Whether the last look found a file that cannot be understood."""
        return self._broken > 0

    def next(self) -> Control | None:
        """A decision not given before, else None."""
        found = read_control(self._out)
        if found is None:
            self._broken = self._broken + 1 if (self._out / NAME).exists() else 0
            if self._broken < self.PATIENCE:
                return None
            return Control(self._seen, "", "stop", why=f"{self._out / NAME} cannot be read")
        self._broken = 0
        if found.seq <= self._seen:
            return None
        self._seen = found.seq
        return found
