"""Verifiers that behave, and some that do not: what the tests of the pool call. `find` gives them by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.errors import UsageError, did_you_mean
from evalsuite.types import Score

HERE = f"{__name__}:find"


@dataclass(frozen=True)
class Fake:
    name: str
    verify: Callable[[str, Any], Score]
    cheap: bool = False
    runs_code: bool = False
    benchmark: str | None = None

    def label_problem(self, label: Any) -> str:
        return "" if isinstance(label, str) else f"a text, not {label!r}"


def equal(text: str, row: Mapping[str, Any]) -> Score:
    right = text == row["ground_truth"]
    return Score(float(right), why="" if right else "not equal")


def misbehave(text: str, row: Mapping[str, Any]) -> Score:
    """Does what the text says; anything else is compared."""
    if text == "raise":
        raise ValueError("no such luck")
    if text == "sleep":
        time.sleep(600)
    if text == "regex":  # backtracks for longer than the universe is old, and holds the interpreter's lock meanwhile
        import re

        re.fullmatch(r"(a+)+b", "a" * 60)
    if text == "die":
        os._exit(9)
    if text == "quit":
        raise SystemExit(0)
    if text == "print":
        os.write(1, b'[1.0, "", false]\n')
    if text == "two":
        return Score(2.0)
    if text == "nan":
        return Score(float("nan"))
    if text == "pid":
        return Score(1.0, why=str(os.getpid()))
    return equal(text, row)


def taking(text: str, row: dict[str, Any]) -> Score:
    """As upstream's: the label is popped, so the second call with the same object finds none."""
    return Score(float(text == row.pop("ground_truth")))


def half(text: str, row: Mapping[str, Any]) -> Score:
    return Score(0.5)


def modules(text: str, row: Mapping[str, Any]) -> Score:
    """1 when none of the heavy libraries is loaded in this process."""
    import sys

    heavy = [name for name in ("torch", "transformers", "datasets", "trl", "pyarrow") if name in sys.modules]
    return Score(float(not heavy), why=", ".join(heavy))


VERIFIERS = {
    "equal": Fake("equal", equal, cheap=True),
    "slow_equal": Fake("slow_equal", equal),
    "bad": Fake("bad", misbehave),
    "bad_cheap": Fake("bad_cheap", misbehave, cheap=True),
    "taking": Fake("taking", taking),
    "half": Fake("half", half),
    "modules": Fake("modules", modules),
}


def find(name: str, extra: Sequence[Path] = ()) -> Fake:
    if name not in VERIFIERS:
        raise UsageError(f"no verifier named {name!r}{did_you_mean(name, VERIFIERS)}")
    return VERIFIERS[name]


def find_nothing(name: str, extra: Sequence[Path] = ()) -> Fake:
    """A verifier that the process which trains can load and those of the pool cannot."""
    if os.environ.get("POOL_PARENT") == str(os.getpid()):
        return VERIFIERS["half"]
    raise UsageError(f"{name} does not load here")
