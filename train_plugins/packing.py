"""Several sequences in one row of a batch, without one seeing another. For the worker process: imports torch.

A packed row carries no attention mask: transformers reads its borders from position ids that restart, and only where it
gets no mask and makes no cache. With an all-ones mask, or with `use_cache` True (the default of models), every sequence
sees those before it and nothing is said about it. Borders of two branches of one prompt cannot be told by positions, so
shared-prompt rows bring a mask of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from evalsuite.errors import UsageError
from train_plugins.chat import IGNORED, Tokenized, TokenizedPair
from train_plugins.losses import PairLogprobs, token_logprobs

Bins = Sequence[Sequence[int]]  # for each row the numbers of what lies in it
PADDING, PROMPT, CHOSEN, REJECTED = -1, 0, 1, 2


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> tuple[tuple[int, ...], ...]:
    """Numbers of the sequences in each row. One longer than `capacity` has a row of its own.

    The longest come first, each into the first row with room; equal ones keep their order.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[number]
        place = next((i for i, free in enumerate(room) if free >= length), None)
        if place is None:
            rows.append([])
            room.append(capacity)
            place = -1
        rows[place].append(number)
        room[place] -= length
    return tuple(tuple(row) for row in rows)


def one_each(n: int) -> tuple[tuple[int, ...], ...]:
    """Every sequence in a row of its own."""
    return tuple((i,) for i in range(n))


def pack(examples: Sequence[Tokenized], bins: Bins, pad_id: int) -> dict[str, Tensor]:
    """`input_ids`, `position_ids` and `labels` (R, T) with the examples of each bin end to end; no attention mask.

    For a forward pass with `use_cache=False`. Padding is a sequence of its own. The first token of an example has no
    label: the logits before it are another's.
    """
    rows = [[examples[number] for number in row] for row in bins]
    width = max(sum(len(example.ids) for example in row) for row in rows)
    lines = [_line(row, width, pad_id) for row in rows]
    ids, positions, labels = (torch.tensor(column) for column in zip(*lines, strict=True))
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


def _line(row: Sequence[Tokenized], width: int, pad_id: int) -> tuple[list[int], list[int], list[int]]:
    ids: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    for example in row:
        ids += example.ids
        positions += range(len(example.ids))
        labels += (IGNORED, *example.labels[1:])
    rest = width - len(ids)
    return ids + [pad_id] * rest, positions + list(range(rest)), labels + [IGNORED] * rest


# -- pairs --


def shared_prompt_rows(pairs: Sequence[TokenizedPair], bins: Bins, pad_id: int) -> dict[str, Tensor]:
    """The pairs of each bin, every one as prompt, chosen, rejected; positions of rejected go on after the prompt.

    (R, T): `input_ids`, `position_ids`, and `documents` (which pair of its row a token belongs to) and `sides`, of
    which `shared_prompt_mask` makes the mask. (N,), an entry for every token that is compared: `at`, the place in the
    flattened (R, T) whose logits predict it; `targets`, its id; `pair`, its pair; `in_chosen` and `in_rejected`, the
    sides that it counts for (both in the prompt).
    """
    page = _Page(pad_id)
    for row in bins:
        page.rows.append([])
        for document, number in enumerate(row):
            pair = pairs[number]
            n = len(pair.prompt)
            start = page.add(pair.prompt, 0, document, PROMPT)
            page.compare(pair.prompt_labels, start, None, number, (True, True))
            branch = (start + n - 1) if n else None
            start = page.add(pair.chosen, n, document, CHOSEN)
            page.compare(pair.chosen_labels, start, branch, number, (True, False))
            start = page.add(pair.rejected, n, document, REJECTED)
            page.compare(pair.rejected_labels, start, branch, number, (False, True))
    return page.tensors()


