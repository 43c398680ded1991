"""The broken rows of a job by the names that a person finds them by: the line of a text file, the row of a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from decontam.job.work import Source
from decontam.types import Shard, ShardCounts

N_NAMED = 20  # broken rows that are named; the others are counted


@dataclass(frozen=True, slots=True)
class Read:
    """A finished shard. Row numbers in its counts and tables become those of its file when `first_row` is added."""

    shard: Shard
    counts: ShardCounts
    first_row: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that could not be read. `row` counts from 0 and leaves blank lines out; `line` counts all lines from 1, and
    is None for formats without lines."""

    file: str
    row: int
    line: int | None
    why: str

    def __str__(self) -> str:
        """`train.jsonl line 17: not JSON: …`, `train.parquet row 3: …`."""
        place = f"row {self.row:,}" if self.line is None else f"line {self.line:,}"
        return f"{self.file} {place}: {self.why}"

    def as_json(self) -> dict[str, Any]:
        """As summary.json has it."""
        return {"file": self.file, "row": self.row, "line": self.line, "why": self.why}


def broken_rows(reads: Iterable[Read], sources: Iterable[Source], n: int = N_NAMED) -> tuple[Broken, ...]:
    """The first n broken rows of these shards, in order.

    Shards know where their bytes are but not how many lines stand before: the file is read up to the last of these
    rows, and only where there are any.
    """
    found: dict[tuple[str, str], list[Broken]] = {}
    every = ((read, row, why) for read in reads for row, why in read.counts.broken)
    for read, row, why in islice(every, n):
        key = (read.shard.dataset, read.shard.path)
        found.setdefault(key, []).append(Broken(read.shard.file, read.first_row + row, None, why))
    known = {(source.dataset, source.path): source for source in sources}
    return tuple(each for key, rows in found.items() for each in _with_lines(rows, known[key]))


def _with_lines(rows: list[Broken], source: Source) -> list[Broken]:
    from decontam.inputs import line_numbers

    if source.format in ("parquet", "arrow"):
        return rows
    lines = line_numbers(source.path, source.format, [each.row for each in rows])
    return [replace(each, line=lines.get(each.row)) for each in rows]
