"""Scorecards written in one line, for the tests of tables, leaderboard and compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalsuite.scorecard import CheckpointRef, Result, Scorecard, SuiteRef
from evalsuite.stats import macro_stderr, mean_stderr

DIGEST = "d" * 64


def make_result(
    benchmark: str,
    scores: Sequence[float],
    *,
    failures: int = 0,
    categories: Sequence[str] = (),
    clusters: Sequence[str] = (),
    first: int = 0,
    **changes: Any,
) -> Result:
    """A result with samples `q<first>`, …; with categories it is a macro mean."""
    ids = [f"q{first + i}" for i in range(len(scores))]
    if not scores:
        metric = None
    elif categories:
        metric = macro_stderr(scores, categories, clusters or None)
    else:
        metric = mean_stderr(scores, clusters or None)
    fields: dict[str, Any] = {
        "benchmark": benchmark,
        "split": "development",
        "metric": "exact_match",
        "aggregate": "macro" if categories else "mean",
        "digest": f"digest-of-{benchmark}",
        "value": metric.value if metric else None,
        "stderr": metric.stderr if metric else None,
        "scores": dict(zip(ids, scores, strict=True)),
        "failures": {f"f{i}": "timed out" for i in range(failures)},
        "n_planned": len(scores) + failures,
        "categories": dict(zip(ids, categories, strict=True)) if categories else {},
        "clusters": dict(zip(ids, clusters, strict=True)) if clusters else {},
    }
    return Result(**(fields | changes))


def make_card(
    name: str,
    results: Mapping[str, Sequence[float] | Result],
    *,
    digest: str = "",
    suite: str = "demo",
    regime: str = "demo@v1",
    suite_digest: str = DIGEST,
    missing: Sequence[str] = (),
    engine: str = "fake",
    columns: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Scorecard:
    made = {c: r if isinstance(r, Result) else make_result(c, r) for c, r in results.items()}
    values = [r.value for r in made.values() if r.value is not None]
    complete = not missing and len(values) == len(made)
    return Scorecard(
        CheckpointRef(name, digest or (name.encode().hex() * 64)[:64]),
        SuiteRef(suite, regime, suite_digest, columns or {c: r.benchmark for c, r in made.items()}, tuple(missing)),
        tuple(made.values()),
        sum(values) / len(values) if complete else None,
        {"engine": {"engine": engine, "dtype": "float32"}} | dict(provenance or {}),
    )


def flips(n: int, wrong: Sequence[int]) -> list[float]:
    """n right answers except at the given places."""
    places = set(wrong)
    return [0.0 if i in places else 1.0 for i in range(n)]
