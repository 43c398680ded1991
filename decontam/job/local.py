"""Runs the pieces of a job in threads of this process: the kernel holds no interpreter lock."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Protocol

from decontam.job.work import Outcome, Piece, Task, do


class Runner(Protocol):
    """Does all pieces and tells of each when it is over, in any order.

    Pieces are begun in the order given, and none more once `stop()` says so; those under way are still finished and
    told. What `do` raises is raised.
    """

    def __call__(self, task: Task, pieces: Sequence[Piece], stop: Callable[[], bool]) -> Iterator[Outcome]: ...


def in_threads(workers: int) -> Runner:
    """A runner of so many threads. They are daemons: a run that is interrupted does not wait for them."""

    def run(task: Task, pieces: Sequence[Piece], stop: Callable[[], bool]) -> Iterator[Outcome]:
        waiting = iter(pieces)
        taking = threading.Lock()
        left = threading.Event()
        told: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                while not (left.is_set() or stop()):
                    with taking:
                        piece = next(waiting, None)
                    if piece is None:
                        break
                    told.put(do(task, piece))
                told.put(None)
            except BaseException as error:
                told.put(error)

        n_busy = min(workers, len(pieces))
        for number in range(n_busy):
            threading.Thread(target=work, name=f"decontam-{number}", daemon=True).start()
        try:
            while n_busy:
                outcome = told.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                if outcome is None:
                    n_busy -= 1
                else:
                    yield outcome
        finally:
            left.set()

    return run


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may use: those it may run on, and no more than a container's share of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
        return min(cores, max(1, ceil(int(limit) / int(period))))
    except (OSError, ValueError):  # no limit: another system, an older kernel, or the word "max"
        return cores
