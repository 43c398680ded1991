"""One checkpoint of a table before it is drawn: what it has in each column, and whether it may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalsuite.scorecard import Result, Scorecard, SuiteRef
from evalsuite.tables.cells import average_of, has_unseen, stopped_early
from evalsuite.tables.collect import engine_of

OVERLAP = 0.99  # share of the column's samples that a row needs to be compared with the others


@dataclass(frozen=True)
class Line:
    """`native` when it is of the suite, regime and digest that the table is about."""

    card: Scorecard
    native: bool

    @property
    def columns(self) -> Mapping[str, str]:
        return dict(self.card.suite.columns)

    @property
    def id(self) -> str:
        return self.card.checkpoint.digest

    @property
    def engine(self) -> str:
        return engine_of(self.card)

    def entry(self, column: str) -> Result | None:
        """The result in a column, also one without a value: all its samples failed, and the cell says so."""
        benchmark = self.columns.get(column)
        return self.card.result(benchmark) if benchmark is not None else None

    def result(self, column: str) -> Result | None:
        """What the checkpoint scored in a column; None when it has no value there."""
        result = self.entry(column)
        return result if result is not None and result.value is not None else None

    @property
    def results(self) -> list[Result]:
        return [result for column in self.columns if (result := self.result(column))]

    @property
    def average(self) -> float | None:
        return average_of(self.card)

    @property
    def comparable(self) -> bool:
        """Of unseen samples only one rounded number may be known, so nothing is tested on them."""
        return self.native and not has_unseen(self.card)


def identity(suite: SuiteRef) -> tuple[str, str, str]:
    return suite.name, suite.regime, suite.digest


def fair(lines: Sequence[Line], column: str) -> dict[int, Result]:
    """Row to result, of the rows that hold nearly all samples that any row has in the column."""
    results = {i: r for i, line in enumerate(lines) if line.comparable and (r := line.result(column))}
    whole = {i: r for i, r in results.items() if not stopped_early(r)}
    most = max((r.n for r in whole.values()), default=0)
    return {i: r for i, r in whole.items() if r.n >= OVERLAP * most}
