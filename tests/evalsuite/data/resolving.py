"""Datasets resolved offline from one root, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalsuite.data import DatasetSpec, Resolved, resolve_all
from evalsuite.errors import DataError

REPOSITORY = Path(__file__).resolve().parents[3]
ROWS = [{"question": f"q{i}", "answer": str(i)} for i in range(4)]


def resolve(root: Path, *specs: DatasetSpec, **options: Any) -> list[Resolved]:
    return list(resolve_all(specs, (root,), offline=True, **options).values())


def refusal(root: Path, *specs: DatasetSpec, **options: Any) -> str:
    with pytest.raises(DataError) as refused:
        resolve(root, *specs, **options)
    assert refused.value.exit_code == 2
    return str(refused.value)
