"""The numbers of a whole judged benchmark, as data: what its `summary` is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evalsuite.types import Doc, Score
from evalsuite.verify.judge import NoVerdict


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """One sample after judging: exactly one of `score` and `failure` is there."""

    sample: str
    response: str
    doc: Doc
    score: Score | None
    failure: NoVerdict | None = None


@dataclass(frozen=True, slots=True)
class SummaryContext:
    """What a summary may look at besides its rows: the user's data roots, and the seed of its resamples.

    `files` are those of `metadata.files` that were found on the hub, by name; a data root's go first.
    """

    data_roots: tuple[Path, ...] = ()
    seed: int = 0
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """A benchmark's column. `value` None: the column is absent, and `notes` say why.

    `parts` are (value, standard error, n) by name. Rates are 0 to 1; a part named `n_…`, `lc_weight_…` or `avg_length`
    is a plain number.
    """

    value: float | None
    stderr: float | None
    parts: Mapping[str, tuple[float, float | None, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
