"""`evalsuite list`: what can be scored, and with what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalsuite.cli.options import benchmarks_option, complete_suites

if TYPE_CHECKING:
    from evalsuite.benchmark import Benchmark
    from evalsuite.suite import Suite

EPILOG = """\b
Examples:
  evalsuite list
  evalsuite list --suite tulu3-dev
  evalsuite list --suite tulu3-dev --regime olmes-public --json
  evalsuite list --constraints
  evalsuite list --trainers
  evalsuite list --recipes"""
HEADER = ("column", "benchmark", "dataset", "n", "settings", "metric", "judge")


@click.command("list", epilog=EPILOG)
@click.option("--suite", shell_complete=complete_suites, help="Every benchmark of this suite with its settings.")
@click.option("--regime", metavar="NAME|FILE", help="At the settings of another version. [default: the suite's]")
@click.option("--constraints", is_flag=True, help="List the checkable instructions instead.")
@click.option("--trainers", is_flag=True, help="List the trainers of `evalsuite loop` instead.")
@click.option("--recipes", is_flag=True, help="List the shipped recipes of `evalsuite train` and `loop` instead.")
@benchmarks_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    suite: str | None, regime: str | None, constraints: bool, trainers: bool, recipes: bool, extra: tuple[Path, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """List suites with their columns, benchmarks with their settings, regimes and engines."""
    from evalsuite.suite import load_suite

    if constraints or trainers or recipes:
        (_print_constraints if constraints else _print_trainers if trainers else _print_recipes)(as_json)
        return
    if regime is not None and suite is None:
        raise click.UsageError("--regime needs --suite NAME, whose settings it changes")
    if suite is not None:
        _print_suite(load_suite(suite, extra, regime), as_json)
        return
    found = inventory(extra)
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for each in found["suites"]:
        click.echo(f"suite {each['name']}  ({each['split']}, {each['regime']}, {each['digest'][:12]})")
        click.echo(f"  columns: {', '.join(each['columns'])}")
        if each["missing"]:
            click.echo(f"  not yet: {', '.join(each['missing'])}")
    rows = [
        (b["name"], b["split"], b["metric"], str(b["n"] or "?"), _settings(b), b["dataset"] or "our own")
        for b in found["benchmarks"]
    ]
    click.echo()
    for row in _aligned([("benchmark", "split", "metric", "n", "settings", "dataset"), *rows]):
        click.echo(row)
    click.echo(f"\nregimes: {', '.join(found['regimes'])}")
    click.echo(f"engines: {', '.join(found['engines'])}")


def inventory(extra: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Suites, benchmarks, regimes and engines as plain data."""
    from evalsuite.benchmark import known_benchmarks, read_benchmark
    from evalsuite.models import known_engines
    from evalsuite.regime import known_regimes
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
                "columns": s.table,
                "groups": {name: list(members) for name, members in s.groups.items()},
                "missing": list(s.missing),
            }
            for s in suites
        ],
        "benchmarks": [described(b) for b in benchmarks],
        "regimes": sorted(known_regimes()),
        "engines": sorted(known_engines()),
    }


def described(benchmark: Benchmark) -> dict[str, Any]:
    """One benchmark's settings as plain data."""
    first, meta = benchmark.tasks[0].config, benchmark.meta
    generation = first.get("generation_kwargs") or {}
    return {
        "name": benchmark.name,
        "split": meta.split,
        "metric": meta.metric,
        "aggregate": meta.aggregate,
        "kind": benchmark.kind,
        "chat": meta.chat,
        "shots": first.get("num_fewshot", 0),
        "repeats": first.get("repeats", 1),
        "temperature": float(generation.get("temperature", 0.0)) if generation.get("do_sample") else 0.0,
        "max_gen_toks": generation.get("max_gen_toks"),
        "n": meta.n_expected,
        "dataset": benchmark.tasks[0].dataset,
        "judge": meta.judge,
        "runs_code": meta.runs_code,
        "quirks": list(meta.quirks),
        "unconfirmed": list(meta.unconfirmed),
        "license": meta.license,
        "digest": benchmark.digest,
    }


