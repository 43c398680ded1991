"""What the stages of a recipe come to, before any model is loaded: `evalsuite train --plan`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evalsuite.errors import UsageError
from evalsuite.loop.mixes import built_file, is_mix, rows_of_mix
from evalsuite.recipe import Recipe, Stage, split_reference
from evalsuite.trainers.lookup import find_trainer
from evalsuite.trainers.options import parse
from evalsuite.trainers.planning import PlanFacts, Planner, StagePlan
from evalsuite.trainers.recipes import find_launch

NULL = "no public source gives this value"  # how the parser of options tells of a null


@dataclass(frozen=True, slots=True)
class Planned:
    """A stage and its numbers; `plan` is None where there are none, `lacks` is what keeps it from starting as it is."""

    stage: Stage
    model: str | None
    plan: StagePlan | None
    data: tuple[str, ...]
    lacks: tuple[str, ...]


def plan_stages(recipe: Recipe, stages: tuple[Stage, ...], mixed: Path, start: Path | None = None) -> list[Planned]:
    """Every stage's plan. What is not there is told in `lacks`; a batch that does not divide, an option that does not
    exist and the like raise UsageError, a line each."""
    planned: list[Planned] = []
    problems: list[str] = []
    for stage in stages:
        try:
            planned.append(_planned(recipe, stage, mixed, start))
        except UsageError as error:
            problems += [f"{recipe.name}: {line}" for line in str(error).splitlines()]
    if problems:
        raise UsageError("\n".join(problems))
    return planned


def _planned(recipe: Recipe, stage: Stage, mixed: Path, start: Path | None) -> Planned:
    trainer = find_trainer(stage.trainer)
    data, rows, files, lacks = _data(recipe, stage, mixed)
    model = str(start) if start is not None else _model(recipe, stage, stage.start)
    if model is not None and not Path(model).is_dir():
        lacks.append(f"no checkpoint folder {model!r}")
    inputs = {name: _model(recipe, stage, text) for name, text in stage.inputs.items()}
    lacks += [
        f"no checkpoint folder {folder!r} for {name}"
        for name, folder in inputs.items()
        if folder is not None and split_reference(stage.inputs[name]) is None and not Path(folder).is_dir()
    ]
    if stage.launch.config is not None:
        find_launch(stage.launch.config)
    try:
        options: object = parse(trainer.config, stage.options, f"{stage.name}.options")
    except UsageError as error:
        lines = str(error).splitlines()
        if not all(NULL in line for line in lines):
            raise
        nulls = ", ".join(line.partition(": ")[0].rpartition(".")[2] for line in lines)
        return Planned(stage, model, None, data, (f"a value for {nulls}: null in the recipe, {NULL}", *lacks))
    if not isinstance(trainer, Planner):
        return Planned(stage, model, None, data, tuple(lacks))
    n = stage.launch.processes
    facts = PlanFacts(
        rows, None, n, model=model, save=stage.save, launch=stage.launch.config, data=tuple(map(str, files)),
        inputs=inputs,
    )  # fmt: skip
    try:
        return Planned(stage, model, trainer.plan(options, facts), data, tuple(lacks))
    except UsageError as error:
        raise UsageError(f"{stage.name}: {error}") from error


def _model(recipe: Recipe, stage: Stage, named: str | None) -> str | None:
    """The folder or hub id whose shape a start or input has; one of an earlier stage is followed to where it began."""
    reference = split_reference(named) if named else None
    if reference is not None:
        names = [s.name for s in recipe.stages]
        source = reference[0] or names[names.index(stage.name) - 1]
        earlier = recipe.stages[names.index(source)]
        return _model(recipe, earlier, earlier.start)
    text = recipe.model if named == "model" else named
    return None if text is None or text.startswith("@") else str(recipe.find(text))


def _data(recipe: Recipe, stage: Stage, mixed: Path) -> tuple[tuple[str, ...], int | None, list[Path], list[str]]:
    """(a line for each entry, rows of all, the files that are there, what is missing)."""
    told: list[str] = []
    files: list[Path] = []
    lacks: list[str] = []
    counts: list[int | None] = []
    for text in stage.data:
        path = recipe.find(text)
        mix, n = None, None
        if not path.is_file():
            lacks.append(f"no data file {text!r}")
        elif is_mix(path):
            mix, path = path, built_file(mixed, path)
            n = _lines(path) if path.is_file() else rows_of_mix(mix)
        else:
            n = _lines(path)
        if path.is_file():
            files.append(path)
        counts.append(n)
        what = " by its counts, not built yet" if mix is not None and not path.is_file() else ""
        told.append(f"{text}{f': {n:,} rows' if n is not None else ''}{what}")
    known = [n for n in counts if n is not None]
    return tuple(told), sum(known) if known and len(known) == len(counts) else None, files, lacks


def _lines(path: Path) -> int | None:
    if path.suffix != ".jsonl":
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
