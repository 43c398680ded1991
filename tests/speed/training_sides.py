"""One training run on our side and one on TRL's, of the same rows in the same order: CPU-seconds and losses.

What is timed is the training loop alone: from its first step to the last one logged, without imports, reading and
tokenising of data, the pass of the reference model, and saving.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evalsuite.checkpoint import open_checkpoint
from evalsuite.trainers import Coupling, DataRef, SaveRule, TrainJob, read_events
from train_plugins.chat import load_tokenizer, tokenise
from train_plugins.order import Order
from train_plugins.settings import DPOOptions, SFTOptions

SEED = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU-seconds of the process in the training loop, the loss of every step, and tokens trained on."""

    cpu_s: float
    losses: tuple[float, ...]
    tokens: int = 0


@dataclass(slots=True)
class Watch:
    """Times the loop of a transformers trainer, as a callback would: from the first step to the end of the last."""

    begun: float = 0.0
    cpu_s: float = 0.0
    losses: list[float] = field(default_factory=list)


def ours(kind: Literal["sft", "dpo"], start: Path, data: Path, options: Any, out: Path) -> Measured:
    """The worker of a stage, in this process."""
    from train_plugins import dpo_worker, sft_worker
    from train_plugins.worker import Run

    out.mkdir(parents=True)
    job = TrainJob(
        stage=kind, start=open_checkpoint(start), data=(DataRef(path=str(data), location=str(data)),), out=out,
        seed=SEED, save=SaveRule(), options={}, coupling=Coupling("off"),
    )  # fmt: skip
    run = Run(job, options)
    {"sft": sft_worker.work, "dpo": dpo_worker.work}[kind](run)
    steps = [event for event in read_events(out / "events.jsonl") if event["kind"] == "step"]
    return Measured(steps[-1]["cpu_s"], tuple(float(step["loss"]) for step in steps), int(steps[-1]["tokens"]))


def trl_sft(start: Path, rows: Sequence[Mapping[str, Any]], options: SFTOptions, out: Path) -> Measured:
    """TRL's trainer on padded rows, given the ids and labels that ours trains on."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = load_tokenizer(start, options.chat_template)
    found = [tokenise(tokenizer, row["messages"], options.max_length) for row in rows]
    columns = [{"input_ids": list(found[i].ids), "labels": list(found[i].labels)} for i in _order(len(rows), options)]
    config = SFTConfig(**_arguments(out, options), packing=False)
    return _timed(SFTTrainer, _model(start), config, Dataset.from_list(columns), tokenizer)


def trl_dpo(
    start: Path, rows: Sequence[Mapping[str, Any]], options: DPOOptions, out: Path, *, known: bool = True
) -> Measured:
    """TRL's trainer on padded pairs; with `known` the reference's log-probabilities were computed beforehand."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tokenizer = load_tokenizer(start, options.chat_template)
    ordered = [rows[i] for i in _order(len(rows), options)]
    columns = [
        {"prompt": r["chosen"][:-1], "chosen": r["chosen"][-1:], "rejected": r["rejected"][-1:]} for r in ordered
    ]
    config = DPOConfig(
        **_arguments(out, options), loss_type="sigmoid_norm", beta=options.beta, precompute_ref_log_probs=known
    )
    return _timed(DPOTrainer, _model(start), config, Dataset.from_list(columns), tokenizer)


def _order(n_rows: int, options: Any) -> Iterator[int]:
    """The rows of all epochs in the order in which ours takes them."""
    order = Order(n_rows, options.batch, [(0, SEED)])
    for step in range(order.steps_per_epoch * options.epochs):
        yield from order.rows(step)


def _arguments(out: Path, options: Any) -> dict[str, Any]:
    return {
        "output_dir": str(out), "seed": SEED, "learning_rate": options.lr, "lr_scheduler_type": options.schedule,
        "warmup_steps": 0, "weight_decay": options.weight_decay, "adam_epsilon": options.adam_eps,
        "max_grad_norm": options.max_grad_norm or 0.0, "max_length": options.max_length,
        "per_device_train_batch_size": options.batch, "gradient_accumulation_steps": 1, "num_train_epochs": 1,
        "bf16": False, "use_cpu": True, "gradient_checkpointing": False, "logging_steps": 1, "save_strategy": "no",
        "report_to": [], "disable_tqdm": True,
    }  # fmt: skip


def _model(start: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, attn_implementation="sdpa")


def _timed(family: Any, model: Any, config: Any, dataset: Any, tokenizer: Any) -> Measured:
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    watch = Watch()

    class Times(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch.begun = time.process_time()

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
            if "loss" in logs:
                watch.losses.append(float(logs["loss"]))
                watch.cpu_s = time.process_time() - watch.begun

    class InOrder(family):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset)

    trainer = InOrder(model=model, args=config, train_dataset=dataset, processing_class=tokenizer, callbacks=[Times()])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return Measured(watch.cpu_s, tuple(watch.losses))


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
