"""Supervised fine-tuning, inside the worker process: `python -m train_plugins.sft_worker --job FILE`. Imports torch."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from evalsuite.errors import DataError
from train_plugins.chat import IGNORED, Tokenized, load_tokenizer
from train_plugins.driving import Step, StepWise, drive, load_causal, share, training_arguments
from train_plugins.losses import nll_of
from train_plugins.packing import first_fit_decreasing, logits_only_at, one_each, pack
from train_plugins.plan import divide_batch
from train_plugins.ranks import has_accelerator
from train_plugins.settings import SFTOptions
from train_plugins.tokenising import tokenise_all
from train_plugins.worker import Run, load_rows, main

CPU_PACK_TOKENS = 256  # attention is quadratic in a row's length, and a CPU gains nothing from longer ones


def work(run: Run) -> None:
    drive(make_trainer(run), run)


def make_trainer(run: Run) -> Supervised:
    """The trainer of a run with its data in it."""
    options: SFTOptions = run.options
    assert run.job.start is not None
    tokenizer = load_tokenizer(run.job.start.path, options.chat_template)
    examples = read_examples(run, tokenizer)
    feed = make_feed(options, examples, tokenizer.pad_token_id, run.processes)
    model = load_causal(run, tokenizer)
    arguments = SFTConfig(
        **training_arguments(options, run, len(feed), packing=False, loss_type="nll", router_aux_loss_coef=0.0,
                             dataset_kwargs={"skip_prepare_dataset": True})
    )  # fmt: skip
    # The feed has the data; TRL wants to see a row.
    row = Dataset.from_dict({"input_ids": [[tokenizer.eos_token_id]], "labels": [[IGNORED]]})
    trainer = Supervised(model=model, args=arguments, train_dataset=row, processing_class=tokenizer)
    trainer.set_feed(len(feed), feed, run)
    return trainer


class Supervised(StepWise, SFTTrainer):  # type: ignore[misc]
    """Every label token of a step weighs the same. On a GPU the loss is TRL's, whose fused head saves memory; on a CPU
    that head would compute the logits of all positions."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if has_accelerator() or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.pop("labels")[:, 1:]
        counts = torch.nn.functional.pad(labels != IGNORED, (0, 1)).flatten()
        with logits_only_at(self.accelerator.unwrap_model(model), counts.nonzero()[:, 0]):
            logits_NV = model(**inputs, use_cache=False).logits
        total, _ = nll_of(logits_NV, labels[labels != IGNORED])
        return total / num_items_in_batch * self.accelerator.num_processes


class Examples:
    """Tokenised conversations in flat arrays: a tuple of Python numbers takes nine times the room."""

    def __init__(self) -> None:
        self._ids, self._labels, self._ends = array("i"), array("i"), array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> Tokenized:
        place = slice(self._ends[i], self._ends[i + 1])
        return Tokenized(tuple(self._ids[place]), tuple(self._labels[place]))

    def add(self, example: Tokenized) -> None:
        self._ids.extend(example.ids)
        self._labels.extend(example.labels)
        self._ends.append(len(self._ids))


def read_examples(run: Run, tokenizer: Any) -> Examples:
    """The conversations of the job's data. What was cut or dropped is told as warnings."""
    options: SFTOptions = run.options
    rows = load_rows(run, "sft")
    examples, n_cut, n_unlabelled = Examples(), 0, 0
    conversations = [row["messages"] for row in rows]
    for example in tokenise_all(tokenizer, conversations, options.max_length, run.processes):
        n_cut += example.truncated
        if example.truncated and options.overlong == "drop":
            continue
        if not example.n_labels:
            n_unlabelled += 1
            continue
        examples.add(example)
    if n_cut:
        done = "cut" if options.overlong == "cut" else "dropped"
        run.warn("overlong", f"{n_cut} of {len(rows)} rows are longer than {options.max_length} tokens and were {done}")
    if n_unlabelled:
        run.warn("no_labels", f"{n_unlabelled} of {len(rows)} rows have no answer left in {options.max_length} tokens "
                 "and were dropped")  # fmt: skip
    if not len(examples):
        raise DataError(f"all {len(rows)} rows were dropped: no answer in {options.max_length} tokens; raise it")
    return examples


class ExactFeed:
    """Packs the examples of one step, and no others, into rows of at most `capacity` tokens."""

    def __init__(self, options: SFTOptions, examples: Examples, pad_id: int, capacity: int, per_pass: int) -> None:
        self.options, self.examples, self.pad_id = options, examples, pad_id
        self.capacity, self.per_pass = capacity, per_pass

    def __len__(self) -> int:
        return len(self.examples)

    def __call__(self, rows: Sequence[int], rank: int, processes: int) -> Step:
        found = [self.examples[i] for i in rows]
        lengths = [len(example.ids) for example in found]
        bins = first_fit_decreasing(lengths, self.capacity)
        bins = tuple(sorted(bins, key=lambda row: -sum(lengths[i] for i in row)))  # rows of one pass are alike
        passes = (pack(found, part, self.pad_id) if part else _nothing(self.pad_id)
                  for part in share(bins, rank, processes, self.per_pass))  # fmt: skip
        return Step(tuple(passes), _items(self.options, found), sum(lengths))


