"""`evalsuite data preferences`: pairs from prompts, a pool of models and a judge; or how well that judge agrees."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from train_plugins.data.agreement import Agreement
    from train_plugins.data.pref_config import PreferenceFile
    from train_plugins.data.preferences import Made

EPILOG = """\b
Examples:
  evalsuite data preferences prefs.yaml -o pairs.jsonl
  evalsuite data preferences prefs.yaml --limit 50 --dry-run
  evalsuite data preferences prefs.yaml --agreement llmbar.jsonl

\b
A file:
  schema: 1
  name: my_pairs
  seed: 7
  licence: ODC-By-1.0
  prompts: [prompts.jsonl]
  models:
    - {name: policy, model: "hf:ckpt/sft", on_policy: true}
    - {name: other, model: "api:http://127.0.0.1:8000/v1", served_model: other, weight: 2}
  responses: {form: one_side_model, max_tokens: 2048}
  judge: {model: "api:https://api.openai.com/v1", served_model: gpt-4o-2024-08-06,
          prices: prices.yaml, max_cost_usd: 40}

Answers and ratings are kept in FILE.journal; the same command goes on after a crash, and asks again for what failed.
FILE.dropped.jsonl says of every prompt without a pair why. max_cost_usd and max_tokens_total limit one engine, or all
of them together when they stand beside `seed`.

Exit codes: 0 written, 2 a wrong file, shifted answers or no pair at all, 3 stopped before the end (a limit, too many
failed requests), 70 a bug."""


@click.command("preferences", epilog=EPILOG)
@click.argument("config", metavar="PREFS", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--output", "out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="What is written: .jsonl, .jsonl.gz, .jsonl.zst or .parquet. [default: NAME.jsonl]")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N prompts (or rows).")
@click.option("--dry-run", is_flag=True, help="Say what would be asked, show one question to the judge, ask nothing.")
@click.option("--agreement", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="Measure the judge: rows of input, output_1, output_2, label (1 or 2) and subset.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Write over pairs that another PREFS made.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    config: Path,
    out: Path | None,
    limit: int | None,
    dry_run: bool,
    agreement: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make preference pairs by PREFS, a YAML file.

    Models of a pool answer each prompt, a judge rates every answer for some aspects, and the best becomes a pair with
    one that is strictly worse.
    """
    from dataclasses import replace

    from train_plugins.data.pref_config import read_preferences

    file = read_preferences(config)
    if limit is not None:
        file = replace(file, config=replace(file.config, limit=limit))
    out = out or Path(f"{file.config.name}.jsonl")
    if dry_run:
        _plan(file, as_json)
    elif agreement is not None:
        _agree(file, agreement, out, as_json)
    else:
        _refuse_own_prompts(file, out)
        if not overwrite:
            _refuse_strangers(file, out)
        typed = ["evalsuite", "data", "preferences", config.name, "-o", out.name]
        _make(file, out, shlex.join(typed + (["--limit", str(limit)] if limit else [])), as_json)


def _refuse_own_prompts(file: PreferenceFile, out: Path) -> None:
    from evalsuite.errors import UsageError

    read = [file.folder / name for name in file.config.prompts]
    if out.exists() and any(path.exists() and out.samefile(path) for path in read):
        raise UsageError(f"{out} holds the prompts; name another file with -o")


def _refuse_strangers(file: PreferenceFile, out: Path) -> None:
    """The same file again gives the same pairs, and more where requests had failed; anything else is kept."""
    from evalsuite.errors import UsageError
    from train_plugins.data.writing import read_meta

    made = read_meta(out).get("made")
    if out.exists() and not (isinstance(made, dict) and made.get("recipe_digest") == file.digest):
        raise UsageError(f"{out} is there and was not made by this file; name another with -o, or add --overwrite")


def _make(file: PreferenceFile, out: Path, typed: str, as_json: bool) -> None:
    from evalsuite.progress import observer
    from train_plugins.data.preferences import make_preferences

    watching = observer()
    try:
        made = make_preferences(file, out, observer=watching, command=typed)
    finally:
        watching.close()
    if as_json:
        content = {"file": str(out), "digest": made.written.digest, **made.report}
        click.echo(json.dumps(content, indent=1, ensure_ascii=False))
        return
    _print_table(f"{out}: {made.written.n_rows:,} pairs, sha256 {made.written.digest[:12]}", ["", ""], _lines(made))
    for side, found in made.relevance.items():
        if found.finding == "weak":
            print(f"warning: {side}: {found.sentence()}", file=sys.stderr)


