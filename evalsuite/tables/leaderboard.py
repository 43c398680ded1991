"""Scorecards to one table: a row per checkpoint, a column per benchmark, bold where nothing is proven better."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from evalsuite.compare import compare_results, is_mean, judge_of
from evalsuite.errors import UsageError
from evalsuite.reference import AVERAGE, Published, incomplete
from evalsuite.scorecard import Result, Scorecard, SuiteRef
from evalsuite.stats import Paired, average_difference, holm
from evalsuite.tables import Cell, Column, Row, Table, score_text
from evalsuite.tables.cells import PARTIAL, REPORTED, UNCONFIRMED, Notes, average_cell, score_cell
from evalsuite.tables.cells import card_table as card_table
from evalsuite.tables.collect import engine_of

ALPHA = 0.05
OVERLAP = 0.99  # share of the column's samples that a row needs to be compared with the others
BEST = f"best of its column, or not proven worse than the best (paired test on shared samples, Holm, {ALPHA})"


@dataclass(frozen=True)
class _Line:
    """One checkpoint. `native` when it is of the suite, regime and digest that the table is about."""

    card: Scorecard
    native: bool

    @property
    def columns(self) -> Mapping[str, str]:
        return dict(self.card.suite.columns)

    def result(self, column: str) -> Result | None:
        """What the checkpoint scored in a column; None when it has no value there."""
        benchmark = self.columns.get(column)
        result = self.card.result(benchmark) if benchmark is not None else None
        return result if result is not None and result.value is not None else None

    @property
    def results(self) -> list[Result]:
        return [result for column in self.columns if (result := self.result(column))]


def table(
    cards: Sequence[Scorecard], published: Sequence[Sequence[Published]] = (), *, allow_mixed: bool = False
) -> Table:
    """The leaderboard of scorecards that were asked and graded alike, with published rows (one group a model) below.

    Ordered by average, then by the columns in order, then by name. Cards that differ in suite, suite digest or regime
    raise UsageError naming them, unless `allow_mixed`: then those unlike the table's suite are marked and never bold.
    """
    home = home_suite(cards, allow_mixed=allow_mixed)
    if not allow_mixed and (mixed := list(_mixed_judges(cards))):
        raise UsageError(
            f"verdicts of different judges do not belong in one column: {'; '.join(mixed)}; judge the older ones again "
            "(evalsuite score CKPT --rejudge --judge …), or show them all with --allow-mixed"
        )
    lines = [_Line(card, _identity(card.suite) == _identity(home)) for card in cards]
    columns = _columns(lines, home)
    lines.sort(key=lambda line: _order(line, columns))
    bold = _bold(lines, columns)
    notes = Notes()
    rows = []
    for i, (line, name) in enumerate(zip(lines, _names(lines), strict=True)):
        rows.append(_row(line, name, columns, {c for row, c in bold if row == i}, notes))
    groups = sorted(published, key=lambda group: (-_reported_average(group), group[0].model))
    rows += [_reported_row(group, home, columns, notes) for group in groups]
    return Table(
        title=f"{home.name} · {home.regime} · suite digest {home.digest[:12]}",
        columns=_headings(lines, columns),
        rows=tuple(rows),
        caption=tuple(_caption(lines, home)),
        notes=notes.listed(),
        best=BEST,
    )


def home_suite(cards: Sequence[Scorecard], *, allow_mixed: bool = False) -> SuiteRef:
    """The suite that a table of these cards is about; of several (`allow_mixed`), the one with most cards.

    Raises UsageError without cards, and naming every suite when they differ and may not.
    """
    if not cards:
        raise UsageError("no scorecards to show (write one: evalsuite score CKPT)")
    counts = Counter(_identity(card.suite) for card in cards)
    if len(counts) > 1 and not allow_mixed:
        raise UsageError(_mixed(counts))
    identity = min(counts, key=lambda key: (-counts[key], key))
    alike = [card.suite for card in cards if _identity(card.suite) == identity]
    return max(alike, key=lambda suite: len(suite.columns))


def _identity(suite: SuiteRef) -> tuple[str, str, str]:
    return suite.name, suite.regime, suite.digest


def _mixed(counts: Mapping[tuple[str, str, str], int]) -> str:
    listed = [f"{name} ({regime}, digest {digest[:12]}): {n}" for (name, regime, digest), n in sorted(counts.items())]
    several = len({name for name, _, _ in counts}) > 1
    choose = "choose one with --suite" if several else "score the older ones again"
    return (
        f"scorecards of different suites or regimes do not belong in one table: {'; '.join(listed)}; {choose}, "
        "or mark the odd ones with --allow-mixed"
    )


def _mixed_judges(cards: Sequence[Scorecard]) -> Iterator[str]:
    """A phrase for each benchmark that several judges judged."""
    judges: dict[str, dict[str, None]] = defaultdict(dict)
    for card in cards:
        for result in card.results:
            if result.judge:
                judges[result.benchmark][judge_of(result)] = None
    yield from (f"{benchmark}: {' and '.join(who)}" for benchmark, who in judges.items() if len(who) > 1)


def _columns(lines: Sequence[_Line], home: SuiteRef) -> list[str]:
    """Columns with a value in some row: the home suite's in its order, then those of other suites."""
    order = [*dict(home.columns), *(c for line in lines for c in line.columns)]
    return [column for column in dict.fromkeys(order) if any(line.result(column) for line in lines)]


