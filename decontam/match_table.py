"""The tables of a shard's matches and near-duplicates, as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from decontam.index import Index
from decontam.matcher import Found

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]


class Whose(NamedTuple):
    """Row, byte offset of its line, turn and where of each message."""

    row: Array
    offset: Array
    turn: Array
    where: Array


def match_columns(index: Index, found: Found, whose: Whose, ids: Mapping[int, str], texts: Array) -> dict[str, Any]:
    """The columns of `match_table` for one batch, lists as values and sizes."""
    arrays = index.arrays
    message, inst, flags, first_field, first_run, n_runs = found.matches.T
    n_fields = np.diff(arrays["instance_fields"])[inst]
    which = _ranges(first_field, n_fields)
    fields = found.fields[which]
    runs = found.runs[_ranges(first_run, n_runs)]
    base = arrays["span_starts"][np.repeat(arrays["instance_fields"][inst], n_runs) + runs[:, 2]]
    spans = np.column_stack(
        [
            runs[:, :3],
            arrays["span_from"][base + runs[:, 3]],
            arrays["span_to"][base + runs[:, 4] - 1],
            runs[:, 4] - runs[:, 3],
        ]
    )
    scores = found.scores
    if index.rule.score == "idf":
        scores = scores.copy()
        at = np.cumsum(n_fields) - n_fields
        total = np.add.reduceat(fields[:, 6], at)
        scores[:, 0] = np.add.reduceat(fields[:, 4], at) / total
        scores[:, 1] = np.add.reduceat(fields[:, 5], at) / total
    rows = whose.row[message]
    return {
        "row": rows,
        "offset": whose.offset[message],
        "id": [ids.get(row) for row in rows.tolist()] if ids else [None] * rows.size,
        "turn": whose.turn[message].astype(np.int32),
        "where": whose.where[message].astype(np.int8),
        "inst": inst.astype(np.int32),
        "covered": fields[:, 0].astype(np.int32),
        "score": scores[:, 0],
        "capped": fields[:, 2].astype(np.int32),
        "capped_score": scores[:, 1],
        "flags": flags.astype(np.uint8),
        "common_share": scores[:, 2],
        "text": texts,
        "runs": spans.astype(np.int32).ravel(),
        "n_fields": n_fields,
        "n_runs": n_runs * 6,
    }


def match_table(parts: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Matches in order of row, turn and instance.

    `inst` numbers the instances of the index; `covered` and `capped` have one number a field; `runs` six numbers a run:
    characters of the message from and to, field, characters of the field from and to, positions of the eval text.
    Messages with the same text have the same `text`.
    """
    import pyarrow as pa

    def column(name: str, kind: Any) -> Any:
        joined = [np.asarray(part[name]) for part in parts]
        return pa.array(np.concatenate(joined), kind) if joined else pa.array([], kind)

    def lists(name: str, sizes: str) -> Any:
        ends = np.cumsum(np.concatenate([[0], *(part[sizes] for part in parts)])).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), column(name, pa.int32()))

    return pa.table(
        {
            "row": column("row", pa.int64()),
            "offset": column("offset", pa.int64()),
            "id": pa.array([told for part in parts for told in part["id"]], pa.string()),
            "turn": column("turn", pa.int32()),
            "where": column("where", pa.int8()),
            "inst": column("inst", pa.int32()),
            "covered": lists("covered", "n_fields"),
            "score": column("score", pa.float64()),
            "capped": lists("capped", "n_fields"),
            "capped_score": column("capped_score", pa.float64()),
            "flags": column("flags", pa.uint8()),
            "common_share": column("common_share", pa.float64()),
            "text": column("text", pa.int64()),
            "runs": lists("runs", "n_runs"),
        }
    )


def near_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Near-duplicates in order of row, turn and instance; `score` is 0–100."""
    import pyarrow as pa

    kinds = {"row": pa.int64(), "offset": pa.int64(), "id": pa.string(), "turn": pa.int32(), "where": pa.int8()}
    kinds |= {"inst": pa.int32(), "score": pa.float64()}
    kinds |= {name: pa.int32() for name in ("train_from", "train_to", "eval_from", "eval_to")}
    kinds["text"] = pa.int64()
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})


def _ranges(first: Array, sizes: Array) -> Array:
    """first[0], first[0] + 1, … of sizes[0] numbers, then those of first[1], …"""
    ends = np.cumsum(sizes)
    numbers: Array = np.arange(ends[-1] if ends.size else 0) + np.repeat(first - (ends - sizes), sizes)
    return numbers
