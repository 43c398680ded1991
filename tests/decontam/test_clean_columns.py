"""Parquet and Arrow files changed: rows and cells, and all that is not one of them stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decontam.clean.change import Change
from decontam.clean.columns import rewrite_arrow, rewrite_parquet
from decontam.errors import DecontamError
from tests.decontam.clean_outs import arrow_table

DROP = Change(drop="row")
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.large_string()), ("at", pa.timestamp("us"))])


def parquet(path: Path, changes: Mapping[int, Change]) -> pq.ParquetFile:
    n_rows = rewrite_parquet(path, path.with_name("new"), changes.keys(), lambda row, _: changes[row], False)
    assert n_rows == pq.read_metadata(path).num_rows
    return pq.ParquetFile(path.with_name("new"))


def arrow(path: Path, changes: Mapping[int, Change]) -> pa.Table:
    rewrite_arrow(path, path.with_name("new"), changes.keys(), lambda row, _: changes[row], False)
    return arrow_table(path.with_name("new"))


def text_table(n: int = 10, kind: pa.DataType | None = None) -> pa.Table:
    texts = pa.array([f"text {i}" for i in range(n)], kind or pa.string())
    return pa.table({"n": range(n), "text": texts}, metadata={"made": "by a test"})


def test_row_groups_codecs_encodings_and_metadata_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = text_table().append_column("m", pa.array([[{"role": "user"}]] * 10))
    codecs = {"n": "gzip", "text": "snappy", "m.list.element.role": "none"}
    pq.write_table(table, path, row_group_size=4, compression=codecs, use_dictionary=["text"], write_page_index=True)
    old, new = pq.ParquetFile(path), parquet(path, {1: DROP, 9: Change(texts={("text",): "new"})})
    assert [new.metadata.row_group(i).num_rows for i in range(3)] == [3, 4, 2]
    assert new.schema_arrow.equals(old.schema_arrow, check_metadata=True)
    assert new.metadata.metadata[b"made"] == b"by a test"
    for i in range(3):
        before, after = old.metadata.row_group(0).column(i), new.metadata.row_group(0).column(i)
        for what in ("compression", "has_dictionary_page", "is_stats_set", "has_offset_index", "physical_type"):
            assert getattr(before, what) == getattr(after, what), (i, what)
    assert new.read().column("text").to_pylist() == [f"text {i}" for i in (0, 2, 3, 4, 5, 6, 7, 8)] + ["new"]


def test_a_row_group_without_rows_goes_and_a_file_without_rows_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(text_table(), path, row_group_size=5)
    assert parquet(path, dict.fromkeys(range(5), DROP)).num_row_groups == 1
    empty = parquet(path, dict.fromkeys(range(10), DROP))
    assert (empty.metadata.num_rows, empty.schema_arrow.names) == (0, ["n", "text"])


KINDS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("is_file", [True, False], ids=["file", "stream"])
def test_texts_of_every_kind_change_in_arrow(kind: pa.DataType, is_file: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.concat_tables([text_table(6, kind), text_table(6, kind)])
    start = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with start(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    changes = {1: Change(texts={("text",): "new"}), 4: DROP, 11: Change(texts={("text",): "last"})}
    new = arrow(path, changes)
    assert new.schema.equals(table.schema, check_metadata=True)
    expected = [f"text {i}" for i in (*range(6), *range(6))]
    expected[1], expected[11] = "new", "last"
    del expected[4]
    assert new.column("text").to_pylist() == expected


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("is_file", [True, False], ids=["file", "stream"])
def test_arrow_keeps_its_codec_and_batches(codec: str | None, is_file: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"text": ["one and the same text " * 50] * 3000})
    start = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with start(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table, max_chunksize=1000)
    new = arrow(path, dict.fromkeys(range(1000, 2500), DROP))
    assert [len(chunk) for chunk in new.column("text").chunks] == [1000, 500]
    ratio = path.with_name("new").stat().st_size / path.stat().st_size
    assert 0.45 < ratio < 0.55  # half of the rows, packed as before


def test_nested_cells_change_and_their_neighbours_do_not(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    cells = [[{"role": "user", "content": f"{i}{c}", "at": i} for c in "abc"] for i in range(4)] + [None, []]
    pq.write_table(pa.table({"m": pa.array(cells, pa.list_(MESSAGE)), "id": range(6)}), path)
    change = Change(texts={("m", 2, "content"): "new"}, removed={("m",): frozenset({0})})
    new = parquet(path, {1: change, 3: DROP}).read()
    assert [[m["content"] for m in cell or ()] for cell in new.column("m").to_pylist()] == [
        ["0a", "0b", "0c"],
        ["1b", "new"],
        ["2a", "2b", "2c"],
        [],
        [],
    ]
    assert new.column("m").null_count == 1
    assert new.schema.field("m").type == pa.list_(MESSAGE)


def test_a_cell_that_python_cannot_give_back_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    kind = pa.struct([("text", pa.string()), ("score", pa.float32()), ("when", pa.map_(pa.string(), pa.float64()))])
    odd: list[dict[str, Any]] = [{"text": "a", "score": 0.5, "when": [("x", float("nan"))]}]
    pq.write_table(pa.table({"m": pa.array(odd, kind)}), path)
    with pytest.raises(DecontamError, match=r"column 'm': struct.* use --how drop-row"):
        parquet(path, {0: Change(texts={("m", "text"): "b"})})
