"""Comparisons as tables: two checkpoints side by side, and one beside published numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from evalsuite.compare import ALPHA, Clean, Compared, Comparison
from evalsuite.errors import UsageError
from evalsuite.reference import AVERAGE, Judgement, Published, Tolerance, incomplete, judge
from evalsuite.scorecard import Result, Scorecard
from evalsuite.stats import Paired
from evalsuite.tables import ABSENT, Cell, Column, Row, Table, score_text, signed_text
from evalsuite.tables.cells import UNCONFIRMED, Notes, rates, score_cell
from evalsuite.tables.collect import engine_of
from evalsuite.tables.marks import NO_MARKS, GateMarks

BETTER = f"the side that is proven better (paired test, Holm over the benchmarks, {ALPHA})"


def table(comparison: Comparison, marks: GateMarks = NO_MARKS) -> Table:
    """Scores on the shared samples, B − A with its 95 % interval, samples where one side is higher, p-value."""
    notes = Notes()
    columns: tuple[Column, ...] = (
        Column("benchmark", "benchmark", align="left", sticky=True),
        Column("n", "n"),
        Column("a", "A", scale=100),
        Column("b", "B", scale=100),
        Column("difference", "B − A", ("95 % interval",), scale=100),
        Column("a_better", "A>B", ("flips",)),
        Column("b_better", "B>A", ("flips",)),
        Column("p", "p"),
        Column("p_holm", "p Holm", detail=True),
        Column("low", "low", scale=100, detail=True),
        Column("high", "high", scale=100, detail=True),
        Column("n_unpaired", "unpaired", detail=True),
        Column("metric", "metric", align="left", detail=True),
        Column("test", "test", align="left", detail=True),
    )
    if comparison.clean is not None:
        columns += (Column("n_left_out", "left out", ("touched",)),)
    rows = [_row(compared, comparison, notes) for compared in comparison.benchmarks]
    rows.append(_average_row(comparison, len(columns)))
    a, b = comparison.first, comparison.second
    title = f"A = {a.checkpoint.name}, B = {b.checkpoint.name}"
    return Table(title, columns, tuple(rows), tuple(_caption(comparison, marks)), notes.listed(), BETTER)


def reference_table(
    card: Scorecard,
    published: Sequence[Published],
    tolerances: Mapping[str, Tolerance],
    marks: GateMarks = NO_MARKS,
) -> Table:
    """A scorecard beside the published numbers of one model: reproduced, off by how much, or why not comparable."""
    notes = Notes()
    columns = (
        Column("benchmark", "benchmark", align="left", sticky=True),
        Column("measured", "measured", scale=100),
        Column("reported", "reported", scale=100),
        Column("difference", "difference", scale=100),
        Column("tolerance", "tolerance", scale=100),
        Column("verdict", "verdict", align="left"),
        Column("source", "source", align="left", detail=True),
    )
    by_benchmark = {row.benchmark: row for row in published}
    rows, outcomes = [], []
    for column, benchmark in dict(card.suite.columns).items():
        row = by_benchmark.get(benchmark) or by_benchmark.get(column)
        if row is None:
            continue
        result, tolerance = card.result(benchmark), tolerances.get(row.benchmark)
        judged = judge(result, card.suite, row, tolerance, deviations(card, result))
        outcomes.append(judged.outcome)
        rows.append(_reference_row(column, result, row, tolerance, judged, notes))
    if not rows:
        listed = ", ".join(dict(card.suite.columns))
        raise UsageError(f"no published number of {published[0].model!r} for any of {listed}")
    counts = ", ".join(f"{outcomes.count(o)} {o}" for o in ("reproduced", "off", "not comparable"))
    sources = "; ".join(dict.fromkeys(row.source for row in published))
    caption = (f"{counts}. Scores ×100 ± standard error.", f"Reported, not measured here: {sources}.")
    said = marks.overrides(card.checkpoint.digest)
    title = f"{card.checkpoint.name} beside {published[0].model} · {card.suite.name} · {card.suite.regime}"
    return Table(title, columns, tuple(rows), (*caption, *([f"{said}."] if said else [])), notes.listed())


def deviations(card: Scorecard, result: Result | None) -> tuple[str, ...]:
    """Differences from the published settings that a scorecard admits, such as "prompt: paraphrased"."""
    of_card = card.provenance.get("deviations") or ()
    if result is None:
        return tuple(map(str, of_card))
    found = [note for note in result.notes if note.startswith("prompt:")]
    for each in result.members or (result,):
        words = {t.get("source") for t in each.judge.get("templates", {}).values()}
        found += ["judge: own template"] if "own template" in words else []
        found += [f"generation: {d}" for d in _dropped(card, each.benchmark)]
    return (*map(str, of_card), *dict.fromkeys(found))


def _dropped(card: Scorecard, benchmark: str) -> list[str]:
    """What the engine could not do as asked (a chat endpoint takes no prefill)."""
    environment = card.provenance.get("environment")
    facts = environment.get(benchmark) if isinstance(environment, dict) else None
    said = facts.get("generation_deviation", ()) if isinstance(facts, dict) else ()
    return [str(d) for d in said if d != "none"]


def _row(compared: Compared, comparison: Comparison, notes: Notes) -> Row:
    pair = compared.pair
    p = Cell(_p_text(pair.p), value=pair.p, title=f"{pair.test}; Holm-adjusted {_p_text(compared.p_holm)}")
    n_unpaired = compared.n_only_first + compared.n_only_second
    cells: tuple[Cell, ...] = (
        Cell(compared.column, value=compared.column, marks=_marks(compared, comparison, notes), title=compared.metric),
        Cell(str(pair.n), value=pair.n),
        Cell(score_text(compared.first), value=compared.first, best=compared.better == "A"),
        Cell(score_text(compared.second), value=compared.second, best=compared.better == "B"),
        _difference(pair),
        Cell(str(pair.losses), value=pair.losses, title="samples where A is higher"),
        Cell(str(pair.wins), value=pair.wins, title="samples where B is higher"),
        p,
        Cell(_p_text(compared.p_holm), value=compared.p_holm),
        Cell(signed_text(pair.low), value=pair.low),
        Cell(signed_text(pair.high), value=pair.high),
        Cell(str(n_unpaired), value=n_unpaired),
        Cell(compared.metric, value=compared.metric),
        Cell(pair.test, value=pair.test),
    )
    if comparison.clean is not None:
        n_left_out = comparison.clean.n_left_out[compared.column]
        cells += (Cell(str(n_left_out), value=n_left_out, title="shared samples that training data touches"),)
    return Row(cells)


def _marks(compared: Compared, comparison: Comparison, notes: Notes) -> str:
    """Footnotes of a benchmark: another digest, unpaired samples, partial data, failed and truncated shares."""
    texts = []
    sides = (("A", comparison.first, compared.n_only_first), ("B", comparison.second, compared.n_only_second))
    for side, card, n_only in sides:
        result = card.result(compared.benchmark)
        if n_only:
            texts.append(f"{n_only} samples of {side} have no partner and are left out")
        if result is not None:
            texts += [f"{side}: {text}" for text in (incomplete(result), *rates(result)) if text]
    foreign = "" if compared.same_digest else notes.foreign()
    return foreign + ",".join(notes.letter(text) for text in texts)


def _average_row(comparison: Comparison, width: int) -> Row:
    average = comparison.average
    name = Cell(AVERAGE, value=AVERAGE)
    if average is None:
        had = f"{len(comparison.benchmarks)}/{comparison.n_columns}"
        title = f"{len(comparison.benchmarks)} of {comparison.n_columns} columns: no average"
        return Row((name, Cell(""), Cell(), Cell(), Cell(error=had, title=title), *_blank(width - 5)), "summary")
    compared = comparison.benchmarks
    values = [math.fsum(side) / len(side) for side in ([c.first for c in compared], [c.second for c in compared])]
    sides = [Cell(score_text(value), value=value) for value in values]
    p = Cell(_p_text(average.p), value=average.p, title=average.test)
    bounds = (Cell(signed_text(average.low), value=average.low), Cell(signed_text(average.high), value=average.high))
    row = (name, Cell(""), *sides, _difference(average), Cell(""), Cell(""), p, Cell(""), *bounds, *_blank(2))
    return Row((*row, Cell(average.test, value=average.test), *_blank(width - len(row) - 1)), "summary")


def _difference(pair: Paired) -> Cell:
    bounds = "" if pair.low is None else f"[{signed_text(pair.low)}, {signed_text(pair.high)}]"
    title = f"{pair.test}, 95 % interval {bounds}" if bounds else "too few samples for an interval"
    return Cell(signed_text(pair.difference), bounds, pair.difference, pair.stderr, title=title)


def _caption(comparison: Comparison, marks: GateMarks) -> Iterator[str]:
    suite = comparison.first.suite
    yield f"{suite.name} · {suite.regime} · suite digest {suite.digest[:12]}. Scores ×100 on the samples of both sides."
    if comparison.average is None:
        had, total = len(comparison.benchmarks), comparison.n_columns
        yield f"No average: {had} of {total} columns are on both sides."
    for side, only in (("A", comparison.only_first), ("B", comparison.only_second)):
        if only:
            yield f"Not compared, only in {side}: {', '.join(only)}."
    if comparison.clean is not None:
        yield from _clean_caption(comparison.clean)
    for side, card in (("A", comparison.first), ("B", comparison.second)):
        if said := marks.overrides(card.checkpoint.digest):
            yield f"{side} {said}."
    engines = [engine_of(card) or "unknown" for card in (comparison.first, comparison.second)]
    if engines[0] != engines[1]:
        yield f"Engines differ: A {engines[0]}, B {engines[1]}."


def _clean_caption(clean: Clean) -> Iterator[str]:
    yield f"Without {sum(clean.n_left_out.values())} samples that training data touches."
    if clean.emptied:
        yield f"Not compared, every sample is touched: {', '.join(clean.emptied)}."
    if clean.unchecked:
        yield f"No report is about (all of) {', '.join(clean.unchecked)}: all their samples count, touched or not."


def _reference_row(
    column: str, result: Result | None, row: Published, tolerance: Tolerance | None, judged: Judgement, notes: Notes
) -> Row:
    off = result.value - row.value if result is not None and result.value is not None else None
    allowed = tolerance.tolerance if tolerance is not None else None
    mark = notes.mark(UNCONFIRMED, "from secondary notes, unconfirmed") if row.unconfirmed else ""
    name = Cell(column, value=column, title="; ".join(filter(None, [row.metric, row.note])))
    cells = (
        name,
        score_cell(result, notes, digits=1),  # published numbers have one decimal
        Cell(score_text(row.value), value=row.value, marks=mark, title=f"{row.regime}, {row.source}"),
        Cell(signed_text(off), value=off),
        Cell(f"±{score_text(allowed)}" if allowed is not None else ABSENT, value=allowed),
        Cell(judged.text, value=judged.text),
        Cell(row.source, value=row.source),
    )
    return Row(cells)


def _p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _blank(n: int) -> tuple[Cell, ...]:
    return (Cell(""),) * n
