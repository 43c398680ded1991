"""What runs inside a trainer's subprocess: the job in, events and checkpoints out, the control file read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from evalsuite.trainers import TrainJob
from train_plugins.settings import TrainingOptions


class Run:
    """One start of the worker, on one of its processes. `rank` 0 alone writes."""

    job: TrainJob
    options: Any
    out: Path
    rank: int
    processes: int

    def step(self, metrics: Mapping[str, Any]) -> None:
        """Writes a `step` event."""
        raise NotImplementedError

    def warn(self, code: str, text: str) -> None:
        """Writes a `warning` event, once for each code and text of this start."""
        raise NotImplementedError


def main(config: type[TrainingOptions], work: Callable[[Run], None], arguments: list[str] | None = None) -> int:
    """`python -m … --job FILE`: calls `work` with the run. Returns 0, or 2 with one line on stderr; bugs raise."""
    raise NotImplementedError


def load_rows(run: Run, kind: Literal["sft", "preference", "rlvr"]) -> list[dict[str, Any]]:
    """The canonical rows of all data of the job, in order. Raises DataError for a file that is not the job's."""
    raise NotImplementedError
