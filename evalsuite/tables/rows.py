"""The rows of the leaderboard: what each cell says of one checkpoint or of one published model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalsuite.reference import AVERAGE, Published, incomplete
from evalsuite.scorecard import SuiteRef
from evalsuite.tables import Cell, Column, Row, score_text, signed_text
from evalsuite.tables.cells import (
    PARTIAL,
    REPORTED,
    TOUCHED,
    UNCONFIRMED,
    WAIVED,
    Notes,
    average_cell,
    released_cell,
    score_cell,
)
from evalsuite.tables.clean import Delta
from evalsuite.tables.line import Line
from evalsuite.tables.marks import Badge, GateMarks
from evalsuite.tables.ranks import ALPHA, Rank, Standing

NAME, RANK, GATE, VERDICT, CLEAN = "checkpoint", "rank", "gate", "gate_verdict", " clean delta"
RANK_ENDS, GATE_COUNTS = ("rank_low", "rank_high"), ("gate_n", "gate_n_planned", "gate_k")
ABOUT = ("checkpoint_digest", "suite", "regime", "suite_digest", "engine")


@dataclass(frozen=True)
class View:
    """All that is known of one table before it is drawn; rows are numbered as `lines` are, `columns` are benchmarks."""

    home: SuiteRef
    lines: Sequence[Line]
    columns: Sequence[str]
    marks: GateMarks
    deltas: Mapping[tuple[int, str], Delta]
    stands: Standing

    def changes(self, column: str) -> str:
        """What leaving touched samples out does to each row of a column, in points."""
        found = {i: change for (i, c), change in self.deltas.items() if c == column}
        each = [f"{self.lines[i].card.checkpoint.name} {signed_text(change.value)}" for i, change in found.items()]
        return f"{column}, {max(change.n_touched for change in found.values())} samples: {', '.join(each)}"

    @property
    def badges(self) -> list[Badge]:
        return [badge for line in self.lines if (badge := self.marks.badges.get(line.id))]

    @property
    def released(self) -> list[str]:
        """Unseen suites of which some row has a released number, beside the suite and the columns of the table."""
        suites = {each.suite for line in self.lines for each in self.marks.released.get(line.id, ())}
        return sorted(suites - {self.home.name, *self.columns})


def row(view: View, layout: Sequence[Column], i: int, name: str, notes: Notes) -> Row:
    """The row of line i, called `name`; a cell for each column of the layout."""
    line = view.lines[i]
    title = "checkpoint {}; suite {}, {}, digest {}; engine {}".format(*_about(line))
    marks = notes.foreign() if not line.native else ""
    marks += PARTIAL if line.average is not None and any(map(incomplete, line.results)) else ""
    bold, marks = (i, AVERAGE) in view.stands.bold, _sign(view, i, AVERAGE, notes) + marks
    waived = line.card.provenance.get("decontamination_waived")
    unchecked = notes.mark(WAIVED, "trained on unchecked data", f"{name}: {waived}") if waived else ""
    cells = {
        NAME: Cell(name, value=name, marks=unchecked, title=title),
        AVERAGE: average_cell(line.card, bold=bold, marks=marks),
    }
    cells |= {column: _score(view, i, column, notes) for column in view.columns}
    cells |= _rank_cells(view.stands.ranks.get(i)) | _gate_cells(view.marks.badges.get(line.id))
    for released in view.marks.released.get(line.id, ()):
        cells[released.suite] = released_cell(released.value, released.step, notes, f"{released.suite}, released")
    for column in view.columns:
        if (i, column) in view.deltas:
            change = view.deltas[i, column].value
            cells[column + CLEAN] = Cell(signed_text(change), value=change)
    cells |= {key: Cell(text, value=text) for key, text in zip(ABOUT, _about(line), strict=True)}
    return Row(tuple(cells.get(column.key, Cell()) for column in layout))


def _about(line: Line) -> tuple[str, ...]:
    suite = line.card.suite
    return line.id, suite.name, suite.regime, suite.digest, line.engine


def _score(view: View, i: int, column: str, notes: Notes) -> Cell:
    line, marks = view.lines[i], _sign(view, i, column, notes)
    if (i, column) in view.deltas:
        marks += notes.mark(
            TOUCHED, "samples are in training data; the change without them, in points", view.changes(column)
        )
    bold = (i, column) in view.stands.bold
    return score_cell(line.entry(column), notes, bold=bold, foreign=not line.native, marks=marks)


def _sign(view: View, i: int, column: str, notes: Notes) -> str:
    """`^` or `v` where a row is proven better or worse than the champion."""
    sign = view.stands.signs.get((i, column))
    if sign is None:
        return ""
    which = "better" if sign == "^" else "worse"
    test = f"paired test on shared samples, Holm over the row, {ALPHA}"
    return notes.mark(sign, f"proven {which} than the champion ({test})")


def _rank_cells(rank: Rank | None) -> dict[str, Cell]:
    if rank is None:
        return {RANK: Cell(title="no shared samples on every column: no rank")}
    text = f"[{rank.low}, {rank.high}]"
    ends = zip(RANK_ENDS, (rank.low, rank.high), strict=True)
    return {RANK: Cell(text, value=text)} | {key: Cell(str(end), value=end) for key, end in ends}


def _gate_cells(badge: Badge | None) -> dict[str, Cell]:
    if badge is None:
        return {GATE: Cell(title="never gated")}
    counts = zip(GATE_COUNTS, (badge.n, badge.n_planned, badge.k), strict=True)
    cells = {key: Cell(str(count), value=count) if count is not None else Cell() for key, count in counts}
    cells[VERDICT] = Cell(badge.verdict, value=badge.verdict)
    return cells | {GATE: Cell(str(badge), value=str(badge), title=badge.title)}


def reported_row(rows: Sequence[Published], view: View, layout: Sequence[Column], notes: Notes) -> Row:
    """The published numbers of one model: no rank, no badge, never bold."""
    by_benchmark = {row.benchmark: row for row in rows}
    benchmarks = dict(view.home.columns)
    sources = "; ".join(dict.fromkeys(row.source for row in rows))
    mark = notes.mark(REPORTED, "reported, not measured", sources)
    name = Cell(rows[0].model, value=rows[0].model, marks=mark, title=f"reported, not measured: {sources}")
    cells = {NAME: name, AVERAGE: _reported_cell(by_benchmark.get(AVERAGE), view.home, notes)}
    for column in view.columns:
        found = by_benchmark.get(benchmarks.get(column, column), by_benchmark.get(column))
        cells[column] = _reported_cell(found, view.home, notes)
    about = ("", rows[0].suite, rows[0].regime, "", "")
    cells |= {key: Cell(text, value=text or None) for key, text in zip(ABOUT, about, strict=True)}
    return Row(tuple(cells.get(column.key, Cell()) for column in layout), "reported")


def _reported_cell(row: Published | None, home: SuiteRef, notes: Notes) -> Cell:
    if row is None:
        return Cell(title="not reported")
    marks = notes.foreign() if row.regime != home.regime else ""
    marks += notes.mark(UNCONFIRMED, "from secondary notes, unconfirmed") if row.unconfirmed else ""
    title = f"reported, not measured: {row.metric}, {row.regime}, {row.source}"
    title += f"; {row.note}" if row.note else ""
    return Cell(score_text(row.value), value=row.value, marks=marks, title=title)
