"""Rows out of files, one by one with their place: JSON lines, JSON lists, CSV, Parquet, folders saved by datasets."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from evalsuite.errors import DataError, did_you_mean
from train_plugins.data.badrows import BadRow

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
PACKED = (".gz", ".zst", ".zstd")
READABLE = ".jsonl, .json, .csv or .parquet, each also .gz or .zst, or a folder saved by datasets"
BLANK = b" \t\r\n"
BOM = b"\xef\xbb\xbf"
SLICE = 500  # rows of a column store made into objects at a time
JSON_COLUMNS = ("messages", "conversations", "history")  # a CSV can only hold these as JSON

Place = tuple[int, "Any | BadRow"]


def read_lines(path: Path) -> Iterator[Place]:
    """(number, row) for every row; a BadRow where one cannot be read. Blank lines are no rows.

    The number counts from 1: the line of JSON lines and CSV, the row of everything else. Raises DataError for a file
    that is absent, of no known kind, or damaged as a whole.
    """
    if path.is_dir():
        yield from _read_saved(path)
        return
    form, packing = form_of(path)
    try:
        with _opened(path, packing) as file:
            yield from READERS[form](file, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is cut short or damaged ({error}); fetch it again") from error
    except OSError as error:
        if error.errno is None:  # what Arrow says of a damaged stream
            raise DataError(f"{path} is cut short or damaged ({error}); fetch it again") from error
        raise DataError(f"{path}: {error.strerror}") from error


def form_of(path: Path) -> tuple[str, str]:
    """("jsonl" | "json" | "csv" | "parquet", packing or ""); raises DataError with what can be read."""
    packing = path.suffix if path.suffix in PACKED else ""
    suffix = path.with_suffix("").suffix if packing else path.suffix
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: its name does not end in {READABLE}{did_you_mean(suffix, SUFFIXES)}")
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path} is a link to {str(path.readlink())!r}, where there is no file")
    if not path.exists():
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"no file or folder {str(path)!r}{did_you_mean(path.name, beside)}")
    return SUFFIXES[suffix], packing


@contextmanager
def _opened(path: Path, packing: str) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        if packing == ".gz":
            yield cast(BinaryIO, stack.enter_context(gzip.open(path, "rb")))
        elif packing:
            import pyarrow as pa

            raw = stack.enter_context(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
            yield cast(BinaryIO, io.BufferedReader(raw, 1 << 20))
        else:
            yield stack.enter_context(path.open("rb", 1 << 20))


def _read_jsonl(file: BinaryIO, path: Path) -> Iterator[Place]:
    parse = parser()
    for number, line in enumerate(file, 1):
        if number == 1:
            line = line.removeprefix(BOM)
        if line.isspace() or not line:
            continue
        try:
            yield number, parse(line)
        except ValueError as error:
            yield number, _unreadable(error, str(path), number, line)


def parser() -> Callable[[bytes], Any]:
    """Reads the JSON of a line; raises ValueError. orjson where it is installed; `json` has the last word."""

    def plain(line: bytes) -> Any:
        try:
            return json.loads(line.decode(), parse_constant=_refuse_constant)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None

    try:
        import orjson
    except ImportError:
        return plain

    def fast(line: bytes) -> Any:
        try:
            return orjson.loads(line)
        except ValueError:
            return plain(line)

    return fast


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _unreadable(error: ValueError, file: str, number: int, line: bytes = b"") -> BadRow:
    text = line.decode(errors="surrogateescape").rstrip("\r\n")
    if isinstance(error, UnicodeDecodeError):
        found = f"byte {error.object[error.start]:#04x} at byte {error.start + 1}"
        return BadRow(file, number, "not_utf8", found, "text in UTF-8", text)
    if isinstance(error, json.JSONDecodeError):
        found = f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
        return BadRow(file, number, "not_json", found, "one JSON object", text)
    return BadRow(file, number, "not_json", str(error), "one JSON object", text)


def _read_json(file: BinaryIO, path: Path) -> Iterator[Place]:
    """A list of rows; a file of that name that holds JSON lines is read as such."""
    head = file.read(1 << 16)
    whole = _Rest(head, file)
    start = head.removeprefix(BOM).lstrip(BLANK)
    if start[:1] != b"[":
        if start.split(b"\n", 1)[0].strip() == b"{":
            raise DataError(f"{path} is one JSON object over several lines; expected a list of rows, or a row a line")
        yield from _read_jsonl(cast(BinaryIO, io.BufferedReader(whole)), path)
        return
    try:
        rows = parser()(io.BufferedReader(whole).read().removeprefix(BOM))
    except ValueError as error:
        raise DataError(str(_unreadable(error, str(path), 1))) from error
    yield from enumerate(rows, 1)


class _Rest(io.RawIOBase):
    """A stream with the bytes that were read from it put back before it."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head, self._file = head, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] if self._head else self._file.read(len(buffer))
        self._head = self._head[len(data) :] if self._head else b""
        buffer[: len(data)] = data
        return len(data)


