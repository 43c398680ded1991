"""Writes that either happened or did not: a file is the old one or the new one, a line is there or is not.

What the disk refuses (no room, read-only, no permission) becomes one RegistryError that names the step.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from evalsuite.errors import RegistryError
from evalsuite.registry.faults import reached

PART = ".part"
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space (a quota is used up)",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "mount it writable, or name another folder with --results",
    errno.EACCES: "ask its owner for permission, or name another folder with --results",
    errno.EPERM: "ask its owner for permission, or name another folder with --results",
}


@contextmanager
def step(doing: str, path: Path, outcome: str = "nothing was changed") -> Iterator[None]:
    """Turns what the disk refuses inside into a RegistryError that says in which step, and what became of it all."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "look at the disk")
        raise RegistryError(
            f"{path}: {doing} failed ({error.strerror or error}); {outcome}: {advice} and run the same command again"
        ) from error


def make_folder(folder: Path) -> None:
    """The folder and its parents, safe against a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def replace(path: Path, data: bytes, kind: str = "") -> None:
    """Puts `data` at `path` in one step: temporary file beside it, fsync, rename, fsync of the folder.

    `kind` names the points of faults.py that are passed: "object" or "ref".
    """
    part = path.with_name(f".{path.name}.{socket.gethostname()[:20]}.{os.getpid()}.{os.urandom(3).hex()}{PART}")
    try:
        _write(part, data, kind)
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
    sync_folder(path.parent)
    if kind:
        reached(f"{kind}-rename")


def append(path: Path, line: bytes) -> None:
    """One line at the end of a file, on disk when this returns; where it does not fit, the file is as before."""
    is_new = not path.exists()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        before = os.fstat(fd).st_size
        try:
            if os.write(fd, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            reached("event-write")
            os.fsync(fd)
            if is_new:
                sync_folder(path.parent)
        except OSError:
            os.ftruncate(fd, before)
            raise
    finally:
        os.close(fd)
    reached("event-fsync")


def cut(path: Path, size: int) -> None:
    """Makes a file `size` bytes long, on disk when this returns."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network and FUSE mounts cannot sync a folder at all
            raise
    finally:
        os.close(fd)


def _write(part: Path, data: bytes, kind: str) -> None:
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        if kind:
            reached(f"{kind}-write")
        os.fsync(fd)
        if kind:
            reached(f"{kind}-fsync")
    finally:
        os.close(fd)
