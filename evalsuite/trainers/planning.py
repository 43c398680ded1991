"""What a trainer can say of a stage before any model is loaded: `plan(options, facts)` of its plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from evalsuite.trainers.types import SaveRule


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What is known of a stage. None: not known, as where the data is not there.

    `model` is the start's folder, or its hub id where it is not on this machine. `tokens` is of one epoch; without it
    the trainer may count those of `data`, the files that are there. `launch` is the accelerate config's name or path.
    `inputs` are the models of the stage's inputs, told like `model`.
    """

    rows: int | None = None
    tokens: int | None = None
    processes: int = 1
    model: str | None = None
    save: SaveRule = field(default_factory=SaveRule)
    launch: str | None = None
    data: tuple[str, ...] = ()
    inputs: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a stage comes to. Bytes are estimates for one process, None where the model's shape is not known.

    `state_bytes` holds weights, gradients and optimizer, `activation_bytes` what one forward and backward pass adds.
    `tokens` is of all epochs, overlong rows cut. `steps` are optimizer steps. `networks` says what `state_bytes` is for
    where that is more than one model, `beside` what else needs memory. Where a trainer generates its own examples,
    `iterations` says how often, `rollouts` how many each time for how many `prompts`; saves count iterations then.
    """

    rows: int | None
    steps: int | None
    warmup_steps: int | None
    tokens: int | None
    batch: int
    per_device_batch: int
    accumulation: int
    processes: int
    saves: int | None = None
    parameters: int | None = None
    state_bytes: int | None = None
    activation_bytes: int | None = None
    iterations: int | None = None
    rollouts: int | None = None
    prompts: int | None = None
    networks: str = ""
    beside: str = ""

    @property
    def memory_bytes(self) -> int | None:
        if self.state_bytes is None:
            return None
        return self.state_bytes + (self.activation_bytes or 0)


@runtime_checkable
class Planner(Protocol):
    """A trainer that can plan; one that cannot (`exec`) is shown without numbers."""

    def plan(self, options: Any, facts: PlanFacts) -> StagePlan: ...
