"""Keys and values of many samples of few prompts: a row holds one prompt once, and its samples as columns behind it.

A decoding step gives every row as many tokens as it has columns, each of which sees the prompt and its own column. So
one matrix product serves all samples of a row, and the prompt's keys are neither copied nor read for each of them.
Any transformers model whose layers follow a mask is computed by its own forward. Imports torch; worker only.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from evalsuite.models.hf.cache import KeysValues, LayerKind, TreeMasks, Unsupported, kept_of, near, prefix_cache
from evalsuite.models.hf.generate import bytes_per_token

PREFILL_CPU, PREFILL_GPU = 2048, 16_384
"""Padded tokens of one forward over prompts: activations that fit a cache, or that fill a GPU."""

BYTE = 8
"""Floating point operations of a linear layer in the time that a byte of keys takes to be read."""

NAME = "evalsuite_forks"

Ids = Sequence[int]


def fork_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of the columns over all keys of their row; (rows, columns, heads, head size) comes back.

    The queries of a group of heads stand below each other, so keys are never repeated. Like transformers' "sdpa" it
    knows no soft-capping of scores and no sinks.
    """
    if attention_mask is None or kwargs.get("position_bias") is not None:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    R, H, C, D = query.shape
    n_keys, K, scaling = key.shape[1], key.shape[2], kwargs.get("scaling")
    grouped = query.reshape(R, n_keys, -1, D)
    if query.dtype == torch.float32 and not query.is_cuda:  # two products are faster there where columns are few
        scores = torch.matmul(grouped * (D**-0.5 if scaling is None else scaling), key.transpose(2, 3))
        scores = scores.view(R, n_keys, -1, C, K) + attention_mask[:, :, None]
        mixed = torch.matmul(torch.softmax(scores, -1).view(R, n_keys, -1, K), value)
    else:
        mask = attention_mask.repeat(1, 1, H // n_keys, 1)
        mixed = scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)
    return mixed.view(R, H, C, value.shape[-1]).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(NAME, fork_attention)


@contextmanager
def attention(model: Any, name: str) -> Iterator[None]:
    """Within it the model's layers attend by the function of that name; "eager" stays, for it may be all there is."""
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    if before != "eager":
        config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


class ForkLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, (rows, heads, capacity, size); the next tokens go behind the first `n`."""

    is_sliding = False  # windows are in the mask

    def __init__(self, keys: Tensor, values: Tensor, n: int) -> None:
        super().__init__()
        self.keys, self.values, self.n = keys, values, n
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None: ...

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeysValues:
        stop = self.n + key_states.shape[2]
        self.keys[:, :, self.n : stop] = key_states
        self.values[:, :, self.n : stop] = value_states
        self.n = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def get_seq_length(self, *args: Any) -> int:
        return self.n

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.n + query_length, 0

    def get_max_length(self) -> int:
        return -1


@dataclass(frozen=True, slots=True)
class Grid:
    """Which prompt each row has, and the place (row · width + column) of each sample. Other places are free."""

    width: int
    prompts: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, owners: Sequence[int], width: int) -> Grid:
        """Seats the samples, whose prompts are `owners`, in their order."""
        prompts: list[int] = []
        places: list[int] = []
        last: dict[int, int] = {}  # the place last given to a sample of a prompt
        for owner in owners:
            place = last.get(owner, -1) + 1
            if place % width == 0:
                place = len(prompts) * width
                prompts.append(owner)
            last[owner] = place
            places.append(place)
        return cls(width, tuple(prompts), tuple(places))

    @property
    def n_places(self) -> int:
        return len(self.prompts) * self.width


@dataclass(frozen=True, slots=True)
class Costs:
    """What a step costs a model, in floating point operations: per place, per key of a row, per key and place."""

    place: float
    key: float
    pair: float

    @classmethod
    def of(cls, model: Any) -> Costs:
        config = model.config.get_text_config(decoder=True)
        read = bytes_per_token(model)
        groups = config.num_attention_heads / (getattr(config, "num_key_value_heads", None) or 1)
        numbers = read / model.dtype.itemsize  # of a key and a value
        return cls(2.0 * sum(p.numel() for p in model.parameters()), BYTE * float(read), 2 * groups * numbers)

    def best(self, owners: Sequence[int], widths: Sequence[int], n_prompt: int, n_own: int) -> Grid:
        """The cheapest grid, where prompts have `n_prompt` tokens and samples `n_own` behind them."""
        grids = [Grid.of(owners, width) for width in widths]
        return min(grids, key=lambda grid: self._step(grid, n_prompt + n_own * grid.width))

    def _step(self, grid: Grid, n_keys: int) -> float:
        row = grid.width * self.place + n_keys * (self.key + grid.width * self.pair)
        return len(grid.prompts) * row


class Forks:
    """Samples being written behind `prompts`; sample i has the prompt `owners[i]`. At most `n_steps` steps."""

    def __init__(
        self, model: Any, masks: TreeMasks, prompts: Sequence[Ids], owners: Sequence[int], n_steps: int
    ) -> None:
        self.model, self.masks, self.n_steps = model, masks, n_steps
        self.device = model.device
        self.owners = list(owners)
        self.costs = Costs.of(model)
        self.t = 0  # steps done
        self._lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        takes = inspect.signature(model.forward).parameters
        self._takes_keep = "logits_to_keep" in takes
        self._takes_positions = "position_ids" in takes
        self.first, kept = self._read(prompts)
        n_prompt = int(self._lengths.max())
        most = max(self.owners.count(owner) for owner in set(self.owners))
        widths = sorted({-(-most // n) for n in range(1, most + 1)}, reverse=True)
        grid = self.costs.best(self.owners, widths, n_prompt, n_steps // 2)
        rows = torch.tensor(grid.prompts, device=self.device)
        self._sit(grid, n_prompt, [(keys[rows], values[rows]) for keys, values in kept], [])

    def start(self) -> Tensor:
        """Logits (N, V) of every sample's first token."""
        return self.first[torch.tensor(self.owners, device=self.device)]

    def step(self, tokens_N: Tensor) -> Tensor:
        """Logits (N, V) after one more token of every sample."""
        R, C = len(self.grid.prompts), self.grid.width
        ids = tokens_N.new_zeros(R * C)
        ids[self._places] = tokens_N
        positions = (self._row_lengths + self.t)[:, None].expand(R, C)
        placed = {"position_ids": positions} if self._takes_positions else {}
        mask = self._mask(positions)
        self.t += 1
        with attention(self.model, NAME):
            output = self.model(
                input_ids=ids.view(R, C), attention_mask=mask, past_key_values=self._cache, use_cache=True, **placed
            )
        return output.logits.flatten(0, 1)[self._places]  # type: ignore[no-any-return]

    def keep(self, samples: Sequence[int]) -> bool:
        """Goes on with these samples alone where moving them is worth it; they are numbered anew then."""
        owners = [self.owners[i] for i in samples]
        grid = self.costs.best(owners, range(self.grid.width, 0, -1), self._n_prompt, self.t)
        saved = self.grid.n_places - grid.n_places
        # Moving costs about a step; nobody knows how long the rest goes on, but 16 more steps are a fair guess.
        if saved * min(16, self.n_steps - self.t) < 1.5 * self.grid.n_places:
            return False
        sources = torch.full((grid.n_places,), -1)
        sources[list(grid.places)] = self._places.cpu()[list(samples)]
        sources = sources.view(-1, grid.width)
        sources = sources.where(sources >= 0, sources[:, :1]).to(self.device)  # free places copy their neighbour
        rows, columns = sources // self.grid.width, sources % self.grid.width
        n, t, C = self._n_prompt, self.t, self.grid.width
        self.owners = owners
        moved, old = [], self._cache.layers
        longest = int(self._lengths[list(grid.prompts)].max())
        own = []
        for layer in old:
            moved.append((layer.keys[rows[:, 0], :, :longest], layer.values[rows[:, 0], :, :longest]))
            both = [
                x[:, :, n : n + t * C].unflatten(2, (t, C))[rows, :, :, columns] for x in (layer.keys, layer.values)
            ]
            own.append(tuple(x.permute(0, 2, 3, 1, 4).flatten(2, 3) for x in both))
            layer.keys = layer.values = None
        self._sit(grid, longest, moved, own)
        return True

    def _read(self, prompts: Sequence[Ids]) -> tuple[Tensor, list[KeysValues]]:
        """Logits (P, V) after each prompt, and the keys and values of all layers, (P, heads, longest, size)."""
        longest = max(map(len, prompts))
        logits, kept = [], []
        for chunk in _chunks(prompts, PREFILL_CPU if self.device.type == "cpu" else PREFILL_GPU):
            cache = prefix_cache([], self.masks.n_layers, keep=True)
            logits.append(self._forward(chunk, cache))
            width = max(map(len, chunk))
            kept.append([(_widened(k, longest - width), _widened(v, longest - width)) for k, v in kept_of(cache)])
        if len(kept) == 1:
            return logits[0], kept[0]
        layers = [
            (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
            for layer in zip(*kept, strict=True)
        ]
        return torch.cat(logits), layers

    def _forward(self, prompts: Sequence[Ids], cache: Cache) -> Tensor:
        # Padded on the right, where the model's own causal mask hides the padding: no mask of ours is needed.
        width = max(map(len, prompts))
        ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], device=self.device)
        ends = [len(prompt) - 1 for prompt in prompts]
        read = sorted(set(ends)) if self._takes_keep else list(range(width))
        some = {"logits_to_keep": torch.tensor(read, device=self.device)} if self._takes_keep else {}
        with attention(self.model, "sdpa"):
            logits: Tensor = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **some).logits
        return logits[list(range(len(prompts))), [read.index(end) for end in ends]]

    def _sit(self, grid: Grid, n_prompt: int, prefix: Sequence[KeysValues], own: Sequence[KeysValues]) -> None:
        """Fills new rows with the prompts' keys and those that the samples have of their own."""
        self.grid, self._n_prompt = grid, n_prompt
        n = n_prompt + self.t * grid.width
        capacity = n_prompt + self.n_steps * grid.width
        layers = []
        for i, pair in enumerate(prefix):
            new = [x.new_empty((x.shape[0], x.shape[1], capacity, x.shape[3])) for x in pair]
            for k, x in enumerate(pair):
                new[k][:, :, :n_prompt] = x
                if own:
                    new[k][:, :, n_prompt:n] = own[i][k]
            layers.append(ForkLayer(new[0], new[1], n))
        self._cache = Cache(layers=layers)
        self._places = torch.tensor(grid.places, device=self.device)
        self._row_lengths = self._lengths[torch.tensor(grid.prompts, device=self.device)]
        self._build_masks(capacity)

    def _build_masks(self, capacity: int) -> None:
        """What each column sees, for all steps at once: the prompt without padding, and what is in its own column."""
        R, C = len(self.grid.prompts), self.grid.width
        place = torch.arange(capacity, device=self.device)
        behind = place - self._n_prompt
        columns = torch.arange(C, device=self.device)
        own = (behind >= 0) & (behind % C == columns[:, None])
        seen = (place < self._row_lengths[:, None])[:, None] | own
        self._added = torch.zeros((R, C, capacity), dtype=self.model.dtype, device=self.device)
        self._added.masked_fill_(~seen, torch.finfo(self.model.dtype).min)
        steps = self._row_lengths[:, None] + behind // C
        self._key_positions = torch.where(behind >= 0, steps, place)

    def _mask(self, positions_RC: Tensor) -> Tensor | dict[str, Tensor]:
        """The masks of this step, (rows, 1, columns, keys so far), to be added."""
        stop = self._n_prompt + (self.t + 1) * self.grid.width
        masks = {kind.name: self._masked(kind, positions_RC, stop)[:, None] for kind in self.masks.kinds}
        return masks if self.masks.as_dict else masks[self.masks.kinds[0].name]

    def _masked(self, kind: LayerKind, positions_RC: Tensor, stop: int) -> Tensor:
        added = self._added[:, :, :stop]
        if kind.kind == "full" or kind.span >= self._n_prompt + self.n_steps:
            return added
        seen = near(kind, positions_RC, self._key_positions[:, :stop])
        return added.masked_fill(~seen, torch.finfo(added.dtype).min)


