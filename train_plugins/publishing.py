"""One save of a run: state, checkpoint, event, in this order, each only where it is not there yet. Worker only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalsuite.checkpoint import open_checkpoint
from evalsuite.errors import DiskFull
from train_plugins.models import check_same, is_adapted, is_sharded, write_model
from train_plugins.pinning import require_room, size_of, temporary_folder
from train_plugins.saving import COUNTERS, Point, fault, finish, naming_a_full_disk, prune_states, step_name, write_json

if TYPE_CHECKING:
    from train_plugins.steering import Steering
    from train_plugins.worker import Run

MOMENTS = 8  # bytes of AdamW's two moments for a trained parameter


class Saver:
    """Saves the trainer of a run at the step where it is. Every process calls it.

    A trainer has `write_state(folder)`, called on every process, and what `train_plugins.models.write_model` asks for.
    """

    def __init__(self, trainer: Any, run: Run, steering: Steering, at_save: Callable[[], Mapping[str, float]]) -> None:
        self.trainer, self.run, self.steering, self.at_save = trainer, run, steering, at_save

    def save(self) -> None:
        """Raises DiskFull before anything is begun where it would not fit, CheckpointError for weights with NaN."""
        run = self.run
        name = step_name(run.step_now, run.attempt)
        path = f"checkpoints/{name}"
        if any(event["kind"] == "checkpoint" and event["path"] == path for event in run.events):
            return
        measured = {key: float(value) for key, value in self.at_save().items()}
        run.metrics = {**run.metrics, **measured}
        state, checkpoint = run.out / "state" / name, run.out / "checkpoints" / name
        self._require_room()
        with naming_a_full_disk(run.out):
            if not run.ranks.agree(state.is_dir()):
                self._write_state(state)
            if not run.ranks.agree(checkpoint.is_dir()):
                self._write_checkpoint(checkpoint, state)
        digest = run.ranks.agree(open_checkpoint(checkpoint).digest if run.is_main else "")
        run.add("checkpoint", step=run.step_now, attempt=run.attempt, path=path, digest=digest, tokens=run.tokens,
                **measured)  # fmt: skip
        fault("event-appended")
        run.point = Point(name, run.step_now, run.attempt, state)
        if run.is_main:
            prune_states(run.out, self.steering.may_be_needed)
        run.ranks.barrier()

    def _write_state(self, final: Path) -> None:
        """Every process its own part: RNG always, weights and optimizer where they are sharded."""
        run, trainer = self.run, self.trainer
        folder = Path(run.ranks.agree(str(temporary_folder(final.parent)) if run.is_main else ""))
        trainer.write_state(folder)
        if run.is_main:
            write_json(folder / COUNTERS, run.counters())
        run.ranks.barrier()
        if run.is_main:
            finish(folder, final, "state")
        run.ranks.barrier()

    def _write_checkpoint(self, final: Path, state: Path) -> None:
        run, options = self.run, self.run.options
        folder = Path(run.ranks.agree(str(temporary_folder(final.parent)) if run.is_main else ""))
        tokenizer = self.trainer.processing_class
        write_model(self.trainer, tokenizer, folder, options.dtype, state, adapter=options.save_adapter)
        if run.is_main:
            checkpoint = open_checkpoint(folder)
            if not any(event["kind"] == "checkpoint" for event in run.events) and not is_sharded(self.trainer):
                check_same(self.trainer, tokenizer, folder, options.dtype)
            write_json(folder / "evalsuite.json", {**run.facts(), "digest": checkpoint.digest})
            finish(folder, final, "checkpoint")
        run.ranks.barrier()

    def _require_room(self) -> None:
        """Process 0 looks, all of them stop."""
        run, why = self.run, ""
        if run.is_main:
            try:
                require_room(run.out, self._size())
            except DiskFull as error:
                why = str(error)
        why = run.ranks.agree(why)
        if why:
            run.warn("disk", why)
            raise DiskFull(why)

    def _size(self) -> int:
        """Bytes of a save: those of the last one, before the first what the model's size says."""
        last = self.run.point
        if last is not None:
            places = [self.run.out / kind / last.name for kind in ("state", "checkpoints")]
            return size_of(*(place for place in places if place.is_dir()))
        model = self.trainer.model
        weights: int = sum(p.numel() for p in model.parameters())
        trained: int = sum(p.numel() for p in model.parameters() if p.requires_grad)
        stored = 2 if self.run.options.dtype == "bfloat16" else 4
        own = trained if is_adapted(model) else weights
        linked = stored == 4 and not is_adapted(model)
        more: int = getattr(self.trainer, "more_bytes", 0)
        return MOMENTS * trained + 4 * own + (0 if linked else stored * weights) + more
