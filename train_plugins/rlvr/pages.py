"""Rollouts as rows of tokens for one forward pass: a prompt once, all of its responses after it. Imports torch.

A response sees its prompt and itself (`shared_prompt_mask`), and its positions go on after the prompt, so what comes
out is what every prompt + response alone would give. Kernels without masks get each pair as a sequence of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from train_plugins.packing import PADDING, PROMPT, first_fit_decreasing, shared_prompt_mask

Layout = Literal["shared_prompt", "packed"]


@dataclass(frozen=True, slots=True)
class Group:
    """Responses to one prompt; `rollouts` are their places in the batch."""

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    rollouts: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        return len(self.prompt) + sum(map(len, self.responses))

    def n_tokens_as(self, layout: Layout) -> int:
        """Tokens that a forward pass reads: packed, the prompt comes again with every response."""
        again = 0 if layout == "shared_prompt" else len(self.responses) - 1
        return self.n_tokens + again * len(self.prompt)


@dataclass(frozen=True, slots=True)
class Page:
    """One forward pass over n rollouts.

    `inputs`: `input_ids`, `position_ids` and, for shared prompts, `documents` and `sides`, each (R, W). For every token
    of every response in order, (N,): `at`, the place in the flattened (R, W) whose output predicts it, and `targets`.
    `end_at` (n,): the place of each response's last token. `rollouts` (n,): places in the batch; `lengths` (n,).
    """

    inputs: dict[str, Tensor]
    at: Tensor
    targets: Tensor
    end_at: Tensor
    rollouts: Tensor
    lengths: Tensor

    def mask(self, n_positions: int) -> Tensor:
        """(n, n_positions): True at the tokens of each response."""
        return torch.arange(n_positions, device=self.lengths.device) < self.lengths[:, None]

    def to(self, device: Any) -> Page:
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        found = {name: getattr(self, name).to(device) for name in ("at", "targets", "end_at", "rollouts", "lengths")}
        return Page(inputs, **found)

    def model_inputs(self, attention: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """What a model is called with, `use_cache=False` beside it."""
        inputs = {name: self.inputs[name] for name in ("input_ids", "position_ids")}
        if "documents" in self.inputs:
            documents, sides = self.inputs["documents"], self.inputs["sides"]
            inputs["attention_mask"] = shared_prompt_mask(documents, sides, attention, dtype)
        return inputs


def build_page(groups: Sequence[Group], layout: Layout, pad_id: int, *, one_row: bool = False) -> Page:
    """Rows are as long as the longest part, and shorter parts share one: padding is the little that is left over.

    `one_row` puts all parts end to end: transformers tells flash attention of borders only where a batch is one row.
    """
    parts = [part for group in groups for part in _parts(group, layout)]
    lengths = [part.n_tokens for part in parts]
    bins = first_fit_decreasing(lengths, sum(lengths) if one_row else max(lengths))
    width = max(sum(lengths[i] for i in row) for row in bins)
    columns: tuple[list[int], ...] = ([], [], [], [])
    starts: dict[int, tuple[int, list[int]]] = {}  # part -> (place of its prompt's last token, place of each response)
    for row, members in enumerate(bins):
        for document, number in enumerate(members):
            starts[number] = _write(columns, parts[number], document)
        _pad(columns, (row + 1) * width - len(columns[0]), pad_id)
    names = ("input_ids", "position_ids", "documents", "sides")
    inputs = {name: torch.tensor(column).view(len(bins), width) for name, column in zip(names, columns, strict=True)}
    if layout == "packed":
        del inputs["documents"], inputs["sides"]
    return Page(inputs, *_targets(parts, starts))


def _parts(group: Group, layout: Layout) -> list[Group]:
    if layout == "shared_prompt":
        return [group]
    pairs = zip(group.responses, group.rollouts, strict=True)
    return [Group(group.prompt, (response,), (rollout,)) for response, rollout in pairs]


def _write(columns: tuple[list[int], ...], part: Group, document: int) -> tuple[int, list[int]]:
    """Appends one part; returns the place of the prompt's last token and of the first token of each response."""
    ids, positions, documents, sides = columns
    n = len(part.prompt)
    ids += part.prompt
    positions += range(n)
    documents += [document] * part.n_tokens
    sides += [PROMPT] * n
    last, firsts = len(ids) - 1, []
    for side, response in enumerate(part.responses, PROMPT + 1):
        firsts.append(len(ids))
        ids += response
        positions += range(n, n + len(response))
        sides += [side] * len(response)
    return last, firsts


def _pad(columns: tuple[list[int], ...], n: int, pad_id: int) -> None:
    ids, positions, documents, sides = columns
    ids += [pad_id] * n
    positions += range(n)
    documents += [PADDING] * n
    sides += [PADDING] * n


def _targets(
    parts: Sequence[Group], starts: dict[int, tuple[int, list[int]]]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    at: list[int] = []
    targets: list[int] = []
    ends: list[int] = []
    rollouts: list[int] = []
    lengths: list[int] = []
    for number, part in enumerate(parts):
        last, firsts = starts[number]
        for first, response, rollout in zip(firsts, part.responses, part.rollouts, strict=True):
            at.append(last)
            at += range(first, first + len(response) - 1)
            targets += response
            ends.append(first + len(response) - 1)
            rollouts.append(rollout)
            lengths.append(len(response))
    found = [torch.tensor(column) for column in (at, targets, ends, rollouts, lengths)]
    return found[0], found[1], found[2], found[3], found[4]
