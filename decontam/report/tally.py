"""Counts matches: per data set and eval the instances hit and the rows hit, under each way of deciding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from decontam.report.facts import CAPPED, EXACT, SHORT, Scan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]  # evals and texts

Way = Literal["exact", "capped", "near", "short"]
WAYS: tuple[Way, ...] = ("exact", "capped", "near", "short")


@dataclass(frozen=True, slots=True)
class Hits:
    """Distinct instances and rows; a row counts once however many instances it holds.

    `texts` counts rows that are copies of each other once: it is the number of distinct messages that hold an instance.
    """

    instances: int = 0
    rows: int = 0
    texts: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """Hits by (data set, eval), flagged rows of a data set over all evals and the distinct texts among them, and the
    touched instances of each eval.

    Data sets and evals are numbered in the order of the scan. `touched` are instances that any data set holds whole or
    by the exact rule, numbered within their eval, ascending.
    """

    cells: Mapping[tuple[int, int], Mapping[Way, Hits]]
    rows: Mapping[int, Mapping[Way, int]]
    texts: Mapping[int, Mapping[Way, int]]
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
    seen: dict[tuple[int, Way], list[Pairs]] = {key: [] for key in hit}
    for shard in scan.shards:
        for way, rows, instances, texts in _ways(shard.matches, shard.near):
            key = (number[shard.dataset], way)
            hit[key][instances] = True
            seen[key].append(_pairs(eval_of[instances], texts, len(lengths)))
            # A row stands in one shard only, so distinct rows of shards add up.
            rows_hit[key] += _rows_by_eval(rows, eval_of[instances], len(lengths))
            any_hit[key] += len(np.unique(rows))
    texts_hit = {key: _distinct(found, len(lengths)) for key, found in seen.items()}
    cells = {
        (d, e): {
            way: Hits(
                int(hit[d, way][starts[e] : starts[e + 1]].sum()), int(rows_hit[d, way][e]), texts_hit[d, way][0][e]
            )
            for way in WAYS
        }
        for d in number.values()
        for e in range(len(lengths))
    }
    touched = np.zeros(len(eval_of), bool)
    for d in number.values():
        touched |= hit[d, "exact"] | hit[d, "short"]
    by_eval = [np.flatnonzero(touched[starts[e] : starts[e + 1]]).tolist() for e in range(len(lengths))]
    rows_of = {d: {way: any_hit[d, way] for way in WAYS} for d in number.values()}
    texts_of = {d: {way: texts_hit[d, way][1] for way in WAYS} for d in number.values()}
    return Tally(cells, rows_of, texts_of, tuple(tuple(each) for each in by_eval))


def _pairs(evals: NDArray[np.int64], texts: NDArray[np.int64], n: int) -> Pairs:
    """The distinct pairs of an eval, of which there are n, and a text."""
    import numpy as np

    known, place = np.unique(texts, return_inverse=True)
    pairs = np.unique(place * n + evals)
    return pairs % n, known[pairs // n]


def _distinct(found: Sequence[Pairs], n: int) -> tuple[list[int], int]:
    """From the pairs of shards: the distinct texts of each eval, and those of all evals together."""
    import numpy as np

    if not found:
        return [0] * n, 0
    evals, texts = _pairs(np.concatenate([each[0] for each in found]), np.concatenate([each[1] for each in found]), n)
    return np.bincount(evals, minlength=n).tolist(), int(np.unique(texts).size)


def _ways(matches: Any, near: Any) -> Iterator[tuple[Way, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """(way, row numbers, instances, texts) of the matches of a shard, for each way that has any."""
    import numpy as np

    if matches.num_rows:
        rows, instances = matches["row"].to_numpy(), matches["inst"].to_numpy().astype(np.int64)
        flags, texts = matches["flags"].to_numpy(), matches["text"].to_numpy()
        for bit, way in ((EXACT, WAYS[0]), (CAPPED, WAYS[1]), (SHORT, WAYS[3])):
            if (chosen := (flags & bit) != 0).any():
                yield way, rows[chosen], instances[chosen], texts[chosen]
    if near is not None and near.num_rows:
        yield "near", near["row"].to_numpy(), near["inst"].to_numpy().astype(np.int64), near["text"].to_numpy()


def _rows_by_eval(rows: NDArray[np.int64], evals: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """How many distinct rows each eval has."""
    import numpy as np

    pairs = np.unique(rows * n + evals)
    return np.bincount(pairs % n, minlength=n)
