"""One table model and its writers: what is shown is decided once, how it looks is decided by the format.

Every text is hostile here: a model may be called `<script>`, `\\input{...}`, `a|b` or an escape sequence. Each writer
escapes all of it, and the same table gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from evalsuite.errors import UsageError

Format = Literal["terminal", "md", "csv", "latex", "html", "json"]
FORMATS: tuple[str, ...] = get_args(Format)
SUFFIXES = {".txt": "terminal", ".md": "md", ".csv": "csv", ".tex": "latex", ".html": "html", ".json": "json"}
ABSENT = "–"


@dataclass(frozen=True, slots=True)
class Column:
    """`under` is in small lines below the heading; `scale` is what numbers are multiplied by where they are printed.

    A `sticky` column names the row and is repeated when a table is cut to the width of a terminal. A `detail` column is
    for programs: only CSV and JSON have it.
    """

    key: str
    heading: str
    under: tuple[str, ...] = ()
    align: Literal["left", "right"] = "right"
    scale: float = 1.0
    sticky: bool = False
    detail: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """`text` is the number as printed, `error` what follows it ("±1.3"), `marks` its footnotes; `value` is 0 to 1."""

    text: str = ABSENT
    error: str = ""
    value: float | int | str | None = None
    stderr: float | None = None
    n: int | None = None
    best: bool = False
    marks: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One cell per column, in order. `reported` rows were not measured here; a `summary` row stands for the others."""

    cells: tuple[Cell, ...]
    kind: Literal["measured", "reported", "summary"] = "measured"


@dataclass(frozen=True, slots=True)
class Table:
    """What every writer is given. `best` says what a bold cell means; `notes` are (mark, text)."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    best: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"a row of {len(row.cells)} cells in a table of {len(self.columns)} columns")

    def shown(self) -> Table:
        """The table without the columns that only programs read."""
        keep = [i for i, column in enumerate(self.columns) if not column.detail]
        rows = tuple(Row(tuple(row.cells[i] for i in keep), row.kind) for row in self.rows)
        return Table(self.title, tuple(self.columns[i] for i in keep), rows, self.caption, self.notes, self.has_best)

    @property
    def has_best(self) -> str:
        """What bold means, or the empty string when no cell is bold."""
        return self.best if any(cell.best for row in self.rows for cell in row.cells) else ""


def write(table: Table, form: Format, *, width: int | None = None) -> str:
    """The table as text that ends in a newline. `width` is that of a terminal with colours; None gives plain text."""
    if form == "terminal":
        from evalsuite.tables.terminal import plain, styled

        return plain(table.shown()) if width is None else styled(table.shown(), width)
    if form == "html":
        from evalsuite.tables.html import html

        return html(table.shown())
    if form == "csv":
        return _csv(table)
    if form == "json":
        return _json(table)
    if form == "latex":
        from evalsuite.tables.latex import latex

        return latex(table.shown())
    return _markdown(table.shown())


def table_format(name: str | None, out: Path | None) -> Format:
    """The format that was asked for, else the one that the file's ending means, else terminal."""
    found = name or (SUFFIXES.get(out.suffix.lower()) if out is not None else None) or "terminal"
    return cast("Format", found)


def print_table(table: Table, form: Format = "terminal", out: Path | None = None) -> None:
    """To `out`, else to stdout: styled and cut to its width when that is a terminal, plain when piped."""
    # A terminal that knows no styles would lose the marks of the best cells, so it gets the plain form.
    dumb = os.environ.get("TERM") in (None, "", "dumb", "unknown")
    width = shutil.get_terminal_size().columns if out is None and sys.stdout.isatty() and not dumb else None
    print_text(write(table, form, width=width), out)


def print_text(text: str, out: Path | None = None) -> None:
    """To a file, atomically, or to stdout, where a character that its encoding lacks becomes a question mark."""
    if out is None:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
        return
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, out)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror})") from error


