"""`evalsuite train`: one stage of a recipe without a gate, its plan, or the text of a shipped recipe."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalsuite.cli.options import benchmarks_option, complete_suites, data_options, results_option
from evalsuite.cli.stage_data import recipe_file

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint
    from evalsuite.loop import Plan, Trained
    from evalsuite.recipe import Recipe, Stage

EPILOG = """\b
Examples:
  evalsuite train --recipe tulu3_8b --plan
  evalsuite train sft -c recipe.yaml --data-root data/
  evalsuite train dpo --recipe tulu3_8b --start sft/checkpoints/step-014678 --processes 8 --launch fsdp2
  evalsuite train --show tulu3_8b > mine.yaml
  evalsuite train rlvr --recipe tulu3.1_8b --plan
  evalsuite train --options rlvr

Checkpoints go to stdout as they are saved, progress to stderr. Killed? Type the same command again: it goes on from the
last checkpoint. Data needs a decontamination report against the suite of the recipe's gate (evalsuite decontam scan, or
decontam: {run: true} in the recipe).

Launches over several processes are shipped as accelerate configs: fsdp2, zero2, zero3, zero3_offload. They are
unmeasured: nobody has run them on many GPUs yet. So is rlvr on many GPUs: its processes learn on the first ones, and
vLLM has those that generator_options name.

Exit codes: 0 trained to the end, 2 wrong usage, unchecked data, a broken input or a trainer that failed, 3 stopped
before the end (the same command goes on)."""


@click.command("train", epilog=EPILOG)
@click.argument("stage", required=False)
@click.option("-c", "--config", "recipe", type=click.Path(path_type=Path), metavar="RECIPE.yaml", help="Recipe file.")
@click.option("--recipe", "shipped", metavar="NAME", help="A shipped recipe in place of a file.")
@click.option("--start", type=click.Path(path_type=Path, file_okay=False), metavar="CKPT",
              help="Checkpoint to start from, in place of the recipe's.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where the stage works. [default: RESULTS/train/NAME/STAGE]")  # fmt: skip
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="Processes, in place of the recipe's.")
@click.option("--launch", metavar="CONFIG", help="Accelerate config, a file or a shipped name (unmeasured).")
@click.option("--suite", shell_complete=complete_suites,
              help="What the data is checked against. [default: the suite of the recipe's gate]")  # fmt: skip
@click.option("--waive-decontam", "waived", metavar="REASON",
              help="Train on unchecked data. Written into every checkpoint; the default policy blocks those."
)  # fmt: skip
@click.option("--plan", "planning", is_flag=True,
              help="Print steps, tokens, batch and memory of the stages; loads no model.")  # fmt: skip
@click.option("--show", metavar="NAME", help="Print a shipped recipe, for copying.")
@click.option("--options", "described_trainer", metavar="TRAINER", help="Print what a recipe may set for a trainer.")
@results_option("Where reports on data are, and stages work by default.")
@benchmarks_option
@data_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan, or what was trained, as JSON.")
def command(**options: Any) -> int:
    """Train one STAGE of a recipe (its name, or its trainer: sft, rm, dpo, rlvr) without a gate; or plan it."""
    if options["show"] is not None:
        return _show(options)
    if options["described_trainer"] is not None:
        from evalsuite.cli.train_options import option_lines

        click.echo("\n".join(option_lines(options["described_trainer"])))
        return 0
    from evalsuite.recipe import load_recipe

    if str(options["stage"]).endswith((".yaml", ".yml")):
        raise click.UsageError(f"{options['stage']} is no stage; a recipe is given by -c: -c {options['stage']}")
    recipe = _launched(load_recipe(recipe_file(options["recipe"], options["shipped"])), options)
    if options["planning"]:
        return _plan(recipe, options)
    trained = _train(recipe, options)
    print(f"trained in {trained.out}", file=sys.stderr)
    return 0 if trained.finished else 3


def _show(options: dict[str, Any]) -> int:
    from evalsuite.trainers.recipes import find_recipe

    click.echo(find_recipe(options["show"]).read_text(encoding="utf-8"), nl=False)
    return 0


def _launched(recipe: Recipe, options: dict[str, Any]) -> Recipe:
    """The recipe with the command line's processes and accelerate config in every stage."""
    given = {"processes": options["processes"], "config": options["launch"]}
    changes = {key: value for key, value in given.items() if value is not None}
    stages = tuple(replace(stage, launch=replace(stage.launch, **changes)) for stage in recipe.stages)
    return replace(recipe, stages=stages)


