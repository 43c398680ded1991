"""What every key of a policy file must hold, and the collector of everything that does not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from evalsuite.errors import PolicyError, did_you_mean
from evalsuite.gate.policy import BlockNull, Severity, Spending, Test, Tier

MAX_LOOKS = 50


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be. `words` are looked through for a near miss, `made` is what becomes of a fitting value."""

    expected: str
    fits: Callable[[Any], bool]
    words: tuple[str, ...] = ()
    made: Callable[[Any], Any] = lambda value: value


def number(low: float, high: float, *, closed: bool = False) -> Kind:
    """A finite number inside the bounds; `closed` admits the bounds themselves."""
    if closed:
        return Kind(f"a number from {low:g} to {high:g}", lambda v: _real(v) and low <= v <= high, made=float)
    return Kind(f"a number above {low:g} and below {high:g}", lambda v: _real(v) and low < v < high, made=float)


def whole(low: int, high: int | None = None) -> Kind:
    expected = f"a whole number from {low} to {high}" if high is not None else f"a whole number of at least {low}"
    expected = str(low) if low == high else expected
    limit = math.inf if high is None else high
    return Kind(expected, lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= limit)


def word(*words: str) -> Kind:
    listed = f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    return Kind(listed, lambda v: isinstance(v, str) and v in words, words)


def texts(expected: str, pattern: str = r".*\S.*", *words: str) -> Kind:
    """A list of strings, kept as a tuple."""
    return Kind(
        expected,
        lambda v: isinstance(v, list | tuple) and all(isinstance(t, str) and re.fullmatch(pattern, t) for t in v),
        words,
        tuple,
    )


def some_of(*words: str) -> Kind:
    return texts(f"a list of {', '.join(words)}", "|".join(map(re.escape, words)), *words)


def text(expected: str, pattern: str = r".*\S.*") -> Kind:
    return Kind(expected, lambda v: isinstance(v, str) and re.fullmatch(pattern, v) is not None)


def optional(kind: Kind, name: str = "null", none: Any = None) -> Kind:
    """The kind, or `none`, which reads as None; `name` is how the message calls it."""
    return Kind(
        f"{kind.expected}, or {name}",
        lambda v: (v is None if none is None else v == none) or kind.fits(v),
        (*kind.words, *((none,) if isinstance(none, str) else ())),
        lambda v: None if v is None or v == none else kind.made(v),
    )


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


FLAG = Kind("true or false", lambda v: isinstance(v, bool))
ANYTHING = Kind("", lambda v: True)
SHARE = number(0, 1, closed=True)
PART = number(0, 1)
NAME = text("a name")
SEVERITY = word(*get_args(Severity))
REF = text("the name of a reference: letters, digits, - and _", r"[A-Za-z0-9][A-Za-z0-9_-]*")
CHECKS = ("loads", "generates", "chat_template", "finite_weights")

SECTIONS: tuple[str, ...] = (
    "compare",
    "method",
    "samples",
    "plan",
    "must_not_regress",
    "must_improve",
    "safety",
    "slices",
)
SECTIONS += ("decontamination", "errors", "unseen", "override", "notify")
TOP: Mapping[str, Kind] = {
    "version": whole(1, 1),
    "name": NAME,
    "suite": text("a suite's name, or name@sha256:DIGEST", r"[^@\s]+(@sha256:[0-9a-f]{8,64})?"),
    "infra": some_of(*CHECKS),
    **dict.fromkeys(SECTIONS, ANYTHING),  # read on their own
}
COMPARE: Mapping[str, Kind] = {"champion": REF, "anchor": optional(REF)}
METHOD: Mapping[str, Kind] = {
    "test": word(*get_args(Test)),
    "looks": whole(1, MAX_LOOKS),
    "alpha": number(0, 0.5),
    "beta": number(0, 0.5),
    "spending": ANYTHING,
    "when_complete": word("replay", "fixed"),
}
SPENDING: Mapping[str, Kind] = dict.fromkeys(("clear", "block"), word(*get_args(Spending)))
SAMPLES: Mapping[str, Kind] = {
    "default": whole(1),
    "temperature": number(0, 10),
    "top_p": Kind("a number above 0, at most 1", lambda v: _real(v) and 0 < v <= 1, made=float),
    "when": ANYTHING,
}
K_RULE: Mapping[str, Kind] = {"n_lt": whole(1), "k": whole(1)}
PLAN: Mapping[str, Kind] = {
    "disagreement": PART,
    "disagreement_floor": PART,
    "icc": Kind("a number from 0, below 1", lambda v: _real(v) and 0 <= v < 1, made=float),
    "min_power": PART,
}
RULE: Mapping[str, Kind] = {
    "margin": optional(PART, "calibrated", "calibrated"),
    "margin_min": PART,
    "margin_max": optional(PART),
    "tier": word(*get_args(Tier)),
    "on_inconclusive": word("hold", "warn"),
    "cluster": text("default, none, or a field that the benchmark declares"),
    "strata": FLAG,
    "block_null": optional(word(*get_args(BlockNull))),
}
TARGET: Mapping[str, Kind] = {
    "metric": text("macro or a benchmark's name"),
    "min_gain": Kind("a number from 0, below 1", lambda v: _real(v) and 0 <= v < 1, made=float),
}
MUST_IMPROVE: Mapping[str, Kind] = {
    "any_of": ANYTHING,
    "all_of": ANYTHING,
    "alpha": number(0, 0.5),
    "spending": word("t(t+1)"),
}
FLOOR: Mapping[str, Kind] = dict.fromkeys(("floor", "ceiling", "margin"), optional(PART))
SLICES: Mapping[str, Kind] = {
    "require": texts('a list of "benchmark/category" or "benchmark/*"', r"[^/\s]+/\S.*"),
    "min_items": whole(1),
    "on_fail": SEVERITY,
}
DECONTAMINATION: Mapping[str, Kind] = {"required": FLAG, "max_eval_fraction": SHARE, "clean_subset": SEVERITY}
ERRORS: Mapping[str, Kind] = {
    "missing": word("block", "hold"),
    **dict.fromkeys(("judge_failed_rate_max", "pair_overlap_min", "truncated_delta_max", "empty_safety_max"), SHARE),
    "unsandboxed": word("hold", "warn"),
}
UNSEEN: Mapping[str, Kind] = {
    "only_in": word("release"),
    "mechanism": word("ladder"),
    "per_candidate": whole(1),
    "per_90_days": whole(1),
    "eta": optional(PART, "auto", "auto"),
}
OVERRIDE: Mapping[str, Kind] = {
    "allow": some_of("standard", "advisory"),
    "never": some_of("safety", "decontamination", "slices", "infra", "missing"),
}
NOTIFY: Mapping[str, Kind] = {
    # An address in a file would be read by everyone who reads the policy, and its secret with it.
    "webhook": text("env:NAME, the environment variable that holds the address", r"env:[A-Za-z_][A-Za-z0-9_]*"),
    "file": text("a path"),
}


