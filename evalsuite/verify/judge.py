"""What is asked of a judge and what it said, as data: shared by the judge stage and by the benchmarks it scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FailureKind = Literal["unparsed", "truncated", "empty", "too_long", "refused", "transport", "engine"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to a judge about one response: which template, filled with which texts.

    A pairwise template has `output_1` (the baseline) and `output_2` (the candidate); `swapped` shows them in the other
    order, and the verdict is turned back before a benchmark sees it.
    """

    template: str
    fields: Mapping[str, str]
    swapped: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said, parsed.

    `preference` is how far `output_2` is preferred: 1 it is, 0 `output_1` is, 0.5 a tie, or a probability; None for
    labels. `labels` are what a classifier said, by name. `mode` says how the answer was read.
    """

    preference: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    mode: str = ""


@dataclass(frozen=True, slots=True)
class NoVerdict:
    """Stands for a verdict that could not be had; it never counts as one, except where a benchmark's metric says so."""

    kind: FailureKind
    why: str = ""


class Unjudged(Exception):
    """Raised by a benchmark for a response that has no score because its judge gave no verdict."""

    def __init__(self, failure: NoVerdict) -> None:
        super().__init__(f"judge: {failure.kind}" + (f" ({failure.why})" if failure.why else ""))
        self.failure = failure
