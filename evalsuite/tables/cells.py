"""What one score looks like in a table: number, error, marks, footnotes, hover title; the table of one scorecard."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import count, product
from string import ascii_lowercase

from evalsuite.reference import AVERAGE, incomplete
from evalsuite.scorecard import Metric, Result, Scorecard
from evalsuite.stats import interval
from evalsuite.tables import Cell, Column, Row, Table, score_text

PARTIAL, FOREIGN, REPORTED, UNCONFIRMED = "~", "†", "ᴿ", "?"
PLAIN_PARTS = ("n_", "lc_weight_", "avg_")  # parts that are counts, weights or lengths, not shares
SHOWN_RATE = 0.01  # shares of failed and truncated samples above this are said


class Notes:
    """Collects footnotes while cells are made: a fixed mark gathers its details, other texts get a letter each."""

    def __init__(self) -> None:
        self._marked: dict[str, tuple[str, dict[str, None]]] = {}
        self._lettered: dict[str, str] = {}
        self._letters = _letters()

    def mark(self, mark: str, text: str, detail: str = "") -> str:
        """The mark; its note reads `text (detail; detail)`."""
        details = self._marked.setdefault(mark, (text, {}))[1]
        if detail:
            details[detail] = None
        return mark

    def foreign(self) -> str:
        """The mark of what was asked or graded otherwise than the rest of the table."""
        return self.mark(FOREIGN, "another suite, suite digest or regime than the table's: not comparable")

    def letter(self, text: str) -> str:
        """The letter that stands for a text, the same for the same text."""
        if text not in self._lettered:
            self._lettered[text] = next(self._letters)
        return self._lettered[text]

    def listed(self) -> tuple[tuple[str, str], ...]:
        marked = (
            (m, f"{text} ({'; '.join(details)})" if details else text) for m, (text, details) in self._marked.items()
        )
        return (*marked, *((letter, text) for text, letter in self._lettered.items()))


def score_cell(result: Result | None, notes: Notes, *, bold: bool = False, foreign: bool = False) -> Cell:
    """The cell of one benchmark: `62.1 ±1.3` with marks for partial data, failed and truncated shares above 1 %."""
    if result is None:
        return Cell(title="not scored")
    marks = notes.foreign() if foreign else ""
    if partial := incomplete(result):
        marks += notes.mark(PARTIAL, "not the whole benchmark", f"{result.benchmark}: {partial}")
    marks += ",".join(notes.letter(text) for text in rates(result))
    return Cell(
        text=score_text(result.value),
        error=error_text(result.stderr),
        value=result.value,
        stderr=result.stderr,
        n=result.n,
        best=bold,
        marks=marks,
        title=_title(result),
    )


def rates(result: Result) -> Iterator[str]:
    """Shares of failed and of truncated samples, where they are above 1 %."""
    if result.n_failed > SHOWN_RATE * result.n_planned:
        share = _percent(result.n_failed, result.n_planned)
        yield f"{share} of samples failed ({result.n_failed} of {result.n_planned})"
    if result.n_truncated > SHOWN_RATE * result.n:
        share = _percent(result.n_truncated, result.n)
        yield f"{share} of answers truncated ({result.n_truncated} of {result.n})"


def average_stderr(results: Iterable[Result]) -> float | None:
    """√(Σ SE²) / B of the mean of B benchmarks; None when one of them has no error."""
    errors = [result.stderr for result in results]
    known = [error for error in errors if error is not None]
    if not errors or len(known) < len(errors):
        return None
    return math.sqrt(math.fsum(error * error for error in known)) / len(known)


def average_cell(card: Scorecard, *, bold: bool = False, marks: str = "") -> Cell:
    """The average with its error, or a dash with how many of the suite's columns there are."""
    columns = dict(card.suite.columns)
    scored = [result for b in columns.values() if (result := card.result(b)) and result.value is not None]
    total = len(columns) + len(card.suite.missing)
    if card.average is None:
        return Cell(error=f"{len(scored)}/{total}", title=f"{len(scored)} of {total} columns: no average", marks=marks)
    stderr = average_stderr(scored)
    title = f"mean of {total} columns: {_spread(card.average, stderr)}"
    return Cell(score_text(card.average), error_text(stderr), card.average, stderr, None, bold, marks, title)


