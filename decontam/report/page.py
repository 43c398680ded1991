"""report.html: one page that says what was found where, with the shared stretches marked on both sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from decontam.report.chosen import Chosen, Group, choose, texts_of
from decontam.report.facts import Scan, Texts
from decontam.report.match import Match
from decontam.report.matrix import LABELS, Cell, Matrix, percent
from decontam.report.page_style import POLICY, STYLE
from decontam.report.passages import Passage, Piece, instances_of, sides, visible, visible_lines

SHOWN = 20  # matches of a group of a cell
SHOWN_IDS = 50  # unprotected instances of a reason

Messages = Mapping[tuple[str, str, int, int], str]


def page(scan: Scan, matrix: Matrix, texts: Texts, shown: int = SHOWN) -> str:
    """The whole page. Every text that comes from data, models or users is escaped."""
    found = choose(scan, shown)
    every = [match for groups in found.values() for chosen in groups.values() for match in chosen.matches]
    messages = texts_of(every, scan, texts)
    over = ' class="outcome over"' if any(c.action != "none" for c in matrix.cells) else ' class="outcome"'
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY, quote=True)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>Decontamination report</title>",
            f"<style>\n{STYLE}</style></head>",
            "<body><h1>Evaluation text in training data</h1>",
            f'<p class="soft">{_text(matrix.title)}</p>',
            f"<div{over}>{''.join(f'<p>{_text(line)}</p>' for line in matrix.outcome)}</div>",
            *_datasets(matrix),
            *_evals(scan, matrix, found, messages),
            *_unprotected(scan),
            "</body></html>",
            "",
        ]
    )


# -- the matrix --


def _datasets(matrix: Matrix) -> Iterator[str]:
    """For each data set a line on it, its cells with a hit as a table, and the evals without one."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(cell.eval for cell in matrix.cells))}
    for name, about in matrix.datasets:
        yield f'<p class="data"><b>{_text(name)}</b>: {_text(about)}</p>'
        cells = [cell for cell in matrix.cells if cell.dataset == name]
        if found := [cell for cell in cells if not cell.empty]:
            yield from _table(matrix, found, numbers)
        if clean := [cell.eval for cell in cells if cell.empty]:
            yield f'<p class="soft">Nothing of {_text(", ".join(clean))}.</p>'


def _table(matrix: Matrix, cells: Sequence[Cell], numbers: Mapping[str, int]) -> Iterator[str]:
    heads = "".join(f"<th>{LABELS[way]} %</th>" for way in matrix.ways)
    span = len(matrix.ways) + 1
    yield '<div class="scroll"><table><thead>'
    yield f'<tr><th></th><th class="group" colspan="{span}">instances hit</th>'
    yield f'<th class="group" colspan="{span}">rows hit</th><th></th><th></th></tr>'
    yield f'<tr><th class="left stick">eval</th><th>count</th>{heads}<th>count</th>{heads}'
    yield '<th>unprotected</th><th class="left">action</th></tr></thead><tbody>'
    yield from (_row(matrix, cell, numbers[cell.eval]) for cell in cells)
    yield "</tbody></table></div>"


def _row(matrix: Matrix, cell: Cell, number: int) -> str:
    name = _text(cell.eval).replace("_", "_<wbr>")
    over = ' class="over"' if cell.action != "none" else ""
    instances = "".join(_share(cell.instance_share(way), marked=way == "exact") for way in matrix.ways)
    rows = "".join(_share(cell.row_share(way)) for way in matrix.ways)
    return (
        f'<tr{over}><th class="left stick" scope="row"><a href="#eval-{number}">{name}</a> '
        f"<small>{_text(cell.kind)}</small></th>"
        f"<td>{cell.instances['exact']:,} of {cell.n:,}</td>{instances}"
        f"<td>{cell.rows['exact']:,}</td>{rows}<td>{cell.unprotected:,}</td>"
        f'<td class="left">{cell.action.replace("_", " ")}</td></tr>'
    )


def _share(fraction: float, *, marked: bool = False) -> str:
    name = ' class="share"' if marked else ""
    return f"<td{name}>{_text(percent(fraction))}</td>"


# -- matches --


def _evals(
    scan: Scan, matrix: Matrix, found: Mapping[tuple[int, int], Mapping[Group, Chosen]], messages: Messages
) -> Iterator[str]:
    """A section for each eval that anything was found of, a part for each data set."""
    instances = instances_of(facts.eval for facts in scan.evals)
    cells = {(cell.dataset, cell.eval): cell for cell in matrix.cells}
    for e, facts in enumerate(scan.evals):
        own = {d: groups for (d, number), groups in found.items() if number == e}
        if not own:
            continue
        yield f'<section><h2 id="eval-{e}">{_text(facts.eval.name)} <small>{facts.eval.kind}, {facts.n:,} instances, '
        yield f"{facts.n_unprotected:,} of them unprotected</small></h2>"
        for d, groups in own.items():
            cell = cells[scan.datasets[d].name, facts.eval.name]
            yield f"<h3>{_text(cell.dataset)} <small>{_counts(cell)}</small></h3>"
            for name, chosen in groups.items():
                cards = [
                    _card(
                        match, sides(match, messages.get((match.dataset, match.file, match.row, match.turn)), instances)
                    )
                    for match in chosen.matches
                ]
                yield from _group(name, chosen, cards)
        yield "</section>"