def _lines(made: Made) -> list[tuple[str, ...]]:
    from train_plugins.data.composition import lines_of

    report = made.report
    lines: list[tuple[str, ...]] = [("prompts", f"{report['prompts']:,}")]
    if report["repeated_prompts"]:
        lines.append(("repeated prompts", f"{report['repeated_prompts']:,}"))
    lines += lines_of(made.composition)
    lines += [(f"dropped: {code}", f"{n:,}") for code, n in report["dropped"].items()]
    for model, reasons in report["no_answer"].items():
        lines.append((f"no answer of {model}", ", ".join(f"{reason} {n:,}" for reason, n in reasons.items())))
    lines += [(f"ratings missing: {kind}", f"{n:,}") for kind, n in report["ratings_missing"].items()]
    lines.append(("prompts asked again", f"{report['prompts_asked_again']:,}"))
    if report["cost_usd"]:
        lines.append(("cost so far", f"${report['cost_usd']:,.2f}"))
    ranks = [f"{found.rank:.2f}" if found.rank is not None else "too few rows" for found in made.relevance.values()]
    return [*lines, ("relevance, chosen / rejected", " / ".join(ranks))]


def _agree(file: PreferenceFile, path: Path, out: Path, as_json: bool) -> None:
    from evalsuite.progress import observer
    from train_plugins.data.agreement import measure_agreement, read_judged
    from train_plugins.data.asking import open_engine
    from train_plugins.data.pref_facts import judge_id
    from train_plugins.data.preferences import grading_of

    rows = read_judged(path)[: file.config.limit]
    watching = observer()
    try:
        with open_engine(file.config.judge, file.folder) as engine:
            journal = out.with_name(f"{out.name}.journal") / "agreement"
            found = measure_agreement(rows, grading_of(file, engine, journal, watching))
            who = {"judge": judge_id(file, engine.digest), "model": engine.name}
    finally:
        watching.close()
    if as_json:
        content = {**who, "file": path.name, "subsets": {name: each.as_json() for name, each in found.items()}}
        click.echo(json.dumps(content, indent=1, ensure_ascii=False))
        return
    title = f"{who['model']} against people on {path.name}: agreement without ties, 95 % interval"
    heads = ["subset", "rows", "agreement", "agree", "disagree", "ties", "failed"]
    _print_table(title, heads, [_agreement_line(name, each) for name, each in found.items()])


def _agreement_line(name: str, found: Agreement) -> tuple[str, ...]:
    share = "none"
    if found.share is not None and found.interval is not None:
        share = f"{found.share:.1%} [{found.interval[0]:.1%}, {found.interval[1]:.1%}]"
    return (name, str(found.n), share, *map(str, (found.n_agree, found.n_disagree, found.n_ties, found.n_failed)))


def _plan(file: PreferenceFile, as_json: bool) -> None:
    from train_plugins.data.preferences import load_prompts

    config = file.config
    prompts, n_repeated = load_prompts(file)
    plan: Mapping[str, Any] = {
        "prompts": len(prompts),
        "repeated_prompts": n_repeated,
        "answers": len(prompts) * config.responses.wanted,
        "ratings_asked": len(prompts) * len(file.aspects),
        "texts_in_a_question": config.responses.wanted,
        "models": [model.name for model in config.models],
        "judge": config.judge.served_model or config.judge.target,
    }
    if as_json:
        click.echo(json.dumps(plan, indent=1, ensure_ascii=False))
        return
    lines = [(name.replace("_", " "), ", ".join(v) if isinstance(v, list) else str(v)) for name, v in plan.items()]
    _print_table("nothing was asked", ["", ""], lines)
    example = file.aspects[0].question(prompts[0].messages[-1].content, ("…",) * config.responses.wanted, config.seed)
    click.echo(f"\n{example.content}")


def _print_table(title: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """To stdout, cut to no width when it is no terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, show_header=any(heads))
    for head in heads:
        table.add_column(head)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
