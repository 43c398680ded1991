"""What a person sees of a loop: a small table that stays current on a terminal, plain lines elsewhere. To stderr."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from evalsuite.errors import EvalsuiteError
from evalsuite.loop.hooks import Gated
from evalsuite.trainers.events import Event, EventReader

if TYPE_CHECKING:
    from rich.console import Group

POLL_S = 0.5
EVERY_S = 30.0  # between two lines of steps where lines are written
SHOWN = 5  # verdicts in the table


class View(Protocol):
    """Told of everything that happens in a loop."""

    def say(self, line: str) -> None: ...

    def result(self, line: str) -> None:
        """Prints what the command is asked for, to stdout, clear of what is drawn."""

    def stage(self, name: str, out: Path) -> None: ...

    def gating(self, checkpoint: str) -> None: ...

    def gated(self, checkpoint: str, verdict: Gated) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Tells nobody anything."""

    def say(self, line: str) -> None: ...

    def result(self, line: str) -> None:
        print(line, flush=True)

    def stage(self, name: str, out: Path) -> None: ...

    def gating(self, checkpoint: str) -> None: ...

    def gated(self, checkpoint: str, verdict: Gated) -> None: ...

    def close(self) -> None: ...


class Lines:
    """One line for each thing that happened, and the trainer's warnings as they come: for logs and pipes.

    Of the trainer's steps there is a line every `every_s` seconds, and one of the last.
    """

    def __init__(self, stream: TextIO | None = None, every_s: float = EVERY_S) -> None:
        self._stream = stream or sys.stderr
        self._follower = _Follower(self._on_event)
        self._every_s, self._told_at = every_s, time.monotonic()
        self._step: Event | None = None  # not told yet
        self._verdict = ""

    def say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def result(self, line: str) -> None:
        print(line, flush=True)

    def stage(self, name: str, out: Path) -> None:
        self._tell_step()
        self.say(f"{name}: training in {out}")
        self._follower.follow(out)

    def gating(self, checkpoint: str) -> None:
        self.say(f"{checkpoint}: judging")

    def gated(self, checkpoint: str, verdict: Gated) -> None:
        cost = f"  ({verdict.cost['used']:.2f} of a full run)" if "used" in verdict.cost else ""
        self.say(f"{checkpoint}: {verdict.outcome}  {verdict.line}{cost}")
        self._verdict = f"{checkpoint} {verdict.outcome}"

    def close(self) -> None:
        self._follower.close()
        self._tell_step()

    def _on_event(self, event: Event) -> None:
        if event["kind"] == "warning":
            self.say(f"warning: {event.get('text', '')}")
        elif event["kind"] == "step":
            self._step = event
            if time.monotonic() - self._told_at >= self._every_s:
                self._tell_step()

    def _tell_step(self) -> None:
        event, self._step = self._step, None  # it is told by two threads
        if event is not None:
            self.say(step_line(event) + (f"  last verdict: {self._verdict}" if self._verdict else ""))
            self._told_at = time.monotonic()


