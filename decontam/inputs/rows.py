"""Single rows: JSON lines parsed, the first rows of a data set, and rows fetched by number for reports and cleaning."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from decontam.errors import BrokenRow, DecontamError
from decontam.inputs.batches import groups_of, read_batches
from decontam.inputs.blocks import TruncatedInput, read_blocks
from decontam.inputs.discover import Dataset, Format
from decontam.row import kind
from decontam.types import Shard

BLANK = b" \t\r\n"  # a line of nothing else is no row
SMALL_BLOCK, SCAN_BLOCK = 1 << 20, 8 << 20
SLICE = 100  # rows of a batch made into objects at a time


def parse_line(line: bytes) -> Any:
    """The value a JSON line stands for; raises BrokenRow with the reason.

    What orjson refuses, `json` has the last word on: it takes lone surrogates, huge integers, NaN and Infinity.
    """
    import orjson

    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(bytes(line).decode())
    except UnicodeDecodeError as error:
        raise BrokenRow(f"not UTF-8: byte {error.object[error.start]:#04x} at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise BrokenRow(f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}") from None
    except RecursionError:
        raise BrokenRow("not readable: nested too deeply") from None
    except ValueError as error:
        raise BrokenRow(f"not readable: {error}") from None


def first_rows(dataset: Dataset, n: int = 100) -> list[dict[str, Any]]:
    """The first n rows that are objects; lines that are none or cannot be read are passed over."""
    return list(islice(_objects(dataset), n))


def why_no_rows(dataset: Dataset) -> str:
    """What is wrong with the first line of a data set of which no row can be read."""
    for file in dataset.files:
        try:
            for number, line in _lines(file.path, file.format) if file.format not in ("parquet", "arrow") else ():
                return f"{file.name} line {number:,}: {_fault(line)}"
        except TruncatedInput as error:
            return f"{file.name} {error}"
    return f"{dataset.name}: no rows; expected training data with at least one"


def _fault(line: bytes) -> str:
    """What is wrong with a line that is no object."""
    try:
        return f"the row is {kind(parse_line(line))}, not an object"
    except BrokenRow as error:
        return str(error)


def _objects(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for file in dataset.files:
        try:
            if file.format in ("parquet", "arrow"):
                for batch in read_batches(_whole(file.path, file.format)):
                    for start in range(0, batch.num_rows, SLICE):
                        yield from batch.slice(start, SLICE).to_pylist()
            else:
                for _, line in _lines(file.path, file.format):
                    with suppress(BrokenRow):
                        row = parse_line(line)
                        if isinstance(row, dict):
                            yield row
        except TruncatedInput:
            continue  # the scan tells


def fetch_rows(path: str, format: Format, rows: Collection[int]) -> dict[int, dict[str, Any]]:
    """The rows of a file with these numbers, blank lines not counted; raises DecontamError where one is not there."""
    wanted = set(rows)
    if not wanted:
        return {}
    try:
        found = dict((_from_batches if format in ("parquet", "arrow") else _from_lines)(path, format, wanted))
    except (TruncatedInput, BrokenRow) as error:
        raise DecontamError(f"{path}: {error}") from error
    if len(found) < len(wanted):
        raise DecontamError(f"{path} has no row {min(wanted - found.keys())}: it changed since it was scanned")
    return found


def line_numbers(path: str, format: Format, rows: Collection[int]) -> dict[int, int]:
    """The lines of a file, counted from 1 as editors do, in which these rows stand; a row that is not there is absent.

    Rows leave blank lines out, so the file is read up to the last of them.
    """
    wanted, last = set(rows), max(rows, default=-1)
    found: dict[int, int] = {}
    with suppress(TruncatedInput):
        for row, (number, _) in enumerate(_lines(path, format, SCAN_BLOCK)):
            if row > last:
                break
            if row in wanted:
                found[row] = number
    return found


def _from_lines(path: str, format: Format, wanted: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    last = max(wanted)
    for number, (_, line) in enumerate(_lines(path, format, SCAN_BLOCK)):
        if number in wanted:
            yield number, parse_line(line)
        if number >= last:
            return


def _from_batches(path: str, format: Format, wanted: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    rows, first = sorted(wanted), 0

    def between(start: int, stop: int) -> list[int]:
        return rows[bisect_left(rows, start) : bisect_left(rows, stop)]

    for group, (n, _) in enumerate(groups_of(path, format)):
        if between(first, first + n):
            at = first
            for batch in read_batches(_whole(path, format, group, group + 1)):
                for row in between(at, at + batch.num_rows):
                    yield row, batch.slice(row - at, 1).to_pylist()[0]
                at += batch.num_rows
        first += n


def _lines(path: str, format: Format, block: int = SMALL_BLOCK) -> Iterator[tuple[int, bytes]]:
    """(number, line) of the lines of a file that are not blank, without their newline; all lines count, from 1 on."""
    before = 0
    for each in read_blocks(_whole(path, format), block):
        lines = each.data[: each.length].tobytes().split(b"\n")
        for number, line in enumerate(lines, before + 1):
            if line.strip(BLANK):
                yield number, line
        before += len(lines) - 1  # behind the last newline no line of this block begins


def _whole(path: str, format: Format, start: int = 0, stop: int = -1) -> Shard:
    return Shard(0, "", path, path, format, start, stop)
