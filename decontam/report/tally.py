"""Counts matches: per data set and eval the instances hit and the rows hit, under each way of deciding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from decontam.report.facts import CAPPED, EXACT, SHORT, Scan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Way = Literal["exact", "capped", "near", "short"]
WAYS: tuple[Way, ...] = ("exact", "capped", "near", "short")


@dataclass(frozen=True, slots=True)
class Hits:
    """Distinct instances and distinct rows; a row counts once however many instances it holds."""

    instances: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """Hits by (data set, eval), flagged rows of a data set over all evals, and the touched instances of each eval.

    Data sets and evals are numbered in the order of the scan. `touched` are instances that any data set holds whole or
    by the exact rule, numbered within their eval, ascending.
    """

    cells: Mapping[tuple[int, int], Mapping[Way, Hits]]
    rows: Mapping[int, Mapping[Way, int]]
    touched: tuple[tuple[int, ...], ...]


def tally(scan: Scan) -> Tally:
    """Counts all shards of a scan."""
    import numpy as np

    lengths = [len(facts.eval.ids) for facts in scan.evals]
    eval_of = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    number = {facts.name: i for i, facts in enumerate(scan.datasets)}
    hit = {(d, way): np.zeros(len(eval_of), bool) for d in number.values() for way in WAYS}
    rows_hit = {key: np.zeros(len(lengths), np.int64) for key in hit}
    any_hit = dict.fromkeys(hit, 0)
    for shard in scan.shards:
        for way, rows, instances in _ways(shard.matches, shard.near):
            key = (number[shard.dataset], way)
            hit[key][instances] = True
            # A row stands in one shard only, so distinct rows of shards add up.
            rows_hit[key] += _rows_by_eval(rows, eval_of[instances], len(lengths))
            any_hit[key] += len(np.unique(rows))
    cells = {
        (d, e): {way: Hits(int(hit[d, way][starts[e] : starts[e + 1]].sum()), int(rows_hit[d, way][e])) for way in WAYS}
        for d in number.values()
        for e in range(len(lengths))
    }
    touched = np.zeros(len(eval_of), bool)
    for d in number.values():
        touched |= hit[d, "exact"] | hit[d, "short"]
    by_eval = [np.flatnonzero(touched[starts[e] : starts[e + 1]]).tolist() for e in range(len(lengths))]
    rows_of = {d: {way: any_hit[d, way] for way in WAYS} for d in number.values()}
    return Tally(cells, rows_of, tuple(tuple(each) for each in by_eval))


def _ways(matches: Any, near: Any) -> Iterator[tuple[Way, NDArray[np.int64], NDArray[np.int64]]]:
    """(way, row numbers, instances) of the matches of a shard, for each way that has any."""
    import numpy as np

    if matches.num_rows:
        rows, instances = matches["row"].to_numpy(), matches["inst"].to_numpy().astype(np.int64)
        flags = matches["flags"].to_numpy()
        for bit, way in ((EXACT, WAYS[0]), (CAPPED, WAYS[1]), (SHORT, WAYS[3])):
            if (chosen := (flags & bit) != 0).any():
                yield way, rows[chosen], instances[chosen]
    if near is not None and near.num_rows:
        yield "near", near["row"].to_numpy(), near["inst"].to_numpy().astype(np.int64)


def _rows_by_eval(rows: NDArray[np.int64], evals: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """How many distinct rows each eval has."""
    import numpy as np

    pairs = np.unique(rows * n + evals)
    return np.bincount(pairs % n, minlength=n)
