"""What a run on a server has used, and when it has to stop asking."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalsuite.errors import Incomplete, UsageError


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens, read and written; `dated` is the day the user looked it up."""

    read: float = 0.0
    written: float = 0.0
    dated: str = ""


@dataclass(slots=True)
class Budget:
    """Counts tokens and dollars. Before a request its worst case is reserved, after it the truth is booked.

    A request that could cross a limit waits for those in flight, which may use less than they reserved; when none is
    left in flight, the run is over (Incomplete).
    """

    max_tokens_total: int | None = None
    max_cost_usd: float | None = None
    price: Price = field(default_factory=Price)
    n_prompt: int = 0
    n_new: int = 0
    _reserved: tuple[int, int] = (0, 0)
    _n_open: int = 0
    _returned: asyncio.Event | None = None

    @property
    def cost_usd(self) -> float:
        return self._cost(self.n_prompt, self.n_new)

    async def reserve(self, n_prompt: int, n_new: int) -> None:
        """Returns when the request may be sent. Raises Incomplete when it never may."""
        while reason := self._crosses(n_prompt, n_new):
            if not self._n_open:
                raise Incomplete(
                    f"{reason} would be crossed: {self.n_prompt + self.n_new} tokens are used and the next request may "
                    f"take {n_prompt + n_new}; nothing is lost, the same command with a higher limit goes on"
                )
            self._returned = self._returned or asyncio.Event()
            self._returned.clear()
            await self._returned.wait()
        self._reserved = (self._reserved[0] + n_prompt, self._reserved[1] + n_new)
        self._n_open += 1

    def book(self, reserved: tuple[int, int], used: tuple[int, int]) -> None:
        """Replaces a reserve by what the server counted."""
        self._reserved = (self._reserved[0] - reserved[0], self._reserved[1] - reserved[1])
        self.n_prompt += used[0]
        self.n_new += used[1]
        self._n_open -= 1
        if self._returned is not None:
            self._returned.set()

    def _crosses(self, n_prompt: int, n_new: int) -> str:
        prompt = self.n_prompt + self._reserved[0] + n_prompt
        new = self.n_new + self._reserved[1] + n_new
        if self.max_tokens_total is not None and prompt + new > self.max_tokens_total:
            return f"--max-tokens-total {self.max_tokens_total}"
        if self.max_cost_usd is not None and self._cost(prompt, new) > self.max_cost_usd:
            return f"--max-cost-usd {self.max_cost_usd:g}"
        return ""

    def _cost(self, n_prompt: int, n_new: int) -> float:
        return (n_prompt * self.price.read + n_new * self.price.written) / 1e6


def read_price(file: Path, served_model: str) -> Price:
    """The price of a model from a YAML file: `model: {read: 2.5, written: 10, dated: 2026-08-01}`, dollars per million.

    Raises UsageError when the file or the row is not like that.
    """
    import yaml

    try:
        table: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        row = table[served_model]
        return Price(float(row["read"]), float(row["written"]), str(row["dated"]))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{file}: no price of {served_model!r} ({error!r}); expected a row like "
            f"{served_model}: {{read: 2.5, written: 10, dated: 2026-08-01}} in dollars per million tokens"
        ) from None
