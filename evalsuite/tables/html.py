"""The table as one self-contained HTML page: no scripts, no fonts, no links; light and dark; hover titles."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from evalsuite.tables import Cell, Column, Row, Table, visible

# Nothing may be fetched and nothing may run, even if an escape were forgotten.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """\
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #666b73; --paper: #ffffff; --line: #d9dce1; --band: #f5f6f8;
  --best: #0b6b3a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e9; --soft: #9aa0a8; --paper: #16181b; --line: #34383e; --band: #1e2125; --best: #6fd39b; }
}
body { margin: 2rem; background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.15rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; }
th small { display: block; font-weight: 400; color: var(--soft); }
th small.fold { margin-left: auto; max-width: 7.5rem; white-space: normal; }
.left { text-align: left; }
.stick { position: sticky; left: 0; background: var(--paper); max-width: 28rem; overflow: hidden;
  text-overflow: ellipsis; }
tbody th { font-weight: 400; }
tbody tr:hover > * { background: var(--band); }
tr.first > * { border-top: 2px solid var(--line); }
tr.reported { color: var(--soft); font-style: italic; }
tr.summary > * { font-weight: 600; }
.error, sup { color: var(--soft); font-size: .85em; }
.error { display: inline-block; text-align: left; font-weight: 400; }
sup { line-height: 0; margin-left: .15em; }
td sup { position: absolute; margin-top: .6em; }
b { color: var(--best); }
[title] { cursor: help; }
.below { margin-top: 1rem; max-width: 60rem; color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.below p { margin: .2rem 0; }
"""


def html(table: Table) -> str:
    """A whole page."""
    heads = "".join(_head(column) for column in table.columns)
    rows = []
    # Room for the widest error of a column in each of its cells: numbers with and without one stay aligned.
    widths = [max((len(row.cells[i].error) for row in table.rows), default=0) for i in range(len(table.columns))]
    for i, row in enumerate(table.rows):
        first = i > 0 and table.rows[i - 1].kind != row.kind
        rows.append(_row(table.columns, row, widths, first))
    below = [_text(line) for line in table.caption]
    below += [f"<b>Bold</b>: {_text(table.best)}."] if table.best else []
    below += [f"<sup>{_text(mark)}</sup> {_text(text)}" for mark, text in table.notes]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY, quote=True)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(table.title)}</title>",
            f"<style>\n{STYLE}</style></head>",
            f"<body><h1>{_text(table.title)}</h1>",
            f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>',
            "<tbody>",
            *rows,
            "</tbody></table></div>",
            f'<div class="below">{"".join(f"<p>{line}</p>" for line in below)}</div>',
            "</body></html>",
            "",
        ]
    )


def _head(column: Column) -> str:
    under = "".join(_small(_text(line)) for line in column.under)
    return f'<th scope="col"{_classes(column)}>{_text(column.heading)}{under}</th>'


def _small(text: str) -> str:
    """A line under a heading; a long name of a metric may be broken after its underscores."""
    return f'<small class="fold">{text.replace("_", "_<wbr>")}</small>' if len(text) > 14 else f"<small>{text}</small>"


def _row(columns: tuple[Column, ...], row: Row, widths: Sequence[int], first: bool) -> str:
    names = " ".join([row.kind] + (["first"] if first else []))
    cells = "".join(_cell(*each) for each in zip(columns, row.cells, widths, strict=True))
    return f'<tr class="{names}">{cells}</tr>'


def _cell(column: Column, cell: Cell, width: int) -> str:
    tag = 'th scope="row"' if column.sticky else "td"
    title = f' title="{_text(cell.title)}"' if cell.title else ""
    text = f"<b>{_text(cell.text)}</b>" if cell.best else _text(cell.text)
    text += f' <span class="error" style="min-width:{width}ch">{_text(cell.error)}</span>' if width else ""
    text += f"<sup>{_text(cell.marks)}</sup>" if cell.marks else ""
    return f"<{tag}{_classes(column)}{title}>{text}</{tag.split()[0]}>"


def _classes(column: Column) -> str:
    names = [name for name, on in (("left", column.align == "left"), ("stick", column.sticky)) if on]
    return f' class="{" ".join(names)}"' if names else ""


def _text(text: str) -> str:
    return escape(visible(text), quote=True)
