"""What a person sees of a job, and how many threads it takes."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
from pathlib import Path

import pytest

from decontam.__main__ import main
from decontam.inputs.meter import bytes_under_way
from decontam.job import progress as progress_module
from decontam.job import usable_cores
from decontam.job.plan import make_plan
from decontam.job.progress import Lines, Live, Silent
from decontam.job.work import Done
from decontam.types import Shard, ShardCounts
from tests.decontam.job.plain import SUMS, make_job, scan, sums, write_rows


def done(number: int, n_broken: int = 0) -> Done:
    shard = Shard(number, "a", "a.jsonl", "a.jsonl", "jsonl", 0, 10)
    return Done(shard, ShardCounts(n_rows=1000, n_bytes=30_000_000, n_broken=n_broken), 7)


def test_plain_lines_come_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    lines = Lines(out, every_s=30)
    lines.planned(total_bytes=100_000_000, n_shards=4, n_reused=1, reused_bytes=10_000_000)
    for number, at in ((1, 110.0), (2, 140.0), (3, 145.0)):
        now[0] = at
        lines.scanned(done(number, n_broken=number == 3), on_disk=30_000_000)
    assert out.getvalue().splitlines() == [
        "4 shards, 100.0 MB, 1 done before",
        # 60 MB in 40 s; 70 of 100 MB on the disk are through, 60 of them in these 40 s: the other 30 take 20
        "3/4 shards, 1.5 MB/s, 2,000 rows, 14 matches, 20 s left",
        "4/4 shards, 2.0 MB/s, 3,000 rows, 21 matches, 1 broken",
    ]


def test_a_compressed_file_is_seen_to_advance(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    lines = Lines(out, every_s=30)
    lines.planned(total_bytes=100_000_000, n_shards=2, n_reused=0, reused_bytes=0)
    for at, on_disk in ((120.0, 20_000_000), (140.0, 25_000_000), (150.0, 30_000_000), (180.0, 0)):
        now[0] = at
        lines.reading(on_disk)
    assert out.getvalue().splitlines()[1:] == [
        # 25 of 100 MB in 40 s: the other 75 take 120. Of nothing under way nothing is told.
        "0/2 shards, 25.0 of 100.0 MB on disk, 2 min left",
    ]


def test_the_bytes_under_way_are_those_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decontam.job.execute.TICK_S", 0.01)
    random_ = random.Random(3)
    rows = (json.dumps({"text": " ".join(random_.choices(SUMS[0].split(), k=600))}) + "\n" for _ in range(2000))
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("".join(rows).encode(), 1))
    seen: list[int] = []

    class Watching(Silent):
        def reading(self, on_disk: int) -> None:
            seen.append(on_disk)

    scan(make_job([path], tmp_path / "cache", sums(1)), tmp_path / "out", observer=Watching())
    under_way = [n for n in seen if n]
    assert len(set(under_way)) > 2
    assert under_way == sorted(under_way)
    assert under_way[-1] <= path.stat().st_size
    assert bytes_under_way() == 0


def test_names_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    Lines(out).say("\x1b[2J\u202e.jsonl: 1 file")
    assert out.getvalue() == "\\x1b[2J\\u202e.jsonl: 1 file\n"
    assert main(["scan", "\x1b[2Ja.json", "--evals", "e.jsonl"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_one_is_singular() -> None:
    out = io.StringIO()
    lines = Lines(out)
    lines.planned(total_bytes=100, n_shards=1, n_reused=0, reused_bytes=0)
    lines.scanned(Done(done(0).piece, ShardCounts(n_rows=1), 1), on_disk=100)
    assert out.getvalue().startswith("1 shard, 0.0 MB\n1/1 shards, 0.0 MB/s, 1 row, 1 match\n")


def test_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    live = Live()
    live.planned(total_bytes=100, n_shards=2, n_reused=1, reused_bytes=50)
    live.scanned(done(1), on_disk=50)
    live.close()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "1 of 2 shards were done before" in printed.err
    assert "100%" in printed.err
    assert "1,000 rows" in printed.err


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [("max 100000", 4), ("150000 100000", 2), ("20000 100000", 1), (None, 4)],
)
def test_threads_are_as_many_as_cores_and_no_more_than_the_container_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_max: str | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5})
    if cpu_max is not None:
        (tmp_path / "cpu.max").write_text(cpu_max)
    assert usable_cores(tmp_path) == cores


def test_the_bytes_of_all_shards_are_those_of_the_files(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", 100)
    plan = make_plan(make_job([data], tmp_path / "cache"))
    assert len(plan.shards) > 3
    assert sum(plan.on_disk().values()) == data.stat().st_size
