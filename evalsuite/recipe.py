"""Recipe files: the stages of a training run, what each starts from, and how its checkpoints are gated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from evalsuite.errors import UsageError, did_you_mean
from evalsuite.trainers.files import digest_of_json
from evalsuite.trainers.options import parse
from evalsuite.trainers.recipes import find_shipped
from evalsuite.trainers.types import Launch, Mode, SaveRule, StageKind

SCHEMA = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
KEEP = re.compile(r"all|promoted|last [1-9]\d*")
KINDS: Mapping[str, StageKind] = {"sft": "sft", "rm": "rm", "dpo": "dpo", "rlvr": "rlvr"}
OnBlock = Literal["stop", "continue", "rollback"]
Go = Literal["continue", "stop"]
Scope = Literal["prompts", "all"]


@dataclass(frozen=True, slots=True)
class GateRule:
    """How a stage's checkpoints are judged, and what a verdict means for the training that goes on meanwhile.

    `patience` blocked checkpoints in a row before `on_block` acts. `adjust` is what a rollback changes, besides the
    seed: a deterministic run that is rolled back unchanged repeats itself. `suite` None is the policy's own.
    """

    suite: str | None = None
    policy: str | None = None
    mode: Mode = "wait"
    lag: int = 1
    on_block: OnBlock = "stop"
    patience: int = 2
    on_hold: Go = "continue"
    on_promote: Go = "continue"
    max_rollbacks: int = 2
    adjust: Mapping[str, float] = field(default_factory=lambda: {"lr_scale": 0.5})
    bootstrap: bool = False

    def __post_init__(self) -> None:
        low = [name for name in ("lag", "patience") if getattr(self, name) < 1]
        if low or self.max_rollbacks < 0:
            raise UsageError(f"{' and '.join(low) or 'max_rollbacks'} must be at least {1 if low else 0}")


@dataclass(frozen=True, slots=True)
class DataRule:
    """What is done about training data that has no whole decontamination report against the gate's suite.

    With `run` it is scanned before anything is trained, as `evalsuite decontam scan` does with `select` and `scan`;
    without, it is refused where the policy requires a report. `against` names more suites that need one all the same,
    such as the unseen one.
    """

    run: bool = False
    against: tuple[str, ...] = ()
    select: str | tuple[str, ...] = ()
    scan: Scope = "prompts"


@dataclass(frozen=True, slots=True)
class Stage:
    """One trainer run. `gate` is None where nothing is judged; `start` is None where the trainer brings its own.

    `keep` says which judged checkpoints stay on disk: all, promoted, or the last n (see `evalsuite.loop.keep`).
    `sources` says where numbers come from, for people only: a source and the names of the options that it gives.
    """

    name: str
    trainer: str
    kind: StageKind
    start: str | None
    data: tuple[str, ...]
    options: Mapping[str, Any]
    save: SaveRule
    inputs: Mapping[str, str]
    gate: GateRule | None
    seed: int
    launch: Launch
    keep: str = "all"
    decontam: DataRule = field(default_factory=DataRule)
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe file, read and found sound. `content` is what the digest covers; `base` is where it lies."""

    name: str
    base: Path
    model: str | None
    stages: tuple[Stage, ...]
    content: Mapping[str, Any]
    source: str = ""
    chat_template: str | None = None

    @property
    def digest(self) -> str:
        """sha256 over the content; comments, order of keys and the file's place do not count."""
        return digest_of_json(self.content)

    def find(self, text: str) -> Path:
        """A path of the recipe: beside the file if it is there, else as seen from the working folder, else shipped."""
        path = Path(text).expanduser()
        beside = self.base / path
        if not path.is_absolute() and beside.exists():
            return beside
        return path if path.exists() else find_shipped(text) or path


