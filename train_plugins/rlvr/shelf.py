"""Versions of weights on their way to a generator: a folder each, in shared memory where there is room for two."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from evalsuite.errors import DiskFull

MEMORY = Path("/dev/shm")
PREFIX = "evalsuite-rlvr-"
LOCK = ".lock"
VERSION = "VERSION"
ROOM = 2.2  # one version is read while the next is written
YOUNG_S = 60.0  # a folder that nobody has locked yet may be a second old


class Shelf:
    """A folder of this process's own, removed by `close`; what processes that are gone have left is removed at once.

    A lock on a file tells the living from the dead, in other containers too, whose process numbers mean nothing here.
    """

    def __init__(self, n_bytes: int, *, memory: Path = MEMORY, fallback: Path | None = None) -> None:
        self._owner = os.getpid()
        disk = Path(tempfile.gettempdir()) if fallback is None else fallback
        for parent in (memory, disk):
            remove_dead(parent)
        parent = memory if _has_room(memory, n_bytes) else disk
        self.root, self._lock = _own_folder(parent)

    def put(self, version: int, write: Callable[[Path], None]) -> Path:
        """The folder of a version, complete: `write` fills it, its version file comes last, then it gets its name.

        Raises DiskFull when it does not fit.
        """
        final, temporary = self.root / str(version), self.root / f".tmp-{version}"
        for old in (temporary, final):
            shutil.rmtree(old, ignore_errors=True)
        temporary.mkdir()
        try:
            write(temporary)
        except Exception as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left" in str(error):
                raise DiskFull(
                    f"{self.root}: no room for the weights that go to the generator; free some, or set TMPDIR to a "
                    "larger disk"
                ) from error
            raise
        (temporary / VERSION).write_text(f"{version}\n", encoding="ascii")
        os.rename(temporary, final)
        return final

    def drop(self, version: int) -> None:
        """Removes a version and all before it."""
        for path in self.root.iterdir() if self.root.is_dir() else ():
            if path.name.isdigit() and int(path.name) <= version:
                shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Removes everything. Does nothing in a process that was forked from the owner."""
        if self._lock >= 0 and os.getpid() == self._owner:
            shutil.rmtree(self.root, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def read_version(folder: Path) -> int:
    """The version of a folder of a shelf. Raises FileNotFoundError for one that is not complete."""
    return int((folder / VERSION).read_text(encoding="ascii"))


def remove_dead(parent: Path) -> None:
    """Removes the shelves of processes that are gone."""
    for folder in parent.glob(f"{PREFIX}*") if parent.is_dir() else ():
        with suppress(OSError):
            _remove_if_dead(folder)


def _remove_if_dead(folder: Path) -> None:
    """Raises BlockingIOError for a folder in use and PermissionError for another user's."""
    if not (folder / LOCK).exists():
        if time.time() - folder.stat().st_mtime > YOUNG_S:
            shutil.rmtree(folder)
        return
    lock = os.open(folder / LOCK, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)


def _own_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return folder, lock
        except OSError:  # another process took it for a dead one's in the moment before
            os.close(lock)


def _has_room(folder: Path, n_bytes: int) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= ROOM * n_bytes