def stage_of(recipe: Recipe, wanted: str | None) -> Stage:
    """The stage of that name, else the only one with that trainer, else the only one there is."""
    from evalsuite.errors import UsageError, did_you_mean

    names = [stage.name for stage in recipe.stages]
    by_trainer = [stage for stage in recipe.stages if stage.trainer == wanted]
    chosen = [stage for stage in recipe.stages if stage.name == wanted] or by_trainer
    if wanted is None:
        chosen = list(recipe.stages)
    if len(chosen) == 1:
        return chosen[0]
    there = f"{recipe.name} has {', '.join(names)}"
    if not chosen:
        raise UsageError(f"no stage {wanted!r}{did_you_mean(str(wanted), names)} ({there})")
    raise UsageError(f"say which stage: evalsuite train STAGE … ({there})")


def _plan(recipe: Recipe, options: dict[str, Any]) -> int:
    from evalsuite.cli.train_plan import as_data, lines
    from evalsuite.loop.planned import plan_stages
    from evalsuite.trainers.machine import this_machine

    only = stage_of(recipe, options["stage"]) if options["stage"] or options["start"] else None
    stages = recipe.stages if only is None else (only,)
    base = options["out"] or options["results"] / "train" / recipe.name
    planned, machine = plan_stages(recipe, stages, base / "data", options["start"]), this_machine()
    if options["as_json"]:
        click.echo(json.dumps(as_data(recipe, planned, machine), indent=1, ensure_ascii=False))
        return 0
    for line in lines(recipe, planned, machine):
        click.echo(line)
    return 0


def _train(recipe: Recipe, options: dict[str, Any]) -> Trained:
    """Checks everything that can be refused before training, then trains."""
    from evalsuite.cli.loop import make_champion
    from evalsuite.cli.stage_data import check_stage_data, places_of
    from evalsuite.loop import make_plan, train_stage
    from evalsuite.loop.single import starts
    from evalsuite.loop.view import view

    stage = stage_of(recipe, options["stage"])
    results, waived = options["results"], options["waived"]
    if waived is not None and not waived.strip():
        raise click.UsageError("--waive-decontam needs a reason: it is written into every checkpoint")
    base = results / "train" / recipe.name
    plan = make_plan(recipe, base, only=stage.name, start=options["start"], places=places_of(options))
    plan = replace(plan, at=options["out"], results=results, waived=" ".join((waived or "").split()))
    champion, loop = make_champion(options), results / "loops" / recipe.name
    start = starts(plan, stage, champion, loop).get("start")
    refuse_what_cannot_fit(recipe, stage, plan, start)
    check_stage_data(
        _gate_like(options), recipe, stage, plan.mixed, plan.folder(stage), always=True, waived=bool(waived)
    )
    watcher = view()

    def published(checkpoint: Checkpoint) -> None:
        if not options["as_json"]:
            watcher.result(str(checkpoint.path))

    try:
        trained = train_stage(plan, stage, champion, loop, watcher, published)
    finally:
        watcher.close()
    if options["as_json"]:
        click.echo(json.dumps(described(stage, trained), indent=1, ensure_ascii=False))
    return trained


def refuse_what_cannot_fit(recipe: Recipe, stage: Stage, plan: Plan, start: Path | None) -> None:
    """Raises UsageError when weights, gradients and optimizer alone are more than there is memory for."""
    from evalsuite.errors import UsageError
    from evalsuite.loop.planned import plan_stages
    from evalsuite.trainers.machine import gib, this_machine

    (planned,) = plan_stages(recipe, (stage,), plan.mixed, start)
    if planned.plan is None or planned.plan.state_bytes is None:
        return
    needed, n, networks = planned.plan.state_bytes, planned.plan.processes, planned.plan.networks
    lacks = this_machine().lacks(needed, n)
    if lacks:
        trained = f"{networks}:" if networks else f"{planned.plan.parameters:,} parameters need"
        frozen = ", 2 or 4 for each that is frozen" if "frozen" in networks else ""
        less = "" if networks else ", or train less: options.lora"
        raise UsageError(
            f"stage {stage.name!r}: {trained} {gib(needed)} of memory in each of {n} process{'es' * (n != 1)} "
            f"(16 bytes for each parameter that is trained{frozen}), and {lacks}; spread them: --processes N "
            f"--launch fsdp2{less} (see: evalsuite train --plan)"
        )


def _gate_like(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a gate that decide which texts the data is held against."""
    return {**options, "policy": None, "sets": (), "regime": None, "no_quirks": False}


def described(stage: Stage, trained: Trained) -> dict[str, Any]:
    """What was trained, as plain data."""
    checkpoints = [{"name": c.name, "path": str(c.path), "digest": c.digest} for c in trained.checkpoints]
    about = {"schema": "train/1", "stage": stage.name, "trainer": stage.trainer, "out": str(trained.out)}
    return {**about, "finished": trained.finished, "checkpoints": checkpoints}
