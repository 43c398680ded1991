"""Drives a trainer of transformers or TRL under a `Run`. For the worker process: torch is imported with it.

A trainer of ours is `class SFT(StepWise, SFTTrainer)`. Its data loader gives one item for each optimizer step, so which
examples a step holds depends on nothing but the seed: not on processes, accumulation or packing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from evalsuite.errors import CheckpointError, TrainerFailed
from train_plugins.arguments import training_arguments as training_arguments
from train_plugins.models import is_adapted, is_sharded
from train_plugins.models import load_causal as load_causal
from train_plugins.order import Order
from train_plugins.order import share as share
from train_plugins.plan import saves_of
from train_plugins.publishing import Saver
from train_plugins.saving import Point
from train_plugins.steering import Action, Steering

if TYPE_CHECKING:
    from torch import Tensor

    from train_plugins.worker import Run

NAMES = {"learning_rate": "lr"}  # transformers' names of metrics, and ours


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
    """Makes a step of its rows (indices, in order). Every process is given the same rows and takes its own share
    (`share`)."""

    def __call__(self, rows: Sequence[int], rank: int, processes: int) -> Step: ...


class StepWise:
    """Goes before a trainer's class. `set_feed(n_rows, feed, run)` after making it and before `drive`.

    `compute_loss(model, inputs, num_items_in_batch=n)` of the trainer has to return this process's sum / n * processes
    (gradients are averaged over processes), as TRL's SFTTrainer does. `n` is `Step.n_items`. A pass may have nothing
    that counts, where another process had one row more; its loss has to be a zero with gradients.
    """

    accelerator: Any
    args: Any
    loss_is_scaled_for_ga = True  # transformers divides losses that are not by the number of passes

    def set_feed(self, n_rows: int, feed: Feed, run: Run) -> None:
        self._n_rows, self._feed, self._run = n_rows, feed, run

    @property
    def n_rows(self) -> int:
        return self._n_rows

    def get_train_dataloader(self) -> Any:
        run = self._run
        order = Order(self._n_rows, run.options.batch, run.shuffles)

        def build(numbers: Sequence[int]) -> Step:
            return self._feed(order.rows(numbers[0]), run.rank, run.processes)

        # A list of step numbers: skipping those of an earlier start costs nothing.
        return DataLoader(range(self.args.max_steps), batch_size=1, shuffle=False, collate_fn=build)  # type: ignore[arg-type]

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> Tensor:
        """All passes of a step; processes exchange gradients in the last one only."""
        total: Any = 0.0
        for i, part in enumerate(inputs.passes):
            last = i == len(inputs.passes) - 1
            self.accelerator.gradient_state._set_sync_gradients(last)
            with nullcontext() if last else self.accelerator.no_sync(model):
                total = total + super().training_step(model, dict(part), inputs.n_items)  # type: ignore[misc]
        self._run.tokens += inputs.n_tokens
        return total  # type: ignore[no-any-return]

    def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> None:
        """A step brings its number along."""

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def write_state(self, folder: Path) -> None:
        """Optimizer, schedule and random numbers of every process; the weights where they are not sharded."""
        trainer: Any = self
        trainer._save_optimizer_and_scheduler(str(folder))
        trainer._save_scaler(str(folder))
        trainer._save_rng_state(str(folder))
        if self._run.is_main:
            if not is_sharded(trainer):
                self.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
            trainer.state.log_history = []
            trainer.state.save_to_json(str(folder / "trainer_state.json"))


class _Halt(Exception):
    """Leaves the trainer before its first step."""


class _Driver(TrainerCallback):  # type: ignore[misc]
    """The run's part of a training loop: it decides when the trainer logs, saves and ends."""

    def __init__(self, trainer: Any, run: Run, at_save: Callable[[], Mapping[str, float]] | None) -> None:
        self.trainer, self.run = trainer, run
        self.steering = Steering(run)
        self.saver = Saver(trainer, run, self.steering, at_save or dict)
        self.saves = frozenset(saves_of(trainer.n_rows, run.options, run.job.save))
        self.action = Action("go")

    # -- called by the trainer --

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.run.restart_clock()
        if self.run.point is not None and self.run.point.rollback is None:
            self.saver.save()  # what a kill left undone; nothing where all is there
            self.action = self.steering.wait(final=state.global_step >= self.run.total_steps)
            if self.action.kind != "go":
                raise _Halt

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        run = self.run
        run.step_now = step = state.global_step
        state.epoch = step / run.steps_per_epoch
        self.action = self.steering.look()
        saves = step in self.saves
        control.should_save = saves and self.action.kind == "go"
        # Losses are averaged since the last log: one at each save makes that the same after a resume.
        control.should_log = step % run.options.log_every == 0 or saves
        if self.action.kind != "go":
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self._check_finite("loss", logs["loss"])
        self.run.step({NAMES.get(name, name): value for name, value in logs.items()})

    def save(self, model: Any, trial: Any) -> None:
        """In place of the trainer's `_save_checkpoint`, which writes under the final name."""
        self.saver.save()
        self.action = self.steering.wait(final=self.run.step_now >= self.run.total_steps)
        if self.action.kind != "go":
            self.trainer.control.should_training_stop = True

    # -- around the trainer --

    def attach(self) -> None:
        trainer = self.trainer
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        trainer.add_callback(self)
        trainer._save_checkpoint = self.save
        load, norm = trainer._load_optimizer_and_scheduler, trainer._get_grad_norm

        def load_and_adjust(folder: Any) -> None:
            load(folder)
            self._scale_lr()

        def norm_if_finite(model: Any, grad_norm: Any = None) -> Any:
            found = norm(model, grad_norm=grad_norm)
            if found is not None:  # before the optimizer's step, so the weights are still good
                self._check_finite("the gradient's norm", float(found))
            return found

        trainer._load_optimizer_and_scheduler, trainer._get_grad_norm = load_and_adjust, norm_if_finite

    def train(self) -> None:
        """To the end, through as many rollbacks as come."""
        run = self.run
        while True:
            self.action = Action("go")
            try:
                self.trainer.train(resume_from_checkpoint=str(run.point.folder) if run.point else None)
            except _Halt:
                self.trainer.is_in_train = False
            if self.action.kind != "rollback":
                break
            run.take_up(run.ranks.agree(self.action.point))
        run.end("stopped" if self.action.kind == "stop" else "finished")

    def _scale_lr(self) -> None:
        """The learning rate of a rollback; what is saved later holds it already."""
        point: Point | None = self.run.point
        adjust = (point.rollback or {}).get("adjust") or {} if point else {}
        scale = float(adjust.get("lr_scale", 1.0))
        if scale == 1.0:
            return
        scheduler = self.trainer.lr_scheduler
        scheduler.base_lrs = [rate * scale for rate in scheduler.base_lrs]
        scheduler._last_lr = [rate * scale for rate in scheduler._last_lr]  # what the next step is logged with
        for group in self.trainer.optimizer.param_groups:
            group["lr"] *= scale
            group["initial_lr"] = group.get("initial_lr", group["lr"]) * scale

    def _check_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        last = self.run.point.name if self.run.point else "none"
        published = [str(e["path"]) for e in self.run.events if e["kind"] == "checkpoint"]
        raise TrainerFailed(
            f"{what} is {value} at step {self.run.step_now + (what != 'loss')}: the training diverged; the last good "
            f"checkpoint is {published[-1] if published else last}; try a lower lr, a warm-up or max_grad_norm: 1.0"
        )


def drive(trainer: Any, run: Run, at_save: Callable[[], Mapping[str, float]] | None = None) -> None:
    """Trains to the end, or to where the control file says: checkpoints, events, resume. `at_save` is called on every
    process before a save; what it returns is written into the checkpoint and its event.
    """
    if is_sharded(trainer) and is_adapted(trainer.model) and trainer.is_deepspeed_enabled:
        run.warn("unmeasured", "adapters under DeepSpeed have never been run by us")
    order = Order(trainer.n_rows, run.options.batch, run.shuffles)
    run.total_steps, run.steps_per_epoch = int(trainer.args.max_steps), order.steps_per_epoch
    driver = _Driver(trainer, run, at_save)
    driver.attach()
    try:
        driver.train()
    except CheckpointError as error:
        raise TrainerFailed(f"step {run.step_now}: what was to be published is no good checkpoint: {error}") from error
