"""The matrix as aligned text: in full for a pipe, in blocks of columns that fit for a terminal."""

from __future__ import annotations

import io
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from decontam.report.matrix import LABELS, Cell, Matrix, percent
from decontam.report.passages import visible
from decontam.report.tally import Way

GAP = "  "
SHORTEST_NAME = 12


@dataclass(frozen=True, slots=True)
class _Column:
    """Texts of one column, the heading first, padded to one width."""

    lines: tuple[str, ...]
    width: int


def matrix_text(matrix: Matrix, width: int | None = None) -> str:
    """What `scan` prints. `width` is that of a terminal with colours; None gives plain text, every name in full.

    Cells without a hit are told in a line; those over the limit are marked with `!`.
    """
    lines = list(_lines(matrix, width))
    if width is None:
        return "".join(f"{text}\n" for text, _ in lines)
    from rich.console import Console
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, legacy_windows=False, highlight=False)
    for text, style in lines:
        console.print(Text(text, style=style), soft_wrap=True)
    return out.getvalue()


def print_matrix(matrix: Matrix) -> None:
    """To stdout: styled and cut to its width when that is a terminal, plain when piped."""
    dumb = os.environ.get("TERM") in (None, "", "dumb", "unknown")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() and not dumb else None
    print_safely(matrix_text(matrix, width))


def print_safely(text: str) -> None:
    """To stdout, where a character that its encoding lacks becomes a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def _lines(matrix: Matrix, width: int | None) -> Iterator[tuple[str, str]]:
    """(text, rich style) of each line."""
    yield from _wrapped(matrix.title, width, "dim")
    for name, about in matrix.datasets:
        yield "", ""
        yield from _wrapped(f"{name}: {about}", width, "bold")
        cells = [cell for cell in matrix.cells if cell.dataset == name]
        found = [cell for cell in cells if not cell.empty]
        if found:
            yield from _table(matrix, found, width)
        if clean := [cell.eval for cell in cells if cell.empty]:
            yield from _wrapped(f"  nothing of {', '.join(clean)}", width, "dim")
    if matrix.unprotected:
        yield "", ""
        yield from _wrapped("The rule cannot protect these instances:", width, "")
        for line in matrix.unprotected:
            yield from _wrapped(f"  {line}", width, "dim")
    yield "", ""
    for line in matrix.outcome:
        yield from _wrapped(line, width, "bold")


def _table(matrix: Matrix, cells: Sequence[Cell], width: int | None) -> Iterator[tuple[str, str]]:
    """One table, or two below each other where one would be too wide: instances, then rows."""
    names = _names(cells, None if width is None else max(SHORTEST_NAME, width * 3 // 10))
    instances = [
        _numbers("instances", [f"{c.n:,}" for c in cells]),
        _numbers("hit", [f"{c.instances['exact']:,}" for c in cells]),
    ]
    instances += [_numbers(_head(way, "%"), [percent(c.instance_share(way)) for c in cells]) for way in matrix.ways]
    rows = [_numbers("rows", [f"{c.rows['exact']:,}" for c in cells])]
    rows += [_numbers(_head(way, "%"), [percent(c.row_share(way)) for c in cells]) for way in matrix.ways]
    rest = [_numbers("unprotected", [f"{c.unprotected:,}" for c in cells])]
    for group in _fitting(names, [instances, [*rows, *rest]], width):
        for i in range(len(cells) + 1):
            text = GAP.join(column.lines[i] for column in group).rstrip()
            yield text, "dim" if i == 0 else "red" if cells[i - 1].action != "none" else ""


def _head(way: Way, unit: str) -> str:
    return unit if way == "exact" else f"{LABELS[way]} {unit}"


def _fitting(names: _Column, groups: Sequence[list[_Column]], width: int | None) -> Iterator[list[_Column]]:
    """All columns side by side when they fit, else each group; a group too wide is cut into what fits."""
    every = [names, *(column for group in groups for column in group)]
    if width is None or _width(every) <= width:
        yield every
        return
    for group in groups:
        block = [names]
        for column in group:
            if len(block) > 1 and _width([*block, column]) > width:
                yield block
                block = [names]
            block.append(column)
        yield block


def _width(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def _names(cells: Sequence[Cell], limit: int | None) -> _Column:
    marks = ["! " if cell.action != "none" else "  " for cell in cells]
    texts = ["  eval", *(mark + _cut(visible(cell.eval), limit) for mark, cell in zip(marks, cells, strict=True))]
    width = max(display_width(text) for text in texts)
    return _Column(tuple(text + " " * (width - display_width(text)) for text in texts), width)


def _numbers(head: str, texts: Sequence[str]) -> _Column:
    width = max(len(text) for text in (head, *texts))
    return _Column(tuple(text.rjust(width) for text in (head, *texts)), width)


def _cut(text: str, limit: int | None) -> str:
    """The text cut in its middle to `limit` columns of a terminal."""
    if limit is None or display_width(text) <= limit:
        return text
    head, tail = text, ""
    while display_width(head) > limit // 2:
        head = head[:-1]
    for character in reversed(text):
        if display_width(head + "…" + character + tail) > limit:
            break
        tail = character + tail
    return f"{head}…{tail}"


def _wrapped(text: str, width: int | None, style: str) -> Iterator[tuple[str, str]]:
    """The text in lines of `width` columns, broken at spaces where possible, each but the first indented."""
    words = visible(text).split(" ")
    line = words[0]
    for word in words[1:]:
        if width is None or display_width(f"{line} {word}") <= width:
            line += f" {word}"
            continue
        *whole, line = [*_broken(line, width), *_broken(f"  {word}", width)]
        yield from ((each, style) for each in whole)
    yield from ((each, style) for each in ([line] if width is None else _broken(line, width)))


def _broken(text: str, width: int) -> list[str]:
    """The text in pieces of at most `width` columns; in one piece when it fits."""
    pieces = [""]
    for character in text:
        if display_width(pieces[-1]) + display_width(character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def display_width(text: str) -> int:
    """Columns that a terminal gives the text: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
