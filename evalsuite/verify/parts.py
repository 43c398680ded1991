"""Benchmarks whose rows lie in several configs of one dataset: loads them, in order, into one table."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Rows = Callable[[str, Sequence[Row]], Iterable[Row]]


def load_parts(
    dataset: str,
    configs: Sequence[str],
    split: str,
    rows: Rows,
    places: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """`{split: Dataset}` of the rows that `rows(config, rows of that config)` makes, config after config.

    This is what a `custom_dataset` function of lm-eval returns. `places` says for each config where it was found: the
    `path` of a local folder or hub id, and what else `load_dataset` is given; without it everything is on the hub.
    """
    import datasets

    found: list[Row] = []
    for config in configs:
        place = dict((places or {}).get(config) or {})
        loaded = datasets.load_dataset(place.pop("path", dataset), config, split=split, **place)
        found.extend(rows(config, loaded))
    return {split: datasets.Dataset.from_list(found)}


def sample(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """All rows when there are at most n, else n of them: `random.Random(seed).sample`, in the order drawn."""
    return list(rows) if len(rows) <= n else [rows[i] for i in random.Random(seed).sample(range(len(rows)), n)]
