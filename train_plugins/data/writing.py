"""Data sets that are there whole or not at all, each with a sidecar that says what it is and how it was made."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from evalsuite.errors import DataError, DiskFull, UsageError, did_you_mean
from evalsuite.trainers.files import load_json, replace_json, sync_folder
from train_plugins.data.jsontext import row_bytes

SCHEMA = 1
WRITABLE = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
NO_SPACE = (28, 122)  # ENOSPC, EDQUOT
SLICE = 1000  # rows of a Parquet row group that are gathered before they are written


@dataclass(frozen=True, slots=True)
class Written:
    """A data set that was written: sha256 hex of its file, and how many rows it has."""

    path: Path
    digest: str
    n_rows: int


def write_dataset(path: Path, rows: Iterable[Mapping[str, Any]], meta: Mapping[str, Any]) -> Written:
    """Writes rows and their sidecar; see DatasetWriter. Nothing of the file is there when `rows` raises."""
    with DatasetWriter(path) as writer:
        for row in rows:
            writer.add(row)
        return writer.finish(meta)


def sidecar(path: Path) -> Path:
    """Where the facts of a data set stand: `<file name>.meta.json` beside it."""
    return path.with_name(f"{path.name}.meta.json")


def read_meta(path: Path) -> dict[str, Any]:
    """The sidecar of a data set, empty where there is none. Raises DataError when it is no JSON object."""
    try:
        return load_json(sidecar(path)) or {}
    except ValueError as error:
        raise DataError(f"{sidecar(path)}: not the facts of a data set ({error}); write the data again") from error


def part_of(path: Path) -> Path:
    """What a file is called while this process writes it."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def remove_parts(path: Path) -> None:
    """Deletes what killed processes have left of the file they were writing."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.part")
    for each in path.parent.iterdir():
        if (match := pattern.fullmatch(each.name)) and not Path(f"/proc/{match[1]}").exists():
            each.unlink(missing_ok=True)


class DatasetWriter:
    """Writes rows beside the file they are for; `finish` gives them their name, leaving the block does away with them.

    JSON lines, packed where the name says so, or Parquet. Raises UsageError for another name, DiskFull when there is
    no room. The same rows give the same bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.n_rows = path, 0
        self._form = next((end for end in WRITABLE if path.name.endswith(end)), "")
        if not self._form:
            near = did_you_mean("".join(path.suffixes), WRITABLE)
            raise UsageError(f"{path}: its name ends in none of {', '.join(WRITABLE)}{near}")
        self._part = part_of(path)
        self._sink: Any = None

    def __enter__(self) -> DatasetWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_parts(self.path)
            self._sink = (
                _Table(self._part, self.path.name) if self._form == ".parquet" else _Lines(self._part, self._form)
            )
        except OSError as error:
            raise _told(error, self.path) from error
        return self

    def add(self, row: Mapping[str, Any], texts_only: bool = False) -> None:
        """Takes one row; `texts_only` promises that no number is in it, which is faster."""
        try:
            self._sink.add(row, texts_only)
        except OSError as error:
            raise _told(error, self.path) from error
        self.n_rows += 1

    def finish(self, meta: Mapping[str, Any]) -> Written:
        """Publishes the file and its sidecar: `meta` with schema, digest and rows put before it."""
        try:
            self._sink.close()
            with self._part.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            # Data without facts, should we die between the two renames, never with those of another file.
            sidecar(self.path).unlink(missing_ok=True)
            os.replace(self._part, self.path)
            sync_folder(self.path.parent)
            replace_json(sidecar(self.path), {"schema": SCHEMA, "digest": digest, "rows": self.n_rows, **meta})
        except OSError as error:
            raise _told(error, self.path) from error
        return Written(self.path, digest, self.n_rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.abandon()
        self._part.unlink(missing_ok=True)


class _Lines:
    """JSON lines, plain or packed."""

    def __init__(self, path: Path, form: str) -> None:
        self._stack = ExitStack()
        if form.endswith(".zst"):
            import pyarrow as pa

            raw = self._stack.enter_context(pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd"))
            self._file: Any = self._stack.enter_context(io.BufferedWriter(raw, 1 << 20))
        elif form.endswith(".gz"):
            # Neither name nor time in the header: the same rows give the same bytes.
            plain = self._stack.enter_context(path.open("wb"))
            packed = gzip.GzipFile("", "wb", 6, plain, mtime=0)
            self._file = self._stack.enter_context(io.BufferedWriter(packed, 1 << 20))
        else:
            self._file = self._stack.enter_context(path.open("wb", 1 << 20))

    def add(self, row: Mapping[str, Any], texts_only: bool) -> None:
        self._file.write(row_bytes(row, texts_only))

    def close(self) -> None:
        self._stack.close()

    def abandon(self) -> None:
        with suppress(OSError):  # the disk that is full refuses the flush too
            self._stack.close()


class _Table:
    """Parquet, written at the end: only then is it known which fields the rows have."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._rows: list[Mapping[str, Any]] = []
        self._parts: list[Any] = []

    def add(self, row: Mapping[str, Any], texts_only: bool) -> None:
        self._rows.append(row)
        if len(self._rows) == SLICE:
            self._gather()

    def _gather(self) -> None:
        import pyarrow as pa

        names = dict.fromkeys(name for row in self._rows for name in row)
        try:
            # The fields of all rows, not only those of the first.
            columns = {name: [row.get(name) for row in self._rows] for name in names}
            self._parts.append(pa.table(columns))
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
            raise DataError(f"{self._name}: Parquet has one type a field ({error}); write .jsonl") from error
        self._rows = []

    def close(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._gather()
        try:
            table = pa.concat_tables(self._parts, promote_options="permissive")
        except pa.ArrowTypeError as error:
            raise DataError(f"{self._name}: Parquet has one type a field ({error}); write .jsonl") from error
        pq.write_table(table, self._path)

    def abandon(self) -> None:
        self._parts = []


def _told(error: OSError, path: Path) -> DiskFull | DataError:
    what = error.strerror or str(error)
    if error.errno in NO_SPACE:
        return DiskFull(f"{path}: {what}; nothing was written: free some space and run the same command again")
    return DataError(f"{path}: {what}; nothing was written")