def _widened(x: Tensor, n: int) -> Tensor:
    return pad(x, (0, 0, 0, n)) if n else x


def _chunks(prompts: Sequence[Ids], n_tokens: int) -> Iterator[Sequence[Ids]]:
    """Stretches of prompts that have at most `n_tokens` together, padding included; one at least."""
    start, width = 0, 0
    for i, prompt in enumerate(prompts):
        width = max(width, len(prompt))
        if i > start and width * (i + 1 - start) > n_tokens:
            yield prompts[start:i]
            start, width = i, len(prompt)
    yield prompts[start:]


PROBE_TOLERANCE = 1e-3  # of the largest logit; rounding in float32 stays a hundred times below


def forks_work(model: Any, masks: TreeMasks) -> None:
    """Raises Unsupported unless forks give the logits of plain forwards: two prompts, a sample that ends, two steps.

    This catches families that take positions or masks from elsewhere; an error beyond a long window is not seen.
    """
    n = int(model.get_input_embeddings().weight.shape[0])
    text = [(7919 * k + 11) % n for k in range(24)]
    prompts, owners = (text[:9], text[4:17]), (0, 0, 0, 1)
    firsts, seconds = text[18:22], text[20:24]
    try:
        forks = Forks(model, masks, prompts, owners, 64)
        forks.step(torch.tensor(firsts, device=model.device))
        left = [1, 2, 3] if forks.keep([1, 2, 3]) else [0, 1, 2, 3]
        mine = forks.step(torch.tensor([seconds[i] for i in left], device=model.device))
        rows = [[*prompts[owners[i]], firsts[i], seconds[i]] for i in left]
        with attention(model, "sdpa"):
            wanted = torch.stack(
                [model(input_ids=torch.tensor([r], device=model.device), use_cache=False).logits[0, -1] for r in rows]
            )
    except (TypeError, AttributeError, RuntimeError, ValueError, IndexError, KeyError, NotImplementedError) as error:
        raise Unsupported(f"it fails with {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    off = float((mine - wanted).abs().max() / wanted.abs().max())
    bound = PROBE_TOLERANCE if model.dtype == torch.float32 else 0.1
    if not off <= bound:
        raise Unsupported(f"its logits are off by {off:.1e} of the largest")
