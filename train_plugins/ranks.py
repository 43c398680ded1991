"""The processes of one training run and what they tell each other. For the worker process."""

from __future__ import annotations

import os
from typing import Any


class Ranks:
    """Which process this is, of how many. One process needs no process group."""

    def __init__(self) -> None:
        from accelerate import PartialState

        self._state = PartialState(cpu=not has_accelerator())
        self.rank: int = self._state.process_index
        self.processes: int = self._state.num_processes

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def agree(self, value: Any) -> Any:
        """What process 0 holds, on every process."""
        if self.processes == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def barrier(self) -> None:
        if self.processes > 1:
            self._state.wait_for_everyone()

    def total(self, *values: float) -> tuple[float, ...]:
        """The sum of each number over all processes, in double precision."""
        if self.processes == 1:
            return values
        from accelerate.utils import gather_object

        rows = gather_object([tuple(values)])
        return tuple(sum(column) for column in zip(*rows, strict=True))

    def greatest(self, value: float) -> float:
        """The greatest of the numbers of all processes."""
        if self.processes == 1:
            return value
        from accelerate.utils import gather_object

        return float(max(gather_object([value])))


def rank_of_environment() -> int:
    """The rank that the launcher gave this process, before any process group exists."""
    return int(os.environ.get("RANK", "0"))


def has_accelerator() -> bool:
    """Whether there is anything but the CPU to train on."""
    import torch

    return bool(torch.accelerator.is_available())
