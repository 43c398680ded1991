"""Parquet row groups and Arrow record batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from decontam.errors import DecontamError
from decontam.inputs.blocks import TruncatedInput
from decontam.types import Shard

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_BYTES = 16 << 20
MOST_ROWS = 1 << 16
FILE_MAGIC = b"ARROW1"


def read_batches(shard: Shard, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of the shard in order, in batches of about 16 MiB; of `columns` those that exist.

    Where the file is damaged it gives what can be read, then raises TruncatedInput.
    """
    import pyarrow as pa

    batches = _parquet(shard, columns) if shard.format == "parquet" else _arrow(shard, columns)
    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        raise TruncatedInput(f"is damaged: {error}") from error


def first_row_of(shard: Shard) -> int:
    """The number in its file of the first row of a Parquet or Arrow shard."""
    return sum(rows for rows, _ in groups_of(shard.path, shard.format)[: shard.start]) if shard.start else 0


def groups_of(path: str, format: str) -> list[tuple[int, int]]:
    """(rows, uncompressed bytes) of each row group of a Parquet file, or of each record batch of an Arrow file."""
    if format == "parquet":
        with _open_parquet(path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            return [(group.num_rows, group.total_byte_size) for group in groups]
    import pyarrow as pa

    found: list[tuple[int, int]] = []
    try:
        found.extend((batch.num_rows, batch.nbytes) for batch in _record_batches(path))
    except (pa.ArrowException, OSError):
        found.append((0, 0))  # the scan meets the damage, and says so, once it has read what stands before
    return found


def _parquet(shard: Shard, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    with _open_parquet(shard.path) as file:
        numbers = range(shard.start, file.metadata.num_row_groups if shard.stop < 0 else shard.stop)
        groups = [file.metadata.row_group(i) for i in numbers]
        rows, size = sum(group.num_rows for group in groups), sum(group.total_byte_size for group in groups)
        batch = max(1, min(MOST_ROWS, rows * BATCH_BYTES // max(size, 1)))
        kept = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
        yield from file.iter_batches(batch, row_groups=numbers, columns=kept, use_threads=False)


def _open_parquet(path: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DecontamError(f"{path} cannot be read as Parquet: {error}") from error


def _arrow(shard: Shard, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    for batch in _record_batches(shard.path, shard.start, shard.stop):
        yield batch if columns is None else batch.select([name for name in batch.schema.names if name in columns])


def _record_batches(path: str, start: int = 0, stop: int = -1) -> Iterator[pa.RecordBatch]:
    """The record batches start..stop-1, or all from start on, of an IPC file or, as `datasets` saves, an IPC stream."""
    import pyarrow as pa

    try:
        source = pa.memory_map(path)
        is_file = source.read(len(FILE_MAGIC)) == FILE_MAGIC
        source.seek(0)
        reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
    except (pa.ArrowException, OSError) as error:
        raise DecontamError(f"{path} cannot be read as Arrow: {error}") from error
    with source:
        if is_file:
            for i in range(start, reader.num_record_batches if stop < 0 else stop):
                yield reader.get_batch(i)
            return
        for i, batch in enumerate(reader):
            if i >= start:
                yield batch
            if i + 1 == stop:
                return
