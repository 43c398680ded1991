"""What a benchmark asks, sample by sample, and which of its samples are asked. Pure data; harness.py fills it in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from evalsuite.benchmark import Benchmark
from evalsuite.errors import DataError
from evalsuite.types import Doc, GenerateRequest, LoglikRequest

Request = GenerateRequest | LoglikRequest


@dataclass(frozen=True, slots=True)
class Planned:
    """One thing to ask: request `number` of a sample (repeat of a generation, or context of a choice)."""

    sample: str
    number: int
    request: Request


@dataclass(slots=True)
class Plan:
    """Everything a benchmark asks, in dataset order, with what grading needs to know of each sample."""

    benchmark: Benchmark
    planned: list[Planned]
    docs: dict[str, Doc]
    categories: dict[str, str]
    clusters: dict[str, str]
    notes: tuple[str, ...]
    dataset: Mapping[str, Any]
    sources: dict[str, tuple[Any, list[Any]]] = field(default_factory=dict)  # sample -> lm-eval task, its instances

    def part(self, samples: Collection[str]) -> Plan:
        """The same of these samples alone."""
        return replace(
            self,
            planned=[p for p in self.planned if p.sample in samples],
            docs={i: doc for i, doc in self.docs.items() if i in samples},
            categories={i: c for i, c in self.categories.items() if i in samples},
            clusters={i: c for i, c in self.clusters.items() if i in samples},
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples are asked: all, `limit` of them drawn by seed (a larger limit contains a smaller), or these ids."""

    limit: int | None = None
    samples: frozenset[str] | None = None
    seed: int = 1234

    def choose(self, ids: Sequence[str]) -> frozenset[str] | None:
        """The chosen ids; None for all of them. Raises DataError for ids that the data does not have."""
        if self.samples is not None:
            missing = sorted(self.samples - set(ids))
            if missing:
                raise DataError(f"--samples: {len(missing)} ids are not in the data, the first is {missing[0]!r}")
            return self.samples
        if self.limit is None or self.limit >= len(ids):
            return None
        return frozenset(
            sorted(ids, key=lambda i: blake2b(f"{self.seed}:{i}".encode(), digest_size=8).digest())[: self.limit]
        )
