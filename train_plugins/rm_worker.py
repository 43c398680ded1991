"""Reward model, inside the worker process: `python -m train_plugins.rm_worker --job FILE`. Imports torch."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from evalsuite.errors import DataError
from train_plugins.chat import load_tokenizer
from train_plugins.driving import Step, StepWise, drive, share, training_arguments
from train_plugins.losses import reward_pair_loss
from train_plugins.models import is_adapted, load_model
from train_plugins.plan import divide_batch
from train_plugins.settings import RMOptions
from train_plugins.tokenising import tokenise_all
from train_plugins.worker import Run, load_rows, main


@dataclass(frozen=True, slots=True)
class Pair:
    """Both conversations as token ids."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def work(run: Run) -> None:
    trainer, held_out = make_trainer(run)
    drive(trainer, run, lambda: trainer.measure(held_out))


def make_trainer(run: Run) -> tuple[Rewarding, PairFeed]:
    """The trainer of a run with its data in it, and the pairs that were held out."""
    options: RMOptions = run.options
    assert run.job.start is not None
    tokenizer = load_tokenizer(run.job.start.path, options.chat_template)
    pairs, held_out = read_pairs(run, tokenizer)
    per_device, _ = divide_batch(options.batch, options.per_device_batch, run.processes)
    feed = PairFeed(pairs, tokenizer.pad_token_id, per_device)
    model = load_model(run, tokenizer, AutoModelForSequenceClassification, "SEQ_CLS", num_labels=1)
    initialise_head(model, run.job.seed)
    more = {"center_rewards_coefficient": None, "disable_dropout": True}
    row = Dataset.from_dict({"chosen_ids": [[tokenizer.eos_token_id]], "rejected_ids": [[tokenizer.eos_token_id]]})
    trainer = Rewarding(
        model=model,
        args=RewardConfig(**training_arguments(options, run, len(pairs), **more)),
        train_dataset=row,  # the feed has the data; TRL wants to see a row
        processing_class=tokenizer,
    )
    trainer.set_feed(len(pairs), feed, run)
    return trainer, PairFeed(held_out, tokenizer.pad_token_id, per_device)


