"""What one score looks like in a table: number, error, marks, footnotes, hover title; the table of one scorecard."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, product
from string import ascii_lowercase
from typing import Literal

from evalsuite.reference import AVERAGE, incomplete
from evalsuite.scorecard import Metric, Result, Scorecard
from evalsuite.stats import interval
from evalsuite.tables import Cell, Column, Row, Table, score_text

PARTIAL, FOREIGN, REPORTED, UNCONFIRMED, UNSEEN, TOUCHED, WAIVED = "~", "†", "ᴿ", "?", "ᵁ", "‡", "ᵂ"
WORSE = "v"  # a sign of its own, so no footnote is called that
EARLY = "stopped early"  # how the note of a result begins whose samples a gate stopped asking for
STEP = 0.005  # unseen scores are known in steps of at least half a point
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


def decimals(stderr: float | None) -> int:
    """Digits after the point that an error leaves worth printing: max(0, min(2, −⌊log10 SE⌋)) with SE in points.

    1 where the error is unknown or 0: all samples alike say nothing of how exact the number is.
    """
    return max(0, min(2, -math.floor(math.log10(100 * stderr)))) if stderr else 1


def stopped_early(result: Result) -> bool:
    """Whether a gate stopped asking at a verdict: such a score is biased, and no number of the benchmark."""
    return any(note.startswith(EARLY) for note in result.notes) or any(map(stopped_early, result.members))


def has_unseen(card: Scorecard) -> Literal["", "some", "all"]:
    """How many of a scorecard's benchmarks are unseen ones."""
    unseen = [result.split == "unseen" for result in card.results]
    return "all" if unseen and all(unseen) else "some" if any(unseen) else ""


def average_of(card: Scorecard) -> float | None:
    """The average, and None too where it would lie: a gate stopped early, or unseen and seen stand side by side."""
    return None if any(map(stopped_early, card.results)) or has_unseen(card) == "some" else card.average


def stepped(value: float, stderr: float | None) -> tuple[float, float]:
    """(the value in whole steps, the step): max(0.5 points, SE), as the Ladder releases it (arXiv 1502.04585)."""
    step = max(STEP, stderr or 0.0)
    return min(1.0, max(0.0, round(value / step) * step)), step


def score_cell(
    result: Result | None,
    notes: Notes,
    *,
    bold: bool = False,
    foreign: bool = False,
    marks: str = "",
    digits: int | None = None,
) -> Cell:
    """The cell of one benchmark: `62.1 ±0.4` with marks for partial data, failed and truncated shares above 1 %.

    `marks` come first, `digits` are as many as the error allows unless given. Of a benchmark that a gate stopped early
    no number is shown, of an unseen one the nearest step.
    """
    if result is None:
        return Cell(title="not scored")
    signs = "".join(mark for mark in marks if mark != WORSE) + (notes.foreign() if foreign else "")
    if partial := incomplete(result) or "; ".join(note for note in result.notes if note.startswith(EARLY)):
        signs += notes.mark(PARTIAL, "not the whole benchmark", f"{result.benchmark}: {partial}")
    if stopped_early(result):
        return Cell(text=signs, n=result.n, title=f"{result.benchmark}: {'; '.join(result.notes)}")
    if result.split == "unseen":
        return _unseen_cell(result, notes, signs)
    letters = [WORSE] * (WORSE in marks) + [notes.letter(text) for text in rates(result)]
    shown = decimals(result.stderr) if digits is None else digits
    return Cell(
        text=score_text(result.value, shown),
        error=error_text(result.stderr, shown),
        value=result.value,
        stderr=result.stderr,
        n=result.n,
        best=bold,
        marks=signs + ",".join(letters),
        title=_title(result),
    )


def released_cell(value: float, step: float, notes: Notes, title: str, marks: str = "") -> Cell:
    """An unseen number as it was released, in whole steps."""
    marks += notes.mark(UNSEEN, "unseen: in steps of at least 0.5 points, never averaged with what is seen")
    return Cell(score_text(value, decimals(step)), value=value, marks=marks, title=f"{title}, step {100 * step:.2g}")


def _unseen_cell(result: Result, notes: Notes, marks: str) -> Cell:
    if result.value is None:
        return Cell(title="no value", marks=marks)
    return released_cell(*stepped(result.value, result.stderr), notes, f"{result.benchmark}, {result.metric}", marks)


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
    average, stderr = average_of(card), average_stderr(scored)
    if average is None and card.average is not None:
        why = "stopped early" if any(map(stopped_early, scored)) else "seen and unseen"
        return Cell(title=f"{why}: no average", marks=marks)
    if average is None:
        return Cell(error=f"{len(scored)}/{total}", title=f"{len(scored)} of {total} columns: no average", marks=marks)
    if has_unseen(card):
        average, step = stepped(average, stderr)
        return Cell(score_text(average, decimals(step)), value=average, marks=marks + UNSEEN, title="unseen, in steps")
    digits = decimals(stderr)
    title = f"mean of {total} columns: {_spread(average, stderr)}"
    return Cell(score_text(average, digits), error_text(stderr, digits), average, stderr, None, bold, marks, title)


def error_text(stderr: float | None, digits: int = 1) -> str:
    return "" if stderr is None else f"±{score_text(stderr, digits)}"


def card_table(card: Scorecard, said: Sequence[str] = ()) -> Table:
    """One scorecard: a row per benchmark with its other metrics below it, and the average; `said` stands below."""
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
    return Table(f"{card.checkpoint.name} · {suite}", columns, tuple(rows), (*caption, *said), notes.listed())


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
    digits = decimals(metric.stderr)
    score = Cell(score_text(metric.value, digits), error_text(metric.stderr, digits), metric.value, metric.stderr)
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
    digits = max(1, decimals(stderr))
    spread = f"{score_text(low, digits)} to {score_text(high, digits)}"
    return f"{score_text(value, digits)} {error_text(stderr, digits)}, 95 % interval {spread}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _letters() -> Iterator[str]:
    """a, b, …, z, aa, ab, … without the sign for worse."""
    for length in count(1):
        yield from (word for word in map("".join, product(ascii_lowercase, repeat=length)) if word != WORSE)
