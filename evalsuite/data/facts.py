"""What is in the files of a local dataset: a digest of their content, rows, columns, and the first malformed row.

Everything but the digest is remembered beside the Arrow cache of that digest, so it is worked out once per content.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evalsuite.checkpoint.memory import LARGE, RACY_S, cache_folder
from evalsuite.errors import DataError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """Of one split: rows and columns (None: a format not looked into); `gaps`: column to the place that lacks it."""

    rows: int | None
    columns: tuple[str, ...] | None
    gaps: Mapping[str, str]


def content_digest(folder: Path, files: Sequence[Path], description: bytes) -> str:
    """sha256 hex over (relative path, size, sha256) of each file, sorted, and the README's front matter.

    The path of `folder`, times and order do not enter; a changed byte does.
    """
    rows = sorted((p.relative_to(folder).as_posix(), p.stat().st_size, _sha256(p)) for p in set(files))
    listing = json.dumps([rows, hashlib.sha256(description).hexdigest()], separators=(",", ":"))
    return hashlib.sha256(listing.encode()).hexdigest()


def arrow_cache(digest: str) -> Path:
    """The `cache_dir` under which that content is loaded (datasets' own key knows neither path nor content)."""
    return cache_folder().absolute() / "datasets" / digest


def read_facts(digest: str, folder: Path, splits: Mapping[str, Sequence[Path]]) -> dict[str, SplitFacts]:
    """Facts of every split; raises DataError naming file and line of a row that is not a JSON object."""
    memory = arrow_cache(digest) / "evalsuite-facts.json"
    if (known := _recall(memory)) is not None and known.keys() == set(splits):
        return known
    named = {split: {p.relative_to(folder).as_posix(): p for p in files} for split, files in splits.items()}
    facts = {split: _merge({name: _scan(p, name) for name, p in files.items()}) for split, files in named.items()}
    _remember(memory, {"schema": SCHEMA, "splits": {name: asdict(f) for name, f in facts.items()}})
    return facts


def _sha256(path: Path) -> str:
    stat = path.stat()
    if stat.st_size < LARGE:
        return _hash_file(path)
    key = f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
    memory = cache_folder().absolute() / "digests" / hashlib.sha256(os.fsencode(key)).hexdigest()
    try:
        return json.loads(memory.read_text())["sha256"]  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, TypeError):
        found = _hash_file(path)
        if time.time_ns() - stat.st_mtime_ns > RACY_S * 1e9:
            _remember(memory, {"sha256": found})
        return found


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check its permissions") from error


def _recall(memory: Path) -> dict[str, SplitFacts] | None:
    try:
        stored = json.loads(memory.read_text())
        if stored["schema"] != SCHEMA:
            return None
        return {
            name: SplitFacts(f["rows"], None if f["columns"] is None else tuple(f["columns"]), f["gaps"])
            for name, f in stored["splits"].items()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never written, or torn: it is only a memory


def _remember(memory: Path, record: Mapping[str, Any]) -> None:
    draft = memory.with_name(f"{memory.name}.{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(record))
        draft.replace(memory)
    except OSError:
        pass  # a read-only or full cache costs time, not correctness; loading says it if it needs the room


def _merge(parts: Mapping[str, SplitFacts]) -> SplitFacts:
    """One split from the facts of its files, by file name; a column that a whole file lacks is a gap too."""
    if any(p.rows is None or p.columns is None for p in parts.values()):
        return SplitFacts(None, None, {})
    columns = tuple(dict.fromkeys(c for p in parts.values() for c in p.columns or ()))
    gaps: dict[str, str] = {}
    for name, part in parts.items():
        lacking = {c: name for c in columns if part.rows and c not in (part.columns or ())}
        gaps = {**lacking, **part.gaps, **gaps}
    return SplitFacts(sum(p.rows or 0 for p in parts.values()), columns, gaps)


def _scan(path: Path, name: str) -> SplitFacts:
    match path.suffix:
        case ".jsonl":
            return _rows(name, _json_lines(path))
        case ".json":
            return _rows(name, _json(path))
        case ".parquet":
            return _parquet(path)
        case ".csv" | ".tsv":
            return _csv(path)
    return SplitFacts(None, None, {})


def _rows(name: str, rows: Iterator[tuple[int, Mapping[str, Any]]]) -> SplitFacts:
    """Counts; a key that not every row has is a gap at the first row without it."""
    counts: dict[str, int] = {}
    places: list[tuple[int, frozenset[str]]] = []
    last: frozenset[str] = frozenset()
    n = 0
    for line, row in rows:
        n += 1
        for key in row:
            counts[key] = counts.get(key, 0) + 1
        if row.keys() != last:
            last = frozenset(row)
            places.append((line, last))
    ragged = [key for key, count in counts.items() if count < n]
    gaps = {key: f"{name} line {next(line for line, keys in places if key not in keys)}" for key in ragged}
    return SplitFacts(n, tuple(counts), gaps)


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _object(path, number, line)


def _object(path: Path, number: int, line: bytes) -> Mapping[str, Any]:
    where = f"{path} line {number}"
    try:
        row = json.loads(line)
        if b"\\ud" in line or b"\\uD" in line:
            json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair: Arrow refuses it
    except (ValueError, RecursionError) as error:
        why = "it is too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"{where} is not JSON: {why}; expected one object per line") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} holds a {type(row).__name__}; expected one JSON object per line")
    return row


def _json(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of a .json file: a list of objects (numbered from 1), or lines."""
    with path.open("rb") as file:
        head = file.read(4096).lstrip()
    if not head.startswith(b"["):
        yield from _json_lines(path)
        return
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; expected a list of objects, or one object per line") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path} item {number} is a {type(row).__name__}; expected a list of objects")
        yield number, row


def _parquet(path: Path) -> SplitFacts:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            return SplitFacts(file.metadata.num_rows, tuple(file.schema_arrow.names), {})
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from error


def _csv(path: Path) -> SplitFacts:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            header = tuple(next(rows, ()))
            return SplitFacts(sum(1 for row in rows if row), header, {})
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path} is not a readable table: {error}") from error
