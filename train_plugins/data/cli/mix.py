"""`evalsuite data mix`: one training file of many sources, by a mix file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalsuite.cli.options import benchmarks_option, comma_list, data_options, results_option

if TYPE_CHECKING:
    from train_plugins.data.mixfile import Mix, Source

EPILOG = """\b
Examples:
  evalsuite data mix mix.yaml -o data/sft.jsonl
  evalsuite data mix mix.yaml --report --tokenizer models/base
  evalsuite data mix mix.yaml --without persona_if -o data/no-persona-if.jsonl
  evalsuite data mix tulu3_sft --data-root hub/

Counts are exact, after doubles, filters and decontamination; the rows and their order depend on the seed and on what
the sources hold, never on the order of files or the machine. The same command goes on after a crash.

Exit codes: 0 written, 2 a wrong mix file, sources that are missing or too small, data that is not clean, 70 a bug."""


@click.command("mix", epilog=EPILOG)
@click.argument("mix", metavar="MIX", type=str)
@click.option("-o", "--output", "out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="What is written: .jsonl, .jsonl.gz, .jsonl.zst or .parquet. [default: NAME OF THE MIX.jsonl]"
)  # fmt: skip
@click.option("--seed", type=int, help="Draws other rows and another order. [default: the mix file's]")
@click.option("--without", callback=comma_list, metavar="SOURCE[,…]", help="Leave these sources out.")
@click.option("--only", callback=comma_list, metavar="SKILL[,…]", help="Only sources with one of these skills.")
@click.option("--report", "shows", is_flag=True, help="Print rows and tokens by skill, licence, origin and length.")
@click.option("--tokenizer", type=click.Path(path_type=Path, exists=True), metavar="DIR",
              help="Counts tokens of the report; without one, words.")  # fmt: skip
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True,
              help="Processes that read and filter; the result is the same.")  # fmt: skip
@click.option("--fresh", is_flag=True, help="Make it again, and throw away what a killed run left.")
@data_options
@benchmarks_option
@results_option("Where decontam/ with the report on the finished file is.")
@click.option("--json", "as_json", is_flag=True, help="Print the sidecar.")
def command(mix: str, **options: Any) -> None:
    """Write one training file of the sources in MIX, a YAML file or the name of a shipped mix.

    Beside it: what it is (.meta.json, .card.md), where each row came from (.provenance.jsonl), hashes of its prompts.
    """
    from train_plugins.data.collect import MissingSources
    from train_plugins.data.mixfile import find_mix, load_mix, variant
    from train_plugins.data.tally import report_text

    chosen = variant(
        load_mix(find_mix(mix)), without=options["without"] or (), only=options["only"] or (), seed=options["seed"]
    )
    try:
        meta = _run(chosen, options)
    except MissingSources as error:
        click.echo(plan_text(chosen, error.names))
        raise
    if options["as_json"]:
        click.echo(json.dumps(meta, indent=1, ensure_ascii=False))
        return
    click.echo(sources_text(meta))
    if options["shows"]:
        click.echo(f"\n{report_text(meta['report'], meta['unit'])}")


def _run(mix: Mix, options: Mapping[str, Any]) -> dict[str, Any]:
    from evalsuite.data import data_roots
    from train_plugins.data.mix import run_mix
    from train_plugins.data.mixfile import suites_of
    from train_plugins.data.screen import Screen
    from train_plugins.data.tally import counter

    roots = data_roots(options["data_roots"])
    passed = [word for root in options["data_roots"] for word in ("--data-root", str(Path(root).absolute()))]
    passed += [word for folder in options["extra"] for word in ("--benchmarks", str(folder.absolute()))]
    passed += ["--offline"] if options["offline"] else []
    tokenizer = options["tokenizer"]
    return run_mix(
        mix,
        options["out"] or Path(f"{mix.name}.jsonl"),
        Screen(mix.decontam, suites_of(mix), options["results"], tuple(passed)),
        roots,
        processes=options["processes"],
        count=counter(tokenizer),
        unit="tokens" if tokenizer else "words",
        fresh=options["fresh"],
        say=lambda line: print(line, file=sys.stderr),
    )


def plan_text(mix: Mix, missing: tuple[str, ...]) -> str:
    """What the mix is made of, with what is missing."""
    from train_plugins.data.licences import spelled
    from train_plugins.data.tally import aligned

    rows = [
        (s.name, _wanted(s), spelled(s.licence), s.origin, "missing" if s.name in missing else "") for s in mix.sources
    ]
    total = [("sum", f"{mix.rows:,}", "", "", "")] if mix.rows is not None else []
    text = aligned([("source", "rows", "licence", "origin", ""), *rows, *total])
    return "\n".join(part for part in (mix.about, text) if part)


def _wanted(source: Source) -> str:
    if isinstance(source.count, int):
        return f"{source.count:,}"
    return "all" if source.count else f"{source.fraction:g} of all"


def sources_text(meta: Mapping[str, Any]) -> str:
    """Rows in, dropped and out of each source."""
    from train_plugins.data.tally import aligned

    reasons = tuple(dict.fromkeys(reason for each in meta["sources"] for reason in each["dropped"]))
    rows = [
        (
            each["name"],
            each["licence"],
            f"{each['rows_in']:,}",
            *(f"{each['dropped'].get(reason, 0):,}" for reason in reasons),
            f"{each['left']:,}",
            f"{each['rows_out']:,}",
        )
        for each in meta["sources"]
    ]
    head = ("source", "licence", "rows", *(reason.replace("_", " ") for reason in reasons), "left", "taken")
    return f"{aligned([head, *rows])}\n{meta['rows']:,} rows, sha256 {meta['digest'][:16]}; {_state(meta)}"


def _state(meta: Mapping[str, Any]) -> str:
    if waived := meta.get("decontamination_waived"):
        return f"decontamination waived: {waived}"
    return "clean: " + "; ".join(
        f"{', '.join(each['suites'])} (report {each['report']})" for each in meta["decontamination"]
    )
