"""The table as LaTeX with booktabs rules."""

from __future__ import annotations

from evalsuite.tables import Cell, Table, visible

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "–": "--",
    "·": r"$\cdot$",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "ᴿ": "R",
    "ᵁ": "U",
    "ᵂ": "W",
    "⚑": r"$\triangleright$",
    "…": r"\ldots{}",
    "≥": r"$\geq$",
}


def latex(table: Table) -> str:
    """A booktabs table; compiles with pdflatex as long as the names are Latin, with xelatex or lualatex otherwise."""
    spec = "".join("l" if c.align == "left" else "r" for c in table.columns)
    depth = max(1 + len(c.under) for c in table.columns)
    heads = [[c.heading, *c.under] + [""] * (depth - 1 - len(c.under)) for c in table.columns]
    lines = [r"% needs \usepackage{booktabs}", r"\begin{table}[t]"]
    lines += [
        r"\centering",
        r"\small",
        rf"\caption{{{_tex(table.title)}}}",
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
    ]
    for level in range(depth):
        texts = [_tex(head[level]) for head in heads]
        lines.append(" & ".join(texts if level == 0 else [rf"\scriptsize {t}" if t else "" for t in texts]) + r" \\")
    lines.append(r"\midrule")
    for before, row in zip((None, *table.rows), table.rows, strict=False):
        if before is not None and before.kind != row.kind:
            lines.append(r"\midrule")
        lines.append(" & ".join(_tex_cell(cell, row.kind) for cell in row.cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    below = [*table.caption, *([f"Bold: {table.best}."] if table.best else [])]
    below += [f"{mark} {text}" for mark, text in table.notes]
    lines += [r"\par\smallskip\raggedright\footnotesize"] if below else []
    lines += [_tex(line) + r"\par" for line in below]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _tex_cell(cell: Cell, kind: str) -> str:
    text = _tex(cell.text)
    if cell.best:
        text = rf"\textbf{{{text}}}"
    elif kind == "reported":
        text = rf"\textit{{{text}}}"
    text += rf" {{\scriptsize {_tex(cell.error)}}}" if cell.error else ""
    return text + (rf"\textsuperscript{{{_tex(cell.marks)}}}" if cell.marks else "")


def _tex(text: str) -> str:
    escaped = "".join(LATEX.get(c, c) for c in visible(text))
    # After \\ a bracket would be read as the argument of the line break.
    return escaped.replace("[", "{[}").replace("]", "{]}").replace("`", r"\textasciigrave{}")
