"""Draws the wanted number of rows of each source and merges them into one order: that of sha256(seed, id)."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from evalsuite.errors import DataError
from train_plugins.data.collect import Collected
from train_plugins.data.dedup import sort_key
from train_plugins.data.mixfile import Mix, Source
from train_plugins.data.screen import Cleaned


@dataclass(frozen=True, slots=True)
class Share:
    """What a source gives: rows of candidates left, how many were wanted (None: all) and how many are taken.

    `passes` counts whole passes over its rows where it is upsampled; the last one may be a part.
    """

    source: Source
    file: Path
    n_left: int
    wanted: int | None
    taken: int
    passes: int = 1


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row of the finished file and what is known of where it came from. `row_id` is its id within the source."""

    row: dict[str, Any]
    source: str
    row_id: str
    copy: int


def shares(mix: Mix, collected: Mapping[str, Collected], cleaned: Mapping[str, Cleaned]) -> tuple[Share, ...]:
    """How many rows of each source are taken. Raises DataError with every source that has too few, one a line."""
    found: list[Share] = []
    short: list[str] = []
    for source in mix.sources:
        had, clean = collected[source.name], cleaned[source.name]
        left = had.n_left - clean.n_dropped
        wanted = _wanted(source, left)
        taken = left if wanted is None or (wanted > left and not (source.upsample and left)) else wanted
        passes = -(-taken // left) if left else 0
        found.append(Share(source, clean.file, left, wanted, taken, passes))
        if wanted is not None and taken < wanted and not _is_accepted(mix, wanted - taken, clean):
            short.append(_told(source.name, wanted, left, had, clean))
    if short:
        raise DataError("\n".join(short))
    if not sum(share.taken for share in found):
        raise DataError(f"{mix.name}: no row is left")
    return tuple(found)


def merged(mix: Mix, parts: Sequence[Share]) -> Iterator[Drawn]:
    """The rows of the finished file in its order. Ids that two rows share get the source or the pass as a suffix."""
    streams = [_ordered(mix.seed, share, place) for place, share in enumerate(parts)]
    used: set[str] = set()
    for _, _, copy, row in heapq.merge(*streams, key=lambda each: each[:3]):
        row_id, source = str(row["id"]), str(row["source"])
        yield Drawn({**row, "id": _unused(row_id, source, copy, used)}, source, row_id, copy)


def _wanted(source: Source, left: int) -> int | None:
    if source.fraction is not None:
        return int((Decimal(str(source.fraction)) * left).to_integral_value(ROUND_HALF_UP))
    return source.count if isinstance(source.count, int) else None


def _is_accepted(mix: Mix, lacking: int, clean: Cleaned) -> bool:
    return mix.short == "any" or (mix.short == "decontam" and lacking <= clean.n_dropped)


def _told(name: str, wanted: int, left: int, had: Collected, clean: Cleaned) -> str:
    gone = {**had.dropped, **({"decontamination": clean.n_dropped} if clean.n_dropped else {})}
    why = " and ".join(f"{reason.replace('_', ' ')} ({n:,})" for reason, n in gone.items() if n)
    return f"{name}: {wanted:,} wanted, {left:,} left of {had.n_in:,}{f' after {why}' if why else ''}"


def _ordered(seed: int, share: Share, place: int) -> Iterator[tuple[bytes, int, int, dict[str, Any]]]:
    """(key, place of the source, pass, row) in order. Files of candidates are in that order: one pass needs no sort."""
    rows = _read(share.file)
    if share.passes <= 1:
        for row in itertools.islice(rows, share.taken):
            yield sort_key(seed, str(row["id"])), place, 0, row
        return
    every = list(rows)
    copies = (divmod(number, len(every)) for number in range(share.taken))
    keyed = [(sort_key(seed, str(every[i]["id"]), copy), place, copy, every[i]) for copy, i in copies]
    yield from sorted(keyed, key=lambda each: each[:3])


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="surrogatepass") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def _unused(row_id: str, source: str, copy: int, used: set[str]) -> str:
    """The id itself, else with its source, the pass, or a number: two sources may both have a row "1"."""
    names = itertools.chain(
        (row_id, f"{source}/{row_id}") if not copy else (f"{row_id}#{copy + 1}", f"{source}/{row_id}#{copy + 1}"),
        (f"{source}/{row_id}~{number}" for number in itertools.count(2)),
    )
    chosen = next(name for name in names if name not in used)
    used.add(chosen)
    return chosen
