"""Parquet and Arrow: batches of rows filtered, and the columns that change built anew for the rows that change."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from decontam.clean.change import TAG, Change, changed, tree
from decontam.clean.jsonl import Decider
from decontam.errors import DecontamError

_PLAIN = ("NONE", "UNCOMPRESSED")
_CODECS = ("lz4", "zstd")  # in the order of Arrow's CompressionType
_FEATURE = [
    {
        "eval": {"dtype": "string", "_type": "Value"},
        "instance": {"dtype": "string", "_type": "Value"},
        "score": {"dtype": "float64", "_type": "Value"},
    }
]  # the tags in the words of `datasets`


def rewrite_parquet(source: Path, target: Path, rows: Set[int], decide: Decider, tag: bool) -> int:
    """Writes the file again, row group by row group, with its codecs, encodings and metadata; returns how many rows the
    source has. A row group that loses all its rows goes. `tag` adds the column of tags, to files without any tag too.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        schema = _tagged(file.schema_arrow) if tag else file.schema_arrow
        with open(target, "wb") as out, pq.ParquetWriter(out, schema, **_as_written(file)) as writer:
            first = 0
            for number in range(file.num_row_groups):
                table = file.read_row_group(number)
                kept = edit(table, first, rows, decide, schema)
                first += table.num_rows
                if kept.num_rows:
                    writer.write_table(kept, row_group_size=kept.num_rows)
        return first


def rewrite_arrow(source: Path, target: Path, rows: Set[int], decide: Decider, tag: bool) -> int:
    """The same for an Arrow file or stream, batch by batch."""
    import pyarrow as pa

    with pa.memory_map(str(source)) as raw:
        is_file = raw.read(6) == b"ARROW1"
        codec = _codec(raw, 8 if is_file else 0)
        raw.seek(0)
        reader = pa.ipc.open_file(raw) if is_file else pa.ipc.open_stream(raw)
        schema = _tagged(reader.schema) if tag else reader.schema
        options = pa.ipc.IpcWriteOptions(compression=codec)
        start = pa.ipc.new_file if is_file else pa.ipc.new_stream
        # An Arrow file has one dictionary a column for all its batches, a stream may bring new ones.
        shared = is_file and any(pa.types.is_dictionary(field.type) for field in schema)
        held: list[Any] = []
        n_rows = 0
        with open(target, "wb") as out, start(out, schema, options=options) as writer:
            for n, batch in _edited(reader, is_file, schema, rows, decide):
                n_rows += n
                if batch is not None:
                    held.append(batch) if shared else writer.write_batch(batch)
            if shared:
                writer.write_table(pa.Table.from_batches(held, schema).unify_dictionaries())
        return n_rows