def error_text(stderr: float | None) -> str:
    return "" if stderr is None else f"±{score_text(stderr)}"


def card_table(card: Scorecard) -> Table:
    """One scorecard: a row per benchmark with its other metrics below it, and the average."""
    notes = Notes()
    columns = (
        Column("benchmark", "benchmark", align="left", sticky=True),
        Column("score", "score", scale=100),
        Column("n", "n"),
        Column("failed", "failed"),
        Column("truncated", "truncated"),
        Column("metric", "metric", align="left"),
    )
    rows: list[Row] = []
    for name, benchmark in dict(card.suite.columns).items():
        result = card.result(benchmark)
        rows.append(_card_row(name, result, notes))
        rows += [_part_row(part, metric) for part, metric in (result.parts.items() if result else ())]
    average = average_cell(card)
    rows.append(Row((_text(AVERAGE), average, Cell(""), Cell(""), Cell(""), Cell("")), "summary"))
    missing = f"Not scored: {', '.join(card.suite.missing)}." if card.suite.missing else ""
    suite = f"{card.suite.name} · {card.suite.regime} · suite digest {card.suite.digest[:12]}"
    caption = ("Scores ×100 ± standard error.", *filter(None, [missing]), *_judges(card), *_warnings(card))
    return Table(f"{card.checkpoint.name} · {suite}", columns, tuple(rows), caption, notes.listed())


def _judges(card: Scorecard) -> Iterator[str]:
    """Who judged what, in whose words."""
    judged: dict[str, list[str]] = {}
    for result in card.results:
        if result.judge:
            words = sorted({str(t.get("source")) for t in result.judge.get("templates", {}).values()})
            said = [str(result.judge.get("protocol")), *words]
            said += ["calibrated" if result.judge.get("calibration") else "uncalibrated"] if _pairwise(result) else []
            who = f"{result.judge.get('model')} ({', '.join(said)})"
            judged.setdefault(who, []).append(result.benchmark)
    yield from (f"Judged by {who}: {', '.join(names)}." for who, names in judged.items())


def _pairwise(result: Result) -> bool:
    """Only a judge that compares two answers can be measured against people's preferences."""
    return bool(result.judge.get("pairwise"))


def _warnings(card: Scorecard) -> Iterator[str]:
    """What a reader must know before believing a number, and why one is not there."""
    for result in card.results:
        for note in result.notes:
            if note.startswith(("warning", "failed", "the judge gave", "href")) or result.value is None:
                yield f"{result.benchmark}: {note}."
    skipped = card.provenance.get("skipped")
    if isinstance(skipped, dict) and skipped:
        yield f"Absent, no judge: {', '.join(skipped)}."


def _card_row(name: str, result: Result | None, notes: Notes) -> Row:
    if result is None:
        return Row((_text(name), Cell(), Cell(), Cell(), Cell(), Cell()))
    counts = (result.n, result.n_failed, result.n_truncated)
    numbers = [Cell(str(number), value=number) for number in counts]
    return Row((_text(name), score_cell(result, notes), *numbers, _text(result.metric)))


def _part_row(name: str, metric: Metric) -> Row:
    if name.startswith(PLAIN_PARTS):
        plain = Cell(f"{metric.value:g}", value=metric.value)
        return Row((_text(""), plain, Cell(str(metric.n), value=metric.n), Cell(""), Cell(""), _text(name)))
    score = Cell(score_text(metric.value), error_text(metric.stderr), metric.value, metric.stderr)
    return Row((_text(""), score, Cell(str(metric.n), value=metric.n), Cell(""), Cell(""), _text(name)))


def _text(text: str) -> Cell:
    return Cell(text, value=text)


def _title(result: Result) -> str:
    pieces = [f"{result.benchmark}, {result.metric}: {_spread(result.value, result.stderr)}", f"n {result.n}"]
    pieces += [f"{result.n_failed} failed", f"{result.n_truncated} truncated"]
    return "; ".join([*pieces, *result.notes])


def _spread(value: float | None, stderr: float | None) -> str:
    low, high = interval(value, stderr) if value is not None else (None, None)
    if low is None or high is None:
        return score_text(value)
    return f"{score_text(value)} {error_text(stderr)}, 95 % interval {score_text(low)} to {score_text(high)}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _letters() -> Iterator[str]:
    """a, b, …, z, aa, ab, …"""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))
