"""Runs many programs over the cores, each held by the sandbox; zygotes are kept for the next call.

A zygote that dies over a program is replaced and the program repeated once. A time limit is meant for a free core: a
program that hit it without having had most of a core is repeated once, alone, when everything else is done, with as
much more time by the clock as the machine is overloaded; it must then keep to the limit in CPU time.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evalsuite.models.cores import usable_cores
from evalsuite.sandbox import launch, levels
from evalsuite.sandbox.launch import Means, Zygote
from evalsuite.sandbox.types import Outcome, Policy, Program

MOST_WORKERS = 8
PATIENCE_S = 60.0  # beyond a program's own limit, for a machine that is busy with something else
STARVED = 0.8  # of a core
MOST_STRETCH = 4.0

_Key = tuple[Means, tuple[str, ...]]
_idle: dict[_Key, list[Zygote]] = {}
_lock = threading.Lock()
_owner = os.getpid()
_warned = False


@dataclass(slots=True)
class _Job:
    """A program on its zygote."""

    index: int
    zygote: Zygote
    deadline: float


def run_many(programs: Sequence[Program], policy: Policy | None = None) -> Iterator[tuple[int, Outcome]]:
    """(index, outcome) in completion order. Raises SandboxError before anything runs when isolation is not enough."""
    rules = policy or levels.policy()
    means = levels.require(rules)
    if means.level == "none":
        _warn()
    workers = min(rules.workers or min(usable_cores(), MOST_WORKERS), len(programs))
    return _Run(programs, means, workers).outcomes()


def _warn() -> None:
    global _warned
    if not _warned:
        print("warning: model-written code runs WITHOUT isolation (--unsafe-exec)", file=sys.stderr)
    _warned = True


class _Run:
    """What is left to run, what is running, and which programs get a second try."""

    def __init__(self, programs: Sequence[Program], means: Means, workers: int) -> None:
        self._programs = programs
        self._means = means
        self._workers = workers
        # Programs with the same libraries one after the other: they share zygotes.
        self._todo = deque(sorted(range(len(programs)), key=lambda i: programs[i].packages))
        self._busy: dict[int, _Job] = {}
        self._died: set[int] = set()
        self._starved: set[int] = set()
        self._alone: deque[int] = deque()

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        try:
            while self._todo or self._busy or self._alone:
                self._fill()
                for job in self._ready():
                    del self._busy[job.zygote.output]
                    if (outcome := self._outcome(job)) is not None:
                        yield job.index, outcome
        finally:
            for job in self._busy.values():
                job.zygote.close()

    def _fill(self) -> None:
        if not self._todo and not self._busy:
            self._todo, self._alone, self._workers = self._alone, deque(), 1
        while self._todo and len(self._busy) < self._workers:
            index = self._todo.popleft()
            program = self._programs[index]
            if index in self._starved:
                stretch = min(max(os.getloadavg()[0] / usable_cores(), 1.0), MOST_STRETCH)
                program = replace(program, timeout_s=stretch * program.timeout_s)
            zygote = _take(self._means, program.packages)
            with contextlib.suppress(OSError):  # its death is seen when it is asked for the answer
                zygote.ask(program)
            self._busy[zygote.output] = _Job(index, zygote, time.monotonic() + program.timeout_s + PATIENCE_S)

    def _ready(self) -> list[_Job]:
        """Jobs whose zygote has something to say, or has had time enough."""
        wait = max(0.0, min(job.deadline for job in self._busy.values()) - time.monotonic())
        readable, _, _ = select.select(list(self._busy), [], [], wait)
        now = time.monotonic()
        return [job for fd, job in self._busy.items() if fd in readable or job.deadline < now]

    def _outcome(self, job: _Job) -> Outcome | None:
        """None when the program will be run again."""
        said = _said(job)
        if "broken" in said:
            job.zygote.close()
            if job.index in self._died:
                return Outcome(False, f"not judged, twice: {said['broken']}", 0.0)
            self._died.add(job.index)
            self._todo.append(job.index)
            return None
        _give_back(self._means, job.zygote)
        if self._was_starved(job.index, said):
            self._starved.add(job.index)
            self._alone.append(job.index)
            return None
        limit = self._programs[job.index].timeout_s
        if job.index in self._starved and said["cpu_s"] > limit:
            return Outcome(False, f"timeout after {limit:g} s", float(said["seconds"]))
        return Outcome(bool(said["passed"]), str(said["why"]), float(said["seconds"]))

    def _was_starved(self, index: int, said: dict[str, Any]) -> bool:
        """Whether a time limit says more about this machine than about the program."""
        limit = self._programs[index].timeout_s
        return (
            str(said["why"]).startswith("timeout")
            and index not in self._starved
            and said["cpu_s"] < STARVED * limit
            and os.getloadavg()[0] > usable_cores()
        )


def _said(job: _Job) -> dict[str, Any]:
    if job.deadline < time.monotonic():
        return {"broken": "the sandbox does not answer"}
    try:
        return job.zygote.answer()
    except (EOFError, OSError):
        return {"broken": "the sandbox died"}


def _take(means: Means, packages: tuple[str, ...]) -> Zygote:
    """An idle zygote that is alive, or a new one."""
    global _owner
    with _lock:
        if _owner != os.getpid():  # after a fork the pipes belong to the parent
            _idle.clear()
            _owner = os.getpid()
        idle = _idle.get((means, packages), [])
        while idle:
            zygote = idle.pop()
            if zygote.process.poll() is None:
                return zygote
            zygote.close()
    return launch.start(means, packages)


def _give_back(means: Means, zygote: Zygote) -> None:
    with _lock:
        idle = _idle.setdefault((means, zygote.packages), [])
        if len(idle) < MOST_WORKERS:
            idle.append(zygote)
            return
    zygote.close()


@atexit.register
def close_all() -> None:
    """Ends the idle zygotes; the next program starts a new one."""
    if _owner == os.getpid():
        for idle in _idle.values():
            while idle:
                idle.pop().close()
