"""Where each sample of a generation sits: a row for a prompt, columns for its samples, and what that costs.

Light but for the model that it is asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evalsuite.models.hf.generate import bytes_per_token

BYTE = 8
"""Floating point operations of a linear layer in the time that a byte of keys takes to be read."""


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
