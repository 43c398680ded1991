"""What a checkpoint scored: per-sample scores, counts, standard errors and where every number came from.

A scorecard holds no time of day and no duration, so that the same run writes the same bytes again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from evalsuite.errors import UsageError
from evalsuite.types import Split

SCHEMA = 1
PARTIAL = re.compile(r"partial |more rows |\d+ of \d+ samples")  # notes of a result that stands for less than the whole
Aggregate = Literal["mean", "micro", "macro"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a benchmark: `value` 0 to 1, its standard error (None when n < 2), over `n` things."""

    value: float
    stderr: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark on one checkpoint. A truncated answer is the model's fault, a failed sample is ours.

    `scores` maps sample id to 0..1; a truncated answer is scored as it stands, a failed sample is absent and stands in
    `failures` with its reason, so that n_planned = len(scores) + len(failures). `categories` and `clusters` map sample
    id to the subtask it belongs to and to the group it is not independent of; both are empty when there is none.
    """

    benchmark: str
    split: Split
    metric: str
    aggregate: Aggregate
    digest: str
    value: float | None
    stderr: float | None
    scores: Mapping[str, float]
    failures: Mapping[str, str]
    n_planned: int
    categories: Mapping[str, str] = field(default_factory=dict)
    clusters: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Metric] = field(default_factory=dict)
    by_category: Mapping[str, Metric] = field(default_factory=dict)
    n_truncated: int = 0
    n_shrunk: int = 0
    n_prompt_too_long: int = 0
    n_empty: int = 0
    n_near_ties: int = 0
    format_ok: float | None = None
    notes: tuple[str, ...] = ()
    dataset: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=dict)  # who judged, how, and how often it gave no verdict
    members: tuple[Result, ...] = ()  # of a column that averages several benchmarks; never written to a file

    @property
    def n_failed(self) -> int:
        return len(self.failures)

    @property
    def n(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """The checkpoint that was scored: what a person calls it, and the digest of its content."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class SuiteRef:
    """The suite at the settings of one regime. `columns` maps column name to benchmark name, in table order.

    `missing` are columns of the published suite that were not scored; while there are any the average is absent.
    `groups` names the benchmarks whose plain mean is one column (`safety`, of six sets); only they have results.
    """

    name: str
    regime: str
    digest: str
    columns: Mapping[str, str]
    missing: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scorecard:
    """All results of one checkpoint on one suite. `average` is None unless every column of the suite has a value."""

    checkpoint: CheckpointRef
    suite: SuiteRef
    results: tuple[Result, ...]
    average: float | None
    provenance: Mapping[str, Any]
    schema: int = SCHEMA

    def result(self, benchmark: str) -> Result | None:
        """The result of a benchmark, or of a column that averages several; None when (a part of) it was not scored."""
        names = self.suite.groups.get(benchmark)
        if names is None:
            return next((r for r in self.results if r.benchmark == benchmark), None)
        members = [r for r in self.results if r.benchmark in names]
        return group_result(benchmark, members) if len(members) == len(names) else None


def with_average(card: Scorecard) -> Scorecard:
    """The card with the plain mean of its columns; None unless every column of the published suite has a value."""
    values = [r.value for b in card.suite.columns.values() if (r := card.result(b)) and r.value is not None]
    complete = not card.suite.missing and len(values) == len(card.suite.columns)
    return replace(card, average=math.fsum(values) / len(values) if complete and values else None)


