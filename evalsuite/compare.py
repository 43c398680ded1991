"""Two scorecards, sample by sample: what changed from A to B, and whether it can be told from noise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from evalsuite.cells import FOREIGN, PARTIAL, UNCONFIRMED, Notes, average_stderr, error_text, rates
from evalsuite.collect import engine_of
from evalsuite.errors import UsageError
from evalsuite.reference import AVERAGE, Judgement, Published, Tolerance, incomplete, judge
from evalsuite.scorecard import Result, Scorecard
from evalsuite.stats import Paired, average_difference, holm, macro_stderr, mean_stderr, paired
from evalsuite.tables import ABSENT, Cell, Column, Row, Table, score_text

ALPHA = 0.05
BETTER = f"proven better (paired test, Holm over the benchmarks, {ALPHA})"


@dataclass(frozen=True, slots=True)
class Compared:
    """One benchmark on both sides. `first` and `second` are the scores on the shared samples alone.

    `pair` is B minus A: its wins are samples where B is higher. `p_holm` is adjusted over the benchmarks compared.
    """

    column: str
    benchmark: str
    metric: str
    first: float
    second: float
    pair: Paired
    p_holm: float
    n_only_first: int
    n_only_second: int
    same_digest: bool

    @property
    def better(self) -> str:
        """"A" or "B" when one side is proven better, else the empty string."""
        if self.p_holm >= ALPHA or self.pair.difference == 0:
            return ""
        return "B" if self.pair.difference > 0 else "A"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All benchmarks that both sides have. `average` is None unless both sides have every column of the suite."""

    first: Scorecard
    second: Scorecard
    benchmarks: tuple[Compared, ...]
    average: Paired | None
    n_columns: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def compare(first: Scorecard, second: Scorecard, *, allow_mixed: bool = False) -> Comparison:
    """The paired comparison of two scorecards.

    Raises UsageError naming every difference in regime, suite, suite digest or benchmark digest, unless `allow_mixed`;
    and when no benchmark has shared samples.
    """
    differences = list(_differences(first, second))
    if differences and not allow_mixed:
        raise UsageError(f"not comparable: {'; '.join(differences)} (--allow-mixed compares and marks them)")
    columns = dict(first.suite.columns) | {c: b for c, b in dict(second.suite.columns).items()}
    pairs = {
        c: (a, b)
        for c, name in columns.items()
        if (a := first.result(name)) and (b := second.result(name)) and a.scores.keys() & b.scores.keys()
    }
    if not pairs:
        raise UsageError(
            f"{first.checkpoint.name!r} and {second.checkpoint.name!r} share no scored sample of any benchmark"
        )
    tests = {c: test for c, (a, b) in pairs.items() if (test := compare_results(b, a))}
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    compared = tuple(_compared(c, *pairs[c], tests[c], adjusted[c]) for c in tests)
    total = len({*columns, *first.suite.missing, *second.suite.missing})
    return Comparison(
        first,
        second,
        compared,
        average_difference([c.pair for c in compared]) if len(compared) == total else None,
        total,
        tuple(c for c in dict(first.suite.columns) if c not in tests),
        tuple(c for c in dict(second.suite.columns) if c not in tests),
    )


def compare_results(first: Result, second: Result) -> Paired | None:
    """First minus second on their shared samples, aggregated and clustered as the benchmark is; None without any."""
    return paired(
        first.scores,
        second.scores,
        aggregate=first.aggregate,
        categories=dict(second.categories) | dict(first.categories),
        clusters=dict(second.clusters) | dict(first.clusters),
    )


def to_json(comparison: Comparison) -> str:
    """The comparison for programs: numbers 0 to 1, sides by name and digest."""
    document = {
        "a": _side(comparison.first),
        "b": _side(comparison.second),
        "benchmarks": [
            asdict(c) | {"difference": c.pair.difference, "better": c.better or None} for c in comparison.benchmarks
        ],
        "average": asdict(comparison.average) if comparison.average else None,
        "n_columns": comparison.n_columns,
        "only_a": list(comparison.only_first),
        "only_b": list(comparison.only_second),
    }
    return json.dumps(document, indent=1) + "\n"


def table(comparison: Comparison) -> Table:
    """The comparison as a table: scores on the shared samples, B − A with its 95 % interval, flips, p-value."""
    notes = Notes()
    columns = (
        Column("benchmark", "benchmark", align="left", sticky=True),
        Column("n", "n"),
        Column("a", "A", scale=100),
        Column("b", "B", scale=100),
        Column("difference", "B − A", ("95 % interval",), scale=100),
        Column("a_better", "A>B", ("samples",)),
        Column("b_better", "B>A", ("samples",)),
        Column("p", "p"),
        Column("p_holm", "p Holm", detail=True),
        Column("low", "low", scale=100, detail=True),
        Column("high", "high", scale=100, detail=True),
        Column("n_unpaired", "unpaired", detail=True),
        Column("metric", "metric", align="left", detail=True),
        Column("test", "test", align="left", detail=True),
    )
    rows = [_row(compared, comparison, notes) for compared in comparison.benchmarks]
    rows.append(_average_row(comparison))
    suite = comparison.first.suite
    return Table(
        f"{suite.name} · {suite.regime} · suite digest {suite.digest[:12]}",
        columns,
        tuple(rows),
        tuple(_caption(comparison)),
        notes.listed(),
        BETTER,
    )
