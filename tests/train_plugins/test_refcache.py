"""Reference cache: what hits, what misses, and what is left after a kill."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evalsuite.checkpoint import Checkpoint
from evalsuite.errors import DataError
from evalsuite.trainers.types import SaveRule, TrainJob
from train_plugins.refcache import (
    STALE_S,
    Conditions,
    ReferenceCache,
    ReferenceLogprobs,
    cache_folder,
    pair_key,
    tokenizer_digest,
    weights_digest,
)

HERE = Conditions(weights="w", tokenizer="t", dtype="float32", attention="sdpa", response="last_turn")
VALUE = ReferenceLogprobs(chosen=-15.0, rejected=-8.5, n_chosen=6, n_rejected=4)


def keys(n: int) -> list[bytes]:
    return [pair_key(HERE, [[i], [1, 2], [3]]) for i in range(n)]


def filled(folder: Path, n: int) -> ReferenceCache:
    cache = ReferenceCache(folder)
    cache.add(dict.fromkeys(keys(n), VALUE))
    return cache


def test_a_value_comes_back_as_it_was_in_another_process_s_cache(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    again = ReferenceCache(tmp_path)
    assert again.look_up(keys(1)) == ()
    assert again.of(keys(1)[0], 6, 4, "pair 1") == VALUE


def test_a_reordered_and_enlarged_data_set_asks_only_for_the_new_rows(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    wanted = [keys(5)[i] for i in (4, 2, 0, 3, 1, 4)]  # row 4 stands there twice
    assert ReferenceCache(tmp_path).look_up(wanted) == (keys(5)[4], keys(5)[3])


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Conditions)])
def test_every_condition_is_part_of_the_key(field: str) -> None:
    other = dataclasses.replace(HERE, **{field: "another"})
    assert pair_key(other, [[1], [2], [3]]) != pair_key(HERE, [[1], [2], [3]])


@pytest.mark.parametrize(
    "parts",
    [
        [[1, 2], [3], [4, 5]],  # the same ids, cut at another place
        [[1], [2, 3, 4], [5]],
        [[1], [2, 3]],  # truncated
        [[1], [3, 2], [4, 5]],
        [[], [1, 2, 3], [4, 5]],
    ],
)
def test_other_ids_or_another_cut_are_another_pair(parts: list[list[int]]) -> None:
    assert pair_key(HERE, parts) != pair_key(HERE, [[1], [2, 3], [4, 5]])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_refused_and_nothing_is_written(tmp_path: Path, bad: float) -> None:
    cache = ReferenceCache(tmp_path)
    with pytest.raises(DataError, match="reference gives it log-probabilities"):
        cache.add({keys(1)[0]: dataclasses.replace(VALUE, rejected=bad)})
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_tokens_than_was_cached_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"d\.jsonl:7: .*counts 6 and 4 response tokens, the pair has 6 and 5"):
        filled(tmp_path, 1).of(keys(1)[0], 6, 5, "d.jsonl:7")


def test_a_damaged_segment_is_computed_again(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    segment = next(tmp_path.glob("*.arrow"))
    segment.write_bytes(segment.read_bytes()[:-40])
    cache = ReferenceCache(tmp_path)
    assert cache.look_up(keys(2)) == tuple(keys(2))
    assert cache.damaged == [segment]


def test_what_others_add_is_seen_by_a_cache_that_is_open(tmp_path: Path) -> None:
    mine = ReferenceCache(tmp_path)
    assert mine.look_up(keys(2)) == tuple(keys(2))
    filled(tmp_path, 1)
    assert mine.look_up(keys(2)) == (keys(2)[1],)


WRITER = """
import sys, os
from pathlib import Path
from train_plugins.refcache import Conditions, ReferenceCache, ReferenceLogprobs, pair_key
here = Conditions("w", "t", "float32", "sdpa", "last_turn")
cache = ReferenceCache(Path(sys.argv[1]))
for i in range(int(sys.argv[2]), int(sys.argv[3])):
    cache.add({pair_key(here, [[i], [1, 2], [3]]): ReferenceLogprobs(-float(i), -1.0, 2, 1)})
os.kill(os.getpid(), 9)
"""


def test_writers_at_once_and_killed_leave_every_value_they_wrote(tmp_path: Path) -> None:
    spans = [(0, 20), (10, 30)]  # rows 10 to 19 are computed by both
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(a), str(b)]) for a, b in spans]
    assert [process.wait() for process in running] == [-9, -9]
    cache = ReferenceCache(tmp_path)
    assert cache.look_up(keys(30)) == ()
    assert [cache.found[key].chosen for key in keys(30)] == [-float(i) for i in range(30)]


def test_only_old_temporary_files_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / ".tmp-1-a", tmp_path / ".tmp-2-b"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - STALE_S - 1,) * 2)
    ReferenceCache(tmp_path).remove_leftovers()
    assert [p.name for p in tmp_path.iterdir()] == [new.name]


def checkpoint(**files: str) -> Checkpoint:
    named = {name.replace("__", "."): sha for name, sha in files.items()}
    return Checkpoint(Path("m"), "m", "digest", named, True, "float32", "Llama", 1)


def test_digests_change_with_what_they_are_of_and_with_nothing_else() -> None:
    base = checkpoint(model__safetensors="1", config__json="2", tokenizer__json="3", README__md="4")
    changed = {
        name: checkpoint(**{"model__safetensors": "1", "config__json": "2", "tokenizer__json": "3", name: "9"})
        for name in ("model__safetensors", "config__json", "tokenizer__json", "README__md")
    }
    weights = {name for name, other in changed.items() if weights_digest(other) != weights_digest(base)}
    tokens = {name for name, other in changed.items() if tokenizer_digest(other, "T") != tokenizer_digest(base, "T")}
    assert (weights, tokens) == ({"model__safetensors", "config__json"}, {"tokenizer__json"})
    assert tokenizer_digest(base, "T") != tokenizer_digest(base, "U")


def test_the_folder_is_shared_by_the_stages_of_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def job(stage: str) -> TrainJob:
        return TrainJob("dpo", None, (), tmp_path / stage, 0, SaveRule(), {})

    monkeypatch.delenv("EVALSUITE_REF_LOGPROBS", raising=False)
    assert cache_folder(job("a"), "w1") == cache_folder(job("b"), "w1") == tmp_path / "ref-logprobs" / "w1"
    monkeypatch.setenv("EVALSUITE_REF_LOGPROBS", str(tmp_path / "wide"))
    assert cache_folder(job("a"), "w1") == tmp_path / "wide" / "w1"


def test_importing_it_loads_neither_torch_nor_pyarrow() -> None:
    code = "import sys, train_plugins.refcache; sys.exit(bool({'torch', 'pyarrow'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
