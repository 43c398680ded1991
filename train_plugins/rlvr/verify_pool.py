"""Processes that verify responses: what hangs is killed, what dies is replaced, and the rest goes on.

They are started anew, never forked: the process that trains has threads of its own. A thread hands out chunks and
keeps the time, so that verifying goes on while the caller does something else.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import pickle
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from evalsuite.errors import EvalsuiteError, UsageError
from train_plugins.rlvr.verify_worker import Answer, Setting

START_S = 180.0  # until a process has loaded its verifiers, on a machine that is busy with something else
STARTS = 3  # in a row that fail before the pool gives up
MOST_CHUNK = 64
TRIES = 2  # of a call whose process died: it may have been killed over something else
MODULE = "train_plugins.rlvr.verify_worker"


@dataclass(frozen=True, slots=True)
class Call:
    """One response for one verifier; `limit_s` is its time."""

    verifier: str
    text: str
    row: Mapping[str, Any]
    limit_s: float


@dataclass(slots=True)
class _Batch:
    """What one `submit` asked for, and what is known by now."""

    calls: Sequence[Call]
    answers: list[Answer | None]
    left: int
    future: Future[list[Answer]] = field(default_factory=Future)
    deaths: Counter[int] = field(default_factory=Counter)


_Job = tuple[_Batch, int]


@dataclass(slots=True)
class _Worker:
    """A process with the jobs that it was given; the first of them is running."""

    process: subprocess.Popen[bytes]
    deadline: float
    ready: bool = False
    jobs: deque[_Job] = field(default_factory=deque)
    said: bytes = b""

    @property
    def idle(self) -> bool:
        return self.ready and not self.jobs

    def send(self, thing: Any) -> None:
        assert self.process.stdin is not None
        body = pickle.dumps(thing, protocol=5)
        left = memoryview(len(body).to_bytes(8, "big") + body)
        with contextlib.suppress(BrokenPipeError):  # its death is seen when its output ends
            while left:
                left = left[os.write(self.process.stdin.fileno(), left) :]

    def code(self) -> int | None:
        """What it ended with, minus the signal where there was one; None when it has not."""
        try:
            return self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Kills it with everything in its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class VerifyPool:
    """`n` processes that know the verifiers of `setting`. They start at once; `submit` does not wait for them."""

    def __init__(self, setting: Setting, n: int) -> None:
        self._setting, self._n = setting, n
        self._todo: deque[_Job] = deque()
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._broken = ""
        self._closed = False
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._bell, self._ring = os.pipe()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="verify", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def pids(self) -> list[int]:
        """Process ids of those that run by now."""
        return [worker.process.pid for worker in self._workers]

    def submit(self, calls: Sequence[Call]) -> Future[list[Answer]]:
        """The answers in the order of the calls, once all are there. UsageError when no process can be started."""
        batch = _Batch(calls, [None] * len(calls), len(calls))
        if not calls:
            batch.future.set_result([])
            return batch.future
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._todo.extend((batch, index) for index in range(len(calls)))
            os.write(self._ring, b"!")
        return batch.future

    def close(self) -> None:
        """Ends all processes, whatever they are at; what was not answered is cancelled."""
        with self._lock:
            self._closed = True
            if self._ring < 0:
                return
            ring, self._ring = self._ring, -1
        os.write(ring, b"!")
        self._thread.join()
        atexit.unregister(self.close)
        os.close(ring)
        os.close(self._bell)

    # -- the thread --

    def _run(self) -> None:
        try:
            while not self._closed:
                self._fill()
                self._wait()
        except Exception as error:  # a bug of ours must reach whoever waits for an answer
            self._give_up(error)
            raise
        finally:
            with self._lock:
                self._closed = True
            self._give_up(None)
            for worker in self._workers:
                worker.end()
            self._selector.close()

    def _fill(self) -> None:
        """As many processes as there should be, and work for the idle ones."""
        if self._broken:
            self._give_up(UsageError(self._broken))
            return
        while len(self._workers) < self._n:
            self._start()
        for worker in self._workers:
            if worker.idle and self._todo:
                with self._lock:
                    size = min(MOST_CHUNK, -(-len(self._todo) // (2 * self._n)))
                    worker.jobs.extend(self._todo.popleft() for _ in range(size))
                calls = [batch.calls[index] for batch, index in worker.jobs]
                worker.send([(call.verifier, call.text, call.row) for call in calls])
                worker.deadline = time.monotonic() + calls[0].limit_s

    def _start(self) -> None:
        command = [sys.executable, "-P", "-m", MODULE]
        places = [os.path.abspath(place) for place in sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
        # A session of its own: Ctrl-C is ours to act on, and all that it starts can be ended with it.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True, bufsize=0
        )
        assert process.stdout is not None
        worker = _Worker(process, time.monotonic() + START_S)
        self._workers.append(worker)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        worker.send(self._setting)

    def _wait(self) -> None:
        """Until somebody says something or somebody's time is over."""
        due = min((w.deadline for w in self._workers if not w.idle), default=None)
        for key, _ in self._selector.select(None if due is None else max(0.0, due - time.monotonic())):
            if key.data is None:
                os.read(self._bell, 4096)
            else:
                self._hear(key.data)
        now = time.monotonic()
        for worker in [w for w in self._workers if not w.idle and w.deadline < now]:
            self._lose(worker, timed_out=True)

    def _hear(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        said = os.read(worker.process.stdout.fileno(), 1 << 16)
        if not said:
            self._lose(worker, timed_out=False)
            return
        *lines, worker.said = (worker.said + said).split(b"\n")
        for line in lines:
            if line == b"ready":
                worker.ready, self._failed_starts = True, 0
            elif line.startswith(b"broken "):
                self._broken = str(json.loads(line.removeprefix(b"broken ")))
            else:
                _answered(worker.jobs.popleft(), Answer(*json.loads(line)))
                if worker.jobs:
                    batch, index = worker.jobs[0]
                    worker.deadline = time.monotonic() + batch.calls[index].limit_s

    def _lose(self, worker: _Worker, *, timed_out: bool) -> None:
        """Ends a process that is silent or dead. Its running call is answered, or tried again; the others go back."""
        assert worker.process.stdout is not None
        self._selector.unregister(worker.process.stdout)
        self._workers.remove(worker)
        died = None if timed_out else worker.code()
        worker.end()
        timed_out = timed_out or died == -signal.SIGALRM
        if not worker.ready:
            self._not_started(died)
        elif worker.jobs and timed_out:
            _answered(worker.jobs.popleft(), Answer(0.0, "timeout", failed=True))
        elif worker.jobs:
            self._accuse(worker, died)
        with self._lock:
            self._todo.extendleft(reversed(worker.jobs))

    def _accuse(self, worker: _Worker, died: int | None) -> None:
        """What ran in a process that died is tried once more: somebody else may have killed it."""
        batch, index = worker.jobs[0]
        batch.deaths[index] += 1
        if batch.deaths[index] >= TRIES:
            why = f"the verifying process died, twice (exit code {died})"
            _answered(worker.jobs.popleft(), Answer(0.0, why, failed=True))

    def _not_started(self, died: int | None) -> None:
        self._failed_starts += 1
        if self._failed_starts >= STARTS and not self._broken:
            how = f"did not start within {START_S:g} s" if died is None else f"ended with exit code {died}"
            self._broken = f"the verifying process {how}, {STARTS} times; what it said stands above"

    def _give_up(self, error: Exception | None) -> None:
        """Tells everybody who waits; None: that it was cancelled."""
        with self._lock:
            jobs = [*self._todo, *itertools.chain.from_iterable(worker.jobs for worker in self._workers)]
            self._todo.clear()
        for worker in self._workers:
            worker.jobs.clear()
        for batch in {id(batch): batch for batch, _ in jobs}.values():
            with contextlib.suppress(InvalidStateError):
                if error is None:
                    batch.future.cancel()
                else:
                    batch.future.set_exception(_fresh(error))


def _fresh(error: Exception) -> Exception:
    return type(error)(str(error)) if isinstance(error, EvalsuiteError) else error


def _answered(job: _Job, answer: Answer) -> None:
    batch, index = job
    batch.answers[index] = answer
    batch.left -= 1
    if batch.left == 0:
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            batch.future.set_result([each for each in batch.answers if each is not None])
