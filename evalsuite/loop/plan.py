"""From a recipe to jobs: where each stage works, what it starts from, and what can be refused before any training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalsuite.errors import DataError, EvalsuiteError, UnseenBudget, UsageError, did_you_mean
from evalsuite.gating.evidence import REPORTS, read_reports
from evalsuite.loop.log import LoopLog
from evalsuite.loop.mixes import built_file, is_mix, looks_like_mix, read_mix
from evalsuite.recipe import Recipe, Stage, split_reference
from evalsuite.trainers.files import load_json
from evalsuite.trainers.lookup import find_trainer
from evalsuite.trainers.options import parse
from evalsuite.trainers.recipes import find_launch
from evalsuite.trainers.types import Coupling, DataRef, Places, Refuser, Trainer, TrainJob

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Plan:
    """What one call of the loop does: all stages, or `only` one, which may be given another `start`.

    `keep` stands in place of every stage's own. `at` is the folder of the one stage, in place of one below `out`.
    `results` is where decontamination reports are looked for; `waived` is why training goes on without.
    """

    recipe: Recipe
    out: Path
    stages: tuple[Stage, ...]
    trainers: Mapping[str, Trainer]
    start: Path | None = None
    keep: str | None = None
    at: Path | None = None
    results: Path | None = None
    waived: str = ""

    def folder(self, stage: Stage) -> Path:
        return self.at or self.out / stage.name

    @property
    def mixed(self) -> Path:
        """Where the mixes of the stages are built."""
        return (self.at or self.out) / "data"

    def previous(self, stage: Stage) -> str | None:
        """The name of the stage before this one in the recipe."""
        names = [s.name for s in self.recipe.stages]
        at = names.index(stage.name)
        return names[at - 1] if at else None


def make_plan(
    recipe: Recipe, out: Path, *, only: str | None = None, start: Path | None = None, keep: str | None = None,
    find: Callable[[str], Trainer] | None = None, places: Places | None = None,
) -> Plan:  # fmt: skip
    """Checks trainers, options and paths of every stage, and what the trainers refuse of data that is there.

    Raises UsageError, or DataError where it is data alone that is refused, with all problems, one a line; UnseenBudget
    when an unseen benchmark is among them.
    """
    names = [stage.name for stage in recipe.stages]
    if only is not None and only not in names:
        raise UsageError(f"no stage named {only!r} in recipe {recipe.name!r}{did_you_mean(only, names)}")
    if start is not None and only is None and len(names) > 1:
        raise UsageError("--start is the start of one stage; say which with --only STAGE")
    stages = tuple(s for s in recipe.stages if only is None or s.name == only)
    trainers: dict[str, Trainer] = {}
    problems: list[EvalsuiteError] = []
    for stage in stages:
        try:
            trainers[stage.name] = _trainer(stage, find or find_trainer)
            if stage.launch.config is not None:
                find_launch(stage.launch.config)
            for text in stage.data:
                declared(recipe, stage, text)
        except EvalsuiteError as error:
            problems += [error]
    for stage in stages:
        if stage.name in trainers:
            problems += _refused(Plan(recipe, out, stages, trainers), stage, places or Places())
    if problems:
        raise _together(recipe, problems)
    return Plan(recipe, out, stages, trainers, start, keep)


def _refused(plan: Plan, stage: Stage, places: Places) -> list[EvalsuiteError]:
    """What the trainer of a stage will not have, of its options and of those of its files that are there."""
    trainer = plan.trainers[stage.name]
    if not isinstance(trainer, Refuser):
        return []
    named = [path for text in stage.data if (path := plan.recipe.find(text)).is_file()]
    files = [*named, *(out for path in named if is_mix(path) and (out := built_file(plan.mixed, path)).is_file())]
    try:
        trainer.refuse(parse(trainer.config, stage.options, f"{stage.name}.options"), files, places)
    except (UnseenBudget, DataError) as error:
        return [type(error)("\n".join(f"{stage.name}: {line}" for line in str(error).splitlines()))]
    return []


def _together(recipe: Recipe, problems: Sequence[EvalsuiteError]) -> EvalsuiteError:
    """One error of all problems; what is unseen decides what kind it is."""
    kinds: tuple[type[EvalsuiteError], ...] = (UnseenBudget, UsageError, DataError)
    kind = next((kind for kind in kinds if any(isinstance(each, kind) for each in problems)), UsageError)
    return kind("\n".join(f"{recipe.name}: {line}" for each in problems for line in str(each).splitlines()))


def make_job(plan: Plan, stage: Stage, start: Checkpoint | None, inputs: Mapping[str, Checkpoint]) -> TrainJob:
    coupling = Coupling(stage.gate.mode, stage.gate.lag) if stage.gate else Coupling("off")
    data = data_of(plan.recipe, stage, plan.mixed)
    return TrainJob(
        stage=stage.kind,
        start=start,
        data=tuple(replace(ref, decontamination=_checked(plan, ref)) for ref in data),
        out=plan.folder(stage),
        seed=stage.seed,
        save=stage.save,
        options=stage.options,
        inputs=inputs,
        launch=stage.launch,
        coupling=coupling,
    )


def resolve(plan: Plan, stage: Stage, text: str, log: LoopLog, champion: Callable[[], Path | None]) -> Path:
    """The folder that `start` or an input names. Raises UsageError when there is nothing yet that it could name."""
    if text == "model":
        return plan.recipe.find(plan.recipe.model or "")
    if text == "@champion":
        found = champion()
        if found is None:
            raise UsageError(f"{stage.name}: starts from @champion, but the registry has none; promote one first")
        return found
    reference = split_reference(text)
    if reference is None:
        return plan.recipe.find(text)
    source, which = reference[0] or plan.previous(stage) or "", reference[1]
    state = log.stage(source)
    chosen = [d for d in state.seen if which == "last" or d in state.promoted]
    if not chosen:
        done = "promoted no checkpoint" if which == "promoted" else "has no checkpoint yet"
        raise UsageError(f"{stage.name}: starts from {text}, but stage {source!r} {done}")
    # The newest promoted one beat every one before it.
    return Path(state.seen[chosen[-1]]["path"])


def _trainer(stage: Stage, find: Callable[[str], Trainer]) -> Trainer:
    trainer = find(stage.trainer)
    options: object = parse(trainer.config, stage.options, f"{stage.name}.options")
    can = getattr(trainer, "can_roll_back", None)
    if stage.gate and stage.gate.on_block == "rollback" and can is not None and not can(options):
        raise UsageError(
            f"{stage.name}: on_block is 'rollback', which trainer {stage.trainer!r} cannot do with these options "
            "(exec: set options.restart, a command that starts from {src}); use stop or continue"
        )
    return trainer


def data_of(recipe: Recipe, stage: Stage, mixed: Path | None = None) -> tuple[DataRef, ...]:
    """The training data that a stage declares, with digests; a mix is the file that was built of it in `mixed`.

    Raises UsageError for a file that is not there.
    """
    return tuple(_reference(recipe, stage, text, mixed) for text in stage.data)


def declared(recipe: Recipe, stage: Stage, text: str) -> Path:
    """The file that an entry of `data` names. Raises UsageError with the near miss when it is not there."""
    path = recipe.find(text)
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise UsageError(f"{stage.name}.data: no file {text!r}{near}")
    if looks_like_mix(path) and stage.kind != "external":
        read_mix(path)
    return path


def _reference(recipe: Recipe, stage: Stage, text: str, mixed: Path | None) -> DataRef:
    path = declared(recipe, stage, text)
    if is_mix(path) and mixed is not None:
        path = built_file(mixed, path)
        if not path.is_file():
            raise UsageError(f"{stage.name}.data: the mix {text!r} is not built yet: {path} is not there")
    meta = _sidecar(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        known = meta.get("rows") if meta.get("digest") == digest else None
        rows = known if isinstance(known, int) else None
        if rows is None and path.suffix == ".jsonl":
            file.seek(0)
            rows = sum(1 for line in file if line.strip())
    licence = meta.get("licence")
    told = licence if isinstance(licence, str) else ", ".join(map(str, licence or ()))
    return DataRef(text, digest, rows, licence=told, location=str(path.absolute()))


def _sidecar(path: Path) -> dict[str, Any]:
    """What is written beside a data set of how it was made; empty where nothing is, or nothing that can be read."""
    try:
        return load_json(path.with_name(f"{path.name}.meta.json")) or {}
    except (OSError, ValueError):
        return {}


def _checked(plan: Plan, ref: DataRef) -> str:
    """The reports that there are of this data, by content, or why none was asked for."""
    if plan.waived:
        return f"waived: {plan.waived}"
    if plan.results is None:
        return ""
    of = [path for path, raw in read_reports(plan.results / REPORTS)
          if any(each.get("digest") == ref.digest for each in raw["training"])]  # fmt: skip
    waived = _sidecar(Path(ref.location)).get("decontamination_waived") if not of else None
    if waived:
        return f"waived: {waived}"
    return ",".join(sorted(hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in of))
