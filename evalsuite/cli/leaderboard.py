"""`evalsuite leaderboard`: one table of all scorecards in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from evalsuite.cli.options import complete_suites, table_options

EPILOG = """\b
Examples:
  evalsuite leaderboard results/
  evalsuite leaderboard results/ --format latex --out table.tex
  evalsuite leaderboard results/ --suite tulu3-dev --reference Tulu-3-8B-SFT
  evalsuite leaderboard results/ --clean reports/tulu-mix/

One row for each checkpoint, suite and engine; where several scorecards were written, each benchmark comes from the one
with most samples, the newest of equals. Ranks are intervals: what no test can order shares places. Verdicts, overrides
and released unseen numbers come from DIR/registry; lists of samples that training data touched from DIR/decontam. CSV
has numbers ×100, JSON has them from 0 to 1."""


@click.command("leaderboard", epilog=EPILOG)
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path("results"))
@click.option("--suite", shell_complete=complete_suites, help="Only scorecards of this suite.")
@click.option("--allow-mixed", is_flag=True, help="Show other suites, suite digests and regimes too, marked.")
@click.option(
    "--reference", "models", multiple=True, metavar="MODEL", help="Published rows to show below; repeatable, or: all."
)
@click.option(
    "--clean",
    "reports",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Decontamination reports: how scores change without touched samples; repeatable. [default: DIR/decontam]",
)
@click.option("--skip-broken", is_flag=True, help="Leave out files that cannot be read (they are named on stderr).")
@table_options
def command(
    folder: Path,
    suite: str | None,
    allow_mixed: bool,
    models: tuple[str, ...],
    reports: tuple[Path, ...],
    skip_broken: bool,
    form: str | None,
    out: Path | None,
) -> None:
    """Make one table of all scorecards under DIR (default: results).

    The best of each column, and what is not proven worse than it, is bold; ^ and v are proven better and worse than the
    champion.
    """
    from evalsuite.reference import find_reference, pick, read_published
    from evalsuite.tables import print_table, table_format
    from evalsuite.tables.clean import read_touched
    from evalsuite.tables.collect import beside, collect, select
    from evalsuite.tables.leaderboard import home_suite, table
    from evalsuite.tables.marks import gate_marks

    chosen = table_format(form, out)
    collected = collect(folder, skip_broken=skip_broken)
    for line in collected.broken:
        print(f"left out: {line}", file=sys.stderr)
    cards = select(collected.found, suite)
    home = home_suite(cards, allow_mixed=allow_mixed)
    rows = read_published(find_reference(folder)) if models else ()
    published = pick(rows, models, home, allow_mixed=allow_mixed)
    touched = read_touched(reports or [beside(folder, "decontam")], required=bool(reports))
    marks = gate_marks(beside(folder, "registry"))
    print_table(table(cards, published, allow_mixed=allow_mixed, marks=marks, touched=touched), chosen, out)
