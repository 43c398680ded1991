"""Keeps the bytes that are judged: external trainers rotate checkpoints away while the gate still reads them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalsuite.errors import CheckpointError, DiskFull
from evalsuite.trainers.files import sync_folder

ROOM = 1.2  # free space that a copy must find, in units of its size: what else writes there goes on writing
TEMPORARY = re.compile(r"\.tmp-(\d+)-[0-9a-f]+")


def temporary_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f".tmp-{os.getpid()}-{os.urandom(4).hex()}"
    folder.mkdir()
    return folder


def remove_leftovers(parent: Path) -> None:
    """Deletes the temporary folders of processes that are gone."""
    for path in parent.glob(".tmp-*"):
        match = TEMPORARY.fullmatch(path.name)
        if match and (int(match[1]) == os.getpid() or not Path(f"/proc/{match[1]}").exists()):
            shutil.rmtree(path, ignore_errors=True)


def pin(source: Path, into: Path, how: str) -> str:
    """Links or copies a model's files into an empty folder; returns how it was done.

    Falls back to a copy where links are impossible (another file system). A hard link does not protect from a trainer
    that rewrites a file in place, so the digest is taken again after scoring. Raises CheckpointError when the source
    is not whole any more, DiskFull before anything is copied that would not fit.
    """
    from evalsuite.checkpoint.files import find_files

    try:
        files = find_files(source, allow_pickle=False, trust_remote_code=False)
        real = {into / name: Path(os.path.realpath(source / name)) for name in (*files.weights, *files.others)}
        left = list(real)
        while how == "hardlink" and left and _link(real[left[0]], left[0]):
            del left[0]
        if left:
            how = "copy"
            require_room(into, sum(real[target].stat().st_size for target in left))
        for target in left:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(real[target], target)
    except FileNotFoundError as error:
        raise CheckpointError(f"{source}: it was removed while it was kept ({error.filename})") from error
    return how


def require_room(folder: Path, size: int) -> None:
    """Raises DiskFull unless that many bytes, and some more, are free where the folder is."""
    free = shutil.disk_usage(folder).free
    if free < ROOM * size:
        mount = next(p for p in (folder.absolute(), *folder.absolute().parents) if os.path.ismount(p))
        raise DiskFull(
            f"no room to keep a checkpoint: it needs {_gigabytes(ROOM * size)}, {_gigabytes(free)} free on {mount}; "
            "use --keep or another --out, then run the same command again"
        )


def size_of(*folders: Path) -> int:
    """Bytes on disk of all files below the folders; one that stands under two names counts once."""
    stats = (path.stat() for folder in folders for path in folder.rglob("*") if path.is_file())
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}.values())


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.3g} MB"


def _link(source: Path, target: Path) -> bool:
    """False where no link can be made, as between two file systems."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


def convert(command: Sequence[str], into: Path, log: Path) -> None:
    """Runs a converter whose output is the folder `into`. Raises CheckpointError when it fails."""
    with log.open("ab") as file:
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False)
        except OSError as error:
            raise CheckpointError(f"convert could not start ({error.strerror}: {error.filename!r})") from error
    if done.returncode != 0:
        raise CheckpointError(f"convert ended with exit code {done.returncode}; its output is in {log}")
    for path in into.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)


def publish(folder: Path, name: str, facts: Mapping[str, Any]) -> Path:
    """Gives a finished temporary folder its name, with what is known of it in evalsuite.json. Never writes over one."""
    (folder / "evalsuite.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    final = folder.parent / name
    attempt = 0
    while final.exists():
        attempt += 1
        final = folder.parent / f"{name}-a{attempt}"
    os.rename(folder, final)
    sync_folder(folder.parent)
    return final
