"""Keys and values of the responses being written: a slot for each, filled by a prefill, grown by decoding steps."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from evalsuite.models.hf.cache import Kept, KeysValues, LayerKind, TreeMasks, Unsupported, near
from evalsuite.models.hf.decode import KEY_STEP, decoding


@dataclass(frozen=True, slots=True)
class Fill:
    """New tokens go to rows `first` to `first + rows` from position `start` on."""

    first: int
    rows: int
    start: int


@dataclass(frozen=True, slots=True)
class Step:
    """One new token per row, for rows 0…n−1, at `positions`; `n_keys` keys are shown."""

    rows: Tensor
    positions: Tensor
    n_keys: int


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, (slots, heads, capacity, size); `now` says where the next tokens go."""

    is_sliding = False  # windows are in the mask: a slot keeps all positions

    def __init__(self, n_slots: int) -> None:
        super().__init__()
        self.n_slots = n_slots
        self.capacity = 0
        self.now: Fill | Step = Fill(0, 1, 0)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = self._room(key_states)
        self.values = self._room(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeysValues:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        now = self.now
        if isinstance(now, Step):
            self.keys[now.rows, :, now.positions] = key_states[:, :, 0]
            self.values[now.rows, :, now.positions] = value_states[:, :, 0]
            n = len(now.rows)
            return self.keys[:n, :, : now.n_keys], self.values[:n, :, : now.n_keys]
        rows = slice(now.first, now.first + now.rows)
        stop = now.start + key_states.shape[2]
        self.keys[rows, :, now.start : stop] = key_states
        self.values[rows, :, now.start : stop] = value_states
        return self.keys[rows, :, :stop], self.values[rows, :, :stop]

    def grow(self, capacity: int) -> None:
        self.capacity = capacity
        if self.is_initialized:
            self.keys, self.values = (self._grown(old) for old in (self.keys, self.values))

    def put(self, rows: slice, kept: KeysValues) -> None:
        """Copies a kept beginning into the front of every row of `rows`."""
        for mine, theirs in zip((self.keys, self.values), kept, strict=True):
            mine[rows, :, : theirs.shape[2]] = theirs

    def take(self, row: int, n: int) -> KeysValues:
        return self.keys[row : row + 1, :, :n].clone(), self.values[row : row + 1, :, :n].clone()

    def move(self, source: int, target: int, n: int) -> None:
        for mine in (self.keys, self.values):
            mine[target, :, :n] = mine[source, :, :n]

    def clear(self, row: int) -> None:
        for mine in (self.keys, self.values):
            mine[row] = 0

    def get_seq_length(self, *args: Any) -> int:
        return self.now.start if isinstance(self.now, Fill) else self.now.n_keys - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def get_max_cache_shape(self) -> int:  # the older name of the same
        return -1

    def _room(self, like: Tensor) -> Tensor:
        # Zeros, not whatever memory holds: a masked key counts with weight 0, and 0 times NaN is NaN.
        return like.new_zeros((self.n_slots, like.shape[1], self.capacity, like.shape[3]))

    def _grown(self, old: Tensor) -> Tensor:
        new = self._room(old)
        new[:, :, : old.shape[2]] = old
        return new


class Slots:
    """A model with `n_slots` rows of keys and values. Which row belongs to which response is the caller's business.

    `n_forwarded` counts the tokens that were computed, padding included.
    """

    def __init__(self, model: Any, n_slots: int, masks: TreeMasks, row_step: int = 1) -> None:
        self.model, self.masks, self.row_step = model, masks, row_step
        self.n_slots = -(-n_slots // row_step) * row_step
        self.capacity = 0
        self.n_forwarded = 0
        self._cache = Cache(layers=[SlotLayer(self.n_slots) for _ in range(masks.n_layers)])
        takes = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in takes
        self._takes_keep = "logits_to_keep" in takes

    def reserve(self, n_tokens: int, most: int) -> None:
        """Room for `n_tokens` per row, in doubling steps up to `most`."""
        if n_tokens > self.capacity:
            self.capacity = _rounded(max(n_tokens, min(2 * self.capacity, most)))
            with torch.inference_mode():
                for layer in self._cache.layers:
                    layer.grow(self.capacity)

    def fill(self, first: int, prompts: Sequence[Sequence[int]], kept: Kept | None, start: int) -> Tensor:
        """Computes prompts into rows from `first` on; logits (prompts, V) after the last token of each.

        The first `start` tokens of every prompt are those of `kept`. Shorter prompts are padded on the right, where
        the causal mask hides the padding.
        """
        lengths = [len(prompt) - start for prompt in prompts]
        with torch.inference_mode():
            logits = self._forward(first, [prompt[start:] for prompt in prompts], kept, start, sorted({*lengths}))
        # The model was asked for the distinct last places only, where it can be.
        places = {n: k for k, n in enumerate(sorted({*lengths}))} if self._takes_keep else {n: n - 1 for n in lengths}
        return logits[torch.arange(len(prompts)), [places[n] for n in lengths]]

    def stretch(self, row: int, ids: Sequence[int], kept: Kept | None, start: int) -> Kept:
        """Computes one stretch that prompts share, in a free row: what `fill` takes as `kept`, from the very start."""
        with torch.inference_mode():
            self._forward(row, [ids], kept, start, [1])
            return tuple(layer.take(row, start + len(ids)) for layer in self._cache.layers)

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """One more token in each of the rows 0…n−1; logits (n, V) after it."""
        n = len(tokens)
        padding = [0] * (-n % self.row_step)  # free rows, at position 0, so that they see one key
        device = self.model.device
        ids = torch.tensor([*tokens, *padding], device=device)
        at = torch.tensor([*positions, *padding], device=device)
        n_keys = _rounded(max(positions) + 1)
        self._now(Step(torch.arange(len(ids), device=device), at, n_keys))
        self.n_forwarded += len(ids)
        inputs = {"input_ids": ids[:, None], "attention_mask": self._step_mask(at, n_keys), **self._placed(at[:, None])}
        with torch.inference_mode(), decoding(self.model):
            logits: Tensor = self.model(**inputs, past_key_values=self._cache, use_cache=True).logits
        return logits[:n, -1]

    def content(self, first: int, rows: int, n: int) -> list[Tensor]:
        """A copy of the first n tokens' keys and values in these rows, layer by layer."""
        with torch.inference_mode():
            return [
                pair[first : first + rows, :, :n].clone()
                for layer in self._cache.layers
                for pair in (layer.keys, layer.values)
            ]

    def move(self, source: int, target: int, n: int) -> None:
        """Copies the first n tokens of one row over another."""
        with torch.inference_mode():
            for layer in self._cache.layers:
                layer.move(source, target, n)

    def clear(self, row: int) -> None:
        """For a row that holds NaN: its next user masks what lies behind its own tokens, but 0 times NaN is NaN."""
        with torch.inference_mode():
            for layer in self._cache.layers:
                layer.clear(row)

    def _forward(
        self, first: int, prompts: Sequence[Sequence[int]], kept: Kept | None, start: int, read: list[int]
    ) -> Tensor:
        rows, width = len(prompts), max(map(len, prompts))
        device = self.model.device
        if kept is not None:
            for layer, pair in zip(self._cache.layers, kept, strict=True):
                layer.put(slice(first, first + rows), pair)
        self._now(Fill(first, rows, start))
        self.n_forwarded += rows * width
        ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], device=device)
        inputs: dict[str, Any] = {"input_ids": ids}
        if start:  # without anything in front the model's own causal mask does, and is faster
            positions = torch.arange(start, start + width, device=device).expand(rows, -1)
            ends = torch.full((rows, width), width, device=device)
            inputs |= {"attention_mask": self.masks.build(ends, positions, start), **self._placed(positions)}
        if self._takes_keep:
            inputs["logits_to_keep"] = torch.tensor(read, device=device) - 1
        logits: Tensor = self.model(**inputs, past_key_values=self._cache, use_cache=True).logits
        return logits

    def _now(self, now: Fill | Step) -> None:
        for layer in self._cache.layers:
            layer.now = now

    def _placed(self, positions_BT: Tensor) -> dict[str, Tensor]:
        return {"position_ids": positions_BT} if self._takes_positions else {}

    def _step_mask(self, positions_N: Tensor, n_keys: int) -> Tensor | dict[str, Tensor]:
        """Masks to be added, (N, 1, 1, n_keys): a row sees its keys up to its position, in the layer's window."""
        keys = torch.arange(n_keys, device=positions_N.device)[None]
        seen = keys[:, None] <= positions_N[:, None, None]
        masks = {kind.name: self._added(seen, kind, positions_N[:, None], keys) for kind in self.masks.kinds}
        return masks if self.masks.as_dict else masks[self.masks.kinds[0].name]

    def _added(self, seen: Tensor, kind: LayerKind, queries: Tensor, keys: Tensor) -> Tensor:
        # Added, also for "sdpa": `decode_attention` adds it, and torch's function takes both.
        seen = seen & near(kind, queries, keys)
        mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device)
        return mask.masked_fill_(~seen, torch.finfo(mask.dtype).min)[:, None]