def _counts(cell: Cell) -> str:
    exact, capped = percent(cell.instance_share("exact")), percent(cell.instance_share("capped"))
    return (
        f"{_several(cell.instances['exact'], 'instance')} ({exact} %; with the cap {capped} %) in "
        f"{_several(cell.rows['exact'], 'row')} ({percent(cell.row_share('exact'))} %)"
    )


def _group(name: Group, chosen: Chosen, cards: Sequence[str]) -> Iterator[str]:
    more = f'<p class="soft">{_rest(name, chosen)}</p>' if _rest(name, chosen) else ""
    if name == "confirmed":
        yield from cards
        yield more
        return
    said = "held only through common phrases" if name == "boilerplate" else "only near-duplicates"
    yield f"<details><summary>{_several(chosen.n_instances, 'instance')} {said}</summary>"
    yield from cards
    yield f"{more}</details>"


def _rest(name: Group, chosen: Chosen) -> str:
    """What of a group is not shown: each instance stands once, by its best match."""
    instances = chosen.n_instances - len(chosen.matches)
    matches = chosen.n_matches - chosen.n_instances
    where = "near.jsonl" if name == "near" else "matches.jsonl"
    said = [_several(instances, "more instance")] if instances else []
    said += [f"{matches:,} more matches of these instances"] if matches else []
    return f"Not shown: {' and '.join(said)}; see {where}." if said else ""


def _several(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _card(match: Match, both: tuple[list[Passage], list[Passage]]) -> str:
    """One match: where it is, then both texts side by side; those of safety evals wait to be opened."""
    where = [f"{match.file}, row {match.row:,}"]
    where += [f"id {match.id}"] if match.id is not None else []
    where += [f"turn {match.turn}"] if match.turn else []
    where += ["completion"] if match.where == "completion" else []
    scores = [f"near-duplicate {match.score:.1f}" if "near" in match.flags else f"score {match.score:.3f}"]
    scores += [f"with the cap {match.capped_score:.3f}"] if "exact" in match.flags else []
    scores += ["whole text of a short instance"] if "short" in match.flags else []
    head = f"<b>{_text(match.instance)}</b> · {_text(', '.join(where))} · {_text(', '.join(scores))}"
    titles = ("training text", f"{match.eval}, {match.instance}")
    grid = "".join(_side(title, passages) for title, passages in zip(titles, both, strict=True))
    grid = f'<div class="sides">{grid}</div>'
    if match.kind == "safety":
        grid = f"<details><summary>text of a safety eval, may be offensive: open to read</summary>{grid}</details>"
    return f"<article><header>{head}</header>{grid}</article>"


def _side(title: str, passages: Sequence[Passage]) -> str:
    parts = []
    for passage in passages:
        named = f"{title} · {passage.title}" if passage.title else title
        parts.append(f'<h4>{_text(named)}</h4><div class="text">{"".join(map(_piece, passage.pieces))}</div>')
    return f'<div class="side">{"".join(parts)}</div>'


def _piece(piece: Piece) -> str:
    text = escape(visible_lines(piece.text), quote=True)
    if piece.runs:
        text = f"<mark><sup>{','.join(map(str, piece.runs))}</sup>{text}</mark>" if text else ""
    return text + (f'<span class="cut"> … {piece.cut:,} characters … </span>' if piece.cut else "")


# -- what the rule cannot protect --


def _unprotected(scan: Scan) -> Iterator[str]:
    listed = [facts for facts in scan.evals if facts.n_unprotected]
    if not listed:
        return
    yield "<section><h2>What the rule cannot protect</h2>"
    yield '<p class="soft">A copy of one of these instances in training data would not be flagged, or not for sure.</p>'
    for facts in listed:
        summary = f"{_text(facts.eval.name)}: {facts.n_unprotected:,} of {len(facts.eval.ids):,}"
        yield f"<details><summary>{summary}</summary><ul>"
        for why, instances in facts.unprotected.items():
            if instances:
                ids = ", ".join(facts.eval.ids[i] for i in instances[:SHOWN_IDS])
                more = f" and {len(instances) - SHOWN_IDS:,} more (summary.json)" if len(instances) > SHOWN_IDS else ""
                yield f"<li>{_text(why)}, {len(instances):,}: {_text(ids + more)}</li>"
        yield "</ul></details>"
    yield "</section>"


def _text(text: str) -> str:
    return escape(visible(text), quote=True)