def _order(line: _Line, columns: Sequence[str]) -> tuple[object, ...]:
    average = line.card.average
    values = tuple(-(r.value or 0.0) if (r := line.result(column)) else 1.0 for column in columns)
    return average is None, -(average or 0.0), values, line.card.checkpoint.name, line.card.checkpoint.digest


# -- bold --------------------------------------------------------------------------------------------------------------


def _bold(lines: Sequence[_Line], columns: Sequence[str]) -> set[tuple[int, str]]:
    """(row, column) of each best cell and of those not proven worse. Nothing is bold where nothing can be compared."""
    bold: set[tuple[int, str]] = set()
    complete: Counter[int] = Counter()
    for column in columns:
        results = {i: r for i, line in enumerate(lines) if line.native and (r := line.result(column))}
        if not all(map(is_mean, results.values())):
            continue  # samples do not tell which of two such numbers is better
        most = max((r.n for r in results.values()), default=0)
        fair = {i: r for i, r in results.items() if r.n >= OVERLAP * most}
        complete.update(fair.keys())
        values = {i: r.value or 0.0 for i, r in fair.items()}
        bold |= {(i, column) for i in _undefeated(values, partial(_compare_in, fair))}
    averages = {i: a for i, line in enumerate(lines) if line.native and (a := line.card.average) is not None}
    fair_averages = {i: a for i, a in averages.items() if complete[i] == len(lines[i].columns)}
    return bold | {(i, AVERAGE) for i in _undefeated(fair_averages, lambda a, b: _compare_all(lines[a], lines[b]))}


def _undefeated(values: Mapping[int, float], compare: Callable[[int, int], Paired | None]) -> set[int]:
    if len(values) < 2:
        return set()
    best = max(values, key=lambda i: (values[i], -i))
    others = [i for i in values if i != best]
    tests = [compare(best, i) for i in others]
    # Without a shared sample nothing is proven.
    adjusted = holm([1.0 if test is None else test.p for test in tests])
    return {best} | {i for i, p in zip(others, adjusted, strict=True) if p >= ALPHA}


def _compare_in(results: Mapping[int, Result], first: int, second: int) -> Paired | None:
    return compare_results(results[first], results[second])


def _compare_all(first: _Line, second: _Line) -> Paired | None:
    pairs = [(first.result(column), second.result(column)) for column in first.columns]
    parts = [compare_results(a, b) for a, b in pairs if a and b]
    there = [part for part in parts if part is not None]
    return average_difference(there) if len(there) == len(first.columns) else None


# -- rows --------------------------------------------------------------------------------------------------------------


def _names(lines: Sequence[_Line]) -> list[str]:
    """What tells the rows apart: the checkpoint's name, and of suite, engine and digest what two equal names need."""
    names = [line.card.checkpoint.name for line in lines]
    suites = [f" on {line.card.suite.name}" for line in lines]
    engines = [f" [{engine_of(line.card)}]" for line in lines]
    digests = [f" ({line.card.checkpoint.digest[:8]})" for line in lines]
    for suffixes in (suites, engines, digests):
        variants = defaultdict(set)
        for name, suffix in zip(names, suffixes, strict=True):
            variants[name].add(suffix)
        names = [n + s if len(variants[n]) > 1 else n for n, s in zip(names, suffixes, strict=True)]
    return names