def _rounded(n: int) -> int:
    return -(-n // KEY_STEP) * KEY_STEP


PROBE_TOLERANCE = 1e-3  # of the largest logit; rounding in float32 stays a hundred times below


def slots_work(model: Any, masks: TreeMasks) -> None:
    """Raises Unsupported unless slots give the logits of plain forwards: shared start, two lengths, moved rows, steps.

    This catches families that take their positions or masks from elsewhere, and changes in transformers. 40 tokens
    are forwarded; an error that shows only beyond a long window is not seen.
    """
    n = int(model.get_input_embeddings().weight.shape[0])
    text = [(7919 * k + 11) % n for k in range(24)]
    rows = [text[:13], text[:9] + text[15:24]]
    try:
        slots = Slots(model, 3, masks)
        slots.reserve(32, 32)
        kept = slots.stretch(0, text[:9], None, 0)
        found = [slots.fill(i, [row[:-2]], kept, 9) for i, row in enumerate(rows)]
        slots.move(1, 2, len(rows[1]) - 2)
        slots.move(0, 1, len(rows[0]) - 2)
        slots.move(2, 0, len(rows[1]) - 2)
        for back in (-2, -1):
            found.append(slots.step([row[back] for row in rows[::-1]], [len(row) + back for row in rows[::-1]]))
        wanted = [_plain(model, row)[len(row) - 3 :] for row in rows]
    except (TypeError, AttributeError, RuntimeError, ValueError, IndexError, KeyError, NotImplementedError) as error:
        raise Unsupported(f"slots fail with {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    mine = torch.stack([torch.stack([found[i][0], found[2][1 - i], found[3][1 - i]]) for i in (0, 1)])
    plain = torch.stack(wanted)
    off = float((mine - plain).abs().max() / plain.abs().max())
    bound = PROBE_TOLERANCE if model.dtype == torch.float32 else 0.1
    if not off <= bound:
        raise Unsupported(f"slots are off by {off:.1e} of the largest logit")


def _plain(model: Any, ids: Sequence[int]) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False).logits
    return logits[0]
