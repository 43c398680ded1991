"""The table of data sets × evals: matrix.tsv, matrix.md, matrix.json and what a terminal prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decontam.job.folder import write
from decontam.report.facts import Scan
from decontam.report.lines import json_text
from decontam.report.passages import visible
from decontam.report.tally import WAYS, Tally, Way
from decontam.report.verdict import Action, Verdict, rule_json, share


@dataclass(frozen=True, slots=True)
class Cell:
    """One data set on one eval. Shares are 0 to 1."""

    dataset: str
    eval: str
    kind: str
    n: int  # instances that are not skipped
    n_rows: int
    unprotected: int
    instances: dict[Way, int]
    rows: dict[Way, int]
    texts: dict[Way, int]  # of these rows, those with one text counted once
    action: Action

    def instance_share(self, way: Way) -> float:
        """Share of the eval's instances that the data set holds."""
        return share(self.instances[way], self.n)

    def row_share(self, way: Way) -> float:
        """Share of the data set's rows that hold one."""
        return share(self.rows[way], self.n_rows)

    @property
    def empty(self) -> bool:
        """Whether nothing was found in any way."""
        return not any(self.instances.values())


@dataclass(frozen=True, slots=True)
class Matrix:
    """All cells, by data set and then eval, with what is said around them. `ways` are those that the scan took."""

    cells: tuple[Cell, ...]
    ways: tuple[Way, ...]
    title: str
    datasets: tuple[tuple[str, str], ...]  # (name, a line on it)
    unprotected: tuple[str, ...]  # a line on each eval that is not protected as a whole
    outcome: tuple[str, ...]


def matrix_of(scan: Scan, counted: Tally, verdict: Verdict) -> Matrix:
    """The matrix of a scan."""
    ways = tuple(
        w for w in WAYS if w in ("exact", "capped") or (w == "near" and scan.near) or (w == "short" and scan.short)
    )
    cells = tuple(
        Cell(
            scan.datasets[d].name,
            facts.eval.name,
            facts.eval.kind,
            facts.n,
            scan.datasets[d].n_rows,
            facts.n_unprotected,
            {way: hits[way].instances for way in WAYS},
            {way: hits[way].rows for way in WAYS},
            {way: hits[way].texts for way in WAYS},
            verdict.actions[d, e],
        )
        for (d, e), hits in counted.cells.items()
        for facts in [scan.evals[e]]
    )
    about = f": {scan.rule.about}" if scan.rule.about else ""
    title = f"{scan.rule.name}{about}; phrases of more than {scan.cap:,} instances count as common"
    datasets = tuple((facts.name, _about_dataset(scan, counted, d)) for d, facts in enumerate(scan.datasets))
    unprotected = tuple(_about_eval(scan, e) for e, facts in enumerate(scan.evals) if facts.n_unprotected)
    return Matrix(cells, ways, title, datasets, unprotected, tuple(_outcome(scan, cells, verdict)))


def _about_dataset(scan: Scan, counted: Tally, d: int) -> str:
    facts, rows = scan.datasets[d], counted.rows[d]
    flagged = f"{rows['exact']:,} flagged ({percent(share(rows['exact'], facts.n_rows))} %)"
    capped = f"{rows['capped']:,} with the cap ({percent(share(rows['capped'], facts.n_rows))} %)"
    near = f", {rows['near']:,} near-duplicates" if scan.near else ""
    copies = counted.texts[d]["exact"]
    distinct = f", {copies:,} distinct" if copies != rows["exact"] else ""
    return f"{facts.n_rows:,} rows, {flagged}{distinct}, {capped}{near}"


def _about_eval(scan: Scan, e: int) -> str:
    facts = scan.evals[e]
    reasons = ", ".join(f"{why} {len(set(found)):,}" for why, found in facts.unprotected.items() if found)
    return f"{facts.eval.name}: {facts.n_unprotected:,} of {len(facts.eval.ids):,} ({reasons})"


def _outcome(scan: Scan, cells: Sequence[Cell], verdict: Verdict) -> Iterator[str]:
    """One line per contaminated data set, or that there is none; then what was not read."""
    limit = f"{100 * scan.limit:g} % of the instances of"
    for facts in scan.datasets:
        over = [cell for cell in cells if cell.dataset == facts.name and cell.action != "none"]
        if unseen := [cell.eval for cell in over if cell.action == "drop"]:
            yield f"{facts.name} holds more than {limit} {', '.join(unseen)} (unseen): drop it"
        if others := [cell.eval for cell in over if cell.action == "drop_or_clean"]:
            yield f"{facts.name} holds more than {limit} {', '.join(others)}: drop it, or clean it where that hurts"
    if verdict.exit != 1:
        yield f"nothing is over the limit: more than {limit} any eval"
    for facts in scan.datasets:
        if not facts.complete:
            yield f"{facts.name} was not read as a whole: {'; '.join(facts.why) or 'see summary.json'}"


