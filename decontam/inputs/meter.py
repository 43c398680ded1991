"""How far this process is in the compressed files that it reads: each is one piece of work, whatever its size."""

from __future__ import annotations

import threading

_reached: dict[int, int] = {}
_lock = threading.Lock()


def reached(reader: object, n_bytes: int) -> None:
    """A reader stands at this byte of its compressed file."""
    with _lock:
        _reached[id(reader)] = n_bytes


def left(reader: object) -> None:
    """A reader is done with its file."""
    with _lock:
        _reached.pop(id(reader), None)


def bytes_under_way() -> int:
    """The compressed bytes that have been read of all files that are open."""
    with _lock:
        return sum(_reached.values())