@dataclass(frozen=True, slots=True)
class _RawStage:
    name: str
    trainer: str
    start: str | None = None
    data: str | tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    save: SaveRule = field(default_factory=SaveRule)
    inputs: Mapping[str, str] = field(default_factory=dict)
    gate: bool | Mapping[str, Any] = True
    seed: int | None = None
    launch: Launch | None = None
    keep: str | None = None
    decontam: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _RawRecipe:
    schema: int
    name: str
    stages: tuple[_RawStage, ...]
    source: str = ""
    model: str | None = None
    chat_template: str | None = None
    gate: bool | Mapping[str, Any] = True
    seed: int = 0
    launch: Launch = field(default_factory=Launch)
    keep: str = "all"
    decontam: Mapping[str, Any] = field(default_factory=dict)


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Raises UsageError with every problem of its form, one a line."""
    content = _read(path)
    raw = parse(_RawRecipe, content, str(path))
    problems = _problems(raw)
    stages = []
    for one in raw.stages:
        try:
            stages.append(_stage(one, raw, path.parent))
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems))
    # Where a number comes from changes nothing that is trained, and so no digest.
    bare = [{key: value for key, value in one.items() if key != "sources"} for one in content["stages"]]
    content = {**content, "stages": bare}
    return Recipe(raw.name, path.parent, raw.model, tuple(stages), content, raw.source, raw.chat_template)


def keep_problem(keep: str) -> str:
    """What is wrong with a rule of which checkpoints are kept; empty when nothing is."""
    if KEEP.fullmatch(keep):
        return ""
    near = did_you_mean(keep, ["all", "promoted"])
    return f"expected all, promoted or 'last N' with N at least 1, found {keep!r}{near}"


def split_reference(text: str) -> tuple[str | None, str] | None:
    """`sft@promoted` as (stage, which); `@last` as (None, which); None for `model`, `@champion` and paths."""
    stage, at, which = text.rpartition("@")
    return (stage or None, which) if at and which in ("promoted", "last") else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise UsageError(f"no recipe file {str(path)!r}{did_you_mean(path.name, siblings)}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise UsageError(f"{path}: {where}{getattr(error, 'problem', None) or error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a mapping with schema, name and stages")
    return content


def _problems(raw: _RawRecipe) -> list[str]:
    problems = [] if raw.schema == SCHEMA else [f"schema {raw.schema}: this version reads {SCHEMA}"]
    problems += [] if raw.stages else ["stages: expected at least one"]
    names = [stage.name for stage in raw.stages]
    keeps = {"keep": raw.keep, **{f"{stage.name}.keep": stage.keep for stage in raw.stages}}
    problems += [f"{where}: {told}" for where, keep in keeps.items() if keep and (told := keep_problem(keep))]
    problems += [f"{n!r} is no name for a folder: letters, digits, '.', '_', '-'" for n in [raw.name, *names]
                 if not NAME.fullmatch(n)]  # fmt: skip
    problems += [f"two stages are named {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    for i, stage in enumerate(raw.stages):
        for where, text in {"start": stage.start, **{f"inputs.{k}": v for k, v in stage.inputs.items()}}.items():
            problems += _reference_problems(f"{stage.name}.{where}", text, raw, names[:i])
    return problems


def _reference_problems(where: str, text: str | None, raw: _RawRecipe, earlier: Sequence[str]) -> list[str]:
    if text is None:
        return []
    if text == "model":
        return [] if raw.model else [f"{where}: 'model', but the recipe names no model"]
    if text == "@champion":
        return []
    reference = split_reference(text)
    if reference is None:
        near = did_you_mean(text, ["model", "@champion", "@promoted", "@last"]) if "@" in text else ""
        return [f"{where}: {text!r} is no checkpoint of this run{near}"] if near else []
    stage, which = reference
    if not earlier:
        return [f"{where}: {text!r}, but no stage comes before it"]
    if stage is not None and stage not in earlier:
        return [f"{where}: no earlier stage named {stage!r}{did_you_mean(stage, earlier)}"]
    source = next(s for s in raw.stages if s.name == (stage or earlier[-1]))
    if which == "promoted" and (source.gate is False or (raw.gate is False and source.gate is True)):
        return [f"{where}: {text!r}, but stage {source.name!r} has no gate; use {source.name}@last"]
    return []


def _stage(one: _RawStage, raw: _RawRecipe, base: Path) -> Stage:
    declared = one.options.get("data", ()) if one.trainer == "exec" else ()
    data = (one.data,) if isinstance(one.data, str) else one.data
    data += (declared,) if isinstance(declared, str) else tuple(declared)
    return Stage(
        name=one.name,
        trainer=one.trainer,
        kind=KINDS.get(one.trainer, "external"),
        start=one.start,
        data=data,
        options=_options(one, raw),
        save=one.save,
        inputs=one.inputs,
        gate=_gate(one, raw, base),
        seed=raw.seed if one.seed is None else one.seed,
        launch=one.launch or raw.launch,
        keep=one.keep or raw.keep,
        decontam=parse(DataRule, {**raw.decontam, **one.decontam}, f"{one.name}.decontam"),
        sources=one.sources,
    )


def _options(one: _RawStage, raw: _RawRecipe) -> Mapping[str, Any]:
    """The stage's options; the recipe's chat template is that of every stage which has none of its own."""
    if raw.chat_template is None or one.trainer not in KINDS:
        return one.options
    return {"chat_template": raw.chat_template, **one.options}


def _gate(one: _RawStage, raw: _RawRecipe, base: Path) -> GateRule | None:
    """The stage's own keys over the recipe's; `gate: off` (false in YAML) means nothing is judged."""
    if one.gate is False or (raw.gate is False and one.gate is True):
        return None
    shared = raw.gate if isinstance(raw.gate, Mapping) else {}
    own = one.gate if isinstance(one.gate, Mapping) else {}
    rule = parse(GateRule, {**shared, **own}, f"{one.name}.gate")
    return replace(rule, policy=_beside(base, rule.policy), suite=_beside(base, rule.suite))


def _beside(base: Path, text: str | None) -> str | None:
    """The path of a file that lies beside the recipe; a name, and a path as seen from elsewhere, as they are."""
    return str(base / text) if text is not None and (base / text).is_file() else text
