"""One training command for each folder: started once, found again after the loop was killed, stopped when asked.

A lock on `<out>/.run.lock` is held by the supervisor for as long as it waits for the command, so there is never a
second one beside it; `<out>/run.json` says which process it is and, once it ended, with what code.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.errors import TrainerFailed
from evalsuite.trainers import supervise
from evalsuite.trainers.files import load_json, replace_json

LOG = "log.txt"
TAIL = 40  # lines of the log that an error shows
BAR = "%|"  # in every line of a progress bar, which says nothing of an error


@dataclass(frozen=True, slots=True)
class StopRule:
    """The polite signal, and how long to wait for the end before SIGKILL."""

    signal: str = "TERM"
    grace_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended: exit code, minus the signal's number, or None when nobody was left to see it."""

    code: int | None
    error: str = ""
    peak_kib: int = 0


class Process:
    """The command of one folder, running or ended. Made by `start` or `find`."""

    def __init__(self, out: Path, child: subprocess.Popen[bytes] | None = None) -> None:
        self._out = out
        self._child = child

    def poll(self) -> Exit | None:
        """How it ended; None while it runs. Raises TrainerFailed when it runs on without its supervisor."""
        if self._child is not None:
            self._child.poll()
        if _is_locked(self._out):
            return None
        record = _record(self._out)
        if record.get("code") is None and _is_alive(record):
            raise TrainerFailed(
                f"{self._out}: the training command still runs (pid {record['pid']}) but what watched it was killed; "
                "wait for its end or stop it, then run the same command again"
            )
        return Exit(record.get("code"), str(record.get("error", "")), int(record.get("peak_kib", 0)))

    def signal(self, name: str) -> None:
        """Sends a signal (its name without SIG) to the process group of the command, and to nothing else."""
        record = _record(self._out)
        if _is_alive(record):
            with suppress(ProcessLookupError):
                os.killpg(record["pid"], signal.Signals[f"SIG{name}"])

    def stop(self) -> None:
        """Asks the command to end as it was started with, waits, then kills its group. Returns when it is gone."""
        record = self._running_record()
        rule = StopRule(**record.get("stop", {}))
        self.signal(rule.signal)
        self.signal("CONT")  # a paused command cannot end
        if not self.wait(rule.grace_s):
            self.signal("KILL")
            self.wait(10.0)
        self._kill_rest(record)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within that time."""
        deadline = time.monotonic() + seconds
        while _is_locked(self._out):
            if self._child is not None:
                self._child.poll()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _running_record(self) -> dict[str, Any]:
        """The record once the supervisor has written the command's pid into it."""
        while (record := _record(self._out)).get("pid") is None and _is_locked(self._out):
            time.sleep(0.02)
        return record

    @staticmethod
    def _kill_rest(record: Mapping[str, Any]) -> None:
        # The first process of the group is gone; children that ignored the signal still have its number.
        if record.get("pid"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(record["pid"], signal.SIGKILL)


def start(
    out: Path, command: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None,
    stop: StopRule | None = None, note: Mapping[str, Any] | None = None,
) -> Process:  # fmt: skip
    """Starts the command in a session of its own, its output in <out>/log.txt. Raises when one runs there already.

    `note` is kept in run.json, to tell later which of several commands it was.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = os.open(out / ".run.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainerFailed(
                f"{out}: a training command is running there already; wait for it, or stop it"
            ) from None
        record = {"command": list(command), "pid": None, "code": None, "note": dict(note or {})}
        record["stop"] = {"signal": (stop or StopRule()).signal, "grace_s": (stop or StopRule()).grace_s}
        replace_json(out / "run.json", record)
        spec: dict[str, Any] = {"record": record, "command": list(command), "cwd": str(cwd) if cwd else None}
        spec |= {"run": str(out / "run.json"), "log": str(out / LOG)}
        # The lock goes with the open file: it is the supervisor's from here on, even if this process dies now.
        child = subprocess.Popen(
            [sys.executable, "-P", supervise.__file__, json.dumps(spec)],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, pass_fds=(lock,),
        )  # fmt: skip
    finally:
        os.close(lock)
    return Process(out, child)


def find(out: Path) -> Process | None:
    """The command that runs in this folder, started by whichever loop; None when none does."""
    found = Process(out)
    return found if (out / "run.json").is_file() and found.poll() is None else None


def last_exit(out: Path) -> tuple[Exit, Mapping[str, Any]] | None:
    """How the last command here ended and its note; None when none was ever started."""
    record = _record(out)
    if record.get("pid") is None and record.get("code") is None:
        return None
    ended = Exit(record.get("code"), str(record.get("error", "")), int(record.get("peak_kib", 0)))
    return ended, record.get("note", {})


def failure(out: Path, ended: Exit, what: str = "the trainer") -> TrainerFailed:
    """The error for a command that did not end well, with the end of its log."""
    tail = _tail(out / LOG)
    if ended.code == 2 and tail:
        return TrainerFailed(f"{tail[-1]} (full log: {out / LOG})")
    if ended.error:
        how = f"could not start ({ended.error})"
    elif ended.code is None:
        how = "was killed together with what watched it"
    elif ended.code < 0:
        memory = f", peak memory {ended.peak_kib / 2**20:.1f} GiB" if ended.peak_kib else ""
        how = f"was killed by signal {-ended.code}{memory}"
    else:
        how = f"ended with exit code {ended.code}"
    shown = "".join(f"\n  {line}" for line in tail)
    return TrainerFailed(f"{what} {how}; full log: {out / LOG}; the same command goes on from its last state{shown}")


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 65_536))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip() and BAR not in line][-TAIL:]


def _record(out: Path) -> dict[str, Any]:
    try:
        return load_json(out / "run.json") or {}
    except ValueError as error:
        raise TrainerFailed(f"{out / 'run.json'}: {error}; move the file away to start the command anew") from error


def _is_alive(record: Mapping[str, Any]) -> bool:
    pid = record.get("pid")
    return isinstance(pid, int) and record.get("ticks") == supervise.start_ticks(pid) != 0


def _is_locked(out: Path) -> bool:
    try:
        fd = os.open(out / ".run.lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
