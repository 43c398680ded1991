"""From the verdicts on the instructions of one response to its Score: the official four metrics and parts per id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalsuite.types import Doc, Ratio, Score, Verifier
from evalsuite.verify.constraints.follow import followed_both
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


def verdicts(response: str, doc: Doc, variant: Variant = "tulu3") -> tuple[Verdict, ...]:
    """One Verdict per instruction of the row, in its order.

    Raises DataError for a row with an unknown instruction id or bad parameters, never for a response.
    """
    pairs = zip(*followed_both(response, doc["instruction_id_list"], doc["kwargs"], variant=variant), strict=True)
    return tuple(Verdict(s.id, s.ok, o.ok, o.why or s.why, s.backend) for s, o in pairs)


def score(response: str, doc: Doc, variant: Variant = "tulu3") -> Score:
    """1 when every instruction is followed loosely. Parts: the other three official metrics, and both modes per id."""
    return score_of(verdicts(response, doc, variant))


def score_of(found: Sequence[Verdict]) -> Score:
    """The Score of a response whose instructions have these verdicts."""
    parts: dict[str, float | Ratio] = {"prompt_level_strict_acc": float(all(v.strict for v in found))}
    for mode in ("loose", "strict"):
        parts[f"inst_level_{mode}_acc"] = _ratio(found, mode)
        for id in sorted({v.id for v in found}):
            parts[f"{id}/{mode}"] = _ratio([v for v in found if v.id == id], mode)
    why = "; ".join(f"{v.id}: {v.why}" for v in found if not v.loose)
    return Score(float(all(v.loose for v in found)), parts, why=why)


def as_official_metrics(verify: Verifier) -> Callable[[Doc, Sequence[str]], Mapping[str, float | Ratio]]:
    """`process_results` with the official four alone: of the parts per id lm-eval would print a hundred more lines."""

    def process_results(doc: Doc, results: Sequence[str]) -> Mapping[str, float | Ratio]:
        found = verify(results[0], doc)
        return {HEADLINE: found.value, **{name: found.parts[name] for name in OTHERS}}

    return process_results


def _ratio(found: Sequence[Verdict], mode: str) -> Ratio:
    return Ratio(sum(getattr(v, mode) for v in found), len(found))
