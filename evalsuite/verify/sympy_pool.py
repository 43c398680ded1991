"""Asks sympy whether two expressions are equal, in worker processes that are kept, and killed when they hang.

A worker starts with the first question (a second or two for importing sympy), serves one question at a time and is
replaced when it dies. Threads that ask at the same time get a worker each.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import re
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal

from evalsuite.errors import BenchmarkError

LIMIT_S = 5.0  # per question, as upstream
START_S = 120.0  # importing sympy on a machine that is busy with something else
# No leading zero: sympy cannot read "05".
_INTEGER = re.compile("-?(?:0|[1-9][0-9]*)")
Kind = Literal["latex", "plain"]
WORKER = Path(__file__).with_name("sympy_worker.py")


class _Worker:
    """One process. `ask` gives what it says (1, 0 or error), or None when it had to be ended over this question."""

    def __init__(self) -> None:
        # -P keeps this folder off the worker's import path: its numbers.py and math.py would hide the standard ones.
        command = [sys.executable, "-P", str(WORKER), str(LIMIT_S)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        said = self._line(START_S)
        if said != "ready":
            self.close()
            raise BenchmarkError(
                f"sympy's LaTeX parser does not start ({said or 'no answer'}); "
                "type: pip install sympy 'antlr4-python3-runtime==4.11.*'"
            )

    def ask(self, one: str, other: str, kind: Kind = "latex") -> str | None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps([kind, one, other]).encode("ascii") + b"\n")
            return self._line(LIMIT_S + 0.5)  # its own alarm comes first
        except BrokenPipeError:
            return None

    def _line(self, timeout_s: float) -> str | None:
        """The next line without its end; None when the process ended or was silent for too long."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        line = self.process.stdout.readline() if readable else b""
        return line.decode("utf-8", "replace").strip() if line.endswith(b"\n") else None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


_idle: list[_Worker] = []
_lock = threading.Lock()
_owner = os.getpid()


def equal_latex(one: str, other: str) -> bool:
    """Whether sympy finds the difference of two LaTeX expressions to be zero within 5 s; False for what it cannot read.

    Raises BenchmarkError when sympy's LaTeX parser is not installed.
    """
    integers = _equal_integers(one, other)
    return bool(_ask(one, other, "latex")) if integers is None else integers


def equal_plain(one: str, other: str) -> bool | None:
    """Whether two expressions in Python's notation are equal; None when sympy cannot say so within 5 s.

    sympy evaluates what it reads as Python. Only text that evalsuite.verify.expressions found harmless belongs here.
    """
    integers = _equal_integers(one, other)
    return _ask(one, other, "plain") if integers is None else integers


def _equal_integers(one: str, other: str) -> bool | None:
    """The answer for two plain integers, which need no worker; None for anything else."""
    if _INTEGER.fullmatch(one) and _INTEGER.fullmatch(other):
        return one == other or {one, other} == {"0", "-0"}
    return None


@functools.lru_cache(maxsize=8192)
def _ask(one: str, other: str, kind: Kind) -> bool | None:
    worker = _take()
    answer = worker.ask(one, other, kind)
    if answer is None:
        worker.close()
    else:
        with _lock:
            _idle.append(worker)
    return {"1": True, "0": False}.get(answer or "")


def _take() -> _Worker:
    global _owner
    with _lock:
        if _owner != os.getpid():  # after a fork the pipes belong to the parent
            _idle.clear()
            _owner = os.getpid()
        if _idle:
            return _idle.pop()
    return _Worker()


@atexit.register
def close_workers() -> None:
    """Ends the idle workers; the next question starts a new one."""
    if _owner == os.getpid():
        while _idle:
            _idle.pop().close()
