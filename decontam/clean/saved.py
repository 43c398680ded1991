"""The files that make a folder of Arrow files a data set saved by `datasets`, written anew beside cleaned data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from decontam.clean.columns import with_tag

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


def rewrite_saved(source: Path, target: Path, n_rows: int, digest: str, tag: bool) -> None:
    """Writes state and info of one saved data set whose cleaned Arrow files are in `target`, where it is one.

    The fingerprint changes with the data, else `datasets` would take cached results of the old for the new.
    """
    if not (source / STATE).is_file() or not (source / INFO).is_file():
        return
    state = json.loads((source / STATE).read_text())
    info = json.loads((source / INFO).read_text())
    state["_fingerprint"] = hashlib.sha256(f"{state.get('_fingerprint')}{digest}".encode()).hexdigest()[:16]
    if tag:
        with_tag(info)
    _recount(info, state.get("_split"), n_rows, sum(path.stat().st_size for path in target.glob("*.arrow")))
    (target / STATE).write_text(json.dumps(state, indent=2, sort_keys=True))
    (target / INFO).write_text(json.dumps(info, indent=2, sort_keys=True))


def write_splits(source: Path, target: Path, cleaned: Sequence[str]) -> None:
    """Writes the list of the splits that were cleaned, where the folder is a saved DatasetDict."""
    if (source / SPLITS).is_file():
        known = json.loads((source / SPLITS).read_text())["splits"]
        (target / SPLITS).write_text(json.dumps({"splits": [split for split in known if split in cleaned]}))


def _recount(info: dict[str, Any], split: str | None, n_rows: int, n_bytes: int) -> None:
    splits = info.get("splits")
    if isinstance(splits, Mapping) and split in splits:
        splits[split].update(num_examples=n_rows, num_bytes=n_bytes)