def count_rows(source: Path, form: str) -> int:
    """How many rows a file has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if form == "parquet":
        with pq.ParquetFile(source) as file:
            return int(file.metadata.num_rows)
    with pa.memory_map(str(source)) as raw:
        is_file = raw.read(6) == b"ARROW1"
        raw.seek(0)
        if is_file:
            reader = pa.ipc.open_file(raw)
            return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
        return sum(batch.num_rows for batch in pa.ipc.open_stream(raw))


def edit(table: Any, first: int, rows: Set[int], decide: Decider, schema: Any) -> Any:
    """The table, whose first row has number `first` in its file, after the changes."""
    import pyarrow as pa

    inside = [i for i in range(table.num_rows) if first + i in rows] if rows else []
    changes = {i: decide(first + i, table.slice(i, 1).to_pylist()[0]) for i in inside}
    if TAG in schema.names and TAG not in table.schema.names:
        empty = pa.nulls(table.num_rows, schema.field(TAG).type)
        table = table.append_column(schema.field(TAG), empty)
    for name, values in _new_values(table, changes).items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), _replaced(table.column(at), values))
    table = _without(table, [i for i, change in changes.items() if change.drop])
    return table.cast(schema) if table.schema != schema else table.replace_schema_metadata(schema.metadata)


def _without(table: Any, gone: Sequence[int]) -> Any:
    """The table without those rows."""
    import pyarrow as pa

    if not gone:
        return table
    out = set(gone)
    try:
        return table.filter(pa.array([i not in out for i in range(table.num_rows)]))
    except pa.ArrowNotImplementedError:  # of string_view, for one; slices are slower and know every type
        edges = [-1, *gone, table.num_rows]
        return pa.concat_tables(table.slice(a + 1, b - a - 1) for a, b in pairwise(edges))


def _new_values(table: Any, changes: Mapping[int, Change]) -> dict[str, dict[int, Any]]:
    """New values by column and position."""
    columns: dict[str, dict[int, Any]] = {}
    for i, change in changes.items():
        if change.tags:
            columns.setdefault(TAG, {})[i] = [tag.as_dict() for tag in change.tags]
        for name, node in tree(change).children.items():
            if node.text is None:
                _refuse_loss(table.column(name).slice(i, 1), f"column {name!r}")
            columns.setdefault(str(name), {})[i] = changed(table.column(name)[i].as_py(), node)
    return columns


def _replaced(column: Any, values: Mapping[int, Any]) -> Any:
    """The column with the values at those positions, as one chunk between each two."""
    import pyarrow as pa

    chunks, at = [], 0
    for i, value in sorted(values.items()):
        chunks += [*column.slice(at, i - at).chunks, pa.array([value], column.type)]
        at = i + 1
    return pa.chunked_array([*chunks, *column.slice(at).chunks], column.type)


def _refuse_loss(cell: Any, where: str) -> None:
    """Raises DecontamError for a value, part of which stays, that does not come back from Python as it went in."""
    import pyarrow as pa

    again = pa.chunked_array([pa.array(cell.to_pylist(), cell.type)])
    if not again.equals(cell):
        raise DecontamError(f"{where}: {cell.type} cannot be changed without loss; use --how drop-row")


def _edited(reader: Any, is_file: bool, schema: Any, rows: Set[int], decide: Decider) -> Iterator[tuple[int, Any]]:
    """The number of rows of each batch, and what is left of it, None for nothing."""
    import pyarrow as pa

    first = 0
    for batch in (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader:
        new = batch
        if not schema.equals(batch.schema) or any(first + i in rows for i in range(batch.num_rows)):
            table = edit(pa.Table.from_batches([batch]), first, rows, decide, schema)
            new = _one_batch(table) if table.num_rows else None
        yield batch.num_rows, new
        first += batch.num_rows


def _one_batch(table: Any) -> Any:
    import pyarrow as pa

    columns = [pa.concat_arrays(c.chunks) if c.chunks else pa.array([], c.type) for c in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _as_written(file: Any) -> dict[str, Any]:
    """The options of ParquetWriter that make the columns as those of the file's first row group."""
    meta = file.metadata
    group = meta.row_group(0) if meta.num_row_groups else None
    columns = [group.column(i) for i in range(group.num_columns)] if group else []
    codecs = {c.path_in_schema: "NONE" if c.compression in _PLAIN else c.compression for c in columns}
    return {
        "version": meta.format_version if meta.format_version in ("1.0", "2.4", "2.6") else "2.6",
        "compression": codecs or "snappy",
        "use_dictionary": [c.path_in_schema for c in columns if c.has_dictionary_page] or False,
        "write_statistics": [c.path_in_schema for c in columns if c.is_stats_set] or False,
        "write_page_index": any(c.has_offset_index for c in columns),
        "use_deprecated_int96_timestamps": any(c.physical_type == "INT96" for c in columns),
        "store_schema": b"ARROW:schema" in (meta.metadata or {}),
    }


def _tagged(schema: Any) -> Any:
    """The schema with the column of tags, and with it in the features that `datasets` keeps in the metadata."""
    import pyarrow as pa

    kind = pa.list_(pa.struct([("eval", pa.string()), ("instance", pa.string()), ("score", pa.float64())]))
    if TAG in schema.names:
        if schema.field(TAG).type != kind:
            raise DecontamError(
                f"column {TAG!r} is there already, as {schema.field(TAG).type}; rename it, or use another --how"
            )
        return schema
    metadata = dict(schema.metadata or {})
    if b"huggingface" in metadata:
        told = json.loads(metadata[b"huggingface"])
        with_tag(told.get("info", {}))
        metadata[b"huggingface"] = json.dumps(told).encode()
    return schema.append(pa.field(TAG, kind)).with_metadata(metadata or None)


def with_tag(info: dict[str, Any]) -> None:
    """Adds the column of tags to the features of a data set's info, where it has any."""
    if isinstance(info.get("features"), dict):
        info["features"].setdefault(TAG, _FEATURE)


def _codec(raw: Any, start: int) -> str | None:
    """How the bodies of the first record batch are compressed. pyarrow reads it without telling, so it is taken from
    the message's flatbuffer: Message.header (third field) is a RecordBatch, its fourth field a BodyCompression, whose
    first field is the codec (arrow/format/Message.fbs)."""
    import pyarrow as pa

    raw.seek(start)
    try:
        while (message := pa.ipc.read_message(raw)).type != "record batch":
            pass
    except (EOFError, pa.ArrowInvalid):
        return None  # no batch
    data = message.metadata.to_pybytes()

    def to(at: int) -> int:
        return at + int(struct.unpack_from("<I", data, at)[0])

    def field(table: int, number: int) -> int | None:
        vtable = table - struct.unpack_from("<i", data, table)[0]
        (size,) = struct.unpack_from("<H", data, vtable)
        place = 4 + 2 * number
        offset = struct.unpack_from("<H", data, vtable + place)[0] if place < size else 0
        return table + offset if offset else None

    header = field(to(0), 2)
    compression = field(to(header), 3) if header else None
    if compression is None:
        return None
    kind = field(to(compression), 0)
    return _CODECS[data[kind] if kind else 0]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what pyarrow says of a file that is none into a DecontamError that names it."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        raise DecontamError(f"{path}: cannot be read ({str(error).splitlines()[0]}); fetch it again") from error
