"""Cache layers and masks of our own for transformers models: kept prefixes, and rows that hold a tree of tokens.

Everything that depends on how transformers passes caches and masks around stands here (spec: engines.md §3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, get_layer_types_and_kwargs

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer and one stretch of tokens, each (1, heads, tokens, head size)."""

Kept = tuple[KeysValues, ...]
"""One stretch of tokens, all layers."""

MASKABLE = ("full_attention", "sliding_attention", "chunked_attention")


class Unsupported(Exception):
    """This model cannot be computed this way; the message says why."""


class PrefixLayer(CacheLayerMixin):  # type: ignore[misc]
    """Puts the kept stretches in front of the new keys and values and stores nothing, unless told to `keep`.

    A filled DynamicCache would copy the prefix for every row of every layer at once; here one layer's copy lives at a
    time.
    """

    is_sliding = False

    def __init__(self, prefix: Sequence[KeysValues], keep: bool) -> None:
        super().__init__()
        self.prefix, self.keep = prefix, keep
        self.n_prefix = sum(keys.shape[2] for keys, _ in prefix)
        self.kept: KeysValues | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeysValues:
        if self.keep:
            self.kept = (key_states.contiguous(), value_states.contiguous())
        if not self.prefix:
            return key_states, value_states
        rows = key_states.shape[0]
        keys = torch.cat([*(k.expand(rows, -1, -1, -1) for k, _ in self.prefix), key_states], dim=2)
        values = torch.cat([*(v.expand(rows, -1, -1, -1) for _, v in self.prefix), value_states], dim=2)
        return keys, values

    def get_seq_length(self, *args: Any) -> int:
        return self.n_prefix

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.n_prefix + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def get_max_cache_shape(self) -> int:  # the older name of the same
        return -1


def prefix_cache(path: Sequence[Kept], n_layers: int, keep: bool = False) -> Cache:
    """A cache that shows the kept stretches of `path` to every row."""
    return Cache(layers=[PrefixLayer([kept[i] for kept in path], keep) for i in range(n_layers)])


def kept_of(cache: Cache) -> Kept:
    """What a cache made with `keep` has seen. Raises Unsupported when a layer never used it."""
    layers = [layer.kept for layer in cache.layers]
    if any(kept is None for kept in layers):
        raise Unsupported("some layers keep no keys and values of their own")
    return tuple(layers)


def n_bytes(kept: Kept) -> int:
    return sum(t.numel() * t.element_size() for pair in kept for t in pair)


@dataclass(frozen=True, slots=True)
class LayerKind:
    """How far a layer looks back: not at all limited, `span` tokens, or within a chunk of `span` tokens."""

    name: str
    kind: Literal["full", "sliding", "chunked"]
    span: int = 0


@dataclass(frozen=True, slots=True)
class TreeMasks:
    """Builds the attention mask of packed tree rows in the shape and type that the model takes."""

    kinds: tuple[LayerKind, ...]
    as_dict: bool
    additive: torch.dtype | None  # None: boolean, True = attend
    n_layers: int

    @classmethod
    def of(cls, model: Any) -> TreeMasks:
        """For a loaded model. Raises Unsupported when some layer cannot follow a mask."""
        config = model.config.get_text_config(decoder=True)
        if getattr(config, "num_kv_shared_layers", None):
            raise Unsupported("layers share keys and values (num_kv_shared_layers)")
        if getattr(config, "alibi", False):
            raise Unsupported("positions come from ALiBi")
        implementation = config._attn_implementation
        if implementation not in ("sdpa", "eager"):
            raise Unsupported(f"attention implementation {implementation!r} takes no mask of ours")
        types, options = get_layer_types_and_kwargs(config)
        return cls(
            _kinds(types, options),
            # Families whose layers differ read a dict by layer type; the others raise on one.
            as_dict=getattr(config, "layer_types", None) is not None,
            # "eager" adds whatever it is given: a boolean mask would be added as 0 and 1 without a word.
            additive=model.dtype if implementation == "eager" else None,
            n_layers=len(types),
        )

    def build(self, ends_BT: Tensor, positions_BT: Tensor, n_prefix: int) -> Tensor | dict[str, Tensor]:
        """Masks (B, 1, T, n_prefix + T). A token sees the whole prefix and its ancestors in the row.

        `ends_BT[b, j]` is where the subtree of token j ends, so token i descends from j when j ≤ i < ends[j].
        """
        T = ends_BT.shape[1]
        index = torch.arange(T, device=ends_BT.device)
        own = (index[None, None, :] <= index[None, :, None]) & (index[None, :, None] < ends_BT[:, None, :])
        seen = torch.nn.functional.pad(own, (n_prefix, 0), value=True)
        prefix = torch.arange(n_prefix, device=ends_BT.device).expand(ends_BT.shape[0], -1)
        keys_BK = torch.cat([prefix, positions_BT], dim=1)
        masks = {kind.name: self._finish(seen & near(kind, positions_BT, keys_BK)) for kind in self.kinds}
        return masks if self.as_dict else masks[self.kinds[0].name]

    def _finish(self, mask: Tensor) -> Tensor:
        mask = mask[:, None]
        if self.additive is None:
            return mask
        lowest = torch.finfo(self.additive).min
        return torch.zeros(mask.shape, dtype=self.additive, device=mask.device).masked_fill_(~mask, lowest)


def near(kind: LayerKind, queries_BT: Tensor, keys_BK: Tensor) -> Tensor:
    """Which keys a layer may look at by position (depth in the tree) alone, broadcastable to (B, T, K)."""
    q, k = queries_BT[:, :, None], keys_BK[:, None, :]
    if kind.kind == "sliding":
        return q - k < kind.span
    if kind.kind == "chunked":
        return q // kind.span == k // kind.span
    return torch.ones((1, 1, 1), dtype=torch.bool, device=q.device)


def _kinds(types: Sequence[str], options: Sequence[dict[str, Any]]) -> tuple[LayerKind, ...]:
    kinds: dict[str, LayerKind] = {}
    for name, option in zip(types, options, strict=True):
        if name not in MASKABLE:
            raise Unsupported(f"{name!r} layers carry a state that no mask can fork")
        kind: Literal["full", "sliding", "chunked"] = (
            "sliding" if name == "sliding_attention" else "chunked" if name == "chunked_attention" else "full"
        )
        found = LayerKind(name, kind, int(option.get("sliding_window") or 0))
        if kinds.setdefault(name, found) != found:
            raise Unsupported(f"{name!r} layers have windows of different sizes")
    return tuple(kinds.values())
