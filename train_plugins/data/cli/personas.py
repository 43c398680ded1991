"""`evalsuite data personas`: prompts and answers made up for many personas, every one checked."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalsuite.cli.options import benchmarks_option, data_options, results_option

if TYPE_CHECKING:
    from train_plugins.data.persona_asking import Report
    from train_plugins.data.persona_config import PersonaConfig
    from train_plugins.data.persona_prompts import Task

SHOWN = 2  # prompts of a skill that --dry-run prints

EPILOG = """\b
A file:
  schema: 1
  name: my_personas
  seed: 7
  personas: hub:proj-persona/PersonaHub:persona    # or a path, or shipped: 40 lines for trying things out
  skills: {math: 1000, grade_math: 500, algebra: 500, code: 500, instruction_following: 1000, if_pairs: 500}
  engine: {model: "api:http://127.0.0.1:8000/v1", served_model: writer, max_tokens_total: 5000000}
  answer_engine: {model: "hf:models/solver"}       # without it, engine answers too
  decontam: {against: [tulu3-dev, tulu3-unseen, tulu3-safety]}
  licence: ODC-BY-1.0

\b
Examples:
  evalsuite data personas personas.yaml --dry-run
  evalsuite data personas personas.yaml --limit 20 -o try
  evalsuite data personas personas.yaml -o data --data-root hub/

Written are <-o>/<name>/<skill>.sft.jsonl, grade_math.rlvr.jsonl and instruction_following.rlvr.jsonl with labels for
verifiers, and if_pairs.preference.jsonl. Every reply is kept below <-o>/.<name>.work, so the same command goes on
after any crash; the same replies give the same bytes.

Exit codes: 0 written, 2 wrong usage or no row left, 3 stopped before the end (the same command goes on), 70 a bug."""


@click.command("personas", epilog=EPILOG)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    metavar="DIR",
    help="Where the folder with the name of the file goes.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows of a skill.")
@click.option("--seed", type=int, help="Other personas, constraints and draws. [default: the file's]")
@click.option("--dry-run", is_flag=True, help="Print counts and the first prompts; ask nobody, write nothing.")
@data_options
@benchmarks_option
@results_option("Where the ledger of looks at unseen texts is.")
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def command(file: Path, **options: Any) -> None:
    """Make training rows for the personas in FILE, a YAML file.

    A model makes up prompts that a persona could have, another or the same one answers; answers to instructions must
    follow their constraints, code must run, math must end in a final answer. What fails is asked again, then dropped
    and counted.
    """
    from dataclasses import replace

    from evalsuite.data import data_roots
    from train_plugins.data.persona_config import load_config, read_personas
    from train_plugins.data.personas import plan

    config, raw = load_config(file)
    if options["seed"] is not None:
        config = replace(config, seed=options["seed"])
    personas = read_personas(
        config.personas, file.parent, data_roots(options["data_roots"]), offline=options["offline"]
    )
    tasks = plan(config, personas, options["limit"])
    if options["dry_run"]:
        _show(dry_run(tasks, len(personas)), dry_text, as_json=options["as_json"])
        return
    report = _run(config, raw, tasks, file, options)
    _show(report.as_json(), report_text, as_json=options["as_json"])
    if not report.files:
        print("no row is left; the reasons stand above", file=sys.stderr)
        sys.exit(2)


def _run(
    config: PersonaConfig, raw: Mapping[str, Any], tasks: Sequence[Task], file: Path, options: Mapping[str, Any]
) -> Report:
    from evalsuite.progress import Silent, observer
    from evalsuite.provenance import command_line, git_commit, versions
    from evalsuite.trainers.files import digest_of_json
    from train_plugins.data.personas import make_rows

    made = {
        "command": command_line(),
        "recipe": {"name": file.name, "digest": digest_of_json(raw)},
        "versions": versions(config.engine.engine),
        "git_commit": git_commit(),
    }
    watching = Silent() if options["quiet"] else observer()
    try:
        return make_rows(
            config,
            tasks,
            options["out"],
            where=file.parent,
            made=made,
            observer=watching,
            scan_options=_scan_options(options),
        )
    finally:
        watching.close()


def _scan_options(options: Mapping[str, Any]) -> list[str]:
    passed = [word for root in options["data_roots"] for word in ("--data-root", root)]
    passed += [word for folder in options["extra"] for word in ("--benchmarks", str(folder))]
    passed += ["--offline"] if options["offline"] else []
    return [*passed, "--results", str(options["results"])]


def _show(facts: Mapping[str, Any], text: Any, *, as_json: bool) -> None:
    click.echo(json.dumps(facts, indent=1, ensure_ascii=False) if as_json else text(facts))


def dry_run(tasks: Sequence[Task], n_personas: int) -> dict[str, Any]:
    """What would be asked: rows and constraints of each skill, and its first prompts."""
    from train_plugins.data.persona_prompts import ask_prompt

    skills: dict[str, Any] = {}
    for task in tasks:
        skill = skills.setdefault(task.skill, {"rows": 0, "constraints": Counter(), "prompts": []})
        skill["rows"] += 1
        skill["constraints"].update(one.id for one in task.constraints)
        if skill["rows"] <= SHOWN:
            skill["prompts"].append(ask_prompt(task))
    for skill in skills.values():
        skill["constraints"] = dict(skill["constraints"].most_common())
    return {"personas": n_personas, "rows": len(tasks), "skills": skills}


def dry_text(facts: Mapping[str, Any]) -> str:
    """The same for a person."""
    lines = [f"{facts['rows']} rows for {facts['personas']} personas; nothing was asked"]
    for name, skill in facts["skills"].items():
        times = -(-skill["rows"] // facts["personas"])
        lines.append(f"\n{name}: {skill['rows']} rows, a persona at most {times} times")
        if skill["constraints"]:
            lines.append("  " + ", ".join(f"{id} {n}" for id, n in skill["constraints"].items()))
        for i, prompt in enumerate(skill["prompts"], 1):
            lines += [f"  -- prompt {i} of {skill['rows']} --", *(f"  {line}" for line in prompt.splitlines())]
    return "\n".join(lines)


def report_text(facts: Mapping[str, Any]) -> str:
    """Rows planned, written and dropped with reasons, and the files."""
    lines = []
    for skill, planned in facts["planned"].items():
        lines.append(f"{skill}: {facts['written'].get(skill, 0)} of {planned} rows")
        lines += [f"  {n:>6} dropped: {why}" for why, n in sorted(facts["dropped"].get(skill, {}).items())]
    again = ", ".join(f"{n} of {stage}" for stage, n in facts["again"].items() if n)
    lines.append(f"asked again: {again or 'nothing'}; {facts['n_tokens']} tokens written" + _cost(facts))
    if waived := facts["decontamination"].get("waived"):
        lines.append(f"NOT decontaminated: {waived}")
    lines += [f"{file['path']}  {file['rows']} rows  {file['digest'][:12]}" for file in facts["files"]]
    return "\n".join(lines)


def _cost(facts: Mapping[str, Any]) -> str:
    return f", {facts['cost_usd']:.2f} dollars" if facts["cost_usd"] else ""
