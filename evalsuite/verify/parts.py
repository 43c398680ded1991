"""Benchmarks whose rows lie in several configs of one dataset: loads them, in order, into one table."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
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
    where = {config: {"path": dataset, **((places or {}).get(config) or {})} for config in configs}
    for path, group in groupby(configs, key=lambda config: where[config]["path"]):
        for config, loaded in _load(path, list(group), split, where):
            found.extend(rows(config, loaded))
    return {split: datasets.Dataset.from_list(found)}


def _load(
    path: str, configs: Sequence[str], split: str, where: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """(config, its rows). The description of the dataset is read once: it takes a quarter second with 56 configs."""
    import datasets

    extra = {config: {k: v for k, v in where[config].items() if k != "path"} for config in configs}
    first = datasets.load_dataset_builder(path, configs[0], **extra[configs[0]])
    # A dataset that comes from the library's own cache knows one config only.
    same = set(configs) <= set(first.builder_configs) and len({e.get("revision") for e in extra.values()}) == 1
    for config in configs:
        if not same:
            yield config, datasets.load_dataset(path, config, split=split, **extra[config])
            continue
        builder = type(first)(
            config_name=config,
            cache_dir=extra[config].get("cache_dir"),
            dataset_name=first.dataset_name,
            hash=first.hash,
            base_path=first.base_path,
            repo_id=first.repo_id,
            token=first.token,
        )
        builder.download_and_prepare()
        yield config, builder.as_dataset(split=split)


def sample(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """All rows when there are at most n, else n of them: `random.Random(seed).sample`, in the order drawn."""
    return list(rows) if len(rows) <= n else [rows[i] for i in random.Random(seed).sample(range(len(rows)), n)]
