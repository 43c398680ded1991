"""Where a test may kill a process that writes to the registry: EVALSUITE_FAULT names one point."""

from __future__ import annotations

import os
import signal
from collections import Counter

FAULTS = (
    "lock",  # the lock is held, nothing was looked at
    "recover",
    "object-write",  # in a temporary file
    "object-fsync",
    "object-rename",
    "event-write",  # the line is in the log, not yet on the platter
    "event-fsync",
    "ref-write",  # in a temporary file
    "ref-fsync",
    "ref-rename",
    "unlock",  # everything is done, the lock is still held
)
"""In the order of a promotion."""

_passed: Counter[str] = Counter()


def reached(point: str) -> None:
    """Kills this process with SIGKILL when EVALSUITE_FAULT says so: "POINT", or "POINT:3" the third time it is here."""
    wanted = os.environ.get("EVALSUITE_FAULT")
    if not wanted:
        return
    _passed[point] += 1
    name, _, count = wanted.partition(":")
    if name == point and _passed[point] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