def group_result(name: str, members: Sequence[Result]) -> Result:
    """The plain mean of several benchmarks as one Result; its value is None while that of any member is.

    SE = √(Σ SE²) / k, the members being independent. Sample ids are prefixed by the member's name.
    """
    values = [m.value for m in members if m.value is not None]
    errors = [m.stderr for m in members if m.stderr is not None]
    whole, known = len(values) == len(members), len(errors) == len(members)
    absent = [m.benchmark for m in members if m.value is None]
    notes = [f"{m.benchmark}: {note}" for m in members for note in m.notes]
    part = [m.benchmark for m in members if any(PARTIAL.match(note) for note in m.notes)]
    notes = [f"partial data of {', '.join(part)}", *notes] if part else notes
    return Result(
        benchmark=name,
        split=members[0].split,
        metric=f"mean of {len(members)}",
        aggregate="macro",
        digest=hashlib.sha256("".join(m.digest for m in members).encode()).hexdigest(),
        value=math.fsum(values) / len(values) if whole else None,
        stderr=math.sqrt(math.fsum(e * e for e in errors)) / len(members) if whole and known else None,
        scores={f"{m.benchmark}/{i}": v for m in members for i, v in m.scores.items()},
        failures={f"{m.benchmark}/{i}": why for m in members for i, why in m.failures.items()},
        n_planned=sum(m.n_planned for m in members),
        categories={f"{m.benchmark}/{i}": m.benchmark for m in members for i in m.scores},
        parts={m.benchmark: Metric(m.value, m.stderr, m.n) for m in members if m.value is not None},
        n_truncated=sum(m.n_truncated for m in members),
        n_empty=sum(m.n_empty for m in members),
        notes=(*(f"{name} has no value" for name in absent), *notes),
        members=tuple(members),
    )


def fold(columns: Mapping[str, str], groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The columns with each complete group's benchmarks replaced by the group, where its first benchmark stood."""
    benchmarks = set(columns.values())
    whole = {name: group for name, group in groups.items() if benchmarks.issuperset(group)}
    of = {benchmark: name for name, group in whole.items() for benchmark in group}
    return {of.get(b, c): of.get(b, b) for c, b in columns.items()}


def to_json(card: Scorecard) -> str:
    """Canonical JSON: keys in a fixed order, floats by repr, a newline at the end. Equal cards give equal bytes."""
    raw = asdict(card)
    for result in raw["results"]:
        del result["members"]
    return json.dumps(raw, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write(card: Scorecard, path: Path) -> None:
    """Writes atomically: a reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(to_json(card), encoding="utf-8", errors="surrogatepass")
    os.replace(part, path)


def read(path: Path) -> Scorecard:
    """The scorecard in a file; raises UsageError naming the file when it is not one, or of another schema version."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
        if raw.get("schema") != SCHEMA:
            raise UsageError(f"{path}: scorecard schema {raw.get('schema')!r}, this version reads {SCHEMA}")
        return _from_raw(raw)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a scorecard ({type(error).__name__}: {error})") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def _from_raw(raw: dict[str, Any]) -> Scorecard:
    return Scorecard(
        checkpoint=CheckpointRef(**raw["checkpoint"]),
        suite=_suite(raw),
        results=tuple(_result(r) for r in raw["results"]),
        average=raw["average"],
        provenance=raw["provenance"],
        schema=raw["schema"],
    )


def _suite(raw: dict[str, Any]) -> SuiteRef:
    groups = {name: tuple(members) for name, members in raw["suite"].get("groups", {}).items()}
    return SuiteRef(
        **{**raw["suite"], "columns": _in_order(raw), "missing": tuple(raw["suite"]["missing"]), "groups": groups}
    )


def _in_order(raw: dict[str, Any]) -> dict[str, str]:
    """The columns in table order: sorted keys lost it in the file, the list of results kept it."""
    order = {result["benchmark"]: i for i, result in enumerate(raw["results"])}
    order |= {name: order.get(members[0], len(order)) for name, members in raw["suite"].get("groups", {}).items()}
    return dict(sorted(raw["suite"]["columns"].items(), key=lambda column: order.get(column[1], len(order))))


def _result(raw: dict[str, Any]) -> Result:
    metrics = {key: {k: Metric(**m) for k, m in raw[key].items()} for key in ("parts", "by_category")}
    return Result(**{**raw, **metrics, "notes": tuple(raw["notes"])})
