"""Tiny models are computed with one thread: handing their small matrices to two costs more than it saves."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    torch = sys.modules.get("torch")
    if torch is None:  # none of the collected tests needs it
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
