"""Which files an argument means: a file, a folder of any kind that holds training data, or a pattern."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from decontam.errors import DecontamError, did_you_mean

Format = Literal["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow"]

FORMATS: dict[str, Format] = {
    **{f".{name}": "jsonl" for name in ("jsonl", "ndjson", "json")},
    **{f".{name}.gz": "jsonl.gz" for name in ("jsonl", "ndjson", "json")},
    **{f".{name}.{end}": "jsonl.zst" for name in ("jsonl", "ndjson", "json") for end in ("zst", "zstd")},
    ".parquet": "parquet",
    ".arrow": "arrow",
}
READABLE = ".jsonl, .jsonl.gz, .jsonl.zst, .parquet or .arrow"
_SPLIT_FILE = re.compile(r"(.*?)(?:-\d{5}-of-\d{5})?\.[a-z.]+")


@dataclass(frozen=True, slots=True)
class File:
    """A file of training data: `name` is what reports call it, `relative` its name below the folder given."""

    name: str
    path: str
    format: Format
    relative: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Files that are scanned as one. `note` says which files of the folder are left out, if any."""

    name: str
    files: tuple[File, ...]
    note: str = ""


def discover(argument: str) -> Dataset:
    """The data set that `PATH` or `NAME=PATH` means; raises DecontamError where there is nothing to read.

    Of a folder saved by `datasets` and of one shaped like a hub repository the train splits are taken, where there are
    any; of another folder all files, sorted.
    """
    name, equals, path = argument.partition("=")
    if not equals or os.path.lexists(argument) or "/" in name or not name or not path:
        name = path = argument
    name, path = name.rstrip("/") or name, path.rstrip("/") or path
    if os.path.isdir(path):
        return _folder(name, path)
    if os.path.exists(path):
        return Dataset(name, (_file(path, path, os.path.basename(path)),))
    found = sorted(each for each in glob.glob(path, recursive=True) if os.path.isfile(each))
    if found:
        return Dataset(name, tuple(_file(each, each, each) for each in found))
    if glob.has_magic(path):
        raise DecontamError(f"no file matches the pattern {path!r}")
    folder = os.path.dirname(path) or "."
    beside = os.listdir(folder) if os.path.isdir(folder) else []
    raise DecontamError(f"no file or folder {path!r}{did_you_mean(os.path.basename(path), beside)}")


def _file(name: str, path: str, relative: str) -> File:
    format = _format(path)
    if format is None:
        raise DecontamError(f"{name}: its name does not end in {READABLE}")
    if not os.path.isfile(path):  # a pipe can be read once only, and waits for its writer
        raise DecontamError(f"{name} is no file that can be read twice; write its rows to one first")
    if path.endswith(".json"):
        with open(path, "rb") as file:
            if file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
                raise DecontamError(f"{name} is one JSON list; write one object a line instead (jq -c '.[]' {name})")
    return File(name, path, format, relative)


def _format(path: str) -> Format | None:
    return next((format for end, format in FORMATS.items() if path.endswith(end)), None)


def _folder(name: str, path: str) -> Dataset:
    root = Path(path)
    note = ""
    try:
        if (root / "dataset_dict.json").is_file():
            splits = {split: _saved(root / split) for split in _json(root / "dataset_dict.json")["splits"]}
        elif (root / "state.json").is_file():
            splits = {"train": _saved(root)}
        else:
            splits = _hub(root) or {"train": list(_any_files(root))}
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DecontamError(f"{path}: cannot tell which files it holds ({type(error).__name__}: {error})") from error
    train = {split: files for split, files in splits.items() if split.split(".")[-1].startswith("train")}
    if train and len(train) < len(splits):
        left = sorted({split.split(".")[-1] for split in splits if split not in train})
        note = f"only its train split is read, not {', '.join(left)} (give a file to read that one)"
        splits = train
    relative = dict.fromkeys(str(file.relative_to(root)) for files in splits.values() for file in files)
    if not relative:
        raise DecontamError(f"{path}: no file in it ends in {READABLE}")
    return Dataset(name, tuple(_file(f"{path}/{each}", f"{path}/{each}", each) for each in relative), note)


def _saved(folder: Path) -> list[Path]:
    """The Arrow files of a data set saved by `datasets`, in order."""
    state = _json(folder / "state.json")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise ValueError(f"{folder.name} keeps its rows in another order; save it again with flatten_indices()")
    return [folder / each["filename"] for each in state["_data_files"]]


def _hub(root: Path) -> dict[str, list[Path]]:
    """The files of each `config.split` of a folder shaped like a hub repository; empty where it is none."""
    readme = root / "README.md"
    card = _card(readme.read_text(encoding="utf-8", errors="replace")) if readme.is_file() else {}
    splits: dict[str, list[Path]] = {}
    for config in card.get("configs") or ():
        for split, pattern in _patterns(config.get("data_files")):
            found = sorted(root.glob(pattern))
            if not found:
                raise ValueError(f"README.md names {pattern!r} for the split {split!r}, and no file matches")
            splits.setdefault(f"{config['config_name']}.{split}", []).extend(each for each in found if each.is_file())
    if splits:
        return splits
    # Without a card the names tell: data/train-00000-of-00002.parquet
    for each in _any_files(root):
        named = _SPLIT_FILE.fullmatch(each.name)
        if named is None or named[1] not in ("train", "test", "validation", "dev"):
            return {}
        splits.setdefault(".".join((*each.relative_to(root).parts[:-1], named[1])), []).append(each)
    return splits


def _card(text: str) -> dict[str, Any]:
    """The YAML at the head of a README."""
    head = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
    if head is None:
        return {}
    import yaml

    try:
        found = yaml.safe_load(head[1])
    except yaml.YAMLError as error:
        raise ValueError(f"README.md: {error}") from error
    return found if isinstance(found, dict) else {}


def _patterns(data_files: Any) -> Iterator[tuple[str, str]]:
    """(split, pattern) of what a config of a card calls `data_files`: a pattern, a list, or a list by split."""
    for each in [data_files] if isinstance(data_files, str | Mapping) else data_files or ():
        split, paths = (each["split"], each["path"]) if isinstance(each, Mapping) else ("train", each)
        for path in [paths] if isinstance(paths, str) else paths:
            yield split, path


def _any_files(root: Path) -> list[Path]:
    """All files below a folder that can be read, sorted, hidden ones left out; `.json` only where nothing else is."""
    found = [
        file
        for file in sorted(root.rglob("*"))
        if _format(file.name) and file.is_file() and not any(p.startswith(".") for p in file.relative_to(root).parts)
    ]
    return [file for file in found if file.suffix != ".json"] or found


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())
