"""Scorecards to one table: a row per checkpoint, a column per benchmark, bold where nothing is proven better."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from evalsuite.compare import judge_of
from evalsuite.errors import UsageError
from evalsuite.reference import AVERAGE, Published
from evalsuite.scorecard import Scorecard, SuiteRef
from evalsuite.tables import Column, Table
from evalsuite.tables.cells import Notes, average_cell
from evalsuite.tables.cells import card_table as card_table
from evalsuite.tables.clean import Touched, delta
from evalsuite.tables.line import Line, identity
from evalsuite.tables.marks import NO_MARKS, GateMarks
from evalsuite.tables.ranks import ALPHA, standing
from evalsuite.tables.rows import (
    ABOUT,
    CLEAN,
    GATE,
    GATE_COUNTS,
    NAME,
    RANK,
    RANK_ENDS,
    VERDICT,
    View,
    reported_row,
    row,
)

BEST = f"best of its column, or not proven worse than the best (paired test on shared samples, Holm, {ALPHA})"


def table(
    cards: Sequence[Scorecard],
    published: Sequence[Sequence[Published]] = (),
    *,
    allow_mixed: bool = False,
    marks: GateMarks = NO_MARKS,
    touched: Touched | None = None,
) -> Table:
    """The leaderboard of scorecards that were asked and graded alike, with published rows (one group a model) below.

    Ordered by the best rank that a row may have, then by average, then by name; rows without a rank stand below. Cards
    that differ in suite, suite digest or regime raise UsageError naming them, unless `allow_mixed`: then those unlike
    the table's suite are marked and never bold. `marks` is what the registry knows, `touched` which samples of which
    benchmark are in training data.
    """
    home = home_suite(cards, allow_mixed=allow_mixed)
    if not allow_mixed and (mixed := list(_mixed_judges(cards))):
        raise UsageError(
            f"verdicts of different judges do not belong in one column: {'; '.join(mixed)}; judge the older ones again "
            "(evalsuite score CKPT --rejudge --judge …), or show them all with --allow-mixed"
        )
    lines = [Line(card, identity(card.suite) == identity(home)) for card in cards]
    columns = _columns(lines, home)
    lines.sort(key=lambda line: _order(line, columns))
    touched = touched or {}
    deltas = {(i, c): d for i, line in enumerate(lines) for c in columns if (d := delta(line.result(c), touched))}
    view = View(home, lines, columns, marks, deltas, standing(lines, columns, marks.champion))
    layout, notes, names = _layout(view), Notes(), _names(lines)
    rows = [row(view, layout, i, names[i], notes) for i in _ranked(view)]
    groups = sorted(published, key=lambda group: (-_reported_average(group), group[0].model))
    rows += [reported_row(group, view, layout, notes) for group in groups]
    return Table(
        title=f"{home.name} · {home.regime} · suite digest {home.digest[:12]}",
        columns=layout,
        rows=tuple(rows),
        caption=tuple(_caption(view)),
        notes=notes.listed(),
        best=BEST,
    )


def home_suite(cards: Sequence[Scorecard], *, allow_mixed: bool = False) -> SuiteRef:
    """The suite that a table of these cards is about; of several (`allow_mixed`), the one with most cards.

    Raises UsageError without cards, and naming every suite when they differ and may not.
    """
    if not cards:
        raise UsageError("no scorecards to show (write one: evalsuite score CKPT)")
    counts = Counter(identity(card.suite) for card in cards)
    if len(counts) > 1 and not allow_mixed:
        raise UsageError(_mixed(counts))
    chosen = min(counts, key=lambda key: (-counts[key], key))
    alike = [card.suite for card in cards if identity(card.suite) == chosen]
    return max(alike, key=lambda suite: len(suite.columns))


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


def _columns(lines: Sequence[Line], home: SuiteRef) -> list[str]:
    """Columns with a value in some row: the home suite's in its order, then those of other suites."""
    order = [*dict(home.columns), *(c for line in lines for c in line.columns)]
    return [column for column in dict.fromkeys(order) if any(line.result(column) for line in lines)]


def _order(line: Line, columns: Sequence[str]) -> tuple[object, ...]:
    average = line.average
    # Rows without an average are told apart by their columns.
    values = tuple(-(r.value or 0.0) if (r := line.result(column)) else 1.0 for column in columns)
    key = values if average is None else ()
    return average is None, -(average or 0.0), key, line.card.checkpoint.name, line.id, line.engine


def _ranked(view: View) -> list[int]:
    """Rows as they are shown; lines are in order of average and name, which a stable sort keeps within a rank."""
    ranks, last = view.stands.ranks, len(view.lines) + 1
    return sorted(range(len(view.lines)), key=lambda i: ranks[i].low if i in ranks else last)


