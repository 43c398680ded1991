"""The process that pays for an interpreter's start once: forks a judging process for each program that it is sent.

It runs inside the outer confinement (confine.py) and knows nothing of the programs: their text is read by the judging
process, so no program finds the one before it in its memory. A program's judge gets its own pid, mount and ipc
namespace where that is allowed; killing the judge then ends everything that the program started.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import Any, NoReturn

from evalsuite.sandbox import judge, kernel, seccomp, wire
from evalsuite.sandbox.empty import empty

REQUESTS, ANSWERS = 0, 1
GRACE_S = 2.0  # for the judge to say that the time is over
# What programs import most; loading it here takes nothing from them and saves each of them the time.
PRELOADED = (
    *("typing", "math", "re", "collections", "copy", "random", "string", "itertools", "functools", "hashlib"),
    *("heapq", "bisect", "operator", "datetime", "decimal", "fractions", "unittest"),
)
PRELOADED_LIBRARIES = frozenset({"numpy", "pandas"})  # slow to import, and they start no threads here


def serve(setting: dict[str, Any]) -> NoReturn:
    """Answers one request after the other; the process ends with the pipe."""
    # A terminal's interrupt is for the command; it ends us by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(setting["environment"])  # bubblewrap cleared it; numpy must start no threads before a fork
    sys.meta_path.append(_Given(setting["importable"], setting["listed"]))
    for name in (*PRELOADED, *PRELOADED_LIBRARIES.intersection(setting["packages"])):
        importlib.import_module(name)
    setting |= {"filter": seccomp.build() if setting["seccomp"] and setting["nested"] else b""}
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    gc.collect()
    gc.disable()
    gc.freeze()  # a child's collections leave our pages alone
    _say({"ready": sys.version.split()[0]})
    while True:
        try:
            rules = setting | json.loads(wire.receive(REQUESTS))
        except EOFError:
            os._exit(0)
        if (verdict := _one(rules)) is None:
            os._exit(0)
        _say(verdict)


class _Given:
    """Finds the libraries that programs were given. Their folder is no part of sys.path: it holds others as well."""

    def __init__(self, names: list[str], folders: list[str]) -> None:
        self._names = frozenset(names)
        self._folders = folders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return PathFinder.find_spec(name, self._folders) if path is None and name in self._names else None


def _say(answer: dict[str, Any]) -> None:
    wire.send(ANSWERS, json.dumps(answer).encode())


def _one(rules: dict[str, Any]) -> dict[str, Any] | None:
    """What became of a program, None when nobody waits for it any more; nothing of it runs or lies about after that."""
    flags = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC if rules["nested"] else 0
    receiving, sending = os.pipe()
    started = time.monotonic()
    pid = kernel.fork_into(flags)
    if pid == 0:
        os.close(receiving)
        os.setsid()
        judge.report(rules, REQUESTS, sending)
    os.close(sending)
    verdict = _wait(receiving, rules["timeout_s"] + GRACE_S)
    os.close(receiving)
    _end(pid)
    seconds = time.monotonic() - started
    if not rules["nested"]:
        empty(rules["scratch"])
    return None if verdict is None else verdict | {"seconds": seconds}


def _wait(receiving: int, timeout_s: float) -> dict[str, Any] | None:
    """The verdict; None when the other end of the requests is closed: nobody waits for us any more."""
    poll = select.poll()
    poll.register(receiving, select.POLLIN)
    poll.register(REQUESTS, 0)
    said = b""
    while ready := dict(poll.poll(timeout_s * 1000)):
        if receiving not in ready:
            return None
        said += (part := os.read(receiving, 1 << 16))
        if not part or len(said) > len(judge.TAKEN):
            break
    verdict = said.removeprefix(judge.TAKEN)
    if verdict:
        return dict(json.loads(verdict))
    if ready or not said:
        return {"broken": "the judging process died"}
    return {"passed": False, "why": f"timeout after {timeout_s - GRACE_S:g} s", "cpu_s": timeout_s}


def _end(pid: int) -> None:
    """Kills the judge with everything that the program started, and returns when nothing of it is left."""
    # The judge leads a process group that its children cannot leave; in a pid namespace its death is enough.
    for kill in (os.killpg, os.kill):
        _kill(kill, pid)
    with contextlib.suppress(ChildProcessError):
        while True:
            # Without seccomp a child may have left the group. It is ours once its parents are dead.
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                for child in _children():
                    _kill(os.kill, child)
                os.wait()


def _kill(kill: Callable[[int, int], None], pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        kill(pid, signal.SIGKILL)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listed:
            return [int(pid) for pid in listed.read().split()]
    except OSError:
        return []
