"""One child process with a model in it, seen from its parent: start, frames, last words, and a clean end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from evalsuite import errors
from evalsuite.errors import EngineError, EvalsuiteError
from evalsuite.models.child.wire import Frame, Pipe

JOIN_S = 30.0
TERMINATE_S = 5.0
SHOWN_LINES = 20


class ChildDied(Exception):
    """The child process ended without being told to. The text is what it said last."""


class Child:
    """One child process and the pipes to it."""

    def __init__(self, load: Frame, environment: Mapping[str, str]) -> None:
        to_child, from_parent = os.pipe()
        to_parent, from_child = os.pipe()
        ends = [str(to_child), str(from_child)]
        # The whole path travels, as with a spawned process: the caller may run from a notebook or a source tree.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "evalsuite.models.child.main", *ends],
                env={**os.environ, **environment, "PYTHONPATH": path},
                pass_fds=[to_child, from_child],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the caller; and the whole group can be ended together
            )
        finally:
            os.close(to_child)
            os.close(from_child)
        self.pid = self._process.pid
        self._pipe = Pipe(to_parent, from_parent)
        self._ready: Frame | EvalsuiteError | None = None
        self._gone = False
        self._said: deque[str] = deque(maxlen=200)
        self._listener = threading.Thread(target=self._listen, name="child-stderr", daemon=True)
        self._listener.start()
        self.try_send(load)  # a child that died at once is noticed when its answer is waited for

    def wait_ready(self) -> Frame:
        """Its first frame. Raises the user's error that kept it from loading, or ChildDied."""
        if isinstance(self._ready, EvalsuiteError):
            raise self._ready
        if self._ready is None:
            try:
                self._ready = self.receive(None)
            except EvalsuiteError as error:
                self._ready = error
                raise
        return self._ready

    def receive(self, number: int | None) -> Frame:
        """The next frame of call `number`; what is left of older calls is skipped. Raises as `wait_ready`."""
        while True:
            try:
                frame = self._pipe.receive()
            except (EOFError, OSError):
                raise ChildDied(self._obituary()) from None
            if frame["ev"] == "error" and frame.get("id") in (None, number):
                if not frame["type"]:
                    raise ChildDied(self._obituary(frame["message"]))
                raise _known(frame["type"])(frame["message"])
            if frame["ev"] != "error" and frame.get("id") == number:
                return frame

    def send(self, frame: Frame) -> None:
        """Raises ChildDied. An interrupt in the middle of a frame ends the child: it could not read on."""
        try:
            self._pipe.send(frame)
        except OSError:
            raise ChildDied(self._obituary()) from None
        except BaseException:
            self._kill()
            raise

    def try_send(self, frame: Frame) -> None:
        with suppress(ChildDied):
            self.send(frame)

    def close(self) -> None:
        """Returns when the process and all that it started are gone."""
        try:
            if self._process.poll() is None:
                self.try_send({"op": "close"})
                self._wait(JOIN_S)
        finally:
            self._kill()
            self._pipe.close()

    def _kill(self) -> None:
        if self._gone:  # the system may have given its number to somebody else
            return
        for what in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._signal(what)
                self._wait(TERMINATE_S)
        self._signal(signal.SIGKILL)  # what an engine started and left behind
        deadline = time.monotonic() + TERMINATE_S
        while _members(self.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._gone = True
        self._listener.join(TERMINATE_S)

    def _wait(self, seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def _signal(self, what: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, what)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self._said.append(line.decode("utf-8", "replace").rstrip())

    def _obituary(self, message: str = "") -> str:
        """How it ended and the last lines that it wrote to stderr."""
        self._wait(TERMINATE_S)
        self._kill()
        code = self._process.returncode
        how = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        if code == -signal.SIGKILL and not message:
            how += ": perhaps the machine ran out of memory"
        lines = [line for line in self._said if line.strip()][-SHOWN_LINES:]
        return "\n".join([f"child process {self.pid}: {message or how}", *lines])


def _known(name: str) -> type[EvalsuiteError]:
    found = getattr(errors, name, EngineError)
    return found if isinstance(found, type) and issubclass(found, EvalsuiteError) else EngineError


def _members(group: int) -> list[int]:
    """Processes of a group that still run: one that has ended but was not collected holds no memory."""
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    state, _, pgrp = file.read().rpartition(")")[2].split()[:3]
            except (OSError, ValueError):
                continue
            if int(pgrp) == group and state not in "ZX":
                found.append(int(entry))
    return found
