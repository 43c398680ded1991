"""Append-only files of one JSON object a line: what a trainer reports, and what the loop did.

A line is one write and one fsync. A reader takes whole lines only; the owner cuts off a line that a crash left torn.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalsuite.errors import DiskFull, TrainerFailed

Event = Mapping[str, Any]
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def append_event(path: Path, kind: str, /, **fields: Any) -> dict[str, Any]:
    """Writes one event and returns it; after this returns, neither kill -9 nor a power cut loses it."""
    event = {"kind": kind, **fields}
    data = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        written = os.write(fd, data)
        if written < len(data):
            os.ftruncate(fd, os.fstat(fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f"{path}: no room to write; free some space and run the same command again") from error
        raise
    finally:
        os.close(fd)
    return event


def cut_torn_line(path: Path) -> int:
    """Removes a last line without its end, which a crash left; returns the bytes cut. Only for the file's owner."""
    if not path.is_file():
        return 0
    data = path.read_bytes()
    keep = data.rfind(b"\n") + 1
    if keep < len(data):
        os.truncate(path, keep)
    return len(data) - keep


class EventReader:
    """Follows a file that somebody else appends to; each whole line is given once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._line = 0

    def new(self) -> tuple[Event, ...]:
        """The events that were added since the last call. Raises TrainerFailed at a line that is no JSON object."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return ()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return tuple(self._parse(line) for line in whole.split(b"\n")[:-1])

    def _parse(self, line: bytes) -> Event:
        self._line += 1
        try:
            event = json.loads(line.decode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise TrainerFailed(
                f"{self._path}: line {self._line}: not JSON ({error}); is another program writing it?"
            ) from error
        if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
            raise TrainerFailed(f"{self._path}: line {self._line}: expected a JSON object with a 'kind'")
        return event


def read_events(path: Path) -> tuple[Event, ...]:
    """Every whole line of the file; () when it is not there."""
    return EventReader(path).new()
