"""`evalsuite list`: what can be scored, and with what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command("list", epilog="Example:  evalsuite list --json")
@click.option(
    "--benchmarks",
    "extra",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with benchmark folders of your own; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(extra: tuple[Path, ...], as_json: bool) -> None:
    """List suites with their columns, benchmarks with their settings, and engines."""
    found = inventory(extra)
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for suite in found["suites"]:
        click.echo(f"suite {suite['name']}  ({suite['split']}, {suite['regime']}, {suite['digest'][:12]})")
        click.echo(f"  columns: {', '.join(suite['columns'])}")
        if suite["missing"]:
            click.echo(f"  not yet: {', '.join(suite['missing'])}")
    rows = [
        (b["name"], b["split"], b["metric"], str(b["n"] or "?"), _settings(b), b["dataset"] or "generated")
        for b in found["benchmarks"]
    ]
    click.echo()
    for row in _aligned([("benchmark", "split", "metric", "n", "settings", "dataset"), *rows]):
        click.echo(row)
    click.echo(f"\nengines: {', '.join(found['engines'])}")


def inventory(extra: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Suites, benchmarks and engines as plain data."""
    from evalsuite.benchmark import known_benchmarks, read_benchmark
    from evalsuite.models import known_engines
    from evalsuite.suite import known_suites, load_suite

    suites = [load_suite(name, extra) for name in known_suites()]
    benchmarks = [read_benchmark(folder) for folder in known_benchmarks(extra).values()]
    return {
        "suites": [
            {
                "name": s.name,
                "split": s.split,
                "regime": s.regime,
                "digest": s.digest,
                "columns": {c: b.name for c, b in s.columns.items()},
                "missing": list(s.missing),
            }
            for s in suites
        ],
        "benchmarks": [
            {
                "name": b.name,
                "split": b.meta.split,
                "metric": b.meta.metric,
                "aggregate": b.meta.aggregate,
                "kind": b.kind,
                "chat": b.meta.chat,
                "shots": b.tasks[0].config.get("num_fewshot", 0),
                "n": b.meta.n_expected,
                "dataset": b.tasks[0].dataset,
                "license": b.meta.license,
                "digest": b.digest,
            }
            for b in benchmarks
        ],
        "engines": sorted(known_engines()),
    }


def _settings(benchmark: dict[str, Any]) -> str:
    kind = "log-likelihood" if benchmark["kind"] == "multiple_choice" else "generation"
    return f"{benchmark['shots']}-shot {'chat ' if benchmark['chat'] else ''}{kind}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