def _row(line: _Line, name: str, columns: Sequence[str], bold: Collection[str], notes: Notes) -> Row:
    card = line.card
    cells = [score_cell(_entry(line, c), notes, bold=c in bold, foreign=not line.native) for c in columns]
    marks = notes.foreign() if not line.native else ""
    marks += PARTIAL if card.average is not None and any(map(incomplete, line.results)) else ""
    about = (card.checkpoint.digest, card.suite.name, card.suite.regime, card.suite.digest, engine_of(card))
    title = "checkpoint {}; suite {}, {}, digest {}; engine {}".format(*about)
    head = (Cell(name, value=name, title=title), average_cell(card, bold=AVERAGE in bold, marks=marks))
    return Row((*head, *cells, *(Cell(text, value=text) for text in about)))


def _entry(line: _Line, column: str) -> Result | None:
    """The result in a column, also one without a value: all its samples failed, and the cell says so."""
    benchmark = line.columns.get(column)
    return line.card.result(benchmark) if benchmark is not None else None


def _reported_row(rows: Sequence[Published], home: SuiteRef, columns: Sequence[str], notes: Notes) -> Row:
    by_benchmark = {row.benchmark: row for row in rows}
    benchmarks = dict(home.columns)
    found = [by_benchmark.get(AVERAGE)]
    found += [by_benchmark.get(benchmarks.get(c, c), by_benchmark.get(c)) for c in columns]
    sources = "; ".join(dict.fromkeys(row.source for row in rows))
    mark = notes.mark(REPORTED, "reported, not measured", sources)
    name = Cell(rows[0].model, value=rows[0].model, marks=mark, title=f"reported, not measured: {sources}")
    regime = rows[0].regime
    about = ("", rows[0].suite, regime, "", "")
    cells = [_reported_cell(row, home, notes) for row in found]
    return Row((name, *cells, *(Cell(text, value=text or None) for text in about)), "reported")


def _reported_cell(row: Published | None, home: SuiteRef, notes: Notes) -> Cell:
    if row is None:
        return Cell(title="not reported")
    marks = notes.foreign() if row.regime != home.regime else ""
    marks += notes.mark(UNCONFIRMED, "from secondary notes, unconfirmed") if row.unconfirmed else ""
    title = f"reported, not measured: {row.metric}, {row.regime}, {row.source}"
    title += f"; {row.note}" if row.note else ""
    return Cell(score_text(row.value), value=row.value, marks=marks, title=title)


def _reported_average(rows: Sequence[Published]) -> float:
    return next((row.value for row in rows if row.benchmark == AVERAGE), -1.0)


# -- what stands around the rows ---------------------------------------------------------------------------------------


def _headings(lines: Sequence[_Line], columns: Sequence[str]) -> tuple[Column, ...]:
    heads = [Column("checkpoint", "checkpoint", align="left", sticky=True), Column(AVERAGE, AVERAGE, scale=100)]
    for column in columns:
        results = [r for line in lines if (r := line.result(column))]
        metrics = dict.fromkeys(r.metric for r in results)
        heads.append(Column(column, column, (_range([r.n for r in results]), "/".join(metrics)), scale=100))
    details = ("checkpoint_digest", "suite", "regime", "suite_digest", "engine")
    return (*heads, *(Column(key, key.replace("_", " "), align="left", detail=True) for key in details))


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"n {low}" if low == high else f"n {low}–{high}"


def _caption(lines: Sequence[_Line], home: SuiteRef) -> Iterator[str]:
    clustered = any(result.clusters for line in lines for result in line.results)
    yield "Scores ×100 ± standard error" + (", clustered where samples come in groups." if clustered else ".")
    without = [line for line in lines if line.card.average is None]
    if without:
        missing = [c for c in home.missing if all(line.result(c) is None for line in lines)]
        have = "; ".join(dict.fromkeys(average_cell(line.card).title for line in without))
        yield f"{have}" + (f" (not scored: {', '.join(missing)})." if missing else ".")
    for line in lines:
        for result in line.card.results:
            if result.value is None and result.notes:
                yield f"{line.card.checkpoint.name}: {result.benchmark} has no value ({'; '.join(result.notes)})."
    engines = Counter(engine_of(line.card) or "unknown" for line in lines)
    if len(engines) > 1:
        yield "Engines: " + ", ".join(f"{engine} ({n} rows)" for engine, n in sorted(engines.items())) + "."
