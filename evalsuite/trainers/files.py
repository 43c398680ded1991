"""Small JSON files that are replaced whole: a reader finds the old content or the new one, never a part."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def replace_json(path: Path, content: Mapping[str, Any]) -> None:
    """Temporary file, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def load_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, None when there is no such file. Raises ValueError when it is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, found {type(content).__name__}")
    return content


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder outlive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def digest_of_json(content: Any) -> str:
    """sha256 hex of the content with sorted keys and no spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def differences(old: Any, new: Any, where: str = "") -> tuple[str, ...]:
    """`options.lr 5e-07 → 1e-06` for every value that differs between two JSON contents."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        parts = {str(key): (old.get(key), new.get(key)) for key in sorted({*old, *new})}
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = {_label(a, i): (a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))}
    else:
        return () if old == new else (f"{where} {_shown(old)} → {_shown(new)}",)
    return tuple(line for key, pair in parts.items() for line in differences(*pair, f"{where}.{key}".lstrip(".")))


def _label(item: Any, index: int) -> str:
    return str(item["name"]) if isinstance(item, Mapping) and "name" in item else str(index)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
