"""The rows of a source: found, read, checked, filtered, and written in the order of the mix without doubles."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evalsuite.errors import DataError, UsageError
from train_plugins.data.badrows import BadRow
from train_plugins.data.dedup import READ, Facts, Seen, sort_key
from train_plugins.data.filters import Filters, reason
from train_plugins.data.formats import DETECTED_BY, detect, find_format
from train_plugins.data.jsontext import row_bytes
from train_plugins.data.licences import parts
from train_plugins.data.mappings import Malformed, Reading
from train_plugins.data.mixfile import Mix, Source
from train_plugins.data.prompts import conversation_hash, normalised, user_turns
from train_plugins.data.rows import Kind, RowRules, check_row, content_id, kind_of, read_lines
from train_plugins.data.writing import read_meta, sidecar

CHUNK = 256  # rows that a process is given at a time
WINDOW = 4  # such chunks for each process that are read ahead


class MissingSources(DataError):
    """Sources of a mix that are nowhere; `names` says which."""

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


@dataclass(frozen=True, slots=True)
class Place:
    """The files of a source, and the sha256 over their contents: names and order of files do not count."""

    files: tuple[Path, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Collected:
    """A source as candidates: rows read, rows that went by reason, rows left in the file."""

    n_in: int
    dropped: Mapping[str, int]
    n_left: int


def find(mix: Mix, roots: Sequence[Path]) -> dict[str, Place]:
    """Where each source lies. Raises MissingSources with all that are nowhere, DataError with all whose sidecar names
    another licence than the mix; one a line."""
    places: dict[str, Place] = {}
    missing: dict[str, str] = {}
    disagreeing: list[str] = []
    for source in mix.sources:
        try:
            files = _hub_files(source, roots) if source.hub else _files(source, Path(mix.base))
            places[source.name] = Place(files, _digest(files))
            disagreeing += [f"{source.name}: {why}" for path in files if (why := _other_licence(source, path))]
        except (DataError, UsageError, OSError) as error:
            missing[source.name] = f"  {source.name}: {error}"
    if missing:
        head = f"{len(missing)} of {len(mix.sources)} sources of {mix.name} are not there:"
        raise MissingSources("\n".join([head, *missing.values()]), list(missing))
    if disagreeing:
        raise DataError("\n".join(disagreeing))
    return places


def collect(
    mix: Mix, source: Source, place: Place, seen: Seen, kind: Kind | None, out: Path, processes: int = 1
) -> tuple[Collected, Kind]:
    """Writes the candidates of a source to `out`, in the order of the mix; what went, and of which kind rows are.

    Raises DataError for a row that cannot be used, another kind of row, and one id with two contents.
    """
    rules = _Rules(source.name, mix.seed, mix.near is not None, mix.filters_of(source))
    dropped: Counter[str] = Counter()
    facts: list[Facts] = []
    raw = out.with_suffix(".rows")
    with raw.open("wb") as file, _mapper(processes) as run:
        n_in = 0
        told: dict[str, bytes] = {}
        for why, line, fact, identity, found in run(partial(_examine, rules), _rows(mix, source, place, dropped)):
            if why == "bad_row":
                dropped[why] += 1
                if not source.max_bad:
                    raise DataError(f"{source.name}: row {identity!r}: {line.decode()}; expected JSON values")
                continue
            n_in += 1
            kind = kind or found
            if found != kind:
                raise DataError(f"{source.name}: a row of kind {found} among rows of kind {kind}; a mix has one kind")
            if why:
                dropped[why] += 1
                continue
            if told.setdefault(identity, fact.content) != fact.content:
                raise DataError(f"{source.name}: two rows of different content have the id {identity!r}")
            facts.append(Facts(fact.key, fact.prompt, fact.content, file.tell(), fact.text))
            file.write(line)
    unseen = dropped["where"] + dropped["bad_row"]
    if not n_in + unseen:
        raise DataError(f"{source.name}: no rows in {', '.join(path.name for path in place.files)}; leave it out")
    _refuse_bad(source, dropped["bad_row"], n_in + unseen)
    kept, doubles = seen.keep(facts)
    _copy(raw, kept, out)
    raw.unlink()
    return Collected(n_in + unseen, {**dropped, **doubles}, len(kept)), kind or "sft"


def _files(source: Source, base: Path) -> tuple[Path, ...]:
    found: list[Path] = []
    for text in source.paths:
        path = Path(text).expanduser()
        spots = [path] if path.is_absolute() else [base / path, path]
        some = next((s for s in spots if s.exists()), None)
        matches = [some] if some else next((m for s in spots if (m := sorted(glob.glob(str(s), recursive=True)))), [])
        if not matches:
            raise DataError(f"no file {text!r}")
        found += [Path(match) for match in matches]
    return tuple(found)


def _hub_files(source: Source, roots: Sequence[Path]) -> tuple[Path, ...]:
    from evalsuite.data.folder import read_folder, split_files
    from evalsuite.errors import did_you_mean

    folder = next((root / source.hub for root in roots if (root / source.hub).is_dir()), None)
    if folder is None:
        places = " or ".join(str(root / source.hub) for root in roots) or "DIR/<owner>/<name> of --data-root DIR"
        raise DataError(f"{source.hub} is not on this machine; expected {places}")
    read = read_folder(folder)
    splits = split_files(read, read.config(source.config))
    if source.split not in splits:
        raise DataError(f"{folder} has no split {source.split!r}{did_you_mean(source.split, splits)}")
    return splits[source.split]


def _other_licence(source: Source, path: Path) -> str:
    """What is wrong where the sidecar of a file and the mix name different licences; empty where nothing is."""
    told = str(read_meta(path).get("licence") or "")
    if not told or set(parts(told)) == set(parts(source.licence)):
        return ""
    return f"{sidecar(path).name} names the licence {told!r}, the mix file {source.licence!r}; correct one of them"


def _digest(files: Sequence[Path]) -> str:
    digests = []
    for path in (each for file in files for each in (sorted(file.rglob("*")) if file.is_dir() else [file])):
        if path.is_file():
            with path.open("rb") as content:
                digests.append(hashlib.file_digest(content, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def _rows(mix: Mix, source: Source, place: Place, dropped: Counter[str]) -> Iterator[dict[str, Any]]:
    """Canonical rows of all files; those that are not as `where` says, or cannot be used, are counted in `dropped`.

    Raises DataError when more cannot be used than `max_bad`: at the first where that is 0, else at the end.
    """
    rules = RowRules(allow_tools="tools" in mix.allow, allow_template_text="template_text" in mix.allow)
    first, n = "", 0
    for path in place.files:
        for raw, row in canonical(path, source.format, rules):
            n += 1
            if isinstance(row, BadRow):
                first = first or str(row)
                dropped["bad_row"] += 1
                if not source.max_bad:
                    raise DataError(f"{source.name}: {row} (max_bad: 0.01 leaves such rows out, up to that share)")
            elif all(str(raw.get(name)) == value for name, value in source.where.items()):
                yield row
            else:
                dropped["where"] += 1
    _refuse_bad(source, dropped["bad_row"], n, f"; the first is {first}")


def _refuse_bad(source: Source, n_bad: int, n: int, more: str = "") -> None:
    if n_bad > source.max_bad * n:
        share = f"{n_bad} of {n} rows cannot be used, more than max_bad: {source.max_bad:g}"
        raise DataError(f"{source.name}: {share}{more}")


def canonical(path: Path, name: str, rules: RowRules) -> Iterator[tuple[Mapping[str, Any], dict[str, Any] | BadRow]]:
    """(row of the file, canonical row) of a file of canonical rows, or of the format `name`; `auto`: by its first rows.

    A row keeps its id. The other one is a BadRow where a row cannot be used.
    """
    rows = read_lines(path)
    head = list(itertools.islice(rows, DETECTED_BY)) if name == "auto" else []
    form = (detect(head, str(path)) if name == "auto" else find_format(name)) if name else None
    reading = Reading(allow_tools=rules.allow_tools)
    for line, raw in itertools.chain(head, rows):
        if isinstance(raw, BadRow):
            yield {}, raw
            continue
        try:
            row = form.convert(raw, reading) if form else raw
        except Malformed as error:
            yield raw, BadRow(str(path), line, *error.problem)
            continue
        problem = next(iter(check_row(row, kind_of(row) if isinstance(row, Mapping) else "sft", rules)), None)
        if problem:
            yield raw, BadRow(str(path), line, *problem)
        else:
            yield raw, {**row, "id": str(raw["id"]) if raw.get("id") not in (None, "") else content_id(row)}


@dataclass(frozen=True, slots=True)
class _Rules:
    """What decides about a row of a source by itself."""

    source: str
    seed: int
    near: bool
    filters: Filters


def _examine(rules: _Rules, row: dict[str, Any]) -> tuple[str, bytes, Facts, str, Kind]:
    """(reason to leave it out, its line, what it is known by, its id, its kind): pure, so any process may do it.

    For `bad_row`, the line says what is wrong with it: a field beside the messages may hold what JSON has no word for.
    """
    identity, kind = str(row["id"]), kind_of(row)
    if why := reason(row, rules.filters):
        return why, b"", Facts(b"", b"", b"", 0), identity, kind
    text = normalised("\n".join(user_turns(row)))[:READ] if rules.near else ""
    fact = Facts(sort_key(rules.seed, identity), conversation_hash(row), bytes.fromhex(content_id(row)), 0, text)
    rest = {name: value for name, value in row.items() if name not in ("id", "source")}
    try:
        line = row_bytes({"id": identity, "source": rules.source, **rest})
    except (TypeError, ValueError) as error:
        return "bad_row", f"it cannot be written ({error})".encode("utf-8", "replace"), fact, identity, kind
    return "", line, fact, identity, kind


@contextmanager
def _mapper(processes: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map` in the order of its input, over some processes."""
    if processes == 1:
        yield map
        return
    import multiprocessing

    # Without a gate the pool would read all rows into memory, however slow the processes are.
    gate = threading.Semaphore(WINDOW * CHUNK * processes)
    stop = threading.Event()

    def gated(rows: Iterable[Any]) -> Iterator[Any]:
        for row in rows:
            gate.acquire()
            if stop.is_set():
                return
            yield row

    def run(work: Callable[[Any], Any], rows: Iterable[Any]) -> Iterator[Any]:
        for result in pool.imap(work, gated(rows), chunksize=CHUNK):
            gate.release()
            yield result

    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        try:
            yield run
        finally:  # the thread that hands out rows may wait at the gate
            stop.set()
            gate.release()


def _copy(raw: Path, kept: Sequence[Facts], out: Path) -> None:
    temporary = out.with_name(f".{out.name}.tmp")
    with raw.open("rb") as source, temporary.open("wb") as target:
        for fact in kept:
            source.seek(fact.offset)
            target.write(source.readline())
        target.flush()
        os.fsync(target.fileno())
    os.replace(temporary, out)
