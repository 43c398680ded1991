"""A Model that lives in a child process: its memory is surely free after `close()`, and its crash is a message.

The child is a fresh interpreter (`evalsuite.models.child_main`), not a fork and not a `multiprocessing` spawn: no CUDA
context is inherited, and a caller's script needs no `if __name__ == "__main__"`. Requests and results pass over two
pipes as JSON (`evalsuite.models.wire`); the child ends when its caller does, however that ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from evalsuite import errors
from evalsuite.errors import EngineCrash, EngineError, EvalsuiteError
from evalsuite.models.wire import Frame, Pipe, pack_requests, unpack_result
from evalsuite.types import Failed, GenerateRequest, Likelihoods, LoglikRequest, Response

JOIN_S = 30.0
TERMINATE_S = 5.0
SHOWN_LINES = 20


class ChildDied(Exception):
    """The child process ended without being told to. The text is what it said last."""


class ChildModel:
    """Any Model class (`target` is "module:Class"), built from `checkpoint` and `options` in a child process.

    The child starts with the constructor and loads while the caller goes on; what goes wrong there is raised by the
    first call that needs it. A child that dies is started once more with `smaller(options)` and goes on with what is
    left; a second death raises EngineCrash. One call at a time: a new one takes over from an iterator left open.
    """

    def __init__(
        self,
        target: str,
        checkpoint: Path,
        options: Mapping[str, Any],
        *,
        name: str,
        environment: Mapping[str, str] | None = None,
        ahead: int = 256,
        chat_template: str | None = None,
    ) -> None:
        self.name = name
        self.checkpoint = Path(checkpoint)
        self.n_restarts = 0
        self._target, self._options, self._environment = target, dict(options), dict(environment or {})
        self._ahead = ahead
        self._chat_template = chat_template
        self._run = 0  # number of the call whose results are wanted
        self._child: Child | None = None
        self.start()

    def start(self) -> None:
        """Starts loading in the child; returns at once. Does nothing when it is started already."""
        if self._child is None:
            load = {"op": "load", "target": self._target, "checkpoint": str(self.checkpoint), "options": self._options}
            self._child = Child(load, self._environment)

    @property
    def max_length(self) -> int:
        return int(self._ready()["max_length"])

    def fingerprint(self) -> Mapping[str, str]:
        return cast("Mapping[str, str]", self._ready()["fingerprint"])

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        return self.template.render(messages, add_generation_prompt)

    def encode(self, text: str, *, chat: bool) -> list[int]:
        return self.encoder.encode(text, chat=chat)

    def generate(
        self, requests: Sequence[GenerateRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Response]]:
        lost = Response("", "error", why="the engine lost this request")
        return cast("Iterator[tuple[int, Response]]", self._stream("generate", requests, wanted, lost))

    def loglikelihood(
        self, requests: Sequence[LoglikRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Likelihoods]]:
        lost = Failed("the engine lost this request")
        return cast("Iterator[tuple[int, Likelihoods]]", self._stream("loglikelihood", requests, wanted, lost))

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    @cached_property
    def template(self) -> Any:
        from evalsuite.models.chat import ChatTemplate

        return ChatTemplate.from_checkpoint(self.checkpoint, self._chat_template)

    @cached_property
    def encoder(self) -> Any:
        from evalsuite.models.encoding import Encoder

        return Encoder.from_checkpoint(self.checkpoint)

    def smaller(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options for the second start, after a death that may have been for want of memory."""
        return dict(options)

    def _ready(self) -> Frame:
        self.start()
        assert self._child is not None
        try:
            return self._child.wait_ready()
        except ChildDied as death:
            raise EngineCrash(f"the {self.name} engine did not start: {death}") from None

    def _stream(
        self, kind: str, requests: Sequence[Any], wanted: Collection[int] | None, lost: Response | Failed
    ) -> Iterator[tuple[int, Response | Likelihoods]]:
        left = set(range(len(requests)) if wanted is None else wanted)
        while left:
            self._ready()
            try:
                yield from self._call(kind, requests, left)
            except ChildDied as death:
                self.close()
                if self.n_restarts:
                    raise EngineCrash(
                        f"the {self.name} engine died twice, {len(left)} requests are left; the same command goes on "
                        f"where it stopped. {death}"
                    ) from None
                self.n_restarts += 1
                self._options = self.smaller(self._options)
                continue
            yield from ((index, lost) for index in sorted(left))
            return

    def _call(self, kind: str, requests: Sequence[Any], left: set[int]) -> Iterator[tuple[int, Response | Likelihoods]]:
        """Results of one call in the running child; takes out of `left` what it yields."""
        child = self._child
        assert child is not None
        self._run = number = self._run + 1
        child.send({
            "op": "run", "id": number, "kind": kind, "ahead": self._ahead,
            "requests": pack_requests(requests), "wanted": None if len(left) == len(requests) else sorted(left),
        })  # fmt: skip
        finished = False
        try:
            taken = 0
            while True:
                if self._run != number:
                    raise RuntimeError("another call to this model was started before this one was finished")
                frame = child.receive(number)
                if frame["ev"] == "done":
                    finished = True
                    return
                if (index := frame["index"]) in left:
                    left.discard(index)
                    yield index, unpack_result(frame["value"])
                taken += 1
                if taken >= max(1, self._ahead // 4):
                    child.send({"op": "ack", "id": number, "n": taken})
                    taken = 0
        finally:
            if not finished and self._child is child:
                child.try_send({"op": "cancel", "id": number})


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
                [sys.executable, "-P", "-m", "evalsuite.models.child_main", *ends],
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
        self._ready: Frame | None = None
        self._said: deque[str] = deque(maxlen=200)
        self._listener = threading.Thread(target=self._listen, name="child-stderr", daemon=True)
        self._listener.start()
        self.try_send(load)  # a child that died at once is noticed when its answer is waited for

    def wait_ready(self) -> Frame:
        """Its first frame. Raises the user's error that kept it from loading, or ChildDied."""
        if self._ready is None:
            self._ready = self.receive(None)
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
        try:
            self.send(frame)
        except ChildDied:
            pass

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
        for what in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._signal(what)
                self._wait(TERMINATE_S)
        self._signal(signal.SIGKILL)  # what an engine started and left behind
        deadline = time.monotonic() + TERMINATE_S
        while _members(self.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._listener.join(TERMINATE_S)

    def _wait(self, seconds: float) -> None:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass

    def _signal(self, what: signal.Signals) -> None:
        try:
            os.killpg(self.pid, what)
        except (ProcessLookupError, PermissionError):
            pass

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
