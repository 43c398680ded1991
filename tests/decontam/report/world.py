"""Scans made in one line: two evals, two data sets, and matches as the scan would write them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from decontam.report.facts import CAPPED, EXACT, DatasetFacts, EvalFacts, Scan, ShardTables
from decontam.rules import find_rule
from decontam.types import EvalSet, Kind

TULU3 = find_rule("tulu3")
MATCHES = pa.schema(
    [
        ("row", pa.int64()),
        ("offset", pa.int64()),
        ("id", pa.string()),
        ("turn", pa.int32()),
        ("where", pa.int8()),
        ("inst", pa.int32()),
        ("covered", pa.list_(pa.int32())),
        ("score", pa.float64()),
        ("capped", pa.list_(pa.int32())),
        ("capped_score", pa.float64()),
        ("flags", pa.uint8()),
        ("common_share", pa.float64()),
        ("text", pa.int64()),
        ("runs", pa.list_(pa.int32())),
    ]
)
NEAR = pa.schema(
    [
        ("row", pa.int64()),
        ("offset", pa.int64()),
        ("id", pa.string()),
        ("turn", pa.int32()),
        ("where", pa.int8()),
        ("inst", pa.int32()),
        ("score", pa.float64()),
        ("train_from", pa.int32()),
        ("train_to", pa.int32()),
        ("eval_from", pa.int32()),
        ("eval_to", pa.int32()),
        ("text", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Texts:
    """Training text from memory; remembers what it was asked."""

    rows: Mapping[tuple[str, str], Sequence[str]]

    def __call__(self, dataset: str, file: str, rows: Mapping[int, int]) -> dict[int, dict[int, str]]:
        known = self.rows.get((dataset, file), ())
        return {row: {0: known[row]} for row in rows if row < len(known)}


def eval_set(name: str, texts: Sequence[str | tuple[str | None, ...]], kind: Kind = "development") -> EvalSet:
    rows = tuple((text,) if isinstance(text, str) else text for text in texts)
    fields = ("question",) if all(len(r) == 1 for r in rows) else ("passage", "question")
    return EvalSet(name, kind, fields, tuple(f"{name}-{i}" for i in range(len(rows))), rows, f"digest of {name}")


def facts(each: EvalSet, **changes: Any) -> EvalFacts:
    """Ten positions a field, four of them common."""
    sizes = [[10] * len(each.fields) for _ in each.ids]
    return replace(EvalFacts(each, sizes, [[6] * len(each.fields) for _ in each.ids]), **changes)


def data(name: str = "train", n_rows: int = 100, **changes: Any) -> DatasetFacts:
    return replace(DatasetFacts(name, f"digest of {name}", f"data/{name}.jsonl", n_rows), **changes)


def match(row: int, inst: int, flags: int = EXACT | CAPPED, **changes: Any) -> dict[str, Any]:
    """One run over the first 9 characters of both sides; 8 of 10 positions, 5 of 6 without the common ones."""
    found = {"row": row, "offset": -1, "id": None, "turn": 0, "where": 0, "inst": inst, "covered": [8], "score": 0.8}
    found["text"] = row  # no row is a copy of another
    found |= {"capped": [5], "capped_score": 5 / 6, "flags": flags, "common_share": 0.25, "runs": [0, 9, 0, 0, 9, 8]}
    return {**found, **changes}


def near(row: int, inst: int, **changes: Any) -> dict[str, Any]:
    found = {"row": row, "offset": -1, "id": None, "turn": 0, "where": 0, "inst": inst, "score": 91.25, "text": row}
    return {**found, "train_from": 0, "train_to": 9, "eval_from": 0, "eval_to": 9, **changes}


def shard(
    matches: Collection[Mapping[str, Any]],
    near: Collection[Mapping[str, Any]] | None = None,
    dataset: str = "train",
    first_row: int = 0,
) -> ShardTables:
    other = None if near is None else pa.Table.from_pylist(list(near), NEAR)
    table = pa.Table.from_pylist(list(matches), MATCHES)
    return ShardTables(dataset, f"data/{dataset}.jsonl", table, other, first_row)


def scan(
    evals: Sequence[EvalFacts],
    shards: Sequence[ShardTables],
    datasets: Sequence[DatasetFacts] = (data(),),
    **changes: Any,
) -> Scan:
    return replace(Scan(TULU3, 50, evals, datasets, shards), **changes)