def visible(text: str) -> str:
    """The text on one line, with every unseen character (controls, direction marks, surrogates) spelled out."""
    return "".join(c if unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029" else _spelled(c) for c in text)


def score_text(value: float | None, digits: int = 1) -> str:
    """A 0-to-1 number ×100, with a true minus sign and never a minus zero."""
    if value is None:
        return ABSENT
    text = f"{100 * value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def signed_text(value: float | None, digits: int = 1) -> str:
    """A difference: as `score_text`, with a plus before what is above zero."""
    text = score_text(value, digits)
    return text if value is None or text.startswith("−") or float(text) == 0 else f"+{text}"


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _markdown(table: Table) -> str:
    """GitHub's tables. The heading's small lines are joined by <br>, which every renderer of them takes."""
    lines = [f"**{_md(table.title)}**", ""]
    heads = ["<br>".join([_md(c.heading), *map(_md, c.under)]) for c in table.columns]
    lines.append(f"| {' | '.join(heads)} |")
    lines.append("|" + "|".join(" --- " if c.align == "left" else " ---: " for c in table.columns) + "|")
    for row in table.rows:
        lines.append(f"| {' | '.join(_md_cell(cell, row.kind) for cell in row.cells)} |")
    below = [_md(line) for line in table.caption]
    below += [f"Bold: {_md(table.best)}."] if table.best else []
    below += [f"{_md(mark)} {_md(text)}" for mark, text in table.notes]
    for line in below:
        lines += ["", line]
    return "\n".join(lines) + "\n"


def _md_cell(cell: Cell, kind: str) -> str:
    text = _md(cell.text)
    if cell.best:
        text = f"**{text}**"
    elif kind == "reported" and text != ABSENT:
        text = f"*{text}*"
    text += f" {_md(cell.error)}" if cell.error else ""
    return text + (f" {_md(cell.marks)}" if cell.marks else "")


def _md(text: str) -> str:
    # A backslash before ASCII punctuation is always an escape (CommonMark 2.4). A colon before // and a dot after www
    # are escaped against autolinks, & and < against entities and tags, $ against GitHub's formulas.
    text = re.sub(r"([\\`*_\[\]<>|~&$]|(?<=[A-Za-z]):(?=//)|(?<=www)\.)", r"\\\1", visible(text))
    return re.sub(r"^(\s*)([-+#=]|\d+(?=[.)](?:\s|$)))", _md_start, text)


def _md_start(match: re.Match[str]) -> str:
    """What would begin a list, a heading or an underline at the start of a line, made plain."""
    indent, start = match.groups()
    return f"{indent}{start}\\" if start[0].isdigit() else f"{indent}\\{start}"


def _csv(table: Table) -> str:
    """Numbers ×100 as in the table, to four decimals; a scored column brings its standard error, n and marks along."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    extras = [_extras(table, i) for i in range(len(table.columns))]
    header = []
    for column, extra in zip(table.columns, extras, strict=True):
        header += [_csv_text(column.key), *(_csv_text(f"{column.key} {name}") for name in extra)]
    writer.writerow([*header, "kind"])
    for row in table.rows:
        line: list[str] = []
        for column, cell, extra in zip(table.columns, row.cells, extras, strict=True):
            line += [_csv_value(cell.value, column.scale), *(_csv_extra(cell, name, column.scale) for name in extra)]
        writer.writerow([*line, row.kind])
    return out.getvalue()


def _extras(table: Table, i: int) -> tuple[str, ...]:
    cells = [row.cells[i] for row in table.rows]
    present = {
        "stderr": any(c.stderr is not None for c in cells),
        "n": any(c.n is not None for c in cells),
        "marks": any(c.marks or c.best for c in cells),
    }
    return tuple(name for name, there in present.items() if there)


def _csv_extra(cell: Cell, name: str, scale: float) -> str:
    if name == "marks":
        return _csv_text(("*" if cell.best else "") + cell.marks)
    return _csv_value(cell.stderr, scale) if name == "stderr" else _csv_value(cell.n, 1.0)


def _csv_value(value: float | int | str | None, scale: float) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _csv_text(value)
    return str(value) if isinstance(value, int) else repr(round(value * scale, 4))


def _csv_text(text: str) -> str:
    # A spreadsheet runs a cell that begins like a formula; a leading apostrophe makes it text.
    text = visible(text)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text


def _json(table: Table) -> str:
    """Everything the table knows; numbers stay 0 to 1 here."""
    document = {
        "title": table.title,
        "caption": list(table.caption),
        "bold": table.has_best,
        "notes": [{"mark": mark, "text": text} for mark, text in table.notes],
        "columns": [{"key": c.key, "heading": c.heading, "under": list(c.under)} for c in table.columns],
        "rows": [{"kind": row.kind, "cells": _json_cells(table.columns, row)} for row in table.rows],
    }
    # ensure_ascii: a lone surrogate in a name cannot be written as UTF-8, but can be escaped.
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def _json_cells(columns: Sequence[Column], row: Row) -> dict[str, dict[str, object]]:
    cells = {}
    for column, cell in zip(columns, row.cells, strict=True):
        fields: dict[str, object] = {"value": cell.value, "text": f"{cell.text} {cell.error}".strip()}
        fields |= {k: v for k, v in (("stderr", cell.stderr), ("n", cell.n)) if v is not None}
        fields |= {"best": True} if cell.best else {}
        fields |= {"marks": cell.marks} if cell.marks else {}
        cells[column.key] = fields
    return cells
