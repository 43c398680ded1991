"""A world with one benchmark for each test of the gate's runner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evalsuite.gating.world import World, world_in
from tests.evalsuite.registry.places import memory_folder


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: a gate waits for the disk a dozen times otherwise."""
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world_in(tmp_path, monkeypatch) as made:
        yield made