class PaddedFeed:
    """Pads the examples of one step, those of like length together."""

    def __init__(self, options: SFTOptions, examples: Examples, pad_id: int, per_pass: int) -> None:
        self.options, self.examples, self.pad_id, self.per_pass = options, examples, pad_id, per_pass

    def __len__(self) -> int:
        return len(self.examples)

    def __call__(self, rows: Sequence[int], rank: int, processes: int) -> Step:
        found = sorted((self.examples[i] for i in rows), key=lambda example: -len(example.ids))
        passes = (self._pad(part) for part in share(found, rank, processes, self.per_pass))
        return Step(tuple(passes), _items(self.options, found), sum(len(example.ids) for example in found))

    def _pad(self, part: Sequence[Tokenized]) -> dict[str, Tensor]:
        if not part:
            return _nothing(self.pad_id)
        packed = pack(part, one_each(len(part)), self.pad_id)
        width = packed["input_ids"].shape[1]
        lengths_R = torch.tensor([len(example.ids) for example in part])
        mask = (torch.arange(width) < lengths_R[:, None]).long()
        return {"input_ids": packed["input_ids"], "labels": packed["labels"], "attention_mask": mask}


class GroupedFeed:
    """TRL's packing of the whole data set: a row of the order is one of its packed rows."""

    def __init__(self, options: SFTOptions, groups: Sequence[Sequence[Tokenized]], pad_id: int, per_pass: int) -> None:
        self.options, self.groups, self.pad_id, self.per_pass = options, groups, pad_id, per_pass

    def __len__(self) -> int:
        return len(self.groups)

    def __call__(self, rows: Sequence[int], rank: int, processes: int) -> Step:
        found = [self.groups[i] for i in rows]
        flat = [example for group in found for example in group]
        passes = (self._pack(part) for part in share(found, rank, processes, self.per_pass))
        return Step(tuple(passes), _items(self.options, flat), sum(len(example.ids) for example in flat))

    def _pack(self, part: Sequence[Sequence[Tokenized]]) -> dict[str, Tensor]:
        if not part:
            return _nothing(self.pad_id)
        flat = [example for group in part for example in group]
        numbers = iter(range(len(flat)))
        return pack(flat, [[next(numbers) for _ in group] for group in part], self.pad_id)


def make_feed(
    options: SFTOptions, examples: Examples, pad_id: int, processes: int
) -> ExactFeed | PaddedFeed | GroupedFeed:
    """What makes the steps: `per_device_batch` examples of `max_length` bound the tokens of one pass."""
    per_device, _ = divide_batch(options.batch, options.per_device_batch, processes)
    if options.packing == "none":
        return PaddedFeed(options, examples, pad_id, per_device)
    if options.packing == "dataset":
        return GroupedFeed(options, _packed_by_trl(options, examples), pad_id, per_device)
    budget = per_device * options.max_length
    if options.attention == "flash_attention_2":  # it reads borders in a single row only, and its cost is linear
        return ExactFeed(options, examples, pad_id, options.pack_tokens or budget, 1)
    default = options.max_length if has_accelerator() else min(CPU_PACK_TOKENS, options.max_length)
    capacity = options.pack_tokens or default
    return ExactFeed(options, examples, pad_id, capacity, max(1, budget // capacity))


def _packed_by_trl(options: SFTOptions, examples: Examples) -> list[list[Tokenized]]:
    from trl import pack_dataset

    every = [examples[i] for i in range(len(examples))]
    columns = {"input_ids": [list(e.ids) for e in every], "labels": [list(e.labels) for e in every]}
    packed = pack_dataset(Dataset.from_dict(columns), options.pack_tokens or options.max_length, "bfd")
    groups = []
    for row in packed:
        group, start = [], 0
        for length in row["seq_lengths"]:
            end = start + length
            group.append(Tokenized(tuple(row["input_ids"][start:end]), tuple(row["labels"][start:end])))
            start = end
        groups.append(group)
    return groups


def _items(options: SFTOptions, examples: Sequence[Tokenized]) -> int:
    """What the summed loss is divided by: all label tokens of the step, 1 for `loss_scale: sum`."""
    return 1 if options.loss_scale == "sum" else sum(example.n_labels for example in examples)


def _nothing(pad_id: int) -> dict[str, Tensor]:
    """A pass in which nothing counts, for a process that has no example left in a step."""
    return {
        "input_ids": torch.full((1, 2), pad_id),
        "position_ids": torch.arange(2)[None],
        "labels": torch.full((1, 2), IGNORED),
    }


if __name__ == "__main__":
    sys.exit(main(SFTOptions, work))
