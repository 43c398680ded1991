"""Short prompts in one forward on a CPU, where each comes out with the bits that it has on its own.

`decode` says when a linear layer gives a row the same bits whatever its neighbours. Prompts of equal length need no
padding, so for them it is enough that a prompt alone has rows enough for the kernel of larger batches; that depends on
the layers' shapes, the prompt's length and the number of threads, and is tried, not known. Found with torch 2.13: with
one thread all lengths from 4 on are alike where `row_step` is 4, with two threads from 12 on and multiples of 4.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from evalsuite.models.hf.cache import Kept
from evalsuite.models.hf.slots import Slots

MOST_ROWS = 16
MOST_TOKENS = 64
"""Of one prompt, without what it shares with others; longer ones fill a CPU on their own."""
LEAST_TOKENS = 4
"""Linear layers take other kernels for fewer rows."""

Tried: TypeAlias = "dict[tuple[int, int, int], set[int]]"
"""(threads, new tokens, shared tokens) -> numbers of rows that agreed; empty where one did not."""

_TRIED: dict[Hashable, Tried] = {}
"""By what a kernel is chosen for, for the life of the process: a loop opens checkpoints of one shape all day."""


class Together:
    """Computes groups of equally long prompts; the first group of each shape both ways, to see whether bits agree.

    What was seen holds for every model of the same shapes in this process.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._same = _TRIED.setdefault(_shapes(model), {})

    @classmethod
    def of(cls, model: Any) -> Together | None:
        """None for models whose rows depend on each other's bits, or of which that is not promised."""
        if model.device.type != "cpu" or model.dtype != torch.float32 or model.get_output_embeddings() is None:
            return None
        # How many rows an expert gets depends on what the neighbours say, so one try would prove nothing.
        mixed = any("expert" in name.lower() or "moe" in name.lower() for name, _ in model.named_parameters())
        return None if mixed or "moe" in type(model).__name__.lower() else cls(model)

    def most_rows(self, n_new: int, start: int) -> int:
        """How many prompts of `n_new` tokens behind `start` shared ones may be computed in one forward; a power of 2.

        It may fall to 1 when it turns out that they have other bits.
        """
        if not LEAST_TOKENS <= n_new <= MOST_TOKENS or self._same.get(_key(n_new, start)) == set():
            return 1
        return MOST_ROWS

    def fill(self, slots: Slots, first: int, prompts: Sequence[Sequence[int]], kept: Kept | None, start: int) -> Tensor:
        """As `Slots.fill` for prompts of one length: logits, and keys and values, of each are those it has alone."""
        n, rows = len(prompts[0]), len(prompts)
        key = _key(n - start, start)
        if rows > 1 and rows in self._same.get(key, ()):
            return self._joint(slots, first, prompts, kept, start)
        if rows == 1 or self._same.get(key) == set():
            return _alone(slots, first, prompts, kept, start)
        joint = self._joint(slots, first, prompts, kept, start)
        seen = slots.content(first, rows, n)
        logits = _alone(slots, first, prompts, kept, start)
        mine = slots.content(first, rows, n)
        if torch.equal(joint, logits) and all(map(torch.equal, seen, mine)):
            self._same.setdefault(key, set()).add(rows)
        else:
            self._same[key] = set()
        return logits

    def _joint(
        self, slots: Slots, first: int, prompts: Sequence[Sequence[int]], kept: Kept | None, start: int
    ) -> Tensor:
        with row_by_row(self.model.get_output_embeddings()):
            return slots.fill(first, prompts, kept, start)


def _alone(slots: Slots, first: int, prompts: Sequence[Sequence[int]], kept: Kept | None, start: int) -> Tensor:
    return torch.cat([slots.fill(first + i, [prompt], kept, start) for i, prompt in enumerate(prompts)])


def _shapes(model: Any) -> Hashable:
    """Everything about a model but the values of its weights; of these, where in a cache line they begin."""
    config = {k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"}
    layers = tuple((name, tuple(p.shape), p.data_ptr() % 64) for name, p in model.named_parameters())
    return type(model), model.config._attn_implementation, repr(sorted(config.items())), layers


def _key(n_new: int, start: int) -> tuple[int, int, int]:
    return torch.get_num_threads(), n_new, start


@contextmanager
def row_by_row(layer: Any) -> Iterator[None]:
    """Within it, `layer` is applied to each row of a batch alone.

    A prompt alone asks the output layer for one place, a product of its own kind; in a batch it would be another.
    """
    own = layer.__dict__.get("forward")  # some wrappers put theirs there
    whole = layer.forward
    layer.forward = lambda x: torch.cat([whole(x[i : i + 1]) for i in range(x.shape[0])])
    try:
        yield
    finally:
        if own is None:
            del layer.forward
        else:
            layer.forward = own
