"""What a trainer is given and what it has to offer. The trainer never sees the gate, the loop never the optimiser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint

StageKind = Literal["sft", "rm", "dpo", "rlvr", "external"]
Mode = Literal["wait", "lag", "off"]
Decision = Literal["continue", "stop", "rollback"]


@dataclass(frozen=True, slots=True)
class SaveRule:
    """When a checkpoint is saved, in optimizer steps or epochs; the end always saves."""

    steps: int | None = None
    epochs: int | None = None
    at: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """How the subprocess starts: an accelerate config (path or shipped name), its processes, its environment."""

    config: str | None = None
    processes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Coupling:
    """Whether training waits for verdicts: after every save, with at most `lag` unjudged saves, or never."""

    mode: Mode = "wait"
    lag: int = 1


@dataclass(frozen=True, slots=True)
class DataRef:
    """Training data as declared. Empty digests and None: not known, which a policy may refuse.

    `location` is where the file lies for the trainer, no part of what the job is; "": `path` as it stands.
    """

    path: str
    digest: str = ""
    rows: int | None = None
    licence: str = ""
    decontamination: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Everything a trainer needs; written to <out>/job.json before the first process starts.

    `start` is None only where the trainer brings a start of its own (`external`). `options` are parsed by the
    trainer's own frozen config class (see `evalsuite.trainers.options`).
    """

    stage: StageKind
    start: Checkpoint | None
    data: tuple[DataRef, ...]
    out: Path
    seed: int
    save: SaveRule
    options: Mapping[str, Any]
    inputs: Mapping[str, Checkpoint] = field(default_factory=dict)
    launch: Launch = field(default_factory=Launch)
    coupling: Coupling = field(default_factory=Coupling)


class Trainer(Protocol):
    """Turns a job into complete checkpoints, in step order.

    `train` on a folder that it worked in before goes on where that stopped and yields what was published there again;
    closing the iterator means "stop now". A trainer that cannot always load an
    earlier checkpoint again also has `can_roll_back(options) -> bool`, of its parsed config.
    """

    name: str
    config: type

    def train(self, job: TrainJob) -> Iterator[Checkpoint]: ...


@dataclass(frozen=True, slots=True)
class Places:
    """Folders of the user's own: with benchmarks besides those that are shipped, with data sets that these read."""

    benchmarks: tuple[Path, ...] = ()
    roots: tuple[Path, ...] = ()


@runtime_checkable
class Refuser(Protocol):
    """A trainer that must not train on everything: `refuse(parsed options, data files that are there, places)`.

    Raises UnseenBudget for what no training may touch and DataError for other data that it may not have, with every
    reason, a line each. A mix that is not built yet is given as its file.
    """

    def refuse(self, options: Any, files: Sequence[Path], places: Places) -> None: ...
