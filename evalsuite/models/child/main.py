"""What runs in the child process: builds one Model and answers the frames of `evalsuite.models.child.model`.

Started as `python -P -m evalsuite.models.child.main READ_FD WRITE_FD`. A thread reads frames, so that a caller that
ends, cancels or dies is noticed while the model computes.
"""

from __future__ import annotations

import importlib
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from evalsuite.errors import EvalsuiteError
from evalsuite.models.child.wire import Frame, Pipe, pack_result, unpack_generate, unpack_loglik

CLOSING_S = 20.0
"""How long a model may take to end by itself when it is told to."""


class Cancelled(Exception):
    """The caller lost interest in the run in progress."""


class Inbox:
    """Frames from the caller, in order. `stop`: the caller closed. `loaded`: there is a model that can be closed."""

    def __init__(self, pipe: Pipe) -> None:
        self.stop, self.loaded = threading.Event(), threading.Event()
        self._frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(pipe,), name="frames", daemon=True).start()

    def next(self) -> Frame:
        return self._frames.get()

    def waiting(self) -> bool:
        return not self._frames.empty()

    def _read(self, pipe: Pipe) -> None:
        try:
            while (frame := pipe.receive())["op"] != "close":
                self._frames.put(frame)
        except (EOFError, OSError):
            end_at_once()  # nobody is left to hear a result, and engines have children of their own
        self.stop.set()
        if not self.loaded.is_set():
            end_at_once()
        self._frames.put({"op": "close"})
        threading.Timer(CLOSING_S, end_at_once).start()


def end_at_once() -> None:
    """Kills this process and everything it started (it leads its own session)."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main(reading: int, writing: int) -> None:
    pipe = Pipe(reading, writing)
    os.dup2(2, 1)  # what a library prints is for the log, never for the caller's stdout
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what Ctrl-C means
    inbox = Inbox(pipe)
    model = None
    try:
        model = build(inbox.next())
        inbox.loaded.set()
        facts = {"max_length": model.max_length, "fingerprint": dict(model.fingerprint())}
        pipe.send({"ev": "ready", "environment": told(model, "environment"), **facts})
        while not inbox.stop.is_set():
            frame = inbox.next()
            if frame["op"] == "run":
                run(model, frame, pipe, inbox)
    except BrokenPipeError:
        end_at_once()
    except BaseException as error:
        pipe.send(describe(error))
        raise
    finally:
        if model is not None:
            model.close()


def build(frame: Frame) -> Any:
    """The model that the load frame names, `module:Class`."""
    module, _, attribute = frame["target"].partition(":")
    return getattr(importlib.import_module(module), attribute)(Path(frame["checkpoint"]), **frame["options"])


def run(model: Any, frame: Frame, pipe: Pipe, inbox: Inbox) -> None:
    """Sends every result of one call, at most `ahead` more than the caller has taken."""
    number, kind, values = frame["id"], frame["kind"], frame.pop("requests")
    wanted = None if frame["wanted"] is None else set(frame["wanted"])
    credit = Credit(inbox, number, frame["ahead"])
    if hasattr(model, "heartbeat"):  # an engine whose single results take long calls it in between
        model.heartbeat = credit.settle
    if kind == "generate":
        results = model.generate(unpack_generate(values), wanted)
    else:
        results = model.loglikelihood(unpack_loglik(values), wanted)
    del values
    try:
        while True:
            credit.take()
            if (found := next(results, None)) is None:
                break
            pipe.send({"ev": "result", "id": number, "index": found[0], "value": pack_result(found[1])})
    except Cancelled:
        pass
    except EvalsuiteError as error:  # the engine itself is fine: the next run may work
        pipe.send(describe(error) | {"id": number})
        return
    finally:
        results.close()
    pipe.send({"ev": "done", "id": number, "counts": told(model, "counts")})


def told(model: Any, what: str) -> dict[str, Any]:
    """What the model says of itself beyond the protocol; empty for one that says nothing."""
    return dict(getattr(model, what)()) if hasattr(model, what) else {}


class Credit:
    """How many more results the caller of run `number` wants now. Both methods raise Cancelled when it wants none."""

    def __init__(self, inbox: Inbox, number: int, ahead: int) -> None:
        self._inbox, self._number, self._left = inbox, number, ahead

    def take(self) -> None:
        """Returns when one more result is wanted."""
        self.settle()
        while self._left <= 0:
            self._account(self._inbox.next())
        self._left -= 1

    def settle(self) -> None:
        """Looks at what the caller has sent meanwhile."""
        if self._inbox.stop.is_set():
            raise Cancelled
        while self._inbox.waiting():
            self._account(self._inbox.next())

    def _account(self, frame: Frame) -> None:
        if self._inbox.stop.is_set() or (frame["op"] == "cancel" and frame["id"] == self._number):
            raise Cancelled
        if frame["op"] == "ack" and frame["id"] == self._number:
            self._left += frame["n"]


def describe(error: BaseException) -> Frame:
    """An error as a frame: our own errors by class name, everything else as a crash with its traceback."""
    return {
        "ev": "error",
        "type": type(error).__name__ if isinstance(error, EvalsuiteError) else "",
        "message": str(error) or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }


if __name__ == "__main__":
    status = 1
    try:
        main(int(sys.argv[1]), int(sys.argv[2]))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)  # tearing down an interpreter with an engine in it takes seconds, or hangs
