"""`decontam diff`: what appeared, vanished or crossed a threshold between two scans."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  python -m decontam diff report-before/ report-after/
  python -m decontam diff report-tulu3/ report-any-8/ --json

A row with an id counts as the same wherever it stands; one without is known by its file and number.
Exit codes: 0 the same, 1 different, 2 wrong usage or broken input, 70 a bug."""


@click.command("diff", epilog=EPILOG)
@click.argument("before", metavar="A", type=click.Path(path_type=Path, file_okay=False))
@click.argument("after", metavar="B", type=click.Path(path_type=Path, file_okay=False))
@click.option("--show", type=click.IntRange(min=0), default=10, show_default=True, help="Matches of a kind to name.")
@click.option("--json", "as_json", is_flag=True, help="Print everything that differs as JSON.")
def command(before: Path, after: Path, show: int, as_json: bool) -> int:
    """Compare the scans in folders A and B: matches, rates and verdicts."""
    from decontam.report import diff
    from decontam.report.lines import json_text
    from decontam.report.terminal import print_safely

    found = diff.difference(before, after)
    print_safely(json_text(diff.as_json(found), indent=1) + "\n" if as_json else diff.text(found, show))
    return 0 if found.same else 1
