"""A folder that is there whole or not at all: everything is written beside it under a hidden name first."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from decontam.errors import DecontamError

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space (a quota is used up)",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.EACCES: "ask its owner for permission",
    errno.EPERM: "ask its owner for permission",
}


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `target` when the block ends well; else nothing of it stays.

    Raises DecontamError when `target` holds something, when another process writes it, or with what the disk refused.
    """
    target = Path(os.path.abspath(target))
    part = target.with_name(f".{target.name}.part")
    try:
        _refuse_full(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _claim(part, target)
    except OSError as error:
        raise told(error, target) from error
    try:
        yield part
        _sync(part)
        part.rename(target)  # over an empty folder too
        _sync_folder(target.parent)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise told(error, target) from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def told(error: OSError, target: Path) -> DecontamError:
    """What the disk refused as one line for the user."""
    advice = _ADVICE.get(error.errno or 0, "look at the disk")
    why = os.strerror(error.errno) if error.errno else str(error)
    return DecontamError(
        f"{error.filename or target}: {why}; no cleaned data was written: {advice} and run the same command again"
    )


def _refuse_full(target: Path) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.is_symlink() or target.exists():
        what = "is not empty" if target.is_dir() else "is not a folder"
        raise DecontamError(f"{target}: {what}; name a new folder with -o, nothing is ever written over")


def _claim(part: Path, target: Path) -> int:
    """Makes the hidden folder anew and holds it against other processes; what a killed one left goes."""
    part.mkdir(exist_ok=True)
    lock = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), part.stat()):
            raise BlockingIOError
        for leftover in part.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        raise DecontamError(f"{target}: another clean is writing there; wait for it, or use another -o") from None
    except OSError as error:
        # A file system without locks: whoever starts two cleans into one folder there gets an error from the rename.
        if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}:
            os.close(lock)
            raise
    return lock


def _sync(folder: Path) -> None:
    for here, _, files in os.walk(folder, topdown=False):
        for name in files:
            with open(os.path.join(here, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(here))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network and FUSE mounts cannot sync a folder at all
            os.fsync(fd)
    finally:
        os.close(fd)
