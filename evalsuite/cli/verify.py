"""`evalsuite verify`: grades responses that were generated elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from evalsuite.cli.options import benchmarks_option, complete_benchmarks, data_options

EPILOG = """\b
Examples:
  evalsuite verify gsm8k responses.jsonl --data-root data/
  evalsuite verify ifeval outputs.jsonl > verdicts.jsonl
  evalsuite verify ifeval_ood rows.jsonl --variant ifbench --tools exact

\b
One row of RESPONSES is one of
  {"id": "<sample id>", "response": "…"}      the id as in a scorecard
  {"doc_id": 17, "response": "…"}             position in the dataset
  {"doc": {…}, "response": "…"}               the dataset row itself
  {"key": 1, "instruction_id_list": […], "kwargs": […], "response": "…"}
                                              the same for a benchmark of instructions; no dataset is needed"""


@click.command("verify", epilog=EPILOG)
@click.argument("benchmark", shell_complete=complete_benchmarks)
@click.argument("responses", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@data_options
@benchmarks_option
@click.option(
    "--variant",
    metavar="NAME",
    help="Whose reading of the instructions counts, where a benchmark knows several: tulu3 or ifbench.",
)
@click.option(
    "--tools",
    type=click.Choice(["exact"]),
    help="`exact`: stop when a language tool of the official checks is not installed.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object with verdicts and summary instead of JSONL."
)
def command(
    benchmark: str,
    responses: Path,
    data_roots: tuple[str, ...],
    offline: bool,
    extra: tuple[Path, ...],
    variant: str | None,
    tools: str | None,
    as_json: bool,
) -> None:
    """Grade RESPONSES (JSONL) with the verifier of BENCHMARK, without a model.

    One JSON verdict for each row goes to stdout (score, parts, extracted, why, and both verdicts on each instruction),
    a summary to stderr. Every row that cannot be used is named before anything is graded.
    """
    from evalsuite import data
    from evalsuite.benchmark import find_benchmark
    from evalsuite.verifying import Summary, read_rows, variant_of, verify_rows

    found = find_benchmark(benchmark, extra)
    summary = Summary(found.name, found.meta.metric, variant=variant_of(found, variant))
    verdicts = []
    roots = data.data_roots(data_roots)
    rows = read_rows(responses)
    for verdict in verify_rows(found, rows, str(responses), roots, offline, variant=variant, exact=tools == "exact"):
        summary.add(verdict)
        if as_json:
            verdicts.append(verdict.to_raw())
        else:
            # ASCII, so that control characters and surrogates of a model's text reach no terminal.
            click.echo(json.dumps(verdict.to_raw()))
    if as_json:
        click.echo(json.dumps({"summary": summary.to_raw(), "verdicts": verdicts}, indent=1))
    print(f"{found.name}: {_line(summary.to_raw())}", file=sys.stderr)


def _line(raw: dict[str, object]) -> str:
    metrics = raw["metrics"]
    assert isinstance(metrics, dict)
    shown = [
        f"{name} {m['value'] * 100:.1f}" + (f" ±{m['stderr'] * 100:.1f}" if m["stderr"] is not None else "")
        for name, m in metrics.items()
        if ":" not in name  # parts per instruction id, up to a hundred of them
    ]
    failed = f", {raw['n_failed']} could not be graded" if raw["n_failed"] else ""
    return f"{', '.join(shown) or 'no row was graded'} (n {raw['n']}{failed})"
