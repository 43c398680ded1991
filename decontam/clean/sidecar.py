"""What is known of a data file (NAME.meta.json beside it: licence, origin, how it came to be) goes with its copy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decontam.clean.data import Cleaned

SUFFIX = ".meta.json"
OF_THE_ROWS = ("report", "decontamination")  # what is said of rows that may be gone


def carry_over(file: Cleaned, target: Path, how: Mapping[str, Any]) -> None:
    """Writes the sidecar of `target` by that of its source, where there is one and it is of the file that was cleaned.

    `cleaned` in it has `how`, and names the source by its digest.
    """
    told = _read(file.source.path.with_name(f"{file.source.path.name}{SUFFIX}"))
    if told.get("digest") != file.digest_before:
        return
    kept = {key: value for key, value in told.items() if key not in OF_THE_ROWS}
    counts = {"n_dropped": len(file.dropped), "n_changed": len(file.changed)}
    new = {"digest": file.digest_after, "rows": file.n_left, "cleaned": {"of": file.digest_before, **how, **counts}}
    text = json.dumps({**kept, **new}, indent=1, ensure_ascii=False)
    target.with_name(f"{target.name}{SUFFIX}").write_text(text + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
