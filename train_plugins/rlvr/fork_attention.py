"""How columns of a row attend to the keys of their row, and where those keys are kept. Imports torch; worker only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import CacheLayerMixin
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from evalsuite.models.hf.cache import KeysValues

NAME = "evalsuite_forks"


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
