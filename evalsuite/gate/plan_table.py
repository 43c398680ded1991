"""The tables of `gate plan`: what each pair is held to, how whole gates would end, and what the policy is blind to."""

from __future__ import annotations

import math
from collections.abc import Iterator

from evalsuite.gate.plan import SEEN_WELL, Line, Plan
from evalsuite.tables import Cell, Column, Row, Table, score_text

MARGIN_DIGITS = 2


def pairs_table(plan: Plan) -> Table:
    """A row for each pair; below it what drops the gate cannot see, and what more samples would buy."""
    references = list(dict.fromkeys(line.pair.reference for line in plan.lines))
    columns = (
        Column("benchmark", "benchmark", align="left", sticky=True),
        Column("reference", "against", align="left", detail=len(references) == 1),
        Column("n", "n"),
        Column("k", "K"),
        Column("stderr", "SE", scale=100),
        Column("source", "from", align="left"),
        Column("margin", "margin", scale=100),
        Column("cleared_equal", "clears", under=("equal",), scale=100),
        Column("cleared_at_margin", "clears", under=("at −margin",), scale=100),
        Column("looks", "looks"),
        Column("items", "items a look", align="left"),
        Column("tokens", "tokens", under=("at most",)),
        Column("tier", "tier", align="left"),
    )
    rows = tuple(Row(tuple(_cells(line))) for line in plan.lines)
    title = f"gate plan · {plan.suite} · policy {plan.policy.name} ({plan.policy.digest[:12]})"
    required = sum(line.pair.required for line in plan.lines)
    caption = (
        f"{required} pairs against {' and '.join(references)} can stop a promotion; margin: the drop it rules out.",
        *_blind(plan),
        *(note if note.endswith(".") else f"{note}." for note in plan.notes),
    )
    return Table(title, columns, rows, caption)


def scenarios_table(plan: Plan) -> Table:
    """How gates of checkpoints with known differences end, from seeded simulations."""
    columns = (
        Column("scenario", "true difference, points", align="left", sticky=True),
        Column("promote", "promoted %", scale=100),
        Column("block", "blocked %", scale=100),
        Column("hold", "held %", scale=100),
        Column("cost", "cost", under=("full runs",)),
    )
    rows = [
        Row((_word(s.name), _share(s.promote), _share(s.block), _share(s.hold), Cell(f"{s.cost:.2f}", value=s.cost)))
        for s in plan.scenarios
    ]
    caption = (
        f"{plan.runs} simulated gates a row, seed {plan.seed}: normal approximation, disagreement as planned.",
        f"A full run is {plan.unit} responses at the suite's own settings; the champion's missing ones come on top.",
    )
    return Table("what this gate would do", columns, tuple(rows), caption)


def _cells(line: Line) -> Iterator[Cell]:
    pair = line.pair
    yield _word(pair.benchmark)
    yield _word(pair.reference)
    yield Cell(str(pair.n), value=pair.n)
    yield Cell(str(pair.k), value=pair.k)
    yield Cell(score_text(pair.stderr, MARGIN_DIGITS), value=pair.stderr)
    yield _word(pair.source)
    yield Cell(score_text(pair.margin, MARGIN_DIGITS), value=pair.margin, marks=" blind" if pair.blind else "")
    yield _share(line.equal)
    yield _share(line.at_margin)
    counting = sum(pair.order.counts)
    yield Cell(str(counting), value=counting)
    yield _word(_looks(pair.order.sizes))
    yield Cell(_many(line.tokens), value=line.tokens) if line.tokens else Cell(value=0)
    yield _word(pair.rule.tier)


def _looks(sizes: tuple[int, ...]) -> str:
    """`132, 264 … 1319`: the items that the first two looks and the last one hold."""
    return ", ".join(map(str, sizes)) if len(sizes) <= 2 else f"{sizes[0]}, {sizes[1]} … {sizes[-1]}"


def _blind(plan: Plan) -> Iterator[str]:
    """One sentence for each benchmark that cannot see a drop of three points, the blindest first."""
    worst: dict[str, Line] = {}
    for line in sorted(plan.lines, key=lambda line: -line.pair.margin):
        worst.setdefault(line.pair.benchmark, line)
    for line in worst.values():
        if line.pair.margin > SEEN_WELL:
            yield f"{line.pair.benchmark}: cannot see a drop under {_points(line.pair.margin)} points{_repair(line)}."


def _repair(line: Line) -> str:
    if line.relief is not None:
        bought = f"K = {line.relief.k} would make it {_points(line.relief.margin)}"
        return f"; {bought} for at most {line.relief.cost:.3f} full runs"
    return f"; {line.fixed_k}" if line.fixed_k else ""


def _points(margin: float) -> str:
    return f"{100 * margin:.3g}"


def _share(share: float) -> Cell:
    return Cell() if math.isnan(share) else Cell(score_text(share), value=share)


def _many(number: int) -> str:
    """`1.3M`: planned tokens need no more digits."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def _word(text: str) -> Cell:
    return Cell(text, value=text)
