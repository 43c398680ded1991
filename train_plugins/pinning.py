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

from evalsuite.errors import CheckpointError
from evalsuite.trainers.files import sync_folder

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
    is not whole any more.
    """
    from evalsuite.checkpoint.files import find_files

    try:
        files = find_files(source, allow_pickle=False, trust_remote_code=False)
        for name in (*files.weights, *files.others):
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            how = _place(Path(os.path.realpath(source / name)), into / name, how)
    except FileNotFoundError as error:
        raise CheckpointError(f"{source}: it was removed while it was kept ({error.filename})") from error
    return how


def _place(source: Path, target: Path, how: str) -> str:
    if how == "hardlink":
        try:
            os.link(source, target)
            return how
        except FileNotFoundError:
            raise
        except OSError:
            how = "copy"
    shutil.copy2(source, target)
    return how


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