def _read_csv(file: BinaryIO, path: Path) -> Iterator[Place]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text, strict=True)  # else a quote that is never closed takes in the rest of the file
    header: list[str] | None = None
    while True:
        number = rows.line_num + 1
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}:{number}: not CSV ({error})") from error
        if header is None:
            header = _header(fields, path)
        elif fields:
            yield number, _csv_row(header, fields, str(path), number)


def _header(fields: list[str], path: Path) -> list[str]:
    if twice := sorted({name for name in fields if fields.count(name) > 1}):
        raise DataError(f"{path}:1: the column {', '.join(map(repr, twice))} is there twice; rename or remove one")
    return fields


def _csv_row(header: list[str], fields: list[str], file: str, number: int) -> Any | BadRow:
    if len(fields) != len(header):
        found = f"{len(fields)} fields"
        return BadRow(file, number, "not_object", found, f"{len(header)} as in the header")
    if any("\udc80" <= c <= "\udcff" for text in fields if not text.isascii() for c in text):
        return BadRow(file, number, "not_utf8", "bytes that are none", "text in UTF-8")
    row: dict[str, Any] = dict(zip(header, fields, strict=True))
    for name in JSON_COLUMNS:
        if name in row:
            try:
                row[name] = json.loads(row[name]) if row[name] else None
            except ValueError:
                return BadRow(file, number, "not_json", f"{name} is {row[name]!r:.60}", "a list as JSON")
    return row


def _read_parquet(file: BinaryIO, path: Path) -> Iterator[Place]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = pq.ParquetFile(path if path.suffix == ".parquet" else pa.BufferReader(file.read()))
        yield from _numbered(source.iter_batches(batch_size=SLICE))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is no Parquet file that can be read ({error})") from error


def _numbered(batches: Iterator[Any]) -> Iterator[Place]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _read_saved(path: Path) -> Iterator[Place]:
    if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise DataError(f"{path} is a folder that datasets did not save; expected a file: {READABLE}")
    import datasets

    rows = datasets.load_from_disk(str(path))
    if isinstance(rows, datasets.DatasetDict):
        split = "train" if "train" in rows else next(iter(rows)) if len(rows) == 1 else ""
        if not split:
            raise DataError(
                f"{path} holds the splits {', '.join(rows)}; name the folder of one: {path / next(iter(rows))}"
            )
        rows = rows[split]
    yield from dataset_rows(rows)


def dataset_rows(rows: Any) -> Iterator[Place]:
    """The rows of a `datasets.Dataset`, counted from 1."""
    return _numbered(rows.with_format("arrow").iter(SLICE))


READERS: dict[str, Callable[[BinaryIO, Path], Iterator[Place]]] = {
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_csv,
    "parquet": _read_parquet,
}