# -- files --


def write_matrix(out: Path, scan: Scan, matrix: Matrix) -> None:
    """matrix.tsv, matrix.md and matrix.json, with every cell."""
    write(out / "matrix.tsv", tsv(matrix).encode())
    write(out / "matrix.md", markdown(matrix).encode())
    write(out / "matrix.json", json_text(as_json(scan, matrix), indent=1).encode() + b"\n")


def tsv(matrix: Matrix) -> str:
    """One line a cell; columns that end in _pct are percentages."""
    heads = ["dataset", "eval", "kind", "n", "n_rows", "unprotected"]
    for way in matrix.ways:
        heads += [f"{way}_instances", f"{way}_instances_pct", f"{way}_rows", f"{way}_rows_pct", f"{way}_texts"]
    lines = ["\t".join([*heads, "action"])]
    for cell in matrix.cells:
        values = [visible(cell.dataset), visible(cell.eval), cell.kind]
        values += [str(cell.n), str(cell.n_rows), str(cell.unprotected)]
        for way in matrix.ways:
            values += [str(cell.instances[way]), f"{100 * cell.instance_share(way):.4f}"]
            values += [str(cell.rows[way]), f"{100 * cell.row_share(way):.4f}", str(cell.texts[way])]
        lines.append("\t".join([*values, cell.action]))
    return "\n".join(lines) + "\n"


def markdown(matrix: Matrix) -> str:
    """The table for a README or a pull request."""
    heads = ["data", "eval", "kind", "instances"]
    heads += [f"{LABELS[way]} %" for way in matrix.ways]
    heads += ["rows"] + [f"rows, {LABELS[way]} %" for way in matrix.ways] + ["unprotected", "action"]
    lines = [_md(matrix.title), "", _row(heads), _row(["---"] * 3 + ["---:"] * (len(heads) - 4) + ["---"])]
    for cell in matrix.cells:
        found = f"{cell.instances['exact']:,} of {cell.n:,}"
        values = [_md(cell.dataset), _md(cell.eval), cell.kind, found]
        values += [percent(cell.instance_share(way)) for way in matrix.ways]
        values += [f"{cell.rows['exact']:,}", *(percent(cell.row_share(way)) for way in matrix.ways)]
        lines.append(_row([*values, f"{cell.unprotected:,}", cell.action.replace("_", " ")]))
    lines += [
        "",
        *(f"- {_md(line)}" for line in matrix.outcome),
        *(f"- {_md(f'{name}: {about}')}" for name, about in matrix.datasets),
    ]
    lines += [f"- not protected: {_md(line)}" for line in matrix.unprotected]
    return "\n".join(lines) + "\n"


def as_json(scan: Scan, matrix: Matrix) -> dict[str, Any]:
    """The same as data, shares 0 to 1."""
    cells = []
    for cell in matrix.cells:
        ways: dict[str, Any] = {
            way: {
                "instances": cell.instances[way],
                "instance_share": cell.instance_share(way),
                "rows": cell.rows[way],
                "row_share": cell.row_share(way),
                "texts": cell.texts[way],
            }
            for way in matrix.ways
        }
        head = {"dataset": cell.dataset, "eval": cell.eval, "kind": cell.kind, "n": cell.n, "n_rows": cell.n_rows}
        cells.append({**head, "unprotected": cell.unprotected, **ways, "action": cell.action})
    return {"schema": "decontam-matrix/1", "rule": rule_json(scan.rule, scan.cap), "cells": cells}


LABELS: dict[Way, str] = {"exact": "exact", "capped": "cap", "near": "near", "short": "short"}


def percent(fraction: float) -> str:
    """×100 with two digits; what is there but would round to nothing is `<0.01`."""
    if fraction == 0:
        return "0"
    return "<0.01" if fraction < 0.0001 else f"{100 * fraction:.2f}"


def _row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _md(text: str) -> str:
    """Text that Markdown shows as it is."""
    safe = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#!~$" else c for c in safe)