def packed_pair_rows(pairs: Sequence[TokenizedPair], bins: Bins, pad_id: int) -> dict[str, Tensor]:
    """As `shared_prompt_rows`, with prompt + chosen and prompt + rejected as two sequences, for kernels without masks.

    Bins hold numbers of sequences: 2i is chosen of pair i, 2i + 1 its rejected. Neither `documents` nor `sides` come
    back, since position ids tell all. With one sequence in each bin these are padded rows.
    """
    page = _Page(pad_id)
    for row in bins:
        page.rows.append([])
        for document, number in enumerate(row):
            whole = pairs[number // 2].whole("rejected" if number % 2 else "chosen")
            start = page.add(whole.ids, 0, document, PROMPT)
            page.compare(whole.labels, start, None, number // 2, (number % 2 == 0, number % 2 == 1))
    tensors = page.tensors()
    del tensors["documents"], tensors["sides"]
    return tensors


class _Page:
    """Rows that grow: a token is (id, position, document, side); and what is compared, by row and place in it."""

    def __init__(self, pad_id: int) -> None:
        self.rows: list[list[tuple[int, int, int, int]]] = []
        self._pad_id = pad_id
        self._compared: list[tuple[int, int, int, int, bool, bool]] = []

    def add(self, ids: Sequence[int], position: int, document: int, side: int) -> int:
        """Puts a run of tokens at the end of the last row; returns the place of the first."""
        row = self.rows[-1]
        start = len(row)
        row += [(token, position + i, document, side) for i, token in enumerate(ids)]
        return start

    def compare(
        self, labels: Sequence[int], start: int, before: int | None, pair: int, counts: tuple[bool, bool]
    ) -> None:
        """Notes the labels of the run at `start`. `before` predicts its first token; None: nothing does."""
        row = len(self.rows) - 1
        for i, label in enumerate(labels):
            at = start + i - 1 if i else before
            if label != IGNORED and at is not None:
                self._compared.append((row, at, label, pair, *counts))

    def tensors(self) -> dict[str, Tensor]:
        width = max(len(row) for row in self.rows)
        padded = [[*row, *((self._pad_id, i, PADDING, PADDING) for i in range(width - len(row)))] for row in self.rows]
        grid_RT4 = torch.tensor(padded)
        ids, positions, documents, sides = (part.contiguous() for part in grid_RT4.unbind(-1))
        row, place, targets, pair, chosen, rejected = torch.tensor(self._compared).reshape(-1, 6).unbind(-1)
        found = {"input_ids": ids, "position_ids": positions, "documents": documents, "sides": sides}
        found |= {"at": row * width + place, "targets": targets, "pair": pair}
        return found | {"in_chosen": chosen.bool(), "in_rejected": rejected.bool()}


def shared_prompt_mask(
    documents_RT: Tensor, sides_RT: Tensor, attention: str = "sdpa", dtype: torch.dtype = torch.float32
) -> Any:
    """What a model takes as `attention_mask`: chosen sees prompt and chosen, rejected sees prompt and rejected.

    (R, 1, T, T), for `sdpa` boolean, True where a token may look; for `eager` the number that is added to a score, in
    the dtype of the model (it would add a boolean as 0 or 1); for `flex_attention` a BlockMask.
    """
    if attention == "flex_attention":
        return _block_mask(documents_RT, sides_RT)
    places_T = torch.arange(documents_RT.shape[1], device=documents_RT.device)
    asks, told = (slice(None), slice(None), None), (slice(None), None, slice(None))
    side_RTT = (sides_RT[told] == PROMPT) | (sides_RT[told] == sides_RT[asks])
    may_RTT = (documents_RT[asks] == documents_RT[told]) & side_RTT & (places_T[:, None] >= places_T)
    may = may_RTT[:, None]
    if attention == "sdpa":
        return may
    if attention != "eager":
        raise UsageError(f"layout shared_prompt needs attention sdpa, eager or flex_attention, not {attention!r}")
    return torch.zeros(may.shape, dtype=dtype, device=may.device).masked_fill_(~may, torch.finfo(dtype).min)


def _block_mask(documents_RT: Tensor, sides_RT: Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def may(row: Tensor, head: Tensor, asks: Tensor, told: Tensor) -> Tensor:
        side = (sides_RT[row, told] == PROMPT) | (sides_RT[row, told] == sides_RT[row, asks])
        return (asks >= told) & (documents_RT[row, asks] == documents_RT[row, told]) & side

    n_rows, width = documents_RT.shape
    return create_block_mask(may, n_rows, None, width, width, device=documents_RT.device)


def fits_shared_prompt(config: Any, max_length: int) -> bool:
    """Whether every layer of a model looks as far as `max_length`: one mask serves all layers of the layout."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"} or getattr(config, "attention_chunk_size", None):
        return False
    window = getattr(config, "sliding_window", None)
    # Mistral's config names a window and no kinds of layers: all of them slide.
    slides = "sliding_attention" in kinds or not getattr(config, "layer_types", None)
    return window is None or not slides or max_length <= int(window)


def pair_logprobs(model: Any, batch: Mapping[str, Tensor], n_pairs: int, inner: Any = None) -> PairLogprobs:
    """Summed log-probabilities and counts of rows of pairs in any layout, by one forward pass; each (n_pairs,).

    `inner` is the model inside `model` where that is wrapped for several processes.
    """
    inner = model if inner is None else inner
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    if "documents" in batch:
        attention = inner.config._attn_implementation
        inputs["attention_mask"] = shared_prompt_mask(batch["documents"], batch["sides"], attention, inner.dtype)
    with logits_only_at(inner, batch["at"]):
        logits_NV = model(**inputs, use_cache=False).logits
    logprobs_N = token_logprobs(logits_NV, batch["targets"])
    sums = [_sums(logprobs_N * batch[name], batch["pair"], n_pairs) for name in ("in_chosen", "in_rejected")]
    counts = [_sums(batch[name].to(logprobs_N.dtype), batch["pair"], n_pairs) for name in ("in_chosen", "in_rejected")]
    return PairLogprobs(*sums, *counts)


@contextmanager
def logits_only_at(inner: Any, at_N: Tensor) -> Iterator[None]:
    """Inside, the model gives logits (N, V) at places of its flattened (R, T) input and computes no others.

    It works on whatever the model does with logits afterwards (scaling, soft caps), and through wrappers.
    """

    def select(_module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].flatten(0, 1)[at_N],)

    handle = inner.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _sums(values_N: Tensor, group_N: Tensor, n: int) -> Tensor:
    return values_N.new_zeros(n).index_add(0, group_N, values_N)
