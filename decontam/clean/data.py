"""Writes the files of one data set again, and keeps account of what became of their rows."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decontam.clean import columns, jsonl
from decontam.clean.change import Change
from decontam.clean.decide import Hit, StillHeld, Way, decide
from decontam.clean.found import Data, Hits, Source, refuse_changed
from decontam.clean.saved import rewrite_saved, write_splits
from decontam.errors import DecontamError
from decontam.inputs import file_digest


@dataclass(slots=True)
class Cleaned:
    """What became of one file. Rows have their numbers in the source, `why` a row was dropped is "row" when all are."""

    source: Source
    n_rows: int = 0
    dropped: list[dict[str, Any]] = field(default_factory=list)
    changed: list[dict[str, Any]] = field(default_factory=list)
    digest_before: str = ""
    digest_after: str = ""

    @property
    def n_left(self) -> int:
        return self.n_rows - len(self.dropped)


def clean_data(
    data: Data, folder: Path, hits: Hits, way: Way, held: StillHeld, say: Callable[[str], None]
) -> list[Cleaned]:
    """Writes the files of a data set into `folder`; raises DecontamError when they are not those that were scanned."""
    mine = {source.file: hits.get((data.name, source.file), {}) for source in data.sources}
    tag = way.how == "tag" and any(mine.values())
    files = []
    for source in data.sources:
        say(source.file)
        target = folder / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file = Cleaned(source, digest_before=file_digest(str(source.path)))
        file.n_rows = _write(file, target, data, mine[source.file], way, held, tag)
        file.digest_after = file_digest(str(target))
        refuse_changed(source)
        files.append(file)
    if digest_before(files) != data.digest:
        raise DecontamError(f"{data.folder}: not the data that were scanned, by their digest; scan again, then clean")
    _saved(data, folder, files, tag)
    return files


def _write(
    file: Cleaned, target: Path, data: Data, hits: Mapping[int, Sequence[Hit]], way: Way, held: StillHeld, tag: bool
) -> int:
    """Writes one file, tells in `file` what became of its rows, and returns how many it had."""
    source, decided = file.source, set()

    def told(row: int, content: dict[str, Any]) -> Change:
        decided.add(row)
        try:
            change = decide(content, hits[row], data.selection, way, held)
        except DecontamError as error:
            raise DecontamError(f"{source.file}, row {row}: {error}") from error
        name = {"row": row, "id": hits[row][0].id}
        if change.drop:
            file.dropped.append(name | {"why": change.drop})
        else:
            file.changed.append(name)
        return change

    rows: Set[int] = hits.keys()
    is_lines = source.format.startswith("jsonl")
    if not rows and (is_lines or not tag):
        shutil.copyfile(source.path, target)
        return _count(source)
    if is_lines:
        n_rows = jsonl.rewrite_jsonl(source.path, target, source.format, rows, told)
    else:
        rewrite = columns.rewrite_parquet if source.format == "parquet" else columns.rewrite_arrow
        with columns.readable(source.path):
            n_rows = rewrite(source.path, target, rows, told, tag)
    if decided != rows:
        raise DecontamError(f"{source.file}: has no row {min(rows - decided)}; scan again, then clean")
    return n_rows


def _count(source: Source) -> int:
    if source.format.startswith("jsonl"):
        return jsonl.count_rows(source.path, source.format)
    with columns.readable(source.path):
        return columns.count_rows(source.path, source.format)


def digest_before(files: Sequence[Cleaned]) -> str:
    """The digest of the data set that was scanned."""
    return _digest({file.source.relative: file.digest_before for file in files})


def digest_after(files: Sequence[Cleaned]) -> str:
    """The digest that a scan of the folder of the cleaned data set finds."""
    return _digest({file.source.name: file.digest_after for file in files})


def _digest(files: Mapping[str, str]) -> str:
    """As `decontam.inputs.dataset_digest` has it, of digests by name."""
    if len(files) == 1:
        return next(iter(files.values()))
    lines = sorted(f"{name}\0{digest}\n" for name, digest in files.items())
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _saved(data: Data, folder: Path, files: Sequence[Cleaned], tag: bool) -> None:
    folders = sorted({os.path.dirname(file.source.name) for file in files})
    write_splits(data.folder, folder, folders)
    for below in folders:
        own = [file for file in files if os.path.dirname(file.source.name) == below]
        n_left = sum(file.n_left for file in own)
        rewrite_saved(data.folder / below, folder / below, n_left, digest_after(own), tag)
