"""Drives a trainer of transformers or TRL under a `Run`. For the worker process alone: torch is imported with it.

A trainer of ours is `class SFT(StepWise, SFTTrainer)`. Its data loader gives one item for each optimizer step, so which
examples a step holds depends on nothing but the seed: not on processes, accumulation or packing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from train_plugins.settings import TrainingOptions

if TYPE_CHECKING:
    from torch import Tensor

    from train_plugins.worker import Run


@dataclass(frozen=True, slots=True)
class Step:
    """What one process does in one optimizer step: forward and backward passes, as many as every other process does.

    `n_items` is what the loss is divided by: label tokens, or pairs, of the whole step on all processes. `n_tokens`
    counts the tokens of the step, without padding, on all processes.
    """

    passes: tuple[Mapping[str, Any], ...]
    n_items: int
    n_tokens: int


class Feed(Protocol):
    """Makes a step of its rows (indices, in order). Every process is given the same rows and takes its own share."""

    def __call__(self, rows: Sequence[int], rank: int, processes: int) -> Step: ...


class StepWise:
    """Goes before a trainer's class. `set_feed(n_rows, feed)` after making it and before `drive`.

    `compute_loss(model, inputs, num_items_in_batch=n)` of the trainer has to return this process's sum / n * processes
    (gradients are averaged over processes), as TRL's SFTTrainer does. `n` is `Step.n_items`.
    """

    def set_feed(self, n_rows: int, feed: Feed) -> None:
        raise NotImplementedError


def training_arguments(options: TrainingOptions, run: Run, n_rows: int, **more: Any) -> dict[str, Any]:
    """Keyword arguments of SFTConfig, DPOConfig or RewardConfig: every value that changes numbers, none inherited."""
    raise NotImplementedError


def drive(trainer: Any, run: Run, at_save: Callable[[], Mapping[str, float]] | None = None) -> None:
    """Trains to the end, or to where the control file says: checkpoints, events, resume. `at_save` is called on every
    process before a save; what it returns is written into the checkpoint and its event.
    """
    raise NotImplementedError


def load_causal(run: Run, tokenizer: Any) -> Any:
    """The start of the run for training: resized to the tokenizer, with adapters where the options say so."""
    raise NotImplementedError


def summed(run: Run, values: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    raise NotImplementedError
