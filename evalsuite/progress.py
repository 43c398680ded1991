"""What a person sees while a long run goes on: one line for each benchmark on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, TextIO

from evalsuite.scorecard import Result
from evalsuite.types import Response


class Observer(Protocol):
    """Told of everything that happens in a run. Writes to stderr, never to stdout."""

    def say(self, line: str) -> None: ...

    def planned(self, benchmark: str, n_requests: int, n_reused: int, at_most: bool = False) -> None: ...

    def answered(self, benchmark: str, answer: Any) -> None: ...

    def done(self, result: Result) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Tells nobody anything."""

    def say(self, line: str) -> None: ...

    def planned(self, benchmark: str, n_requests: int, n_reused: int, at_most: bool = False) -> None: ...

    def answered(self, benchmark: str, answer: Any) -> None: ...

    def done(self, result: Result) -> None: ...

    def close(self) -> None: ...


class Lines:
    """Plain lines, at most one every `every_s` seconds for each benchmark: for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, every_s: float = 30.0) -> None:
        self._stream = stream or sys.stderr
        self._every_s = every_s
        self._counts: dict[str, _Count] = {}

    def say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def planned(self, benchmark: str, n_requests: int, n_reused: int, at_most: bool = False) -> None:
        self._counts[benchmark] = _Count(n_requests, n_reused)
        self.say(f"{benchmark}: reused {n_reused}, to do {'at most ' if at_most else ''}{n_requests - n_reused}")

    def answered(self, benchmark: str, answer: Any) -> None:
        count = self._counts[benchmark]
        count.add(answer)
        if time.monotonic() - count.shown >= self._every_s:
            count.shown = time.monotonic()
            self.say(f"{benchmark}: {count.done}/{count.total}{count.details()}")

    def done(self, result: Result) -> None:
        self.say(summary(result))

    def close(self) -> None: ...


class Live:
    """One updating line for each benchmark with a bar, rate and expected end, drawn by rich on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[details]}"),
            console=Console(stderr=True),
            transient=False,
        )
        self._progress.start()
        self._bars: dict[str, Any] = {}
        self._counts: dict[str, _Count] = {}

    def say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def planned(self, benchmark: str, n_requests: int, n_reused: int, at_most: bool = False) -> None:
        self._counts[benchmark] = _Count(n_requests, n_reused)
        details = f"reused {n_reused}" if n_reused else ""
        bar = self._progress.add_task(benchmark, total=n_requests, completed=n_reused, details=details, start=False)
        self._bars[benchmark] = bar

    def answered(self, benchmark: str, answer: Any) -> None:
        count, bar = self._counts[benchmark], self._bars[benchmark]
        if count.done == count.reused:
            self._progress.start_task(bar)
        count.add(answer)
        # Redrawing is rich's business (10 times a second); the fields are only worth formatting as often.
        if time.monotonic() - count.shown > 0.1 or count.done == count.total:
            count.shown = time.monotonic()
            self._progress.update(bar, completed=count.done, details=count.details().lstrip(", "))

    def done(self, result: Result) -> None:
        bar = self._bars[result.benchmark]
        self._progress.update(bar, completed=self._counts[result.benchmark].total, details=_value(result))

    def close(self) -> None:
        for benchmark, bar in self._bars.items():  # the last answers may have come too soon after others to be shown
            count = self._counts[benchmark]
            if count.done > count.reused:
                self._progress.update(bar, completed=count.done)
        self._progress.stop()


def observer() -> Observer:
    """Live bars on a terminal, plain lines elsewhere."""
    return Live() if sys.stderr.isatty() else Lines()


def summary(result: Result) -> str:
    """`gsm8k: exact_match 76.2 ±1.2 (n 1319, 2 failed, 1 truncated)`."""
    counts = [f"n {result.n}"]
    counts += [f"{n} {word}" for n, word in ((result.n_failed, "failed"), (result.n_truncated, "truncated")) if n]
    return f"{result.benchmark}: {result.metric} {_value(result)} ({', '.join(counts)})"


def _value(result: Result) -> str:
    if result.value is None:
        return "no score"
    return f"{result.value * 100:.1f}" + (f" ±{result.stderr * 100:.1f}" if result.stderr is not None else "")


class _Count:
    """Progress of one benchmark."""

    def __init__(self, total: int, reused: int) -> None:
        self.total = total
        self.reused = self.done = reused
        self.shown = self.started = time.monotonic()
        self.tokens = self.truncated = self.failed = 0

    def add(self, answer: Any) -> None:
        if self.done == self.reused:
            # The engine was loading until now.
            self.started = self.shown = time.monotonic()
        self.done += 1
        if isinstance(answer, Response):
            self.tokens += answer.n_tokens
            self.truncated += answer.finish == "length"
            self.failed += answer.finish == "error"
        else:
            self.failed += not isinstance(answer, tuple)

    def details(self) -> str:
        spent = max(time.monotonic() - self.started, 1e-3)
        words = [f"{self.tokens / spent:.0f} tokens/s"] if self.tokens else []
        words += [f"{n} {word}" for n, word in ((self.truncated, "truncated"), (self.failed, "failed")) if n]
        return "".join(f", {w}" for w in words)
