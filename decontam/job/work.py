"""The pieces of a job that any thread, process or machine can do: scan one shard, digest one file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from decontam.errors import DecontamError
from decontam.job.folder import SHARDS, told, write
from decontam.rules import Rule
from decontam.types import EvalSet, Shard, ShardCounts

if TYPE_CHECKING:
    import pyarrow as pa

    from decontam.inputs.discover import Format


@dataclass(frozen=True, slots=True)
class Options:
    """What the scan of a shard is told beside index and selection.

    `near` names the profile of the near-duplicate stage, "" leaves it out. `es_cap` bounds the hits of a phrase in a
    file, in row order, as an Elasticsearch would; 0 is no bound. `short` looks for instances too short for the rule.
    """

    near: str = ""
    short: bool = False
    es_cap: int = 0


class Scanner(Protocol):
    """What finds matches. Picklable, hashable; `open` is asked once a process."""

    def where(self, evals: Sequence[EvalSet], rule: Rule, *, cache: Path, **settings: Any) -> Path:
        """The folder that `build` gives, without building it."""

    def build(self, evals: Sequence[EvalSet], rule: Rule, **settings: Any) -> Path:
        """The folder of the evals' index, named by its digest; `settings` are those of `decontam.index.build`."""

    def open(self, index: Path) -> Any:
        """The index, mapped."""

    def scan(
        self, index: Any, selection: Any, shard: Shard, options: Options
    ) -> tuple[pa.Table, pa.Table | None, ShardCounts]:
        """Matches, near-duplicates and counts of one shard."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The scanner of every real job."""

    def where(self, evals: Sequence[EvalSet], rule: Rule, *, cache: Path, **settings: Any) -> Path:
        from decontam.index import digest_of

        return cache / digest_of(evals, rule, **settings)[0][:24]

    def build(self, evals: Sequence[EvalSet], rule: Rule, **settings: Any) -> Path:
        from decontam.index import build

        return build(evals, rule, **settings)

    def open(self, index: Path) -> Any:
        from decontam.index import open_index

        return open_index(index)

    def scan(
        self, index: Any, selection: Any, shard: Shard, options: Options
    ) -> tuple[pa.Table, pa.Table | None, ShardCounts]:
        from decontam.scan import scan_shard

        return scan_shard(index, selection, shard, options)


@dataclass(frozen=True, slots=True)
class Source:
    """One training file. `ends` is the sha256 of its first and last MiB; with size and time it tells a changed file."""

    number: int
    dataset: str
    file: str  # as reports name it
    path: str
    format: Format
    size: int
    mtime_ns: int
    ends: str

    def holds(self, shard: Shard) -> bool:
        """Whether the shard is a part of this file, in this data set."""
        return (shard.dataset, shard.path) == (self.dataset, self.path)


@dataclass(frozen=True, slots=True)
class Task:
    """What every piece of a job needs to know; small, so that it travels to other machines."""

    out: str
    index: str
    selections: Mapping[str, Any]  # by dataset
    sources: Mapping[tuple[str, str], Source]  # by data set and path
    options: Options
    scanner: Scanner


KERNEL = Kernel()
PLAIN = Options()
NOTHING = ShardCounts()
Piece = Source | Shard


@dataclass(frozen=True, slots=True)
class Done:
    """A piece that is finished; `counts` and `n_matches` are those of a shard."""

    piece: Piece
    counts: ShardCounts = NOTHING
    n_matches: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """A piece whose source could not be read, or became another while it was."""

    piece: Piece
    why: str


Outcome = Done | Failed


class SourceChanged(Exception):
    """A training file is not the one that the manifest names."""


def do(task: Task, piece: Piece) -> Outcome:
    """Does one piece and leaves its result in the output folder. Doing it twice is harmless: same bytes, same names.

    Raises DecontamError for what a user can fix, and bugs as themselves.
    """
    began = time.perf_counter()
    try:
        done = _digest(task, piece) if isinstance(piece, Source) else _scan(task, piece)
    except SourceChanged as error:
        return Failed(piece, str(error))
    except OSError as error:
        return Failed(piece, error.strerror or str(error))
    return replace(done, seconds=time.perf_counter() - began)