class Rewarding(StepWise, RewardTrainer):  # type: ignore[misc]
    """Every pair of a step weighs the same; accuracy and margin are over all pairs since the last log."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._seen = torch.zeros(3, dtype=torch.float64)  # pairs, right ones, sum of margins

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """All of them: open-instruct hands every parameter to AdamW (at 9c2d44b, reward_modeling.py); transformers
        leaves norms and biases out."""
        return [name for name, _ in model.named_parameters()]

    def get_train_dataloader(self) -> Any:
        self._seen.zero_()  # a rollback leaves passes behind that nothing logged
        return super().get_train_dataloader()

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        chosen_B, rejected_B = _rewards(model, inputs)
        self._seen += _counts(chosen_B, rejected_B, inputs["weights"])
        total = (reward_pair_loss(chosen_B, rejected_B) * inputs["weights"]).sum()
        return total / num_items_in_batch * self.accelerator.num_processes

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(_means("", self._run.ranks.total(*self._seen.tolist())))
            self._seen.zero_()
        super().log(logs, start_time)

    def measure(self, feed: PairFeed) -> dict[str, float]:
        """Accuracy and mean margin on the pairs that were held out; {} where there are none."""
        if not feed.pairs:
            return {}
        run, model = self._run, self.model_wrapped
        was_training, seen = model.training, torch.zeros(3, dtype=torch.float64)
        model.eval()
        with torch.no_grad():
            for part in feed(range(len(feed.pairs)), run.rank, run.processes).passes:
                inputs = self._prepare_inputs(dict(part))
                seen += _counts(*_rewards(model, inputs), inputs["weights"])
        model.train(was_training)
        return _means("held_out_", run.ranks.total(*seen.tolist()))


class PairFeed:
    """Steps of pairs, padded; those of like length together. A pass is the chosen sides, then the rejected ones."""

    def __init__(self, pairs: Sequence[Pair], pad_id: int, per_pass: int) -> None:
        self.pairs, self.pad_id, self.per_pass = pairs, pad_id, per_pass

    def __call__(self, rows: Sequence[int], rank: int, processes: int) -> Step:
        found = sorted((self.pairs[i] for i in rows), key=lambda pair: -max(len(pair.chosen), len(pair.rejected)))
        passes = tuple(self._pad(part) for part in share(found, rank, processes, self.per_pass))
        return Step(passes, len(found), sum(len(pair.chosen) + len(pair.rejected) for pair in found))

    def _pad(self, part: Sequence[Pair]) -> dict[str, Tensor]:
        sides = [pair.chosen for pair in part] + [pair.rejected for pair in part]
        weight = 1.0 if part else 0.0
        # A model looks for the last id that is no padding, so a pass without pairs has another one in it.
        sides = sides or [(int(self.pad_id == 0),)] * 2
        width = max(map(len, sides))
        ids = torch.tensor([[*side, *[self.pad_id] * (width - len(side))] for side in sides])
        mask = torch.tensor([[1] * len(side) + [0] * (width - len(side)) for side in sides])
        return {"input_ids": ids, "attention_mask": mask, "weights": torch.full((len(sides) // 2,), weight)}


def read_pairs(run: Run, tokenizer: Any) -> tuple[list[Pair], list[Pair]]:
    """(pairs to train on, pairs held out by the hash of their prompt). A pair that is too long is dropped, as in Tülu
    3, and their number is told as a warning."""
    options: RMOptions = run.options
    rows = load_rows(run, "preference")
    train: list[Pair] = []
    held_out: list[Pair] = []
    sides = [row[side] for row in rows for side in ("chosen", "rejected")]
    tokenised = tokenise_all(tokenizer, sides, options.max_length, run.processes)
    for row, chosen, rejected in zip(rows, tokenised, tokenised, strict=True):
        if not (chosen.truncated or rejected.truncated):
            place = held_out if is_held_out(row["chosen"][:-1], options.held_out) else train
            place.append(Pair(chosen.ids, rejected.ids))
    n_long = len(rows) - len(train) - len(held_out)
    if n_long:
        run.warn(
            "overlong", f"{n_long} of {len(rows)} pairs are longer than {options.max_length} tokens and were dropped"
        )
    if options.held_out and not held_out:
        run.warn("no_held_out", f"no prompt of {len(rows)} pairs was held out; no accuracy is measured")
    if not train:
        left = f"no pair of {len(rows)} is left to train on: {n_long} are longer than max_length {options.max_length}"
        raise DataError(f"{left}, {len(held_out)} are held out; raise max_length or lower held_out")
    return train, held_out


def is_held_out(prompt: Sequence[Mapping[str, Any]], fraction: float) -> bool:
    """Whether the pairs of this prompt are for measuring: by its hash, so all of them are, whatever the order."""
    text = json.dumps([(m["role"], m["content"]) for m in prompt], ensure_ascii=False)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def initialise_head(model: Any, seed: int) -> None:
    """Normal with standard deviation 1/√(hidden + 1) (open-instruct at 9c2d44b, reward_modeling.py)."""
    head = (model.get_base_model() if is_adapted(model) else model).score
    generator = torch.Generator().manual_seed(seed)
    weights = [head.modules_to_save["default"].weight] if hasattr(head, "modules_to_save") else [head.weight]
    for weight in weights:
        drawn = torch.randn(weight.shape, generator=generator) / (weight.shape[1] + 1) ** 0.5
        with torch.no_grad():
            weight.copy_(drawn)


def _rewards(model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
    rewards = logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32))
    chosen_B, rejected_B = rewards.chunk(2)
    return chosen_B, rejected_B


def _counts(chosen_B: Tensor, rejected_B: Tensor, weights_B: Tensor) -> Tensor:
    """(pairs, right ones, sum of margins), on the CPU."""
    margin_B = (chosen_B - rejected_B).detach()
    counts = (weights_B.sum(), ((margin_B > 0) * weights_B).sum(), (margin_B * weights_B).sum())
    return torch.stack(counts).double().cpu()


def _means(prefix: str, counts: Sequence[float]) -> dict[str, float]:
    n, n_right, margins = counts
    return {f"{prefix}accuracy": n_right / n, f"{prefix}margin": margins / n} if n else {}


if __name__ == "__main__":
    sys.exit(main(RMOptions, work))
