"""What makes a row of a decoding batch independent of the other rows, bit for bit: an attention, and a number of rows.

A run that was killed goes on in batches of another composition and must write the same texts. Found with torch 2.13
on a CPU in float32 (MKL's AVX2 and AVX-512 kernels, one and two threads):

- a linear layer gives a row the same bits at any place of any batch of 4 rows or more; 1, and 2–3 rows take other
  kernels. With two threads the rows are divided, and only multiples of 4 keep every part at 4 or more;
- torch's `scaled_dot_product_attention` for one query per row does not depend on the other rows or on masked keys
  when the number of keys is a multiple of 16, but with two threads a head's bits depend on the thread that computes
  it (its scratch buffer of the second thread is not aligned). And it wants keys repeated for grouped queries;
- two batched products around a softmax, with the queries of a group as rows, do not depend on other rows, on masked
  keys, on the place or on the number of threads when the number of keys is a multiple of 16. They are 2–12 times
  faster too, because no key is copied. So decoding uses these;
- a prompt on its own is always computed in the same shape, so prefill on a CPU takes one prompt at a time (which
  costs nothing there: a prompt fills the machine), or several short ones in a shape that was seen to give each the bits
  it has alone (`together`).

Not covered: a mixture of experts groups rows by expert, so the number of rows that a kernel sees depends on the others
(its experts_implementation "batched_mm" would be covered, at the cost of copying the experts' weights for every row).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

KEY_STEP = 16
"""Keys are always shown to a decoding step in multiples of this."""

NAME = "evalsuite_decode"


def decode_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of one query per row over its cached keys; (B, 1, heads, head size) comes back.

    query is (B, heads, 1, size), key and value (B, key heads, K, size), attention_mask (B, 1, 1, K), added. Like
    transformers' "sdpa" it knows no soft-capping of scores and no sinks; what is not plain goes to that function.
    """
    B, H, T, D = query.shape
    if T != 1 or attention_mask is None or kwargs.get("position_bias") is not None:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    scaling = kwargs.get("scaling")
    n_keys = key.shape[1]
    grouped = query.reshape(B, n_keys, H // n_keys, D) * (D**-0.5 if scaling is None else scaling)
    scores = torch.matmul(grouped, key.transpose(2, 3)) + attention_mask
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(weights, value).reshape(B, 1, H, value.shape[-1]), None


ALL_ATTENTION_FUNCTIONS.register(NAME, decode_attention)


@contextmanager
def decoding(model: Any) -> Iterator[None]:
    """Within it, attention layers that would use "sdpa" use `decode_attention`. Families without "sdpa" keep theirs."""
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    if before == "sdpa":
        config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def row_step(model: Any, most_rows: int) -> int:
    """The smallest n so that batches of n, 2n, … rows up to `most_rows` give a row the same bits; 1 when none does.

    Tried on one linear layer of each shape on this machine; float32 on a CPU only.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32:
        return 1
    layers: dict[tuple[str, tuple[int, ...]], Any] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if type(module).__name__ in ("Linear", "Conv1D") and isinstance(weight, Tensor):
            layers.setdefault((type(module).__name__, tuple(weight.shape)), module)
    for step in (4, 8, 16, 32):
        if all(_is_stable(layer, step, most_rows) for layer in layers.values()):
            return step
    return 1


def _is_stable(layer: Any, step: int, most_rows: int) -> bool:
    n_in = layer.weight.shape[0] if type(layer).__name__ == "Conv1D" else layer.weight.shape[1]
    most = -(-most_rows // step) * step
    rows = torch.randn((most, 1, n_in), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = layer(rows)
        return all(
            torch.equal(layer(rows[:n]), whole[:n]) and torch.equal(layer(rows[:n].flip(0)).flip(0), whole[:n])
            for n in range(step, most + 1, step)
        )
