"""Reports of a scan: matches, matrix, verdict, touched ids and a page to read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decontam.report.facts import Scan, Texts
    from decontam.report.matrix import Matrix
    from decontam.report.verdict import Verdict


def write_reports(out: Path, scan: Scan, texts: Texts, *, shown: int | None = None) -> tuple[Verdict, Matrix]:
    """Writes every report of a scan into `out`, the verdict last; returns it, and the matrix to print.

    Each file is whole or absent, and the same scan gives the same bytes. `shown` limits the matches of one group of one
    data set and eval on the page.
    """
    from decontam.job.folder import told, write, writing
    from decontam.report.lines import write_matches, write_near
    from decontam.report.matrix import matrix_of, write_matrix
    from decontam.report.page import SHOWN, page
    from decontam.report.tally import tally
    from decontam.report.verdict import judge, write_verdict

    counted = tally(scan)
    verdict = judge(scan, counted)
    matrix = matrix_of(scan, counted, verdict)
    with told(out):
        with writing(out / "matches.jsonl") as lines:
            write_matches(lines, scan.shards, scan.evals, scan.rule.name)
        if scan.near:
            with writing(out / "near.jsonl") as lines:
                write_near(lines, scan.shards, scan.evals)
        write_matrix(out, scan, matrix)
        write(out / "report.html", page(scan, matrix, texts, SHOWN if shown is None else shown).encode())
        write_verdict(out, scan, counted, verdict)
    return verdict, matrix
