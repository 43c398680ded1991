"""`trainer: exec`: gates the checkpoints that any external program writes into a folder, started by us or by others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from evalsuite.checkpoint import Checkpoint
from evalsuite.errors import UsageError, did_you_mean
from evalsuite.trainers.options import parse
from evalsuite.trainers.process import StopRule
from evalsuite.trainers.types import TrainJob
from train_plugins.watching import Complete

PRESETS = Path(__file__).parent / "recipes" / "external"
ABOUT = ("description", "source")  # keys of a preset file that are for its reader


@dataclass(frozen=True, slots=True)
class Ends:
    """When watching somebody else's run is over: at a step, or after that long without a new checkpoint."""

    step: int | None = None
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """What is run and where its checkpoints appear. `{out}`, `{start}`, `{seed}` and `variables` are filled in.

    `command` starts the training and `restart` starts it from a folder `{src}` after a rollback; without a command the
    run is somebody else's and `ends` says when to stop watching. `pattern` is matched against the whole path of a
    folder below `watch`. `convert` makes a model folder `{dst}` of a folder `{src}`. `pause` stops the processes of
    the command while a checkpoint is judged (single node only).
    """

    command: tuple[str, ...] = ()
    preset: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    watch: str | None = None
    pattern: str | None = None
    complete: Complete = field(default_factory=Complete)
    convert: tuple[str, ...] | None = None
    restart: tuple[str, ...] | None = None
    stop: StopRule = field(default_factory=StopRule)
    pin: Literal["hardlink", "copy", "none"] = "hardlink"
    data: str | tuple[str, ...] | None = None
    pause: bool = False
    ends: Ends = field(default_factory=Ends)
    cwd: str | None = None
    poll_s: float = 1.0

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in known_presets():
            known = known_presets()
            raise UsageError(
                f"no preset {self.preset!r}{did_you_mean(self.preset, known)}; there are {', '.join(known)}"
            )
        if self.preset is None and (self.watch is None or self.pattern is None):
            raise UsageError("watch and pattern say where checkpoints appear; set both, or a preset")
        if self.stop.signal not in ("TERM", "INT", "HUP", "USR1", "USR2", "QUIT", "KILL"):
            raise UsageError(f"stop.signal {self.stop.signal!r}; expected a name like TERM, INT or USR1")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise UsageError(f"pattern {self.pattern!r} is no regular expression ({error})") from error


class Exec:
    """Yields every folder that matches, in step order, once, when it is complete and is a model that can be read."""

    name = "exec"
    config = ExecOptions

    def can_roll_back(self, options: ExecOptions) -> bool:
        return options.restart is not None

    def train(self, job: TrainJob) -> Iterator[Checkpoint]:
        from train_plugins.foreign import ForeignRun

        yield from ForeignRun(job, read_options(job.options)).checkpoints()


def read_options(raw: Mapping[str, Any]) -> ExecOptions:
    """The options with those of the preset beneath them."""
    options = parse(ExecOptions, raw, "options")
    if options.preset is None:
        return options
    preset = read_preset(options.preset)
    variables = {**preset.get("variables", {}), **options.variables}
    return parse(ExecOptions, {**preset, **raw, "variables": variables}, "options")


def read_preset(name: str) -> dict[str, Any]:
    """The options that a preset file gives."""
    content = yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key not in ABOUT}


def known_presets() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in PRESETS.glob("*.yaml")))
