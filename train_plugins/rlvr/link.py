"""A generator's process seen from its parent: start, messages, a watch over its silence and its death, and its end.

The child is `train_plugins.rlvr.child`.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from evalsuite import errors
from evalsuite.errors import EngineError, EvalsuiteError, TrainerFailed
from train_plugins.rlvr.engines import GeneratorSpec

JOIN_S = 10.0
LOOK_S = 0.5
NOTICE_S = 2.0
DUMP_S = 2.0
SHOWN_LINES = 20
# What tells a process that it is one of several of a training run; the generator is none of them.
FOREIGN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE",
           "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")  # fmt: skip
FOREIGN_PREFIXES = ("ACCELERATE_", "FSDP_", "TORCHELASTIC_", "DEEPSPEED_")


class GeneratorDied(TrainerFailed):
    """The generator's process ended or hung."""


class Link:
    """One child process. `ask` sends, `answer` waits; the caller keeps count.

    `shelf` is the folder of weights that the child removes when it outlives its parent. Its output goes to `log`.
    Silence for `stall_s` while an answer is waited for (`start_s` while the model loads) and death raise
    GeneratorDied there; a death that nobody waits for raises it in the thread that made this object, when that next
    runs Python, unless `interrupt` is false.
    """

    def __init__(
        self, spec: GeneratorSpec, log: Path, shelf: Path, *, stall_s: float, start_s: float, interrupt: bool,
        environment: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.log, self._stall_s, self._start_s, self._interrupt = log, stall_s, start_s, interrupt
        self.ready = False
        self._owner = threading.get_ident()
        self._answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._lock, self._noticed = threading.Lock(), threading.Event()
        self._closing = False
        self._sign = time.monotonic()
        ours, its = socket.socketpair()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "train_plugins.rlvr.child", str(its.fileno()), str(os.getpid())],
                env={**_environment(spec), **environment},
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the learner; and the whole group can be ended together
            )
        its.close()
        self.pid = self._process.pid
        self._connection = Connection(ours.detach())
        self._listener = threading.Thread(target=self._listen, name="generator", daemon=True)
        self._listener.start()
        with suppress(OSError):  # a child that died at once is noticed when its answer is waited for
            self._connection.send((replace(spec, options=dict(spec.options)), shelf))

    def ask(self, method: str, *arguments: Any) -> None:
        """Never waits: a child that does not read is found by its silence."""
        self._sign = time.monotonic()
        threading.Thread(target=self._write, args=((method, arguments),), daemon=True).start()

    def answer(self) -> Any:
        """The next answer. Raises the error of the child, or GeneratorDied."""
        self.wait_ready()
        return self._next()

    def wait_ready(self) -> None:
        """Returns when the model is loaded."""
        while not self.ready:
            self._next()

    def close(self, *, kindly: bool) -> None:
        """Ends the child and all that it started; `kindly` lets it end by itself first."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._noticed.set()  # from here on its end is no news
        if kindly and self.ready and self._process.poll() is None:
            self._write(("close", ()))
            self._wait(JOIN_S)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._wait(JOIN_S)
        if threading.current_thread() is not self._listener:
            self._listener.join(JOIN_S)
        self._connection.close()

    def _write(self, message: tuple[str, Any]) -> None:
        with suppress(OSError):
            self._connection.send(message)

    def _wait(self, seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def _next(self) -> Any:
        """The next answer, or None when it is the one that says that the model is loaded."""
        while True:
            try:
                kind, value = self._answers.get(timeout=LOOK_S)
            except queue.Empty:
                if time.monotonic() - self._sign > (self._stall_s if self.ready else self._start_s):
                    self._fail(self._stalled())
                continue
            if kind == "ready":
                self.ready, self._sign = True, time.monotonic()
                return None
            if kind == "error":
                if not self.ready:
                    self._noticed.set()  # it ends over this, which is no news then
                raise _known(value[0])(value[1])
            if kind == "dead":
                self._fail(self._obituary())
            return value

    def _listen(self) -> None:
        """Takes what the child says as it comes, and notices its end."""
        with suppress(EOFError, OSError):
            while self._process.poll() is None or self._connection.poll():
                # What the child has started may hold its end of the connection open after its death.
                if self._connection.poll(LOOK_S):
                    message = self._connection.recv()
                    self._sign = time.monotonic()
                    if message[0] != "alive":
                        self._answers.put(message)
        self._wait(JOIN_S)
        self._answers.put(("dead", None))
        if not self._noticed.wait(NOTICE_S):
            with self._lock:
                if self._interrupt and not self._closing and not self._noticed.is_set():
                    self._noticed.set()
                    _raise_in(self._owner, self._obituary())

    def _fail(self, message: str) -> None:
        with self._lock:
            self._noticed.set()
        self.close(kindly=False)
        raise GeneratorDied(message)

    def _obituary(self) -> str:
        """How the child ended, and what it said last."""
        code = self._process.poll()
        if code is None:
            how = "stopped listening"
        elif code < 0:
            how = f"was killed by signal {-code} ({signal.Signals(-code).name})"
            how += ", perhaps because memory ran out" if code == -signal.SIGKILL else ""
        else:
            how = f"ended with exit code {code}"
        last = "".join(f"\n  {line}" for line in _tail(self.log, 0)[-SHOWN_LINES:])
        return f"the generator (process {self.pid}) {how}; its log: {self.log}; the same command resumes{last}"

    def _stalled(self) -> str:
        """Both stacks, which go to the log too."""
        before = self.log.stat().st_size
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
        deadline = time.monotonic() + DUMP_S
        while time.monotonic() < deadline and not any("thread" in line for line in _tail(self.log, before)):
            time.sleep(0.05)
        time.sleep(0.1)  # the rest of the dump
        with self.log.open("ab") as log:
            log.write(f"-- stack of the learner, process {os.getpid()} --\n".encode())
            log.flush()
            faulthandler.dump_traceback(log, all_threads=True)
        stacks = "".join(f"\n  {line}" for line in _tail(self.log, before))
        limit_s = self._stall_s if self.ready else self._start_s
        return (
            f"the generator (process {self.pid}) said nothing for {limit_s:g} s; both stacks (in {self.log}):{stacks}"
        )


def _environment(spec: GeneratorSpec) -> dict[str, str]:
    """The parent's, without what makes a process a rank of its launch. The whole path travels, as with a spawn."""
    found = {
        name: value
        for name, value in os.environ.items()
        if name not in FOREIGN and not name.startswith(FOREIGN_PREFIXES)
    }
    found["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    if spec.threads is not None:
        found |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(spec.threads))
    if devices := spec.options.get("cuda_visible_devices"):
        found["CUDA_VISIBLE_DEVICES"] = str(devices)
    return found


def _raise_in(thread: int, message: str) -> None:
    """Raises GeneratorDied in another thread, when it next runs Python."""

    def init(self: GeneratorDied) -> None:
        TrainerFailed.__init__(self, message)

    kind = type("GeneratorDied", (GeneratorDied,), {"__init__": init})
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


def _known(name: str) -> type[EvalsuiteError]:
    found = getattr(errors, name, EngineError)
    return found if isinstance(found, type) and issubclass(found, EvalsuiteError) else EngineError


def _tail(log: Path, start: int) -> list[str]:
    """Lines of a log that are not empty, from a byte on, at most the last 64 KiB."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 65_536))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()]
