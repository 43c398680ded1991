"""`evalsuite compare`: two scored checkpoints sample by sample, or one beside published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from evalsuite.cli.options import complete_suites, results_option, table_options

EPILOG = """\b
Examples:
  evalsuite compare step-1000 step-2000
  evalsuite compare results/scorecards/a/demo.hf.json results/scorecards/b/demo.hf.json --json
  evalsuite compare my-sft --reference Tulu-3-8B-SFT
  evalsuite compare my-sft my-dpo --clean
  evalsuite compare my-sft my-dpo --clean reports/mix --clean reports/web

A and B are scorecard files, or names, folders or digests of checkpoints that were scored into --results."""

BESIDE = "\0"  # --clean without a folder


@click.command("compare", epilog=EPILOG)
@click.argument("first", metavar="A")
@click.argument("second", metavar="[B]", required=False)
@click.option("--suite", shell_complete=complete_suites, help="The suite to compare on, where there are several.")
@click.option("--reference", "model", metavar="MODEL", help="Instead of B: the published numbers of this model.")
@click.option("--allow-mixed", is_flag=True, help="Compare across suites, regimes and benchmark digests, marked.")
@click.option(
    "--clean",
    "reports",
    is_flag=False,
    flag_value=BESIDE,
    multiple=True,
    metavar="[REPORT]",
    help="Without the samples that training data touches, by decontamination reports (folders); repeatable, after A"
    " and B. [of --clean alone: RESULTS/decontam]",
)
@results_option("Where scorecards are looked up by name.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON, numbers 0 to 1.")
@table_options
def command(
    first: str,
    second: str | None,
    suite: str | None,
    model: str | None,
    allow_mixed: bool,
    reports: tuple[str, ...],
    results: Path,
    as_json: bool,
    form: str | None,
    out: Path | None,
) -> None:
    """Compare the scorecards of A and B on the samples they share: B − A, interval, flips and p-value by benchmark."""
    from evalsuite.compare import compare, to_json
    from evalsuite.reference import find_reference, pick, read_published, read_tolerances
    from evalsuite.tables import compare as compare_table
    from evalsuite.tables import print_table, print_text, table_format
    from evalsuite.tables.collect import beside, find_cards
    from evalsuite.tables.marks import gate_marks
    from evalsuite.unseen import refuse_cards

    if (second is None) == (model is None):
        swallowed = f"; --clean took {reports[0]!r} for a report, put it last" if reports and second is None else ""
        raise click.UsageError(f"expected a second scorecard B, or --reference MODEL, and not both{swallowed}")
    if model is not None and model.casefold() == "all":
        raise click.UsageError("--reference takes one model here")
    if model is not None and reports:
        raise click.UsageError("published numbers have no samples: --clean needs a second scorecard B")
    chosen = table_format("json" if as_json else form, out)
    marks = gate_marks(beside(results, "registry"))
    if model is not None:
        (card,) = find_cards([first], results, suite)
        refuse_cards([card])
        folder = find_reference(results)
        (published,) = pick(read_published(folder), [model], card.suite, allow_mixed=True)
        print_table(compare_table.reference_table(card, published, read_tolerances(folder), marks), chosen, out)
        return
    assert second is not None
    a, b = find_cards([first, second], results, suite)
    refuse_cards([a, b])
    comparison = compare(a, b, allow_mixed=allow_mixed, touched=_touched(reports, results))
    if chosen == "json":
        print_text(to_json(comparison), out)
    else:
        print_table(compare_table.table(comparison, marks), chosen, out)


def _touched(reports: Sequence[str], results: Path) -> Mapping[str, frozenset[str]] | None:
    """Ids of touched samples by benchmark, as the reports asked for have them; None when none is asked for."""
    from evalsuite.tables.clean import read_reported
    from evalsuite.tables.collect import beside

    if not reports:
        return None
    folders = [beside(results, "decontam") if report == BESIDE else Path(report) for report in reports]
    return read_reported(list(dict.fromkeys(folders)))
