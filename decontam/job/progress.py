"""What a person sees while a job runs: one bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from decontam.job.work import Done
from decontam.report.passages import visible


class Observer(Protocol):
    """Told of everything that happens in a job. Writes to stderr, never to stdout."""

    def say(self, line: str) -> None: ...

    def planned(self, total_bytes: int, n_shards: int, n_reused: int, reused_bytes: int) -> None:
        """Before the first shard; bytes are those on the disk."""

    def scanned(self, done: Done, on_disk: int) -> None:
        """After each shard."""

    def reading(self, on_disk: int) -> None:
        """Now and then, from another thread: the bytes that are read of compressed files under way."""

    def close(self) -> None: ...


class Silent:
    """Tells nobody anything."""

    def say(self, line: str) -> None: ...

    def planned(self, total_bytes: int, n_shards: int, n_reused: int, reused_bytes: int) -> None: ...

    def scanned(self, done: Done, on_disk: int) -> None: ...

    def reading(self, on_disk: int) -> None: ...

    def close(self) -> None: ...


@dataclass
class _Count:
    """How far a job is. Rates are of what this process scanned, not of what it found done."""

    total: int = 0
    n_shards: int = 0
    reached: int = 0
    n_done: int = 0
    new: int = 0
    n_bytes: int = 0
    n_rows: int = 0
    n_matches: int = 0
    n_broken: int = 0
    began: float = field(default_factory=lambda: time.monotonic())

    def add(self, done: Done, on_disk: int) -> None:
        self.reached += on_disk
        self.new += on_disk
        self.n_done += 1
        self.n_bytes += done.counts.n_bytes
        self.n_rows += done.counts.n_rows
        self.n_matches += done.n_matches
        self.n_broken += done.counts.n_broken

    def details(self) -> str:
        spent = max(time.monotonic() - self.began, 1e-3)
        rate = self.n_bytes / 1e6 / spent
        words = [
            f"{rate:,.{0 if rate >= 10 else 1}f} MB/s",
            _counted(self.n_rows, "row"),
            _counted(self.n_matches, "match", "es"),
        ]
        words += [f"{self.n_broken:,} broken"] if self.n_broken else []
        return ", ".join(words)

    def left(self, under_way: int = 0) -> str:
        """`12 s left`, from the bytes on the disk."""
        if not self.new + under_way:
            return ""
        spent = time.monotonic() - self.began
        seconds = max(0, self.total - self.reached - under_way) * spent / (self.new + under_way)
        if seconds < 100:
            return f"{seconds:.0f} s left"
        return f"{seconds / 60:.0f} min left" if seconds < 6000 else f"{seconds / 3600:.1f} h left"


def _counted(n: int, what: str, plural: str = "s") -> str:
    """`1 row`, `2,000 rows`."""
    return f"{n:,} {what}{plural if n != 1 else ''}"


class Lines:
    """Plain lines, at most one every `every_s` seconds and one at the end: for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, every_s: float = 30.0) -> None:
        self._stream = stream or sys.stderr
        self._every_s = every_s
        self._count = _Count()
        self._shown = 0.0

    def say(self, line: str) -> None:
        print(visible(line), file=self._stream, flush=True)

    def planned(self, total_bytes: int, n_shards: int, n_reused: int, reused_bytes: int) -> None:
        self._count = _Count(total_bytes, n_shards, reused_bytes, n_reused)
        self._shown = time.monotonic()
        before = f", {n_reused:,} done before" if n_reused else ""
        self.say(f"{_counted(n_shards, 'shard')}, {total_bytes / 1e6:,.1f} MB{before}")

    def scanned(self, done: Done, on_disk: int) -> None:
        count = self._count
        count.add(done, on_disk)
        if time.monotonic() - self._shown >= self._every_s or count.n_done == count.n_shards:
            self._shown = time.monotonic()
            left = f", {count.left()}" if count.n_done < count.n_shards else ""
            self.say(f"{count.n_done:,}/{count.n_shards:,} shards, {count.details()}{left}")

    def reading(self, on_disk: int) -> None:
        count = self._count
        if on_disk and time.monotonic() - self._shown >= self._every_s:
            self._shown = time.monotonic()
            part = f"{(count.reached + on_disk) / 1e6:,.1f} of {count.total / 1e6:,.1f} MB on disk"
            self.say(f"{count.n_done:,}/{count.n_shards:,} shards, {part}, {count.left(on_disk)}")

    def close(self) -> None: ...


class Live:
    """One bar with rate, rows, matches and expected end, drawn by rich on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("scan"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[details]}"),
            console=Console(stderr=True),
        )
        self._bar: Any = None
        self._count = _Count()

    def say(self, line: str) -> None:
        self._progress.console.print(visible(line), markup=False, highlight=False, soft_wrap=True)

    def planned(self, total_bytes: int, n_shards: int, n_reused: int, reused_bytes: int) -> None:
        self._count = _Count(total_bytes, n_shards, reused_bytes, n_reused)
        if n_reused:
            self.say(f"{n_reused:,} of {n_shards:,} shards were done before")
        self._bar = self._progress.add_task("scan", total=max(total_bytes, 1), completed=reused_bytes, details="")
        self._progress.start()

    def scanned(self, done: Done, on_disk: int) -> None:
        count = self._count
        count.add(done, on_disk)
        left = f", {count.left()}" if count.n_done < count.n_shards else ""
        self._progress.update(self._bar, completed=count.reached, details=count.details() + left)

    def reading(self, on_disk: int) -> None:
        count = self._count
        if on_disk:
            self._progress.update(self._bar, completed=count.reached + on_disk, details=count.left(on_disk))

    def close(self) -> None:
        self._progress.stop()


def observer() -> Observer:
    """A live bar on a terminal, plain lines elsewhere."""
    return Live() if sys.stderr.isatty() else Lines()
