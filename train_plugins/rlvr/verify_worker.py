"""One process of the verifying pool: calls verifiers on what comes in by stdin and says each value on its old stdout.

A call that does not end is ended by the kernel's own timer, also when nobody is left who would end it.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import pickle
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from evalsuite.errors import EvalsuiteError

FINDER = "evalsuite.verify.rewards:find_reward"
"""`module:function` that gives the verifier of a name, with the folders of benchmarks of the user's own."""

ORPHAN_S = 2.0  # beyond the limit, in which the parent would have ended this process
Find = Callable[[str, Sequence[Path]], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a process is told first."""

    names: tuple[str, ...]
    extra: tuple[str, ...]
    finder: str
    longest_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one call. `failed`: no verdict on the response, `why` says what went wrong instead."""

    value: float
    why: str = ""
    failed: bool = False


def load_finder(target: str) -> Find:
    module, _, name = target.partition(":")
    found: Find = getattr(importlib.import_module(module), name)
    return found


def ask(verify: Callable[[str, Mapping[str, Any]], Any], text: str, row: Mapping[str, Any]) -> Answer:
    """The verifier's value for a response; 0 and failed where it raises, or says what is no score from 0 to 1."""
    try:
        score = verify(text, row)
        value = float(score.value)
    except (Exception, SystemExit) as error:
        return Answer(0.0, " ".join(f"{type(error).__name__}: {error}".split())[:300], failed=True)
    if not (math.isfinite(value) and 0.0 <= value <= 1.0):
        return Answer(0.0, f"the value is {value}; expected 0 to 1", failed=True)
    return Answer(value, str(score.why))


def main() -> None:
    source, sink = _pipes()
    setting: Setting = _receive(source)
    try:
        find = load_finder(setting.finder)
        verifiers = {name: find(name, [Path(each) for each in setting.extra]).verify for name in setting.names}
        _warm()
    except EvalsuiteError as error:
        _say(sink, b"broken " + json.dumps(str(error)).encode())
        return
    _say(sink, b"ready")
    while True:
        for name, text, row in _receive(source):
            answer = _timed(verifiers[name], text, row, setting.longest_s)
            _say(sink, json.dumps([answer.value, answer.why, answer.failed]).encode())


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """The parent's pipes under other numbers: a verifier that prints, reads or starts programs must not meet them."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return source, sink


def _receive(source: BinaryIO) -> Any:
    """The next thing that the parent sent; this process ends when there is none."""
    head = source.read(8)
    body = source.read(int.from_bytes(head, "big")) if len(head) == 8 else b""
    if not body:
        sys.exit(0)
    return pickle.loads(body)


def _say(sink: BinaryIO, line: bytes) -> None:
    sink.write(line + b"\n")
    sink.flush()


def _warm() -> None:
    """Starts what the first call would have to wait for: importing sympy is not the response's fault."""
    if "evalsuite.verify.sympy_pool" in sys.modules:
        from evalsuite.verify.sympy_pool import equal_latex

        equal_latex("x + 1", "1 + x")


def _timed(verify: Callable[..., Any], text: str, row: Mapping[str, Any], limit_s: float) -> Answer:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limit_s + ORPHAN_S)
    try:
        # A copy: the rollouts of one prompt come as one row, and a verifier may take out of it what the next one needs.
        return ask(verify, text, copy.deepcopy(row))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