@contextmanager
def _unchanged(source: Source) -> Iterator[None]:
    """Raises SourceChanged when the file is not the manifest's before or after, whatever its reader thought of it."""
    _check(source)
    try:
        yield
    except Exception:
        _check(source)  # a file that was pulled from under its reader is the reason, not what the reader said
        raise
    _check(source)


def _check(source: Source) -> None:
    try:
        found = os.stat(source.path)
    except OSError as error:
        raise SourceChanged(f"is gone ({error.strerror})") from error
    if found.st_size != source.size:
        raise SourceChanged(f"changed during the run, {source.size:,} → {found.st_size:,} bytes")
    if found.st_mtime_ns != source.mtime_ns:
        raise SourceChanged("was written during the run")


# -- shards --


def _scan(task: Task, shard: Shard) -> Done:
    index = _open(task.scanner, task.index)
    with _unchanged(task.sources[shard.dataset, shard.path]):
        matches, near, counts = task.scanner.scan(index, task.selections[shard.dataset], shard, task.options)
    folder = Path(task.out, SHARDS)
    tables = {f"{shard.number:05}.arrow": _ipc(matches)}
    if near is not None:
        tables[f"{shard.number:05}.near.arrow"] = _ipc(near)
    marker = {
        "counts": {each.name: getattr(counts, each.name) for each in fields(counts)} | {"fields": dict(counts.fields)},
        "n_matches": matches.num_rows,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in tables.items()},
    }
    with told(Path(task.out)):
        for name, data in tables.items():
            write(folder / name, data)
        write(folder / f"{shard.number:05}.done", _json(marker))
    return Done(shard, counts, matches.num_rows)


_OPENED: dict[tuple[Scanner, str], Any] = {}
_OPENING = threading.Lock()


def _open(scanner: Scanner, index: str) -> Any:
    """The index, mapped once a process: threads share it, processes share its pages."""
    with _OPENING:
        if (scanner, index) not in _OPENED:
            if not Path(index).exists():
                raise DecontamError(f"{index}: no index there; where other machines help, put --cache on a shared disk")
            _OPENED[scanner, index] = scanner.open(Path(index))
        return _OPENED[scanner, index]


def _ipc(table: pa.Table) -> bytes:
    import pyarrow as pa

    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue()


def shard_done(out: Path, shard: Shard) -> Done | None:
    """What a finished shard's marker says; None when there is none, or when a table is not the one that it names."""
    marker = _marker(out / SHARDS / f"{shard.number:05}.done")
    if marker is None or any(_sha256(out / SHARDS / name) != known for name, known in marker["sha256"].items()):
        return None
    raw = dict(marker["counts"])
    raw["broken"] = tuple((int(row), str(why)) for row, why in raw["broken"])
    return Done(shard, ShardCounts(**raw), int(marker["n_matches"]))


def shard_table(out: Path, shard: Shard, which: Literal["", ".near"] = "") -> pa.Table:
    """The matches of a finished shard, or its near-duplicates."""
    import pyarrow as pa

    with pa.OSFile(str(out / SHARDS / f"{shard.number:05}{which}.arrow")) as stream:
        return pa.ipc.open_file(stream).read_all()


# -- files --


def _digest(task: Task, source: Source) -> Done:
    from decontam.inputs import file_digest

    with _unchanged(source):
        found = file_digest(source.path)
    with told(Path(task.out)):
        write(Path(task.out, SHARDS, f"file-{source.number:05}.done"), _json({"sha256": found}))
    return Done(source)


def source_digest(out: Path, source: Source) -> str | None:
    """sha256 of a training file, None when it was not read yet."""
    marker = _marker(out / SHARDS / f"file-{source.number:05}.done")
    return str(marker["sha256"]) if marker else None


def _marker(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):  # no marker, or one that a power cut tore: done again
        return None
    return found


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def _json(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True) + "\n").encode()  # escapes, as keys of rows may hold lone surrogates