class Live:
    """Stage, step, last verdicts and the cost saved, redrawn in place; gone while the gate draws its own.

    What stays on the screen is what was said, what the gates drew, and the table of all verdicts at the end.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console(stderr=True)
        self._live: RichLive | None = None
        self._drawing = threading.Lock()  # a line said while the table first appears would land in the table
        self._follower = _Follower(self._on_event)
        self._stage, self._step = "", ""
        self._verdicts: list[tuple[str, Gated]] = []

    def say(self, line: str) -> None:
        with self._drawing:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def result(self, line: str) -> None:
        self._hide()
        print(line, flush=True)
        self._draw()

    def stage(self, name: str, out: Path) -> None:
        self._stage, self._step = name, ""
        self._follower.follow(out)
        self._draw()

    def gating(self, checkpoint: str) -> None:
        self._hide()
        self.say(f"{checkpoint}: judging")

    def gated(self, checkpoint: str, verdict: Gated) -> None:
        self._verdicts.append((checkpoint, verdict))
        self._draw()

    def close(self) -> None:
        self._follower.close()
        self._hide()
        if self._verdicts:
            self._stage, self._step = "", ""
            self._console.print(self._table(len(self._verdicts)))

    def _on_event(self, event: Event) -> None:
        if event["kind"] == "step":
            self._step = step_line(event)
        elif event["kind"] == "warning":
            self.say(f"warning: {event.get('text', '')}")

    def _draw(self) -> None:
        from rich.live import Live as RichLive

        with self._drawing:
            if self._live is None:
                self._live = RichLive(
                    console=self._console, get_renderable=self._table, refresh_per_second=2, transient=True
                )
                self._live.start()

    def _hide(self) -> None:
        with self._drawing:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def _table(self, n: int = SHOWN) -> Group:
        """The stage with its step, the last n verdicts, what they cost."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        colours = {"promote": "green", "block": "red", "hold": "yellow"}
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column()
        for name, verdict in self._verdicts[-n:]:
            table.add_row(Text(name), Text(verdict.outcome, colours[verdict.outcome]), Text(verdict.line))
        saved = saved_line([verdict for _, verdict in self._verdicts])
        head = f"{self._stage}  {self._step or 'training'}" if self._stage else ""
        parts = (
            (head, Text(head, "bold", no_wrap=True, overflow="ellipsis")),
            (self._verdicts, table),
            (saved, Text(saved, "dim")),
        )
        return Group(*(part for there, part in parts if there))


def view() -> View:
    """The table on a terminal, lines elsewhere."""
    return Live() if sys.stderr.isatty() else Lines()


def step_line(event: Mapping[str, Any]) -> str:
    """`step 120/14678  2 h 05 min left  loss 0.532  lr 5e-07  21,300 tokens/s`, as far as the event tells it.

    What a narrow terminal cuts off is what matters least.
    """
    total = f"/{event['steps']}" if _is_number(event.get("steps")) else ""
    words = [f"{_duration(event['eta_s'])} left"] if _is_number(event.get("eta_s")) else []
    words += [f"{name} {event[name]:.4g}" for name in ("loss", "lr", "reward", "kl") if _is_number(event.get(name))]
    words += [f"{event['tokens_per_s']:,.0f} tokens/s"] if _is_number(event.get("tokens_per_s")) else []
    return "  ".join([f"step {event.get('step', '?')}{total}", *words])


def _duration(seconds: float) -> str:
    """`40 s`, `12 min`, `2 h 05 min`, `3 d 4 h`; a thing that is not finite is `?`."""
    if not math.isfinite(seconds):
        return "?"
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def saved_line(verdicts: list[Gated]) -> str:
    """`3 verdicts for 1.05 runs of the suite, 1.95 saved`; empty when no verdict tells its cost."""
    used = [verdict.cost["used"] for verdict in verdicts if "used" in verdict.cost]
    if not used:
        return ""
    n = len(used)
    return f"{n} verdict{'s' * (n != 1)} for {sum(used):.2f} runs of the suite, {n - sum(used):.2f} saved"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Follower:
    """Reads the events of the current stage in a thread of its own: training goes on while the loop judges."""

    def __init__(self, tell: Any) -> None:
        self._tell = tell
        self._reader: EventReader | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, out: Path) -> None:
        self._look()
        reader = EventReader(out / "events.jsonl")
        with suppress(EvalsuiteError):
            reader.new()  # what an earlier call has told
        with self._lock:
            self._reader = reader
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="loop-view", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
        self._look()

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            self._look()

    def _look(self) -> None:
        with self._lock:
            if self._reader is None:
                return
            try:
                for event in self._reader.new():
                    self._tell(event)
            except EvalsuiteError:
                self._reader = None  # whoever runs the trainer says what is wrong with its events
