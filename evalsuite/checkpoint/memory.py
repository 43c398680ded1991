"""What was found by reading a large file, remembered between runs: a checkpoint is hashed and scanned only once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from evalsuite.checkpoint.weights import FileFacts
from evalsuite.errors import CheckpointError

LARGE = 64 << 20  # bytes; below this reading again is cheaper than explaining a stale answer
SCHEMA = 1  # raise it when the scan finds more than it did
RACY_S = 2.0  # a file changed this recently may change again within the same tick of its clock


def cache_folder() -> Path:
    """Where evalsuite remembers things: $EVALSUITE_CACHE, else evalsuite/ in $XDG_CACHE_HOME, else in ~/.cache."""
    own = os.environ.get("EVALSUITE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "evalsuite"


def facts(path: Path, examine: Callable[[Path], FileFacts]) -> FileFacts:
    """`examine(path)`, remembered for large files until path, size, inode or a time of change differ.

    Raises CheckpointError when the file changes while it is read.
    """
    real = path.resolve()
    identity = _identity(real)
    if identity["size"] < LARGE:
        return examine(path)
    known = _recall(real, identity)
    if known is not None:
        return known
    found = examine(path)
    if _identity(real) != identity:
        raise CheckpointError(f"{path}: changed while it was read; wait until the trainer or the copy is done")
    if time.time_ns() - max(identity["mtime_ns"], identity["ctime_ns"]) > RACY_S * 1e9:
        _remember(real, identity, found)
    return found


def _identity(path: Path) -> dict[str, int]:
    stat = path.stat()
    # Whoever writes can put the modification time back, and only the system sets that of the last change.
    times = {"mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}
    return {"size": stat.st_size, "inode": stat.st_ino, **times}


def _entry(path: Path) -> Path:
    return cache_folder() / "files" / (hashlib.sha256(os.fsencode(path)).hexdigest()[:32] + ".json")


def _recall(path: Path, identity: Mapping[str, int]) -> FileFacts | None:
    try:
        record = json.loads(_entry(path).read_text(encoding="utf-8"))
        if record["schema"] == SCHEMA and record["path"] == str(path) and record["identity"] == identity:
            return FileFacts(str(record["sha256"]), str(record["not_finite"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent, torn or of another version: read the file again
    return None


def _remember(path: Path, identity: Mapping[str, int], found: FileFacts) -> None:
    record = {"schema": SCHEMA, "path": str(path), "identity": identity}
    record |= {"sha256": found.sha256, "not_finite": found.not_finite}
    entry = _entry(path)
    with suppress(OSError, ValueError):  # no room, no permission, no encoding for the name: only speed is lost
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=entry.parent, suffix=".tmp", delete=False) as file:
            json.dump(record, file)
        os.replace(file.name, entry)
