"""The table as aligned text: plain for a pipe or a file, styled and cut to width for a terminal."""

from __future__ import annotations

import io
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evalsuite.tables import Cell, Column, Table, visible

if TYPE_CHECKING:
    from rich.text import Text

GAP = 2
NUMBER = re.compile(r"[−+<]?\d+(\.\d+)?")
Style = Literal["", "bold", "dim", "title"]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text of known display width with one style."""

    text: str
    style: Style = ""


@dataclass(frozen=True, slots=True)
class _Laid:
    """One column, padded: heading lines, then one line per row, all `width` wide."""

    width: int
    head: tuple[str, ...]
    body: tuple[tuple[_Piece, ...], ...]


def plain(table: Table) -> str:
    """Aligned text without colours: every name in full, whatever its length; a star marks what is bold elsewhere."""
    columns = [_lay(column, [r.cells[i] for r in table.rows], stars=True) for i, column in enumerate(table.columns)]
    lines = [visible(table.title), "", *("".join(p.text for p in line).rstrip() for line in _block(table, columns))]
    lines += ["", *_below(table, stars=True)]
    return "\n".join(lines).rstrip("\n") + "\n"


def styled(table: Table, width: int) -> str:
    """The same with bold and dim, in blocks of columns that fit `width`; the naming columns are repeated in each."""
    from rich.console import Console

    limit = max(16, width * 2 // 5)
    columns = [
        _lay(column, [r.cells[i] for r in table.rows], stars=False, limit=limit if column.sticky else None)
        for i, column in enumerate(table.columns)
    ]
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=max(width, 1), legacy_windows=False, highlight=False)
    for text in textwrap.wrap(visible(table.title), width) or [""]:
        console.print(_rich([_Piece(text, "title")]), soft_wrap=True)
    for group in _fitting(table.columns, columns, width):
        console.print()
        for line in _block(table, group):
            console.print(_rich(line), soft_wrap=True)
    console.print()
    for note in _below(table, stars=False):
        for text in textwrap.wrap(note, width, subsequent_indent="  ") or [""]:
            console.print(_rich([_Piece(text, "dim")]), soft_wrap=True)
    return out.getvalue()


def _lay(column: Column, cells: Sequence[Cell], *, stars: bool, limit: int | None = None) -> _Laid:
    """Numbers are aligned in three parts: the number to the right, its error and its marks to the left."""
    texts = [_elided(visible(cell.text), limit) for cell in cells]
    texts = _pointed(texts) if column.align == "right" else texts
    errors = [visible(cell.error) for cell in cells]
    marks = [("*" if stars and cell.best else "") + visible(cell.marks) for cell in cells]
    wide = [max((display_width(t) for t in part), default=0) for part in (texts, errors, marks)]
    inner = wide[0] + (1 + wide[1] if wide[1] else 0) + wide[2]
    if column.align == "left":
        inner += 1 if wide[2] else 0  # a mark stands apart from a name, or it would read as its last letter
    head = [_elided(visible(column.heading), limit)]
    head += [part for line in column.under for part in _folded(visible(line), max(inner, display_width(head[0]), 14))]
    width = max(inner, *(display_width(line) for line in head))
    body = []
    for cell, text, error, mark in zip(cells, texts, errors, marks, strict=True):
        if column.align == "left":
            tail = (f" {error}" if error else "") + (f" {mark}" if mark else "")
            tail += " " * (width - display_width(text) - display_width(tail))
            lead = ""
        else:
            lead = " " * (width - inner + wide[0] - display_width(text))
            tail = (" " + _padded(error, wide[1]) if wide[1] else "") + _padded(mark, wide[2])
        body.append((_Piece(lead), _Piece(text, "bold" if cell.best else ""), _Piece(tail, "dim")))
    pad = str.ljust if column.align == "left" else str.rjust
    # str.ljust counts characters, not display columns: widen by the difference.
    return _Laid(width, tuple(pad(line, width + len(line) - display_width(line)) for line in head), tuple(body))


def _pointed(texts: Sequence[str]) -> list[str]:
    """Numbers with room after them, so that their points stand below each other though they differ in digits."""
    tails = [len(found[1] or "") if (found := NUMBER.fullmatch(text)) else None for text in texts]
    widest = max((tail for tail in tails if tail is not None), default=0)
    return [text if tail is None else text + " " * (widest - tail) for text, tail in zip(texts, tails, strict=True)]


def _folded(text: str, width: int) -> list[str]:
    """The text in lines of about `width`, broken after underscores: names of metrics are wider than their numbers."""
    lines = [""]
    for part in re.split(r"(?<=_)", text):
        if lines[-1] and display_width(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return lines


def _block(table: Table, columns: Sequence[_Laid]) -> Iterator[list[_Piece]]:
    """The lines of one block: headings, a rule, the rows, and a rule where measured rows end."""
    depth = max(len(c.head) for c in columns)
    gap = _Piece(" " * GAP)
    for level in range(depth):
        heads = [c.head[level] if level < len(c.head) else " " * c.width for c in columns]
        yield _joined([[_Piece(h, "bold" if level == 0 else "dim")] for h in heads], gap)
    rule = _joined([[_Piece("─" * c.width, "dim")] for c in columns], gap)
    yield rule
    for i, row in enumerate(table.rows):
        if i and table.rows[i - 1].kind != row.kind:
            yield rule
        pieces = [list(c.body[i]) for c in columns]
        if row.kind == "reported":
            pieces = [[_Piece(p.text, "dim") for p in cell] for cell in pieces]
        yield _joined(pieces, gap)


def _fitting(columns: Sequence[Column], laid: Sequence[_Laid], width: int) -> Iterator[list[_Laid]]:
    """Groups of columns that fit, each led by the sticky ones; a column too wide for any group stands alone."""
    sticky = [one for column, one in zip(columns, laid, strict=True) if column.sticky]
    others = [one for column, one in zip(columns, laid, strict=True) if not column.sticky]
    group, used = list(sticky), sum(one.width + GAP for one in sticky)
    for one in others:
        if len(group) > len(sticky) and used + one.width > width:
            yield group
            group, used = list(sticky), sum(s.width + GAP for s in sticky)
        group.append(one)
        used += one.width + GAP
    yield group


def _below(table: Table, *, stars: bool) -> list[str]:
    lines = [visible(line) for line in table.caption]
    if table.best:
        lines.append(f"{'*' if stars else 'bold'}: {visible(table.best)}")
    return lines + [f"{visible(mark)}: {visible(text)}" for mark, text in table.notes]


def _joined(cells: Sequence[Sequence[_Piece]], gap: _Piece) -> list[_Piece]:
    line: list[_Piece] = []
    for i, cell in enumerate(cells):
        line += [gap, *cell] if i else cell
    return line


def _rich(pieces: Sequence[_Piece]) -> Text:
    """A rich text: never markup, so that a name like `[red]` stays what it is."""
    from rich.text import Text

    text = Text()
    for piece in pieces:
        text.append(piece.text, {"title": "bold", "": None}.get(piece.style, piece.style))
    text.rstrip()
    return text


def display_width(text: str) -> int:
    """Columns that a terminal gives the text: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - display_width(text))


def _elided(text: str, limit: int | None) -> str:
    """The text cut in the middle to `limit` columns: checkpoints of one run differ at their ends."""
    if limit is None or display_width(text) <= limit:
        return text
    head, tail = "", ""
    room = limit - 1
    for left, right in zip(text, reversed(text), strict=True):
        if display_width(head + left) > room // 2:
            break
        head += left
        if display_width(right + tail) <= room - room // 2:
            tail = right + tail
    return f"{head}…{tail}"
