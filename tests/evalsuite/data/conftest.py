"""A cache of its own for every test of datasets, and a root with one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evalsuite.data.resolving import ROWS
from tests.hub import write_repo


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALSUITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_repo(tmp_path / "root", "some/data", {"main": {"train": ROWS[:1], "test": ROWS}, "other": {"test": ROWS}})
    return tmp_path / "root"
