"""Cutting the files of a data set into shards that can be scanned alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from decontam.errors import DecontamError
from decontam.inputs.discover import Dataset, File
from decontam.types import Shard

SHARD_BYTES = 64 << 20


def shards_of(dataset: Dataset, shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """Shards of about `shard_bytes`, in the order of the files, numbered from 0; an empty file has one too.

    Plain files are cut anywhere, Parquet and Arrow files between row groups, compressed files not at all.
    """
    ranges = [(file, *each) for file in dataset.files for each in _ranges(file, shard_bytes)]
    return [Shard(n, dataset.name, f.name, f.path, f.format, a, b) for n, (f, a, b) in enumerate(ranges)]


def _ranges(file: File, shard_bytes: int) -> Iterator[tuple[int, int]]:
    try:
        if file.format == "jsonl":
            size = os.path.getsize(file.path)
            n = max(1, round(size / shard_bytes))
            yield from ((size * i // n, size * (i + 1) // n) for i in range(n))
        elif file.format in ("parquet", "arrow"):
            from decontam.inputs.batches import groups_of

            yield from _grouped([size for _, size in groups_of(file.path, file.format)], shard_bytes)
        else:
            os.stat(file.path)
            yield 0, -1
    except OSError as error:
        raise DecontamError(f"{file.name}: {error.strerror or error}") from error


def _grouped(sizes: Sequence[int], shard_bytes: int) -> Iterator[tuple[int, int]]:
    """Runs of groups that together reach the size."""
    start = total = 0
    for i, size in enumerate(sizes):
        total += size
        if total >= shard_bytes:
            yield start, i + 1
            start, total = i + 1, 0
    if start < len(sizes) or not sizes:
        yield start, len(sizes)
