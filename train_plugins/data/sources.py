"""What a conversion reads, with a digest: a file, a folder saved by datasets, or a data set of the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.errors import DataError, UsageError
from train_plugins.data.containers import dataset_rows, form_of, read_lines

HUB = "hub:"
SPLIT = re.compile(r"(train|test|validation|valid|dev|eval)(_\w+)?")


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from. `name` is what reports call it, `default` the `source` of rows that name none."""

    name: str
    default: str
    origin: str
    digest: str
    rows: Callable[[], Iterator[tuple[int, Any]]]
    path: Path | None = None


def open_source(argument: str, roots: Sequence[Path] = (), *, offline: bool = False) -> Source:
    """The source that a path or `hub:owner/name[:config][:split]` means; raises DataError when it is not there."""
    if argument.startswith(HUB):
        return _hub(argument, roots, offline)
    path = Path(argument)
    if not path.is_dir():
        form_of(path)
    digest = _folder_digest(path) if path.is_dir() else _file_digest(path)
    return Source(argument, path.name.split(".")[0], "", digest, lambda: read_lines(path), path)


def parse_hub(argument: str) -> tuple[str, str | None, str]:
    """(id, config, split) of `hub:owner/name[:config][:split]`.

    One part alone is a split when it is called like one (`train`, `test_sft`), else a config; `::split` is a split.
    """
    name, *parts = argument.removeprefix(HUB).split(":")
    if not name or len(parts) > 2:
        raise UsageError(f"{argument!r} is no data set of the hub; expected hub:owner/name[:config][:split]")
    if len(parts) == 1:
        parts = ["", parts[0]] if SPLIT.fullmatch(parts[0]) else [parts[0], ""]
    config, split = parts or ("", "")
    return name, config or None, split or "train"


def _hub(argument: str, roots: Sequence[Path], offline: bool) -> Source:
    from evalsuite.data import DatasetSpec, go_offline_when_local, load, resolve_all

    name, config, split = parse_hub(argument)
    spec = DatasetSpec(name, config, (split,))
    try:
        resolved = resolve_all([spec], roots, offline=offline)[spec]
    except DataError as error:
        raise DataError(f"{error}\n  config and split are named like this: {HUB}{name}:CONFIG:SPLIT") from error
    go_offline_when_local([resolved])
    return Source(argument, name, name, resolved.digest, lambda: dataset_rows(load(resolved, split)))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_digest(path: Path) -> str:
    """sha256 hex over the names and digests of the files of a saved data set."""
    files = sorted(each for each in path.rglob("*") if each.is_file())
    lines = [f"{each.relative_to(path)}\0{_file_digest(each)}\n" for each in files]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
