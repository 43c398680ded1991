"""One limit for several models: each engine may use what the others have left of it, over all starts of a command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from train_plugins.data.asking import Engine, EngineOptions, tokens_used

Open = Callable[[EngineOptions, Path], Engine]


@dataclass(slots=True)
class Purse:
    """Opens engines within a limit that all of them share; None is no limit. Local folders cost nothing.

    `where` is what relative paths of the options count from.
    """

    opening: Open
    where: Path
    max_cost_usd: float | None = None
    max_tokens_total: int | None = None
    _used_by: dict[tuple[Path, str], tuple[EngineOptions, Engine]] = field(default_factory=dict)

    def know(self, options: EngineOptions, journal: Path) -> Engine:
        """An engine that will be asked with this journal: what it has used counts. Loads nothing."""
        engine = self.opening(options, self.where)
        self._used_by[journal, engine.digest] = options, engine
        return engine

    def engine(self, options: EngineOptions, journal: Path) -> Engine:
        """The engine with a limit of its own: the lower of what its options say and of what is left for it."""
        engine = self.know(options, journal)
        if options.engine != "api" or (self.max_cost_usd is None and self.max_tokens_total is None):
            return engine
        others = [key for key in self._used_by if key != (journal, engine.digest)]
        limits: dict[str, float] = {}
        if self.max_cost_usd is not None:
            left = max(0.0, self.max_cost_usd - sum(self._cost(*key) for key in others))
            limits["max_cost_usd"] = left if options.max_cost_usd is None else min(left, options.max_cost_usd)
        if self.max_tokens_total is not None:
            # At least 1: no request is that small.
            tokens = max(1, self.max_tokens_total - sum(sum(self._tokens(*key)) for key in others))
            own = options.max_tokens_total
            limits["max_tokens_total"] = tokens if own is None else min(tokens, own)
        return self.opening(replace(options, **limits), self.where)  # type: ignore[arg-type]

    def cost_usd(self) -> float:
        """What all engines have cost so far; those without a price count as nothing."""
        return sum(self._cost(*key) for key in self._used_by)

    def _tokens(self, journal: Path, digest: str) -> tuple[int, int]:
        return tokens_used(journal, self._used_by[journal, digest][1])

    def _cost(self, journal: Path, digest: str) -> float:
        from evalsuite.models.api.budget import read_price

        options, _ = self._used_by[journal, digest]
        if options.prices is None or options.served_model is None:
            return 0.0
        n_prompt, n_new = self._tokens(journal, digest)
        if not n_prompt and not n_new:
            return 0.0
        price = read_price(self.where / options.prices, options.served_model)
        return (n_prompt * price.read + n_new * price.written) / 1e6
