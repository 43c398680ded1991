"""Keys and values of many samples of few prompts: a row holds one prompt once, and its samples as columns behind it.

A decoding step gives every row as many tokens as it has columns, each of which sees the prompt and its own column. So
one matrix product serves all samples of a row, and the prompt's keys are neither copied nor read for each of them.
Any transformers model whose layers follow a mask is computed by its own forward. Imports torch; worker only.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache

from evalsuite.models.hf.cache import KeysValues, LayerKind, TreeMasks, Unsupported, kept_of, near, prefix_cache
from train_plugins.rlvr.fork_attention import NAME, ForkLayer, attention
from train_plugins.rlvr.grid import Costs, Grid

PREFILL_CPU, PREFILL_GPU = 2048, 16_384
"""Padded tokens of one forward over prompts: activations that fit a cache, or that fill a GPU."""

Ids = Sequence[int]


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
