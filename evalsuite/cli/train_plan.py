"""How the plan of a recipe is printed: a few lines for each stage, as wide as the terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalsuite.loop.planned import Planned
    from evalsuite.recipe import Recipe
    from evalsuite.trainers.machine import Machine
    from evalsuite.trainers.planning import StagePlan

LABEL = 11  # width of the names at the left


def lines(recipe: Recipe, planned: Sequence[Planned], machine: Machine) -> Iterator[str]:
    """The plan as text: every stage with its numbers, what it lacks, and where the numbers come from."""
    width = max(40, shutil.get_terminal_size((100, 24)).columns)
    yield from _wrapped(f"{recipe.name}  {recipe.source}".rstrip(), "", width)
    for each in planned:
        yield ""
        stage = each.stage
        shape = f" ({each.plan.parameters:,} parameters)" if each.plan and each.plan.parameters else ""
        start = stage.start or "its own start"
        model = f": {each.model}" if each.model not in (None, start) else ""
        yield from _wrapped(f"{stage.name}  trainer {stage.trainer}, from {start}{model}{shape}", "  ", width)
        for label, text in _facts(each, machine):
            yield from _wrapped(f"  {label:<{LABEL}}{text}", " " * (LABEL + 2), width)


def as_data(recipe: Recipe, planned: Sequence[Planned], machine: Machine) -> dict[str, Any]:
    """The plan as plain data."""
    stages = [
        {
            "name": each.stage.name,
            "trainer": each.stage.trainer,
            "start": each.stage.start,
            "model": each.model,
            "data": list(each.data),
            "plan": {**asdict(each.plan), "memory_bytes": each.plan.memory_bytes} if each.plan else None,
            "launch": each.stage.launch.config,
            "lacks": list(each.lacks),
            "sources": {source: list(fields) for source, fields in each.stage.sources.items()},
        }
        for each in planned
    ]
    about = {"schema": "train-plan/1", "recipe": recipe.name, "digest": recipe.digest, "source": recipe.source}
    return {**about, "machine": {"gpus": list(machine.gpus), "host": machine.host}, "stages": stages}


def _facts(each: Planned, machine: Machine) -> Iterator[tuple[str, str]]:
    for line in each.data:
        yield "data", line
    plan = each.plan
    if plan is not None:
        yield from _numbers(plan)
        yield from _memory(each, plan, machine)
    for line in each.lacks:
        yield "lacks", line
    for source, fields in each.stage.sources.items():
        yield "source", f"{source}: {', '.join(fields)}"


def _numbers(plan: StagePlan) -> Iterator[tuple[str, str]]:
    if plan.iterations is not None and plan.rollouts is not None:
        yield from _iterations(plan, plan.iterations, plan.rollouts)
        return
    if plan.steps is not None:
        yield "steps", f"{plan.steps:,} of {plan.rows:,} rows, warm-up {plan.warmup_steps:,}{_saves(plan)}"
    if plan.tokens is not None:
        yield "tokens", f"about {plan.tokens:,} in all epochs, by a sample of the rows"
    else:
        yield "tokens", "not known until data and tokenizer are here"
    yield (
        "batch",
        (
            f"{plan.batch} = {plan.per_device_batch} per device × {plan.accumulation} accumulated × "
            f"{_processes(plan.processes)}"
        ),
    )


def _iterations(plan: StagePlan, iterations: int, rollouts: int) -> Iterator[tuple[str, str]]:
    """Of a trainer that generates its own examples: an iteration makes rollouts, then a few steps with them."""
    yield "iterations", f"{iterations:,}{_saves(plan)}"
    yield "steps", f"{plan.steps:,} of the optimizer, warm-up {plan.warmup_steps:,}"
    prompts = plan.prompts or rollouts
    passes = f", {iterations * prompts / plan.rows:,.1f} passes over the rows" if plan.rows else ""
    made = f" = {prompts:,} prompts × {rollouts // prompts}"
    yield "rollouts", f"{rollouts:,}{made} an iteration, on {_processes(plan.processes)}{passes}"
    yield "batch", f"{plan.batch:,} rollouts of a step"


def _saves(plan: StagePlan) -> str:
    return f", {plan.saves:,} checkpoint{'s' * (plan.saves != 1)}" if plan.saves else ""


def _processes(n: int) -> str:
    return f"{n} process{'es' * (n != 1)}"


def _memory(each: Planned, plan: StagePlan, machine: Machine) -> Iterator[tuple[str, str]]:
    from evalsuite.trainers.machine import gib

    if plan.networks:
        yield "networks", plan.networks
    if plan.state_bytes is None:
        yield "memory", f"not known: no shape of {each.model if plan.parameters is None else 'an input'}"
        return
    launch = f" ({each.stage.launch.config}, unmeasured)" if each.stage.launch.config else ""
    told = (
        f"about {gib(plan.state_bytes)} for weights, gradients and optimizer and {gib(plan.activation_bytes or 0)} for "
        f"one pass, in each process{launch}; here there {machine.told()}"
    )
    yield "memory", told + ("" if not machine.lacks(plan.state_bytes, plan.processes) else ": NOT ENOUGH")
    if plan.beside:
        yield "beside", plan.beside


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]
