"""How many steps, how long a warm-up, how a batch is divided: the one place of this arithmetic, in plan and worker."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from evalsuite.errors import UsageError
from evalsuite.trainers.planning import PlanFacts, StagePlan
from evalsuite.trainers.types import SaveRule
from train_plugins.memory import Layout, estimate, model_shape, sharding
from train_plugins.settings import DPOOptions, RMOptions, TrainingOptions
from train_plugins.tokens import tokens_of

__all__ = [
    "PlanFacts", "StagePlan", "divide_batch", "plan_stage", "saves_of", "steps_of", "steps_per_epoch", "warmup_of",
]  # fmt: skip

MOST = 8
"""Examples of one forward pass when `per_device_batch` says nothing, or as many of them as divide the share."""


def plan_stage(kind: Literal["sft", "rm", "dpo"], options: TrainingOptions, facts: PlanFacts) -> StagePlan:
    """The plan of a stage; no model is loaded. Raises UsageError when the batch does not divide."""
    if isinstance(options, RMOptions) and facts.rows is not None:
        facts = replace(facts, rows=facts.rows - round(facts.rows * options.held_out))
    per_device, accumulation = divide_batch(options.batch, options.per_device_batch, facts.processes)
    steps = None if facts.rows is None else steps_of(facts.rows, options)
    if facts.tokens is None and facts.rows and facts.data and facts.model is not None:
        facts = replace(facts, tokens=tokens_of(facts.data, facts.rows, facts.model, options.max_length))
    shape = model_shape(facts.model) if facts.model is not None else None
    state = activations = None
    if shape is not None:
        layout = Layout(facts.processes, sharding(facts.launch), per_device, sides=1 if kind == "sft" else 2)
        # With a cache the reference is gone before training begins, and the reward model needs none.
        frozen = isinstance(options, DPOOptions) and not options.reference_cache and options.loss != "simpo"
        memory = estimate(shape, options, layout, reference=frozen, head=not isinstance(options, RMOptions))
        state, activations = memory.state_bytes, memory.activation_bytes
    return StagePlan(
        rows=facts.rows,
        steps=steps,
        warmup_steps=None if steps is None else warmup_of(steps, options),
        tokens=_tokens(facts, steps, options),
        batch=options.batch,
        per_device_batch=per_device,
        accumulation=accumulation,
        processes=facts.processes,
        saves=None if steps is None or not facts.rows else len(saves_of(facts.rows, options, facts.save)),
        parameters=None if shape is None else shape.parameters,
        state_bytes=state,
        activation_bytes=activations,
    )


def steps_per_epoch(rows: int, batch: int) -> int:
    """Optimizer steps of one pass over the rows; the last one may be short, as in open-instruct."""
    return -(-rows // batch)


def steps_of(rows: int, options: TrainingOptions) -> int:
    """Optimizer steps of the whole run, `max_steps` at most. The schedule is as long."""
    steps = steps_per_epoch(rows, options.batch) * options.epochs
    return steps if options.max_steps is None else min(steps, options.max_steps)


def warmup_of(steps: int, options: TrainingOptions) -> int:
    """Warm-up steps, rounded down as open-instruct does (transformers 5 rounds up: 441, not 440, for the 8B SFT)."""
    return int(steps * options.warmup_ratio)


def saves_of(rows: int, options: TrainingOptions, save: SaveRule) -> tuple[int, ...]:
    """The steps after which a checkpoint is saved, in order; the last step always is one."""
    steps, epoch = steps_of(rows, options), steps_per_epoch(rows, options.batch)
    at = {*save.at, steps}
    at |= set(range(save.steps, steps + 1, save.steps)) if save.steps else set()
    at |= set(range(save.epochs * epoch, steps + 1, save.epochs * epoch)) if save.epochs and epoch else set()
    return tuple(sorted(step for step in at if 0 < step <= steps))


def divide_batch(batch: int, per_device: int | None, processes: int) -> tuple[int, int]:
    """(examples of one forward pass on one process, passes per optimizer step); their product and the processes is
    `batch`. Raises UsageError with the nearest batches that divide."""
    unit = processes * (per_device or 1)
    if batch % unit:
        low = batch // unit * unit
        nearest = " and ".join(str(n) for n in (low, low + unit) if n)
        by = f"{processes} process{'es' * (processes != 1)}"
        by += f" x {per_device} per device" if per_device else ""
        raise UsageError(f"batch {batch} does not divide by {by}; the nearest that do: {nearest}")
    share = batch // processes
    if per_device is None:
        per_device = max(n for n in range(1, min(MOST, share) + 1) if share % n == 0)
    return per_device, share // per_device


def _tokens(facts: PlanFacts, steps: int | None, options: TrainingOptions) -> int | None:
    """Tokens of all steps, as if rows were alike: `max_steps` may cut the last epoch short."""
    if facts.tokens is None or not facts.rows or steps is None:
        return None
    seen = min(steps * options.batch, facts.rows * options.epochs)
    return round(facts.tokens * seen / facts.rows)
