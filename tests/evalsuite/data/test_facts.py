"""Content decides what is cached: an edit is seen, and nothing is worked out twice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evalsuite.data import DatasetSpec, load, translate
from evalsuite.data.facts import content_digest
from evalsuite.errors import DataError
from tests.evalsuite.data.resolving import REPOSITORY, ROWS, resolve
from tests.hub import write_repo


def edit(path: Path, old: str, new: str) -> None:
    """Replaces text of the same length and restores the modification time: only the content tells."""
    assert len(old) == len(new)
    before = path.stat()
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


CHILD = """
import json, sys
from pathlib import Path
from evalsuite.data import DatasetSpec, load, resolve_all
spec = DatasetSpec("o/x", "main", ("test",))
for root in sys.argv[1:]:
    print(json.dumps(load(resolve_all([spec], (Path(root),), offline=True)[spec], "test")["a"][:]))
"""


def questions(root: Path) -> list[str]:
    spec = DatasetSpec("o/x", "main", ("test",))
    return list(load(resolve(root, spec)[0], "test")["a"])


def three_states(tmp_path: Path, read: Any) -> list[list[str]]:
    """What `read` finds in root A, in A after an edit that keeps size and time, and in root B with the same id."""
    one = write_repo(tmp_path / "A", "o/x", {"main": {"test": [{"a": "first"}, {"a": "row 2"}]}})
    write_repo(tmp_path / "B", "o/x", {"main": {"test": [{"a": "other"}, {"a": "row 2"}]}})
    seen = [read(tmp_path / "A")]
    edit(one / "main/test.jsonl", "first", "fresh")
    return [*seen, read(tmp_path / "A"), read(tmp_path / "B")]


def test_plain_load_dataset_serves_stale_rows_which_is_why_we_have_our_own_cache_key(tmp_path: Path) -> None:
    import datasets

    def plain(root: Path) -> list[str]:
        shared = str(tmp_path / "shared-arrow-cache")
        return list(datasets.load_dataset(str(root / "o/x"), "main", split="test", cache_dir=shared)["a"])

    assert three_states(tmp_path, plain) == [["first", "row 2"]] * 3


def test_our_loading_sees_an_edit_and_another_root_in_this_process_and_in_the_next(tmp_path: Path) -> None:
    assert three_states(tmp_path, questions) == [["first", "row 2"], ["fresh", "row 2"], ["other", "row 2"]]
    edit(tmp_path / "A/o/x/main/test.jsonl", "fresh", "third")
    roots = [str(tmp_path / "A"), str(tmp_path / "B")]
    run = subprocess.run(
        [sys.executable, "-c", CHILD, *roots], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert [json.loads(line) for line in run.stdout.splitlines()] == [["third", "row 2"], ["other", "row 2"]]


def test_the_digest_depends_on_content_names_and_the_readme_and_on_nothing_else(tmp_path: Path) -> None:
    def digest(root: str, rows: Sequence[dict[str, Any]] = ROWS, split: str = "test", config: str = "main") -> str:
        folder = write_repo(tmp_path / root, "o/x", {config: {split: list(rows)}})
        (found,) = resolve(tmp_path / root, DatasetSpec("o/x", config))
        assert Path(found.path) == folder
        return found.digest

    first = digest("a")
    os.utime(tmp_path / "a/o/x/main/test.jsonl", (1, 1))
    (tmp_path / "a/o/x/stray.txt").write_text("not data of the config")
    assert digest("deep/er/b") == first
    assert resolve(tmp_path / "a", DatasetSpec("o/x", "main"))[0].digest == first
    others = {digest("c", ROWS[::-1]), digest("d", split="dev"), digest("e", config="m"), digest("f", ROWS[:3])}
    assert len(others | {first}) == 5


def test_the_hash_of_a_large_file_is_remembered_until_its_time_or_size_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    monkeypatch.setattr("evalsuite.data.facts.LARGE", 3)
    file = tmp_path / "large.bin"
    file.write_bytes(b"12345")
    content_digest(tmp_path, [file], b"")
    assert not (own_cache / "digests").exists()  # just written: it may change again within one tick of its clock
    os.utime(file, ns=(1, 1))
    first = content_digest(tmp_path, [file], b"")
    (memory,) = (own_cache / "digests").iterdir()
    assert json.loads(memory.read_text())["sha256"] == hashlib.sha256(b"12345").hexdigest()
    file.write_bytes(b"54321")
    os.utime(file, ns=(2, 2))
    assert content_digest(tmp_path, [file], b"") != first


def test_facts_are_worked_out_once_per_content_and_a_torn_memory_is_no_harm(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DatasetSpec("some/data", "main", ("test",), ("question",))
    (found,) = resolve(root, spec)
    (memory,) = Path(str(found.cache_dir)).glob("evalsuite-facts.json")
    memory.write_text(memory.read_text()[:20])
    assert resolve(root, spec) == [found]
    monkeypatch.setattr("evalsuite.data.facts._scan", None)  # would raise if it were called again
    assert resolve(root, spec) == [found]


def test_an_unwritable_cache_costs_no_resolution_and_is_said_when_loading_needs_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blocked").write_text("a file where the cache should be")
    monkeypatch.setenv("EVALSUITE_CACHE", str(tmp_path / "blocked"))
    (found,) = resolve(root, DatasetSpec("some/data", "main", ("test",)))
    with pytest.raises(DataError, match="EVALSUITE_CACHE"):
        load(found, "test")


def test_an_error_that_is_not_about_data_is_left_to_whoever_caused_it() -> None:
    spec = DatasetSpec("some/data")
    assert translate(TypeError("doc_to_text() takes 1 argument"), spec) is None
    full = OSError(errno.ENOSPC, "No space left on device")
    said = translate(full, spec)
    assert said is not None
    assert "the disk is full" in str(said)
    assert translate(said, spec) is said
