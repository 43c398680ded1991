"""From the verdicts on the instructions of one response to its Score: the official four metrics and parts per id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalsuite.types import Doc, Ratio, Score, Verifier
from evalsuite.verify.constraints.follow import Check, followed_both
from evalsuite.verify.constraints.registry import Variant

HEADLINE = "prompt_level_loose_acc"
OTHERS = ("prompt_level_strict_acc", "inst_level_loose_acc", "inst_level_strict_acc")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both modes on one instruction. `why` is the first reason of a loose failure, else of a strict one."""

    id: str
    strict: bool
    loose: bool
    why: str = ""
    backend: str = ""

    def to_raw(self) -> dict[str, Any]:
        raw = {"id": self.id, "strict": self.strict, "loose": self.loose}
        return {**raw, "why": self.why, "backend": self.backend}


def judge(response: str, doc: Doc, variant: Variant = "tulu3") -> tuple[Verdict, ...]:
    """One Verdict per instruction of the row, in its order."""
    pairs = zip(*followed_both(response, doc["instruction_id_list"], doc["kwargs"], variant=variant), strict=True)
    return tuple(Verdict(s.id, s.ok, o.ok, o.why or s.why, s.backend) for s, o in pairs)


def score(response: str, doc: Doc, variant: Variant = "tulu3") -> Score:
    """1 when every instruction is followed loosely. Parts: the other three official metrics, and both modes per id.

    Raises DataError for a row with an unknown instruction id or bad parameters, never for a response.
    """
    strict, loose = followed_both(response, doc["instruction_id_list"], doc["kwargs"], variant=variant)
    parts: dict[str, float | Ratio] = {"prompt_level_strict_acc": float(all(c.ok for c in strict))}
    for mode, checks in (("loose", loose), ("strict", strict)):
        parts[f"inst_level_{mode}_acc"] = _ratio(checks)
        for id in sorted({c.id for c in checks}):
            parts[f"{id}/{mode}"] = _ratio([c for c in checks if c.id == id])
    why = "; ".join(f"{c.id}: {c.why}" for c in loose if not c.ok)
    return Score(float(all(c.ok for c in loose)), parts, why=why)


def as_official_metrics(verify: Verifier) -> Callable[[Doc, Sequence[str]], Mapping[str, float | Ratio]]:
    """`process_results` with the official four alone: of the parts per id lm-eval would print a hundred more lines."""

    def process_results(doc: Doc, results: Sequence[str]) -> Mapping[str, float | Ratio]:
        found = verify(results[0], doc)
        return {HEADLINE: found.value, **{name: found.parts[name] for name in OTHERS}}

    return process_results


def _ratio(checks: Sequence[Check]) -> Ratio:
    return Ratio(sum(c.ok for c in checks), len(checks))
