"""decontam/near/index.py ↔ the folder of an index: whole or not there, refused where it does not fit."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from decontam.errors import DecontamError
from decontam.near import NearIndex, build
from decontam.near.index import ARRAYS, META
from tests.decontam.near.world import CAT, COOK, DEFAULT, SHIP, WIDE, evals_of

LONE = "a \ud800 b c\ud800d e f"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    build([evals_of(CAT, SHIP, LONE, "too short")]).save(tmp_path / "cache" / "near")
    return tmp_path / "cache" / "near"


def test_a_loaded_index_finds_what_the_built_one_does(saved: Path) -> None:
    messages = [SHIP, COOK, LONE, CAT.upper()]
    built, loaded = build([evals_of(CAT, SHIP, LONE, "too short")]), NearIndex.load(saved)
    assert loaded.find(messages, WIDE) == built.find(messages, WIDE)
    assert [(hit.message, hit.inst) for hit in loaded.find(messages, DEFAULT)] == [(0, 1), (2, 2), (3, 0)]
    assert loaded.uncovered == built.uncovered == {"made": ("made-3",)}


def test_arrays_are_mapped_and_hold_no_objects(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == sorted([META, *(f"{name}.npy" for name in ARRAYS)])
    loaded = NearIndex.load(saved)
    for name in ARRAYS:
        owner = loaded.arrays[name]
        while isinstance(owner, np.ndarray):
            owner = owner.base
        assert isinstance(owner, mmap.mmap), name
        np.load(saved / f"{name}.npy", allow_pickle=False)


def test_saving_leaves_nothing_beside_and_takes_the_place_of_what_was_there(saved: Path) -> None:
    before = NearIndex.load(saved)
    build([evals_of(COOK)]).save(saved)
    assert [path.name for path in saved.parent.iterdir()] == ["near"]
    assert [hit.inst for hit in NearIndex.load(saved).find([COOK, CAT], DEFAULT)] == [0]
    assert [hit.inst for hit in before.find([COOK, CAT], DEFAULT)] == [0]  # still maps the old files
    assert before.find([CAT], DEFAULT) != []


def test_saving_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = build([evals_of(CAT)])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        index.save(tmp_path / "near")
    assert list(tmp_path.iterdir()) == []


def test_equal_evals_give_equal_bytes(saved: Path, tmp_path: Path) -> None:
    build([evals_of(CAT, SHIP, LONE, "too short")]).save(tmp_path / "again")
    for path in saved.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def cut(folder: Path) -> None:
    path = folder / "postings.npy"
    path.write_bytes(path.read_bytes()[:-1])


def retell(key: str, value: object) -> object:
    def change(folder: Path) -> None:
        meta = json.loads((folder / META).read_text()) | {key: value}
        (folder / META).write_text(json.dumps(meta))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"postings\.npy: \d+ bytes, expected \d+"),
        (retell("format", 99), r"format 99 and Unicode .*, expected 1 and"),
        (retell("unicode", "3.0"), r"Unicode 3\.0, expected"),
        (retell("bytes", {}), "no near-duplicate index can be read here"),
        (lambda folder: (folder / META).write_text("{"), "no near-duplicate index can be read here"),
        (lambda folder: (folder / META).unlink(), "no near-duplicate index can be read here"),
        (lambda folder: (folder / "keys.npy").unlink(), "no near-duplicate index can be read here"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(saved: Path, damage: object, message: str) -> None:
    damage(saved)  # type: ignore[operator]
    with pytest.raises(DecontamError, match=message) as error:
        NearIndex.load(saved)
    assert "--rebuild-index" in str(error.value)


def test_importing_the_stage_loads_nothing_heavy() -> None:
    told = "import sys, decontam.near; print([m for m in ('numpy', 'numba', 'rapidfuzz', 'spacy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "[]\n"
