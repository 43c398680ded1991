"""`evalsuite loop`: train, judge every checkpoint, promote, go on; the same command continues after any crash."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalsuite.cli.gate_job import gate_options
from evalsuite.cli.judge import make_judges
from evalsuite.cli.stage_data import check_stage_data, for_stage, places_of, recipe_file

if TYPE_CHECKING:
    from evalsuite.gate.verdict import Verdict
    from evalsuite.loop import CheckFn, Ended, Gated, GateFn, Hooks
    from evalsuite.recipe import Recipe, Stage

EPILOG = """\b
Examples:
  evalsuite loop recipe.yaml
  evalsuite loop --recipe tulu3_8b --only dpo --start sft/checkpoints/step-001000
  evalsuite loop recipe.yaml --results results --data-root data/ --json

Exit codes: 0 the last stage promoted a checkpoint, 1 all were blocked, 3 undecided or stopped, 2 wrong usage, a broken
input or a training command that failed. Killed? Type the same command again: nothing is trained or judged twice."""


GATE_OPTIONS = {"policy": "--policy", "suite": "--suite", "regime": "--regime", "sets": "--set", "tasks": "--tasks"}
"""Options that change verdicts: a loop that was begun with some goes on with the same."""


def _keep(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    from evalsuite.recipe import keep_problem

    if value is not None and (told := keep_problem(value)):
        raise click.BadParameter(told, ctx, parameter)
    return value


@click.command("loop", epilog=EPILOG)
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@click.option("--recipe", "shipped", metavar="NAME", help="A shipped recipe in place of a file.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where the stages work. [default: RESULTS/loops/NAME]")  # fmt: skip
@click.option("--only", metavar="STAGE", help="Only this stage of the recipe.")
@click.option("--start", type=click.Path(path_type=Path, file_okay=False), metavar="CKPT",
              help="Checkpoint that the one stage starts from, in place of the recipe's.")  # fmt: skip
@click.option("--keep", metavar="RULE", callback=_keep,
              help="Judged checkpoints that stay on disk: all, promoted, 'last N'. [default: the recipe's, else all]"
)  # fmt: skip
@gate_options
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def command(**options: Any) -> int:
    """Run the stages of RECIPE: train, judge every checkpoint, promote what is better, start the next stage from it."""
    from evalsuite.loop import make_plan, run_loop
    from evalsuite.loop.view import view
    from evalsuite.recipe import load_recipe

    options["recipe"] = recipe_file(options["recipe"], options["shipped"])
    recipe = as_gated(load_recipe(options["recipe"]), options)
    out = options["out"] or options["results"] / "loops" / recipe.name
    asked = {key: options[key] for key in ("only", "start", "keep")}
    plan = make_plan(recipe, out, **asked, places=places_of(options))
    plan = replace(plan, results=options["results"])
    watcher = view()
    try:
        ended = run_loop(plan, make_hooks(options, recipe), watcher)
    finally:
        watcher.close()
    if options["as_json"]:
        click.echo(json.dumps(described(ended), indent=1, ensure_ascii=False))
    else:
        click.echo(ended.line)
    print(f"log: {out / 'loop.jsonl'}", file=sys.stderr)
    return ended.code


def as_gated(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """The recipe with everything else that its verdicts depend on in its content, and so in its digest."""
    given = {flag: _told(options[key]) for key, flag in GATE_OPTIONS.items() if options[key]}
    if options["no_quirks"]:
        given["--no-quirks"] = True
    files = {
        f"{stage.name}.gate.{key}": _told(text)
        for stage in recipe.stages
        for key in ("policy", "suite")
        if stage.gate is not None and (text := getattr(stage.gate, key)) is not None and Path(text).is_file()
    }
    more = {"command line": given, "files": files}
    return replace(recipe, content={**recipe.content, **{key: value for key, value in more.items() if value}})


def _told(value: Any) -> Any:
    """An option's value as it goes into the digest: a file by its name and content, wherever it lies."""
    if not isinstance(value, str):
        return list(value)
    path = Path(value)
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}" if path.is_file() else value


def make_hooks(options: Mapping[str, Any], recipe: Recipe) -> Hooks:
    """The real gate, promotion and champion of the registry below --results."""
    from evalsuite.loop import Hooks

    return Hooks(
        make_gate(options),
        make_promote(options),
        make_champion(options),
        make_check(options, recipe),
        make_refs(options),
    )


