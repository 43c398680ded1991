"""Which of the folders that somebody else's trainer writes are complete: nothing here relies on its good manners."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evalsuite.errors import CheckpointError, UsageError

State = Literal["changing", "unfinished", "ready"]
Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Complete:
    """How a trainer shows that a folder is complete.

    `marker`: a file in the folder. `file`: a file that names the newest complete step, as `contains` says. Neither: no
    size or time changed for `settled_s`; with the other two that long without a change means it was given up.
    """

    settled_s: float = 30.0
    marker: str | None = None
    file: str | None = None
    contains: str = "{step}"

    def __post_init__(self) -> None:
        if self.settled_s < 0:
            raise UsageError(f"settled_s is {self.settled_s}; it is a time in seconds")
        if self.marker and self.file:
            raise UsageError("marker or file, not both")
        if self.file and "{step}" not in self.contains:
            raise UsageError(f"contains is {self.contains!r}; it must hold {{step}}")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that matches. `key` is its path below the watched one; `step` is -1 where the pattern has none."""

    path: Path
    key: str
    step: int


@dataclass(frozen=True, slots=True)
class Look:
    """One folder at one moment. `why` is what an unfinished one lacks."""

    folder: Folder
    state: State
    signature: Signature
    why: str = ""


class Watch:
    """Looks at a folder again and again and remembers since when each match has been as it is."""

    def __init__(self, root: Path, pattern: str, complete: Complete, *, model: bool) -> None:
        self._root, self._complete, self._model = root, complete, model
        self._pattern = re.compile(pattern)
        self._depth = pattern.count("/") + 1
        self._since: dict[str, tuple[Signature, float]] = {}
        self._whole: dict[str, tuple[Signature, str]] = {}

    def look(self) -> tuple[Look, ...]:
        """Every folder that matches, in step order."""
        newest = self._named_step()
        found = sorted(self._folders(), key=lambda folder: (folder.step, folder.key))
        return tuple(self._look(folder, newest) for folder in found)

    def _folders(self) -> list[Folder]:
        found, level = [], [""]
        for _ in range(self._depth):
            level = [key for parent in level for key in _children(self._root, parent)]
            for key in level:
                match = self._pattern.fullmatch(key)
                if match is not None:
                    step = match.groupdict().get("step")
                    found.append(Folder(self._root / key, key, int(step) if step is not None else -1))
        return found

    def _look(self, folder: Folder, newest: int | None) -> Look:
        signature = sign(folder.path)
        known, since = self._since.get(folder.key, (None, 0.0))
        if known != signature:
            since = time.monotonic()
            self._since[folder.key] = signature, since
        settled = time.monotonic() - since >= self._complete.settled_s
        if not settled and not self._complete.marker and not self._complete.file:
            return Look(folder, "changing", signature)
        why = self._lacks(folder, signature, newest)
        if not why and signature:
            return Look(folder, "ready", signature)
        return Look(folder, "unfinished" if settled else "changing", signature, why)

    def _lacks(self, folder: Folder, signature: Signature, newest: int | None) -> str:
        if self._complete.marker and not (folder.path / self._complete.marker).exists():
            return f"{folder.path}: no {self._complete.marker} in it"
        if self._complete.file and (newest is None or newest < folder.step):
            return f"{folder.path}: {self._complete.file} does not name this step"
        if not self._model:
            return ""
        known, why = self._whole.get(folder.key, (None, ""))
        if known != signature:
            why = model_lacks(folder.path)
            self._whole[folder.key] = signature, why
        return why

    def _named_step(self) -> int | None:
        """The largest step that the file names. A later step there means that the earlier ones were completed."""
        if self._complete.file is None:
            return None
        before, _, after = self._complete.contains.partition("{step}")
        try:
            text = Path(self._complete.file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        steps = re.findall(rf"(?<!\d){re.escape(before)}(\d+){re.escape(after)}(?!\d)", text)
        return max(map(int, steps), default=None)


def sign(folder: Path) -> Signature:
    """Name, size, time and inode of every file below a folder; () when it is not there or changes meanwhile."""
    found = []
    try:
        for parent, _, names in os.walk(folder, onerror=_raise):
            for name in names:
                stat = os.stat(os.path.join(parent, name))
                relative = os.path.relpath(os.path.join(parent, name), folder)
                found.append((relative, stat.st_size, stat.st_mtime_ns, stat.st_ino))
    except OSError:
        return ()
    return tuple(sorted(found))


def model_lacks(folder: Path) -> str:
    """What keeps a folder from being a whole model folder, from names and headers alone; empty when it is one."""
    from evalsuite.checkpoint.files import find_files
    from evalsuite.checkpoint.weights import read_tensors

    try:
        files = find_files(folder, allow_pickle=False, trust_remote_code=False)
        for name in files.weights:
            read_tensors(folder / name)
    except CheckpointError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


def _children(root: Path, parent: str) -> list[str]:
    try:
        with os.scandir(root / parent) as entries:
            return [f"{parent}/{e.name}" if parent else e.name for e in entries if e.is_dir()]
    except OSError:
        return []


def _raise(error: OSError) -> None:
    raise error


def render(template: str, values: Mapping[str, str]) -> str:
    """Puts values in place of their `{name}`. Other braces are the shell's and stay: `${HOME}`, `{a,b}`."""
    names = "|".join(map(re.escape, sorted(values, key=len, reverse=True)))
    return re.sub(rf"(?<!\$)\{{({names})\}}", lambda match: values[match[1]], template)
