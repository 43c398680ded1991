"""One writer at a time: `flock` on a local disk, a hard-linked lease where `flock` cannot be trusted.

A lease is the highest-numbered file of `lease/`. Its holder beats: it rewrites the file several times per term. Whoever
wants the lock creates the next number with a hard link, which exactly one process can, once the present holder has let
go or has not beaten for a whole term. The term is measured by the waiting process's own monotonic clock, so hosts whose
clocks disagree still agree on who holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from evalsuite.errors import RegistryError
from evalsuite.registry import durable

LockKind = Literal["flock", "lease"]
LOCK_KINDS: tuple[str, ...] = get_args(LockKind)
TERM_S = 30.0
_POLL_S = 0.05
_SHARED = re.compile(r"nfs4?|cifs|smb3|smbfs|9p|lustre|gpfs|fuse|fuse\..*")


@contextmanager
def held(
    root: Path, kind: LockKind, say: Callable[[str], None], term_s: float = TERM_S
) -> Iterator[Callable[[], None]]:
    """Holds the registry's lock; yields a function that raises RegistryError when it was lost meanwhile (leases can).

    Raises RegistryError where `flock` is unreliable (NFS and the like) and no lease was asked for.
    """
    if kind == "lease":
        with _lease(root, say, term_s) as still_held:
            yield still_held
        return
    check_place(root)
    fd = _flock(root, say)
    try:
        yield lambda: None
    finally:
        os.close(fd)


def check_place(root: Path) -> None:
    """Raises RegistryError when `root` lies on a mount that may not honour `flock`."""
    kind = mount_type(root)
    if _SHARED.fullmatch(kind):
        raise RegistryError(
            f"{root}: on a {kind} mount, where flock is unreliable and two promotions could both win; "
            "pass --lock lease, or name a folder on a local disk with --results"
        )


def mount_type(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that a path, or its nearest parent there is, lies on; "" where it is not known."""
    real = os.path.realpath(path)
    best, kind = -1, ""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split(" ")[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # of two mounts on one point the later one is seen
            best, kind = len(point), right.split(" ")[0]
    return kind


# -- flock --


def _flock(root: Path, say: Callable[[str], None]) -> int:
    with durable.step("taking the lock", root / "lock"):
        durable.make_folder(root)
        fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _wait(fd, root, say)
    return fd


def _wait(fd: int, root: Path, say: Callable[[str], None]) -> None:
    patience = time.monotonic() + 1.0
    while time.monotonic() < patience:
        with suppress(BlockingIOError):
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.002)
    say(f"{root}: in use by another evalsuite process; waiting for it to finish")
    fcntl.flock(fd, fcntl.LOCK_EX)
    return None


# -- lease --


@contextmanager
def _lease(root: Path, say: Callable[[str], None], term_s: float) -> Iterator[Callable[[], None]]:
    folder = root / "lease"
    with durable.step("taking the lease", folder):
        durable.make_folder(folder)
        lease = _Lease(folder, _take(folder, say, term_s), term_s)
    try:
        yield lease.check
    finally:
        lease.release()


class _Lease:
    """A held lease; a thread beats for it until `release`."""

    def __init__(self, folder: Path, number: int, term_s: float) -> None:
        self._path = folder / str(number)
        self._number = number
        self._term_s = term_s
        self._beat = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises RegistryError when another process took the lease: this one was stopped for longer than its term."""
        if _highest(self._path.parent) != self._number:
            raise RegistryError(
                f"{self._path.parent}: this process was held up for more than {self._term_s:g} s and lost the lease; "
                "nothing was changed: run the same command again"
            )

    def release(self) -> None:
        self._done.set()
        self._thread.join()
        with suppress(OSError):
            durable.replace(self._path, _content(self._beat, released=True))

    def _keep_beating(self) -> None:
        while not self._done.wait(self._term_s / 5):
            self._beat += 1
            with suppress(OSError):
                durable.replace(self._path, _content(self._beat))


def _take(folder: Path, say: Callable[[str], None], term_s: float) -> int:
    """The number of the lease that is now ours; waits for the holder, and says so once."""
    seen, said = b"", False
    started = since = time.monotonic()
    while True:
        now = time.monotonic()  # before the look: a waiter that is stopped in between must not count that time
        number = _highest(folder)
        content = _read(folder / str(number)) if number else _content(0, released=True)
        if content != seen:
            seen, since = content, time.monotonic()
        if _is_over(content, now - since, term_s):
            if _link(folder, number + 1):
                _sweep(folder, number + 1)
                return number + 1
            continue
        if not said and now - started > 1.0:
            say(f"{folder}: held by {_owner(content)}; waiting for it, or for {term_s:g} s without a sign of life")
            said = True
        time.sleep(_POLL_S)


def _link(folder: Path, number: int) -> bool:
    """Whether this process, and no other, made lease `number`."""
    mine = folder / f".{socket.gethostname()[:20]}.{os.getpid()}.{os.urandom(4).hex()}{durable.PART}"
    mine.write_bytes(_content(0))
    try:
        with suppress(FileExistsError):
            os.link(mine, folder / str(number))
        # Over NFS a link can be made and its answer lost: the number of links tells the truth.
        made = mine.stat().st_nlink == 2
    finally:
        mine.unlink()
    # Old numbers are swept away, so a slow process could make one of them again; the highest one alone counts.
    return made and _highest(folder) == number


def _sweep(folder: Path, number: int) -> None:
    for path in folder.iterdir():
        if path.name.isdigit() and int(path.name) < number:
            with suppress(OSError):
                path.unlink()


def _highest(folder: Path) -> int:
    return max((int(name) for name in os.listdir(folder) if name.isdigit()), default=0)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # swept away: there is a higher one now
        return b""


def _is_over(content: bytes, unchanged_s: float, term_s: float) -> bool:
    lease = _parse(content)
    if lease.get("released") or unchanged_s > term_s:
        return True
    return lease.get("where") == _where() and not _is_alive(lease.get("pid"))


def _is_alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _content(beat: int, released: bool = False) -> bytes:
    lease = {"host": socket.gethostname(), "where": _where(), "pid": os.getpid(), "beat": beat, "released": released}
    return json.dumps(lease).encode() + b"\n"


@cache
def _where() -> str:
    """Where a process number means something: one boot of one machine and one process namespace of it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown {os.urandom(8).hex()}"


def _parse(content: bytes) -> dict[str, object]:
    try:
        raw = json.loads(content)
    except ValueError:
        return {}
    return raw if isinstance(raw, dict) else {}


def _owner(content: bytes) -> str:
    lease = _parse(content)
    return f"process {lease.get('pid')} on {lease.get('host')}"
