"""Waits for a training command and writes down how it ended, whoever is there to read it.

The loop may be killed at any moment; its training goes on below this process, and the next loop learns from
`run.json` that it runs, or how it ended. Run as a file of its own (`python -P supervise.py`): standard library only.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from typing import Any


def main(arguments: list[str]) -> int:
    spec = json.loads(arguments[0])
    # A handler, not SIG_IGN, which the command would inherit: what is meant for the command is sent to its own group.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    record: dict[str, Any] = {**spec["record"], "supervisor": os.getpid()}
    try:
        with open(spec["log"], "ab") as log:
            child = subprocess.Popen(
                spec["command"],
                cwd=spec["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        _write(spec["run"], {**record, "code": 127, "error": f"{error.strerror}: {error.filename!r}"})
        return 0
    record |= {"pid": child.pid, "ticks": start_ticks(child.pid)}
    _write(spec["run"], record)
    code = child.wait()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    _write(spec["run"], {**record, "code": code, "peak_kib": peak})
    return 0


def start_ticks(pid: int) -> int:
    """When a process started, in ticks since the machine did: with the pid it names a process for good. 0: gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _write(path: str, content: dict[str, Any]) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
