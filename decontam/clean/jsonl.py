"""JSONL, plain or compressed: lines that stay are copied, lines that change are changed in their text."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from decontam.clean.change import Change
from decontam.clean.jsontext import rewrite
from decontam.errors import BrokenRow, DecontamError
from decontam.inputs.blocks import BOM
from decontam.inputs.rows import BLANK, parse_line

_BUFFER = 1 << 20

Decider = Callable[[int, dict[str, Any]], Change]


def rewrite_jsonl(source: Path, target: Path, form: str, rows: Set[int], decide: Decider) -> int:
    """Writes the file again with what `decide` says of `rows`; returns how many rows the source has.

    Rows are lines that are not blank, counted from 0. Blank lines, line ends, a byte order mark and the absence of a
    last newline stay.
    """
    row = 0
    with _reading(source, form) as lines, _writing(target, form) as out:
        for number, line in enumerate(lines):
            if number == 0 and line.startswith(BOM):
                out.write(BOM)
                line = line[len(BOM) :]
            if not line.strip(BLANK):
                out.write(line)
                continue
            out.write(_changed(line, row, decide) if row in rows else line)
            row += 1
    return row


def count_rows(source: Path, form: str) -> int:
    """How many rows a file has."""
    with _reading(source, form) as lines:
        return sum(bool(line.removeprefix(BOM if i == 0 else b"").strip(BLANK)) for i, line in enumerate(lines))


def _changed(line: bytes, row: int, decide: Decider) -> bytes:
    try:
        change = decide(row, parse_line(line))
    except BrokenRow as error:
        raise DecontamError(f"row {row} is not the one that was scanned ({error}); scan again, then clean") from error
    try:
        return b"" if change.drop else rewrite(line.decode(), change).encode()
    except RecursionError as error:  # orjson reads deeper than Python's parser does
        raise DecontamError(f"row {row} is nested too deeply to be changed; use --how drop-row") from error


@contextmanager
def _reading(path: Path, form: str) -> Iterator[BinaryIO]:
    try:
        with ExitStack() as stack:
            if form == "jsonl.zst":
                import pyarrow as pa

                raw = stack.enter_context(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
                yield cast(BinaryIO, io.BufferedReader(raw, _BUFFER))
            elif form == "jsonl.gz":
                yield cast(BinaryIO, stack.enter_context(gzip.open(path, "rb")))
            else:
                yield stack.enter_context(open(path, "rb", _BUFFER))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _cut_short(path) from error
    except OSError as error:
        if error.errno is None and form == "jsonl.zst":
            raise _cut_short(path) from error
        raise


def _cut_short(path: Path) -> DecontamError:
    return DecontamError(f"{path}: is cut short or damaged; fetch it again and scan it again")


@contextmanager
def _writing(path: Path, form: str) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        if form == "jsonl.zst":
            import pyarrow as pa

            # The buffer closes the streams below it.
            sink = stack.enter_context(pa.OSFile(str(path), "wb"))
            raw = stack.enter_context(pa.CompressedOutputStream(sink, "zstd"))
            out: Any = io.BufferedWriter(raw, _BUFFER)
        elif form == "jsonl.gz":
            # Neither name nor time in the header: the same input gives the same bytes.
            plain = stack.enter_context(open(path, "wb"))
            packed = stack.enter_context(gzip.GzipFile("", "wb", 6, plain, mtime=0))
            out = io.BufferedWriter(packed, _BUFFER)
        else:
            out = cast(Any, stack.enter_context(open(path, "wb", _BUFFER)))
        yield out
        out.flush()