@dataclass
class Problems:
    """Collects lines of what is wrong in one policy file and the settings laid over it."""

    file: Path
    lines: list[str] = field(default_factory=list)
    set_paths: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lines)

    def add(self, path: str, value: Any, expected: str, near: str = "") -> None:
        self.lines.append(f"{self._source(path)}: {path} is {value!r}; use {expected}{near}")

    def say(self, path: str, what: str) -> None:
        self.lines.append(f"{self._source(path)}: {path}: {what}")

    def told(self, path: str) -> bool:
        """Whether something is already said of this path itself."""
        return any(
            line.startswith((f"{self._source(path)}: {path} is", f"{self._source(path)}: {path}:"))
            for line in self.lines
        )

    def refuse(self) -> None:
        """Raises PolicyError with every problem, if there is any."""
        if self.lines:
            raise PolicyError("\n".join(dict.fromkeys(self.lines)))

    def mapping(self, path: str, raw: Any) -> dict[str, Any]:
        """The mapping with names as keys; empty, and a problem, when it is none."""
        if not isinstance(raw, Mapping):
            self.add(path, raw, "a mapping")
            return {}
        for key in raw:
            if not isinstance(key, str):
                self.say(path, f"the key {key!r} is no name")
        return {key: value for key, value in raw.items() if isinstance(key, str)}

    def values(self, path: str, raw: Any, kinds: Mapping[str, Kind]) -> dict[str, Any]:
        """What fits of a mapping, as the policy keeps it; unknown keys and misfits are problems."""
        return {
            key: kinds[key].made(value)
            for key, value in self.mapping(path, raw).items()
            if self._fits(f"{path}.{key}".lstrip("."), key, value, kinds)
        }

    def rows(
        self, path: str, raw: Any, kinds: Mapping[str, Kind], needed: Sequence[str] = ()
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(path, values) of the rows of a list of mappings that fit and have what is needed."""
        if not isinstance(raw, list | tuple):
            self.add(path, raw, "a list of mappings")
            return
        for i, row in enumerate(raw):
            where = f"{path}[{i}]"
            before = len(self.lines)
            values = self.values(where, row, kinds)
            if isinstance(row, Mapping):
                self.lines += [f"{self._source(where)}: {where}.{key} is missing" for key in needed if key not in row]
            if len(self.lines) == before:
                yield where, values

    def _fits(self, path: str, key: str, value: Any, kinds: Mapping[str, Kind]) -> bool:
        if key not in kinds:
            self.say(path, f"unknown key, its value is {value!r}{did_you_mean(key, kinds)}")
            return False
        kind = kinds[key]
        if not kind.fits(value):
            self.add(path, value, kind.expected, _near(value, kind.words))
            return False
        return True

    def _source(self, path: str) -> str:
        dotted = path.replace("[", ".")
        own = [p for p in self.set_paths if f"{dotted}.".startswith(f"{p}.") or p.startswith(f"{dotted}.")]
        return f"--set {own[0]}" if own else str(self.file)


def _near(value: Any, words: Sequence[str]) -> str:
    """The near miss of a word, or of the first unknown word of a list."""
    listed = value if isinstance(value, list | tuple) else [value]
    wrong = [v for v in listed if isinstance(v, str) and v not in words]
    return did_you_mean(wrong[0], words) if wrong else ""
