"""Turns our verifiers into what an lm-eval task calls: `process_results` and the aggregations of its metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from evalsuite.types import ChoiceVerifier, Doc, Ratio, Score, Verifier

Value = float | Ratio | tuple[str, float]
ProcessResults = Callable[[Doc, Sequence[Any]], dict[str, Value]]


def as_process_results(verify: Verifier, metric: str = "exact_match", category: str | None = None) -> ProcessResults:
    """`process_results(doc, [response])` of a generate_until task: `{metric: value, **parts}`.

    With `category`, a field of the doc, every plain number becomes `(category, number)`: its metric is then listed with
    `aggregation: !function verify.macro`. A part that is a Ratio stays one (`aggregation: !function verify.micro`).
    """

    def process_results(doc: Doc, results: Sequence[Any]) -> dict[str, Value]:
        return _row(verify(results[0], doc), metric, None if category is None else str(doc[category]))

    return process_results


def as_process_choices(verify: ChoiceVerifier, metric: str = "acc", category: str | None = None) -> ProcessResults:
    """The same for a multiple_choice task, whose results are `(log-likelihood, is_greedy)`, one for each option."""

    def process_results(doc: Doc, results: Sequence[Any]) -> dict[str, Value]:
        totals = [float(result[0]) for result in results]
        return _row(verify(totals, doc), metric, None if category is None else str(doc[category]))

    return process_results


def _row(score: Score, metric: str, category: str | None) -> dict[str, Value]:
    named: dict[str, float | Ratio] = {metric: score.value, **score.parts}
    if category is None:
        return dict(named)
    return {name: value if isinstance(value, Ratio) else (category, value) for name, value in named.items()}


def macro(items: Iterable[tuple[str, float]]) -> float:
    """The unweighted mean of the categories' means; `items` are (category, value). NaN when there are none."""
    by_category: dict[str, list[float]] = {}
    for category, value in items:
        by_category.setdefault(category, []).append(value)
    return _mean([_mean(values) for values in by_category.values()])


def micro(items: Iterable[Sequence[float]]) -> float:
    """All hits over all things counted; `items` are (hits, of), so a document with more things weighs more."""
    rows = list(items)
    counted = sum(of for _, of in rows)
    return sum(hits for hits, _ in rows) / counted if counted else float("nan")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