def _print_suite(suite: Suite, as_json: bool) -> None:
    rows = {column: described(benchmark) for column, benchmark in suite.columns.items()}
    if as_json:
        about = {"name": suite.name, "split": suite.split, "regime": suite.regime, "digest": suite.digest}
        groups = {name: list(members) for name, members in suite.groups.items()}
        click.echo(json.dumps({**about, "groups": groups, "benchmarks": rows}, indent=1, ensure_ascii=False))
        return
    n = len(suite.table) + len(suite.missing)
    click.echo(f"suite {suite.name}  ({suite.split}, {suite.regime}, {suite.digest[:12]}, {n} columns)")
    of = {member: name for name, members in suite.groups.items() for member in members}
    for row in _aligned([HEADER, *(_suite_row(of.get(c, c), b) for c, b in rows.items())]):
        click.echo(row)
    if suite.missing:
        click.echo(f"not yet: {', '.join(suite.missing)}")
    if any(b["unconfirmed"] for b in rows.values()):
        click.echo(
            "? among the settings: from secondary notes, unconfirmed (evalsuite list --suite … --json names them)"
        )


def _suite_row(column: str, b: Mapping[str, Any]) -> tuple[str, ...]:
    n = str(b["n"] or "?") + ("?" if "n_expected" in b["unconfirmed"] and b["n"] else "")
    over = {"macro": ", macro", "micro": ", micro"}.get(b["aggregate"], "")
    settings = _settings(b) + ("?" if set(b["unconfirmed"]) - {"n_expected", "metric"} else "")
    metric = b["metric"] + over + ("?" if "metric" in b["unconfirmed"] else "")
    return (column, b["name"], b["dataset"] or "our own", n, settings, metric, b["judge"] or "-")


def _print_constraints(as_json: bool) -> None:
    from importlib import import_module

    from evalsuite.verify.constraints import all_constraints

    import_module("evalsuite.verify.constraints.ood")  # registers those of IFEval-OOD and IFBench
    found = all_constraints()
    if as_json:
        rows = [
            {
                "id": c.id,
                "params": list(c.params),
                "variants": sorted(c.checks),
                "tools": list(c.tools),
                "about": c.about,
            }
            for c in found.values()
        ]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    header = ("id", "parameters", "variants", "what is checked")
    rows_shown = [(c.id, ", ".join(c.params) or "-", ", ".join(sorted(c.checks)), c.about) for c in found.values()]
    for row in _aligned([header, *rows_shown]):
        click.echo(row)


def _print_trainers(as_json: bool) -> None:
    from dataclasses import asdict

    from evalsuite.trainers.lookup import known_trainers, why_not

    told = [(offer, why_not(offer)) for offer in known_trainers().values()]
    rows = [{**asdict(offer), "imports": not why, "why": why} for offer, why in told]
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    shown = [(r["name"], r["distribution"], r["version"], "yes" if r["imports"] else f"no: {r['why']}") for r in rows]
    for row in _aligned([("trainer", "distribution", "version", "imports"), *shown]):
        click.echo(row)


def _print_recipes(as_json: bool) -> None:
    from evalsuite.recipe import load_recipe
    from evalsuite.trainers.recipes import known_launches, known_recipes

    read = {name: load_recipe(path) for name, path in known_recipes().items()}
    rows = [
        {
            "name": name,
            "model": recipe.model,
            "stages": [stage.name for stage in recipe.stages],
            "source": recipe.source,
            "digest": recipe.digest,
        }
        for name, recipe in read.items()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    header = ("recipe", "model", "stages", "source")
    shown = [(name, r.model or "-", " → ".join(s.name for s in r.stages), r.source) for name, r in read.items()]
    for row in _aligned([header, *shown]):
        click.echo(row)
    click.echo(f"\nlaunches (unmeasured): {', '.join(known_launches())}")


def _settings(benchmark: Mapping[str, Any]) -> str:
    kind = "log-likelihood" if benchmark["kind"] == "multiple_choice" else "generation"
    sampled = f", {benchmark['repeats']} samples at {benchmark['temperature']:g}" if benchmark["repeats"] > 1 else ""
    return f"{benchmark['shots']}-shot {'chat ' if benchmark['chat'] else ''}{kind}{sampled}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