def make_gate(options: Mapping[str, Any]) -> GateFn:
    """Judges as `evalsuite gate` does; a stage's suite, policy and bootstrap stand where the command line has none."""

    def judge(checkpoint: Path, stage: Stage) -> Gated:
        from evalsuite.cli.gate_job import make_gate_job
        from evalsuite.gating import gate
        from evalsuite.loop import Gated
        from evalsuite.progress import observer

        watcher = observer()
        try:
            done = gate(make_gate_job(for_stage(options, stage), checkpoint), watcher)
        finally:
            watcher.close()
        cost = {**done.verdict.cost, "used": done.verdict.cost["share"]}
        return Gated(done.verdict.outcome, done.digest or "", in_short(done.verdict), cost)

    return judge


def in_short(verdict: Verdict) -> str:
    """One line for a table of verdicts: the worst of what stands in the way, else what is replaced."""
    from evalsuite.gate.verdict import lines

    blocking = verdict.blocking
    if not blocking:
        return f"may replace {verdict.champion.name}" if verdict.champion else "may become the first champion"
    worst = blocking[0]
    told = " ".join(lines([worst])[0].removeprefix(worst.outcome).removesuffix(worst.why).split())
    told += f"  {worst.why}" if worst.difference is None else ""
    return told if len(blocking) == 1 else f"{told}  and {len(blocking) - 1} more"


def make_check(options: Mapping[str, Any], recipe: Recipe) -> CheckFn:
    """Reads policy, suite, judges and data of a stage; with `begins` a missing champion needs leave as well."""

    def check(stage: Stage, begins: bool) -> None:
        check_gate(stage, begins)
        out = options["out"] or options["results"] / "loops" / recipe.name
        check_stage_data(options, recipe, stage, out / "data", out / stage.name)

    def check_gate(stage: Stage, begins: bool) -> None:
        from evalsuite.cli.gate_job import suite_and_policy
        from evalsuite.errors import UsageError
        from evalsuite.registry import Registry

        rule = stage.gate
        if rule is None:
            return
        own = for_stage(options, stage)
        suite, policy = suite_and_policy(own)
        columns = suite.select(own["tasks"])
        _, skipped = make_judges(own, columns)
        if len(columns) - len(skipped) < len(suite.columns):
            raise UsageError(
                f"stage {stage.name!r}: a gate over a part of {suite.name} promotes nobody (--tasks, --skip-judged); "
                "give judges, or write a suite file of the columns that count"
            )
        if begins and not rule.bootstrap and Registry.at(options["results"]).ref(policy.champion) is None:
            raise UsageError(
                f"stage {stage.name!r}: there is no {policy.champion} to compare with. Shall the first checkpoint that "
                "passes floors and checks become it? Then say so in the recipe: gate: {bootstrap: true}"
            )

    return check


def make_refs(options: Mapping[str, Any]) -> Callable[[], Collection[str]]:
    def refs() -> Collection[str]:
        from evalsuite.registry import Registry

        return {ref.id for ref in Registry.at(options["results"]).refs().values()}

    return refs


def make_promote(options: Mapping[str, Any]) -> Callable[[Path, str], int]:
    """Promotes in the registry; what a killed loop has promoted by this verdict already keeps its generation."""

    def promote(checkpoint: Path, verdict: str) -> int:
        from evalsuite.promotion import promote as promote_in
        from evalsuite.registry import Registry

        registry = Registry.at(options["results"], lock=options["lock"])
        trusted = {key: options[key] for key in ("allow_pickle", "trust_remote_code")}
        # A recipe names its policies, stage by stage, and its digest is in the loop's log.
        reason = f"as the recipe {options['recipe']} says"
        return promote_in(registry, checkpoint, verdict=verdict, new_policy=reason, **trusted).generation

    return promote


def make_champion(options: Mapping[str, Any]) -> Callable[[], Path | None]:
    def champion() -> Path | None:
        from evalsuite.registry import Registry

        registry = Registry.at(options["results"])
        ref = registry.ref("champion")
        manifest = registry.manifest(ref.id) if ref is not None else None
        return Path(manifest["checkpoint"]["path"]) if manifest is not None else None

    return champion


def described(ended: Ended) -> dict[str, Any]:
    """What was done, as plain data."""
    stages = {
        name: {
            "ended": state.ended,
            "checkpoints": [
                {
                    "name": seen["name"],
                    "digest": digest,
                    "outcome": state.gated[digest]["outcome"] if digest in state.gated else None,
                    "verdict": state.gated[digest]["verdict"] if digest in state.gated else None,
                    "void": digest in state.void,
                    "generation": state.promoted.get(digest),
                    "decision": state.controls[digest]["decision"] if digest in state.controls else None,
                    "cost": state.gated[digest]["cost"] if digest in state.gated else {},
                }
                for digest, seen in state.seen.items()
            ],
        }
        for name, state in ended.stages.items()
    }
    return {"schema": "loop/1", "code": ended.code, "line": ended.line, "stages": stages}
