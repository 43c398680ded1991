"""The nouns of data loading: which dataset a benchmark reads, and where it was found. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Origin = Literal["local", "alias", "hub"]


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A dataset that a benchmark reads. `splits[0]` is the evaluated one: `n_expected` are its rows when complete."""

    id: str
    config: str | None = None
    splits: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    n_expected: int | None = None
    revision: str | None = None

    def __str__(self) -> str:
        config = f"config {self.config}" if self.config else ""
        splits = f"split {', '.join(self.splits)}" if self.splits else ""
        about = ", ".join(filter(None, (config, splits)))
        return f"{self.id} ({about})" if about else self.id


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a dataset was found. `path` is what lm-eval's `dataset_path` gets: an absolute folder, or the hub id.

    `digest` is the sha256 of a local config's content, the commit of a hub dataset ("" when unknown). `rows` counts the
    evaluated split when that is cheap. `provenance` holds no absolute path: it goes into scorecards.
    """

    spec: DatasetSpec
    origin: Origin
    path: str
    digest: str
    cache_dir: str | None = None
    rows: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def needs_network(self) -> bool:
        return self.origin == "hub" and not self.provenance.get("from_cache", False)

    @property
    def dataset_kwargs(self) -> dict[str, Any]:
        """What `load_dataset` must be given besides path and config, by us and by lm-eval alike."""
        if self.cache_dir is not None:
            return {"cache_dir": self.cache_dir}
        # datasets accepts a revision for a folder and ignores it, so one is only ever passed for the hub.
        return {"revision": self.spec.revision} if self.spec.revision else {}
