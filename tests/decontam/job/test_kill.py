"""A scan is killed thirty times: it ends as one that ran through, and scans nothing twice."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.decontam.job.plain import Plain, make_job, scan, tree, write_rows

N_DONE = 44  # shards of the data, and its one file


def go(data: Path, cache: Path, out: Path, ready: Any) -> None:
    """What the process that is killed does."""
    job = make_job([data], cache, scanner=Plain(0.02))
    ready.set()
    scan(job, out, 3)


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each marker: a shard that is scanned again gets another."""
    found = {path.name: path.stat() for path in (out / "shards").glob("*.done")}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


def wait_for(n_more: int, out: Path, process: Any, chance: random.Random) -> None:
    """Until that many more shards are done and a little longer; when all are, some time into the reports."""
    before = len(finished(out))
    while len(finished(out)) < min(before + n_more, N_DONE) and process.is_alive():
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.03 if before < N_DONE else 0.3))


@pytest.mark.slow
def test_thirty_kills_leave_the_bytes_of_a_run_without_any(tmp_path: Path, forks: Any) -> None:
    data, cache, out = write_rows(tmp_path / "a.jsonl", 500), tmp_path / "cache", tmp_path / "out"
    scan(make_job([data], cache), tmp_path / "whole", 1)
    assert len(finished(tmp_path / "whole")) == N_DONE
    chance = random.Random(7)
    done: dict[str, tuple[int, int]] = {}
    n_killed = n_in_scan = 0
    while n_killed < 30:
        ready = forks.Event()
        process = forks.Process(target=go, args=(data, cache, out, ready))
        process.start()
        assert ready.wait(60)
        wait_for(chance.randint(0, 3), out, process, chance)
        process.kill()
        process.join()
        if process.exitcode == -9:  # else it was through before
            n_killed += 1
            n_in_scan += len(finished(out)) < N_DONE
        now = finished(out)
        assert done.items() <= now.items(), "a finished shard was scanned again"
        assert not (out / "verdict.json").exists() or (out / "clean_ids" / "sums.txt").exists()
        done = now
    scan(make_job([data], cache), out)
    assert done.items() <= finished(out).items()
    assert tree(out) == tree(tmp_path / "whole")
    assert n_in_scan >= 5
