"""`decontam index`: the index of evals, built ahead of a scan, and what it cannot protect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decontam.cli.scan import analyzer_option, cache_folder, complete_rules, eval_options, read_evals

if TYPE_CHECKING:
    from decontam.report.facts import EvalFacts

EPILOG = """\b
Examples:
  python -m decontam index --evals gsm8k_test.jsonl
  python -m decontam index --evals decontam:tulu3 --data-root hub/ --json

A scan with the same evals and settings finds it; so do scans on other machines that share --cache."""


@click.command("index", epilog=EPILOG)
@eval_options
@click.option("--rule", default="tulu3", show_default=True, metavar="NAME", shell_complete=complete_rules)
@analyzer_option
@click.option("--cap", type=click.IntRange(min=1), default=50, show_default=True, help="As of scan.")
@click.option("--near-dup", "near", is_flag=True, help="For scans with --near-dup.")
@click.option("--short", type=click.Choice(["exact"]), help="For scans with --short.")
@click.option("--drop-empty-fields", is_flag=True, help="As of scan.")
@click.option("--rebuild-index", "rebuild", is_flag=True, help="Build it again.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where indexes are kept. [default: DECONTAM_CACHE, else decontam/ in ~/.cache]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the ids of what cannot be protected.")
def command(
    specs: tuple[str, ...],
    fields: tuple[str, ...],
    kind: Any,
    data_root: Path | None,
    skip_missing: bool,
    rule: str,
    analyzer: str | None,
    short: str | None,
    cache: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Build the index of evals ahead of a scan, print its folder, and say what it cannot protect."""
    from decontam.job.prepare import build_index
    from decontam.job.protection import eval_facts, own_matches
    from decontam.job.work import KERNEL
    from decontam.rules import find_rule

    evals = read_evals(specs, fields, kind, data_root, skip_missing)
    known = find_rule(rule, analyzer)
    folder = build_index(KERNEL, evals, known, short=bool(short), cache=cache or cache_folder(), **settings)
    facts = eval_facts(KERNEL.open(folder), evals, own_matches(KERNEL, folder, evals))
    click.echo(_as_json(folder, facts) if as_json else "\n".join([str(folder), *map(_line, facts)]))


def _line(facts: EvalFacts) -> str:
    reasons = ", ".join(f"{why} {len(found):,}" for why, found in facts.unprotected.items())
    told = f"{facts.n_unprotected:,} unprotected ({reasons})" if reasons else "all protected"
    skipped = f", {len(facts.skipped):,} skipped" if facts.skipped else ""
    return f"{facts.eval.name}: {facts.n:,} instances{skipped}, {told}"


def _as_json(folder: Path, facts: Sequence[EvalFacts]) -> str:
    evals = {
        each.eval.name: {
            "n": each.n,
            "skipped": [each.eval.ids[i] for i in each.skipped],
            "unprotected": {why: [each.eval.ids[i] for i in found] for why, found in each.unprotected.items()},
        }
        for each in facts
    }
    return json.dumps({"index": str(folder), "evals": evals}, indent=1)
