"""What can be told of a table's rows: the best of each column, better or worse than the champion, rank intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from evalsuite.reference import AVERAGE
from evalsuite.scorecard import Result
from evalsuite.stats import holm
from evalsuite.tables.line import Line, fair

if TYPE_CHECKING:
    from evalsuite.tables.pairs import Difference

ALPHA = 0.05
Sign = Literal["^", "v"]


@dataclass(frozen=True, slots=True)
class Rank:
    """`low` is 1 + the number of rows proven better, `high` the number of rows less those proven worse."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Rows by number in the order given; (row, column) of what is bold and of what differs from the champion."""

    bold: frozenset[tuple[int, str]] = frozenset()
    signs: Mapping[tuple[int, str], Sign] = field(default_factory=dict)
    ranks: Mapping[int, Rank] = field(default_factory=dict)


def standing(lines: Sequence[Line], columns: Sequence[str], champion: str = "") -> Standing:
    """All tests of a table, each paired on shared samples; `champion` is a checkpoint's digest, or empty.

    Bold: the best of a column and what is not proven worse than it, Holm over the column. Signs: Holm over the row,
    its average among its columns. Ranks: on the average, Holm over all M(M−1)/2 pairs of the M rows that have one.
    """
    from evalsuite.tables.pairs import Pairs

    whole = {column: fair(lines, column) for column in columns}
    pairs = Pairs({c: [whole[c].get(i) for i in range(len(lines))] for c in columns})
    bold: set[tuple[int, str]] = set()
    for column, results in whole.items():
        if pairs.by_samples(column, results):
            values = {i: r.value or 0.0 for i, r in results.items()}
            bold |= {(i, column) for i in _undefeated(values, partial(pairs.column, column))}

    def on_average(a: int, b: int) -> Difference | None:
        return pairs.average(lines[a].columns, a, b)

    averages = _averages(lines, whole)
    bold |= {(i, AVERAGE) for i in _undefeated(averages, on_average)}
    signs: dict[tuple[int, str], Sign] = {}
    for i, line in enumerate(lines):
        other = _champion(lines, line, champion)
        if other is not None and other != i:
            tests = {c: pairs.column(c, i, other) for c in columns if pairs.by_samples(c, (i, other))}
            tests |= {AVERAGE: on_average(i, other)} if i in averages and other in averages else {}
            signs |= {(i, c): sign for c, sign in _signs(tests).items()}
    return Standing(frozenset(bold), signs, ranks(list(averages), on_average))


def ranks(rows: Sequence[int], compare: Callable[[int, int], Difference | None]) -> dict[int, Rank]:
    """The rank interval of each row; none for a row that no other shares samples with."""
    tests = {(a, b): test for a, b in combinations(rows, 2) if (test := compare(a, b)) is not None}
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    above, below = dict.fromkeys(rows, 0), dict.fromkeys(rows, 0)
    for (a, b), test in tests.items():
        if adjusted[a, b] < ALPHA and test.value != 0:
            better, worse = (a, b) if test.value > 0 else (b, a)
            above[worse] += 1
            below[better] += 1
    compared = {row for pair in tests for row in pair}
    return {row: Rank(1 + above[row], len(compared) - below[row]) for row in rows if row in compared}


def _averages(lines: Sequence[Line], whole: Mapping[str, Mapping[int, Result]]) -> dict[int, float]:
    """Averages of the rows that have nearly all samples of every column."""
    averages = {i: a for i, line in enumerate(lines) if line.comparable and (a := line.average) is not None}
    return {i: a for i, a in averages.items() if all(i in whole[column] for column in lines[i].columns)}


def _undefeated(values: Mapping[int, float], compare: Callable[[int, int], Difference | None]) -> set[int]:
    if len(values) < 2:
        return set()
    best = max(values, key=lambda i: (values[i], -i))
    others = [i for i in values if i != best]
    tests = [compare(best, i) for i in others]
    # Without a shared sample nothing is proven.
    adjusted = holm([1.0 if test is None else test.p for test in tests])
    return {best} | {i for i, p in zip(others, adjusted, strict=True) if p >= ALPHA}


def _champion(lines: Sequence[Line], line: Line, champion: str) -> int | None:
    """The champion's row that a row is compared with: of several, the one that the same engine answered."""
    found = [i for i, each in enumerate(lines) if each.id == champion and each.comparable]
    return min(found, key=lambda i: (lines[i].engine != line.engine, i), default=None) if line.comparable else None


def _signs(tests: Mapping[str, Difference | None]) -> dict[str, Sign]:
    there = {column: test for column, test in tests.items() if test is not None}
    adjusted = zip(there, holm([test.p for test in there.values()]), strict=True)
    proven = [column for column, p in adjusted if p < ALPHA and there[column].value != 0]
    return {column: "^" if there[column].value > 0 else "v" for column in proven}