def _names(lines: Sequence[Line]) -> list[str]:
    """What tells the rows apart: the checkpoint's name, and of suite, engine and digest what two equal names need."""
    names = [line.card.checkpoint.name for line in lines]
    suites = [f" on {line.card.suite.name}" for line in lines]
    engines = [f" [{line.engine}]" for line in lines]
    digests = [f" ({line.card.checkpoint.digest[:8]})" for line in lines]
    for suffixes in (suites, engines, digests):
        variants = defaultdict(set)
        for name, suffix in zip(names, suffixes, strict=True):
            variants[name].add(suffix)
        names = [n + s if len(variants[n]) > 1 else n for n, s in zip(names, suffixes, strict=True)]
    return names


# -- what stands around the rows ---------------------------------------------------------------------------------------


def _layout(view: View) -> tuple[Column, ...]:
    """Columns that say something in some row: ranks need two rows, badges a registry, clean deltas touched samples."""
    ranked, badged = bool(view.stands.ranks), bool(view.badges)
    heads = [Column(NAME, NAME, align="left", sticky=True)]
    heads += [Column(RANK, RANK, ("[lo, hi]",))] if ranked else []
    heads += [Column(AVERAGE, AVERAGE, scale=100)]
    heads += [Column(GATE, GATE, align="left")] if badged else []
    heads += [_heading(view.lines, column) for column in view.columns]
    heads += [Column(suite, suite, ("unseen",), scale=100) for suite in view.released]
    clean = dict.fromkeys(column for column in view.columns for i, c in view.deltas if c == column)
    heads += [Column(column + CLEAN, column + CLEAN, scale=100, detail=True) for column in clean]
    details = [*(RANK_ENDS if ranked else ()), *((VERDICT, *GATE_COUNTS) if badged else ()), *ABOUT]
    return (*heads, *(Column(key, key.replace("_", " "), align="left", detail=True) for key in details))


def _heading(lines: Sequence[Line], column: str) -> Column:
    results = [r for line in lines if (r := line.result(column))]
    metrics = dict.fromkeys(r.metric for r in results)
    return Column(column, column, (_range([r.n for r in results]), "/".join(metrics)), scale=100)


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"n {low}" if low == high else f"n {low}–{high}"


def _caption(view: View) -> Iterator[str]:
    lines = view.lines
    clustered = any(result.clusters for line in lines for result in line.results)
    yield "Scores ×100 ± standard error" + (", clustered where samples come in groups." if clustered else ".")
    without = [line for line in lines if line.average is None]
    if without:
        missing = [c for c in view.home.missing if all(line.result(c) is None for line in lines)]
        have = "; ".join(dict.fromkeys(average_cell(line.card).title for line in without))
        yield f"{have}" + (f" (not scored: {', '.join(missing)})." if missing else ".")
    for line in lines:
        for result in line.card.results:
            if result.value is None and result.notes:
                yield f"{line.card.checkpoint.name}: {result.benchmark} has no value ({'; '.join(result.notes)})."
    engines = Counter(line.engine or "unknown" for line in lines)
    if len(engines) > 1:
        yield "Engines: " + ", ".join(f"{engine} ({n} rows)" for engine, n in sorted(engines.items())) + "."
    yield from _gate_caption(view)


def _gate_caption(view: View) -> Iterator[str]:
    """What ranks and badges mean, and what a reader must not read into them."""
    if view.stands.ranks:
        of = f"all {len(view.stands.ranks)} ranked rows"
        test = f"paired on the average, Holm over all pairs, {ALPHA}"
        yield f"rank: from 1 + the rows proven better to {of} less those proven worse ({test})."
    champion = view.marks.champion
    if view.badges and champion and all(line.id != champion for line in view.lines):
        yield f"The champion (g{view.marks.generation}, {champion[:12]}) has no row here."
    judged = [badge for badge in view.badges if badge.n is not None and badge.n_planned]
    if judged:
        shares = sorted((badge.n or 0) / (badge.n_planned or 1) for badge in judged)
        share = " to ".join(dict.fromkeys(f"{100 * end:.0f}" for end in (shares[0], shares[-1])))
        k = max(badge.k or 1 for badge in judged)
        answers = f", with up to {k} sampled answers to each: not the numbers of this table" if k > 1 else ""
        yield f"gate: the newest verdict on each row, reached on {share} % of its samples{answers}."


def _reported_average(rows: Sequence[Published]) -> float:
    return next((row.value for row in rows if row.benchmark == AVERAGE), -1.0)
