"""Pairs as token ids, and the batches that an optimizer step is made of. For the worker process: imports torch."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from evalsuite.errors import UsageError
from train_plugins.chat import TokenizedPair
from train_plugins.driving import Step, share
from train_plugins.packing import (
    first_fit_decreasing,
    fits_shared_prompt,
    one_each,
    packed_pair_rows,
    shared_prompt_rows,
)
from train_plugins.plan import divide_batch
from train_plugins.refcache import ReferenceLogprobs
from train_plugins.settings import DPOOptions

Layout = Literal["shared_prompt", "packed", "padded"]
MASKS = ("sdpa", "eager", "flex_attention")  # kernels that take a mask of our own


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair as token ids; `name` is its row's id, `key` its key in the reference cache (b"" without one)."""

    name: str
    tokens: TokenizedPair
    key: bytes = b""


def compact(pair: TokenizedPair) -> TokenizedPair:
    """The same pair in 4 bytes a number: tuples of ints take ten times that, and data sets have 10^8 tokens."""
    names = ("prompt", "chosen", "rejected", "prompt_labels", "chosen_labels", "rejected_labels")
    return replace(pair, **{name: cast("Any", array("i", getattr(pair, name))) for name in names})


def pair_parts(pair: TokenizedPair) -> tuple[Sequence[int], ...]:
    """The ids and labels of a pair in fixed order, of which its key in the cache is made."""
    labels = (pair.prompt_labels, pair.chosen_labels, pair.rejected_labels)
    return (pair.prompt, pair.chosen, pair.rejected, *labels)


def choose_layout(options: DPOOptions, config: Any) -> Layout:
    """The layout that a run uses. Raises UsageError where the one that is asked for cannot be right for the model."""
    fits = options.attention in MASKS and fits_shared_prompt(config, options.max_length)
    if options.layout == "shared_prompt" and not fits:
        why = f"attention {options.attention}" if options.attention not in MASKS else f"{config.model_type}'s layers"
        raise UsageError(f"layout shared_prompt cannot be used with {why}; use layout: packed, or auto")
    if options.layout != "auto":
        return options.layout
    if fits:
        return "shared_prompt"
    kinds = set(getattr(config, "layer_types", None) or ())
    return "packed" if kinds <= {"full_attention", "sliding_attention"} else "padded"


class PairFeed:
    """Rows of pairs, as `driving.Feed` wants them. `references` are added once they are known."""

    def __init__(self, pairs: Sequence[Pair], layout: Layout, options: DPOOptions, pad_id: int) -> None:
        self.pairs = pairs
        self.layout = layout
        self.references: Sequence[ReferenceLogprobs] | None = None
        self.options = options
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[int], rank: int, processes: int) -> Step:
        """This process's share of the step's pairs, like lengths in one pass, so that little is padded."""
        options = self.options
        per_pass, _ = divide_batch(options.batch, options.per_device_batch, processes)
        by_length = sorted(rows, key=lambda i: self.pairs[i].tokens.n_tokens)
        cuts = share(by_length, rank, processes, per_pass)
        # A pass without pairs still has to take part in what the processes do together; its pair weighs nothing.
        passes = [self.batch(cut) if cut else self.batch(rows[:1], weight=0.0) for cut in cuts]
        return Step(tuple(passes), len(rows), sum(_n_tokens(self.pairs[i].tokens) for i in rows))

    def batch(self, numbers: Sequence[int], weight: float = 1.0) -> dict[str, Tensor]:
        """The rows of these pairs with `weight` and `truncated` (B,), and `reference` (B, 2) where it is known."""
        pairs = [self.pairs[i].tokens for i in numbers]
        rows = self._rows(pairs)
        rows["weight"] = torch.full((len(pairs),), weight)
        rows["truncated"] = torch.tensor([(p.chosen_truncated + p.rejected_truncated) / 2 for p in pairs])
        if self.references is not None:
            known = [self.references[i] for i in numbers]
            rows["reference"] = torch.tensor([(value.chosen, value.rejected) for value in known])
        return rows

    def _rows(self, pairs: Sequence[TokenizedPair]) -> dict[str, Tensor]:
        if self.layout == "shared_prompt":
            lengths = [pair.n_tokens for pair in pairs]
            return shared_prompt_rows(pairs, first_fit_decreasing(lengths, max(lengths)), self.pad_id)
        if self.layout == "padded":
            return packed_pair_rows(pairs, one_each(2 * len(pairs)), self.pad_id)
        lengths = [len(pair.prompt) + len(side) for pair in pairs for side in (pair.chosen, pair.rejected)]
        # transformers tells flash attention of the borders only where the batch is a single row.
        flash = self.options.attention.startswith("flash")
        bins = [range(len(lengths))] if flash else first_fit_decreasing(lengths, max(lengths))
        return packed_pair_rows(pairs, bins, self.pad_id)


def _n_tokens(pair: TokenizedPair) -> int:
    """Tokens of both conversations, whatever the layout makes of the prompt."""
    return pair.n_tokens + len(pair.prompt)
