"""What the Hugging Face hub, or its cache on this machine, has of a dataset; asked before a model is loaded.

`datasets` itself retries for 23 s and then raises errors that mislead, and falls back to old cached rows with no more
than a log line. One HEAD request beforehand says whether the dataset is there, whether we may read it, and its commit.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.errors import DataError

TIMEOUT_S = 10.0
PATIENCE_S = 6.0  # over all attempts against a busy or broken hub
ON = frozenset({"1", "ON", "YES", "TRUE"})


@dataclass(frozen=True, slots=True)
class CachedSplits:
    """A config in datasets' Arrow cache: the hub commit it was made from, rows by split, and its columns."""

    commit: str
    rows: Mapping[str, int]
    columns: tuple[str, ...]


def hub_is_forbidden() -> bool:
    """True when the environment of the Hugging Face libraries forbids the network."""
    return any(os.environ.get(name, "").upper() in ON for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))


def refuse_shadow(dataset_id: str) -> None:
    """Raises DataError when `datasets` would load a folder below the current directory instead of the hub dataset."""
    folder = Path(dataset_id)
    if folder.is_dir():
        raise DataError(
            f"the folder {folder.absolute()} would be loaded instead of the hub dataset {dataset_id!r}, because it "
            f"lies below the current directory; run from elsewhere, or use it on purpose: --data-root {Path.cwd()}"
        )


def hub_commit(dataset_id: str, revision: str | None) -> str:
    """The commit that the hub would serve, "" when it does not say; raises the library's error when it serves none.

    A busy or failing hub (429, 5xx, no route) is asked again for at most `PATIENCE_S`.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    url = hf_hub_url(dataset_id, "README.md", repo_type="dataset", revision=revision)
    deadline = time.monotonic() + PATIENCE_S
    wait_s = 0.5
    while True:
        try:
            return str(get_hf_file_metadata(url, timeout=TIMEOUT_S).commit_hash or "")
        except EntryNotFoundError as error:
            response = getattr(error, "response", None)  # a dataset without a README is there all the same
            return str(response.headers.get("X-Repo-Commit", "")) if response is not None else ""
        except HfHubHTTPError as error:
            if error.response.status_code != 429 and error.response.status_code < 500:
                raise
            wait_s = max(wait_s, _retry_after(error.response.headers))
            if time.monotonic() + wait_s > deadline:
                raise
        time.sleep(wait_s)
        wait_s *= 2


def cached_splits(dataset_id: str, config: str | None, revision: str | None) -> CachedSplits | None:
    """What `datasets` would take from its Arrow cache when the hub is off limits: the newest entry of that config.

    None when there is no entry, or when it is of another commit than a pinned `revision`: the library ignores the pin.
    """
    owner, _, name = dataset_id.rpartition("/")
    folder = _arrow_home() / "___".join(filter(None, (owner, _snake_case(name))))
    found = [p for p in folder.glob(f"{config or '*'}/*/*") if (p / "dataset_info.json").is_file()]
    if not found or (config is None and len({p.parents[1].name for p in found}) > 1):
        return None
    newest = max(found, key=lambda p: p.stat().st_mtime)
    if revision is not None and not newest.name.startswith(revision):
        return None
    try:
        info = json.loads((newest / "dataset_info.json").read_text())
        rows = {split: int(about["num_examples"]) for split, about in info["splits"].items()}
        return CachedSplits(newest.name, rows, tuple(info.get("features") or ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def hub_file(dataset_id: str, name: str, revision: str | None, *, offline: bool) -> Path | None:
    """A file of a hub dataset, downloaded or from the cache; None when it cannot be had, for whatever reason."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(dataset_id, name, repo_type="dataset", revision=revision, local_files_only=offline))
    except Exception:  # absent, gated, offline: the caller says what is missing and what that means
        return None


def _retry_after(headers: Mapping[str, Any]) -> float:
    value = str(headers.get("Retry-After", ""))
    return float(value) if re.fullmatch(r"\d{1,6}(\.\d+)?", value) else 0.0


def _arrow_home() -> Path:
    if chosen := os.environ.get("HF_DATASETS_CACHE"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser() / "datasets"


def _snake_case(name: str) -> str:
    """`PopQA` to `pop_qa`, as datasets names its cache folders."""
    return re.sub(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
