"""`evalsuite verify`: grades responses that were generated elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from evalsuite.cli.options import complete_benchmarks, data_options

EPILOG = """\b
Examples:
  evalsuite verify gsm8k responses.jsonl --data-root data/
  evalsuite verify ifeval outputs.jsonl > verdicts.jsonl

\b
One row of RESPONSES is one of
  {"id": "<sample id>", "response": "…"}      the id as in a scorecard
  {"doc_id": 17, "response": "…"}             position in the dataset
  {"doc": {…}, "response": "…"}               the dataset row itself"""


@click.command("verify", epilog=EPILOG)
@click.argument("benchmark", shell_complete=complete_benchmarks)
@click.argument("responses", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@data_options
@click.option(
    "--benchmarks",
    "extra",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with benchmark folders of your own; repeatable.",
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
    as_json: bool,
) -> None:
    """Grade RESPONSES (JSONL) with the verifier of BENCHMARK, without a model.

    One JSON verdict for each row goes to stdout (score, parts, extracted, why), a summary to stderr.
    """
    from evalsuite import data
    from evalsuite.benchmark import find_benchmark
    from evalsuite.verifying import Summary, read_rows, verify_rows

    found = find_benchmark(benchmark, extra)
    summary = Summary(found.name, found.meta.metric)
    verdicts = []
    roots = data.data_roots(data_roots)
    for verdict in verify_rows(found, read_rows(responses), str(responses), roots, offline):
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
    ]
    failed = f", {raw['n_failed']} could not be graded" if raw["n_failed"] else ""
    return f"{', '.join(shown) or 'no row was graded'} (n {raw['n']}{failed})"
