"""The output folder: one process writes it, and its files are there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from decontam.errors import DecontamError

SHARDS = "shards"
MANIFEST = "manifest.json"
EVALS = "evals.jsonl"
REVIEW = "review.jsonl"  # what people decided about matches: never ours to take away
REPORTS = (
    "matches.jsonl",
    "near.jsonl",
    "matrix.tsv",
    "matrix.md",
    "matrix.json",
    "summary.json",
    "report.html",
    "verdict.json",
)
CLEAN_IDS = "clean_ids"

_LOCK = ".lock"
_WRITING = ".writing-"  # what a file is called until it is whole


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The folder is this process's alone meanwhile, made when absent; raises DecontamError when another has it."""
    with told(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(lock, out)
        with told(out):
            _sweep(out)
        yield
    finally:
        os.close(lock)


def begun(out: Path) -> bool:
    """Whether a job lives in the folder; raises DecontamError when something else does."""
    refuse_foreign(out)
    return (out / MANIFEST).is_file()


def refuse_foreign(out: Path) -> None:
    """Raises DecontamError when something else than a job lives in the folder; leaves not even a lock there."""
    if (out / MANIFEST).is_file() or not out.is_dir():
        return
    # A scan that --fresh had begun to clear away leaves reports, but then beside its shards.
    ours = {_LOCK, EVALS, SHARDS, *((*REPORTS, CLEAN_IDS, REVIEW) if (out / SHARDS).is_dir() else ())}
    names = sorted(path.name for path in out.iterdir())
    foreign = [name for name in names if name not in ours and not name.startswith(_WRITING)]
    if foreign:
        raise DecontamError(
            f"{out}: not a folder of decontamination, it holds {', '.join(map(repr, foreign[:3]))}; use another --out"
        )


def refuse_unwritable(out: Path) -> None:
    """Raises DecontamError when the folder cannot be made or written, and makes nothing."""
    with told(out):
        there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir():
        raise DecontamError(f"{there} is a file, no folder; use another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DecontamError(f"{there}: cannot be written; open the folder, or use another --out")


def clear(out: Path) -> None:
    """Takes away what a scan wrote, the manifest first, and leaves what people decided."""
    with told(out):
        ours = [out / name for name in (MANIFEST, *reversed(REPORTS), EVALS)]
        ours += [p for folder in (SHARDS, CLEAN_IDS) for p in sorted((out / folder).glob("*"))]
        for path in ours:
            path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its name when it is whole and on the disk; an older one stays until then."""
    temporary = path.with_name(f"{_WRITING}{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write(path: Path, data: bytes) -> None:
    """Puts a file there, whole or not at all."""
    with writing(path) as stream:
        stream.write(data)


@contextmanager
def told(out: Path) -> Iterator[None]:
    """What the disk refuses while `out` is written becomes one line for the user."""
    try:
        yield
    except OSError as error:
        where = error.filename or out
        why = error.strerror or str(error) or type(error).__name__
        raise DecontamError(f"{where}: {why}; free or open the folder, then the same command goes on") from error


def _lock(lock: int, out: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DecontamError(f"{out}: another scan is writing there; wait for it, or use another --out") from error
    except OSError as error:
        # A file system without locks: two scans of one job write the same bytes, so nothing worse than waste follows.
        if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}:
            raise


def _sweep(out: Path) -> None:
    """Takes away what killed processes had not finished. Whoever holds the lock knows that nobody writes."""
    for folder in (out, out / SHARDS, out / CLEAN_IDS):
        for leftover in folder.glob(f"{_WRITING}*"):
            leftover.unlink(missing_ok=True)
