"""Jobs: what they write, what they refuse, and how they go on."""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from decontam.errors import DecontamError
from decontam.inputs import dataset_digest, discover
from decontam.job import Incomplete, Options
from decontam.job.broken import Read
from decontam.job.broken import broken_rows as named
from decontam.job.plan import make_plan
from decontam.job.progress import Lines
from decontam.job.work import Kernel, Source
from decontam.types import Shard, ShardCounts
from tests.decontam.job.plain import Plain, make_job, scan, sums, tree, write_rows


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def matches(out: Path) -> list[tuple[str, int, str]]:
    """(file, row, instance) of each line of matches.jsonl."""
    lines = [json.loads(line) for line in (out / "matches.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(Path(line["file"]).name, line["row"], line["instance"]) for line in lines]


# -- what a job writes --


def test_every_tenth_row_is_found_with_its_number_in_the_file(tmp_path: Path, cache: Path) -> None:
    done = scan(make_job([write_rows(tmp_path / "a.jsonl", 200)], cache), tmp_path / "out")
    assert matches(tmp_path / "out") == [("a.jsonl", 10 * i, str(i)) for i in range(20)]
    assert done.exit == 1  # 20 of 100 instances
    assert read(tmp_path / "out" / "verdict.json")["row_rates"] == {
        hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest(): {"sums": 0.1}
    }


def test_row_numbers_start_anew_in_each_file(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, start in (("a", 0), ("b", 50)):
        write_rows(folder / f"{name}.jsonl", 50, start=start)
    scan(make_job([folder], cache), tmp_path / "out")
    of_a = [("a.jsonl", 10 * i, str(i)) for i in range(5)]
    assert matches(tmp_path / "out") == of_a + [("b.jsonl", 10 * i, str(5 + i)) for i in range(5)]


def test_the_bytes_do_not_hang_on_the_workers_or_the_size_of_shards(tmp_path: Path, cache: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", 100)
    outs = []
    for workers, shard_bytes in ((1, 700), (3, 700), (2, 1 << 20)):
        out = tmp_path / f"{workers}-{shard_bytes}"
        scan(make_job([data], cache, shard_bytes=shard_bytes), out, workers)
        outs.append(tree(out))
    assert outs[0] == outs[1]
    reports = [{n: data for n, data in out.items() if "shards" not in n and n != "manifest.json"} for out in outs]
    assert reports[0] == reports[2]


def test_nothing_over_the_limit_is_exit_0_and_every_eval_has_a_rate(tmp_path: Path, cache: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", 20)  # 2 of 100 instances are not more than 2 %
    job = make_job([data], cache, sums(), sums(1, "other"), limit=0.02)
    done = scan(job, tmp_path / "out")
    rates = read(tmp_path / "out" / "verdict.json")["rates"]
    assert list(rates.values()) == [{"sums": 0.02, "other": 1.0}]
    assert done.exit == 1  # the one instance of the other eval
    assert scan(make_job([data], cache, limit=0.02), tmp_path / "one").exit == 0
    assert scan(make_job([data], cache, limit=0.0199), tmp_path / "one").exit == 1  # the limit is no part of the job


def test_touched_instances_are_listed_and_others_are_not(tmp_path: Path, cache: Path) -> None:
    scan(make_job([write_rows(tmp_path / "a.jsonl", 30)], cache), tmp_path / "out")
    assert (tmp_path / "out" / "clean_ids" / "sums.txt").read_text() == "0\n1\n2\n"


def test_the_digest_of_a_data_set_is_that_of_its_files(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("b", "a", "empty"):
        write_rows(folder / f"{name}.jsonl", 0 if name == "empty" else 30)
    scan(make_job([folder, f"one={folder}/a.jsonl"], cache), tmp_path / "out")
    training = read(tmp_path / "out" / "verdict.json")["training"]
    assert [each["digest"] for each in training] == [
        dataset_digest(discover(str(folder))),
        hashlib.sha256((folder / "a.jsonl").read_bytes()).hexdigest(),
    ]
    assert [(each["name"], each["path"]) for each in training] == [
        (str(folder), str(folder)),
        ("one", f"{folder}/a.jsonl"),
    ]


# -- rows and files that cannot be read --


def broken_rows(path: Path) -> Path:
    write_rows(path, 60)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[33], lines[47] = b'{"text": \n', b'{"text": 7}\n'
    path.write_bytes(b"".join(lines))
    return path


def test_broken_rows_are_named_counted_and_keep_the_scan_from_being_complete(tmp_path: Path, cache: Path) -> None:
    job = make_job([broken_rows(tmp_path / "a.jsonl")], cache, limit=0.5)
    said: list[str] = []
    observer = Lines()
    observer.say = said.append  # type: ignore[method-assign]
    assert scan(job, tmp_path / "out", observer=observer).exit == 3
    [data] = read(tmp_path / "out" / "summary.json")["datasets"]
    assert (data["rows"], data["broken"], data["complete"]) == (60, 2, False)
    assert [(each["row"], each["line"]) for each in data["first_broken"]] == [(33, 34), (47, 48)]
    assert any("a.jsonl line 34: not JSON" in line for line in said)
    assert read(tmp_path / "out" / "verdict.json")["complete"] is False


def test_a_broken_row_is_named_by_its_line_however_the_file_is_cut(tmp_path: Path, cache: Path) -> None:
    write_rows(tmp_path / "a.jsonl", 60)
    lines = (tmp_path / "a.jsonl").read_bytes().splitlines(keepends=True)
    lines[45] = b"{\n"
    (tmp_path / "a.jsonl").write_bytes(b"".join(b"\n" + line for line in lines))  # a blank line before each
    job = make_job([tmp_path / "a.jsonl"], cache, shard_bytes=300)
    assert len(make_plan(job).shards) > 5
    scan(job, tmp_path / "out")
    [broken] = read(tmp_path / "out" / "summary.json")["datasets"][0]["first_broken"]
    assert (broken["row"], broken["line"]) == (45, 92)  # 45 pairs of lines, a blank one, and it is the next


def test_rows_of_tables_have_no_lines() -> None:
    shard = Shard(1, "a", "a.parquet", "/a.parquet", "parquet", 2, 3)
    source = Source(0, "a", "a.parquet", "/a.parquet", "parquet", 0, 0, "")
    counts = ShardCounts(n_broken=1, broken=((4, "text is a number, not text"),))
    [broken] = named([Read(shard, counts, first_row=1000)], [source])
    assert str(broken) == "a.parquet row 1,004: text is a number, not text"


def test_an_incomplete_scan_over_the_limit_still_exits_1(tmp_path: Path, cache: Path) -> None:
    assert scan(make_job([broken_rows(tmp_path / "a.jsonl")], cache), tmp_path / "out").exit == 1


@pytest.mark.parametrize("before", [False, True], ids=["fresh", "after a run without"])
def test_strict_stops_at_the_first_broken_row_of_the_data(tmp_path: Path, cache: Path, before: bool) -> None:
    job = make_job([broken_rows(tmp_path / "a.jsonl")], cache)
    if before:
        scan(job, tmp_path / "out")
    with pytest.raises(DecontamError, match=r"a\.jsonl line 34: not JSON.*--strict") as caught:
        scan(job, tmp_path / "out", workers=3, strict=True)
    assert caught.value.exit_code == 2


def test_twenty_broken_rows_are_named_and_the_others_counted(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + "[]\n" * 25)
    said: list[str] = []
    observer = Lines()
    observer.say = said.append  # type: ignore[method-assign]
    scan(make_job([path], cache), tmp_path / "out", observer=observer)
    assert [line.split(" line ")[1] for line in said if " line " in line] == [
        f"{number}: the row is a list, not an object" for number in range(2, 22)
    ]
    assert said[-1] == "and 5 more broken rows"


def test_a_compressed_file_cut_short_is_read_up_to_there(tmp_path: Path, cache: Path) -> None:
    whole = gzip.compress(write_rows(tmp_path / "a.jsonl", 5000, every=500).read_bytes(), mtime=0)
    (tmp_path / "b.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    done = scan(make_job([f"b={tmp_path}/b.jsonl.gz"], cache, limit=0.5), tmp_path / "out")
    [data] = read(tmp_path / "out" / "summary.json")["datasets"]
    assert 0 < data["rows"] < 5000
    assert not data["complete"]
    assert "b.jsonl.gz cannot be read beyond byte" in data["why"][0]
    assert done.exit == 3


def test_selectors_that_fit_no_row_are_refused_with_the_fields_there_are(tmp_path: Path, cache: Path) -> None:
    job = make_job([write_rows(tmp_path / "a.jsonl", 50)], cache, select=["txet"])
    with pytest.raises(DecontamError, match=r"txet.*text \(50\)") as caught:
        scan(job, tmp_path / "out")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out" / "verdict.json").exists()
    scan(make_job([tmp_path / "a.jsonl"], cache, select=["text"]), tmp_path / "out")  # the folder is not taken


def test_a_selector_that_only_fits_below_another_key_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"meta": {"text": "x"}}\n' * 9)
    with pytest.raises(DecontamError, match=r"no row has text at 'text'.*meta \(9\)"):
        scan(make_job([tmp_path / "a.jsonl"], cache, select=["text"], scanner=Kernel()), tmp_path / "out")


def test_selectors_that_fit_some_rows_are_counted(tmp_path: Path, cache: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", 50)
    path.write_text(path.read_text() + '{"body": "x"}\n' * 7)
    scan(make_job([path], cache), tmp_path / "out")
    assert read(tmp_path / "out" / "summary.json")["datasets"][0]["unselected"] == 7


def test_a_data_set_without_rows_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(DecontamError, match="no rows"):
        scan(make_job([tmp_path / "a.jsonl"], cache, select=["text"]), tmp_path / "out")
    with pytest.raises(DecontamError, match=r"a\.jsonl: no rows; expected"):
        make_job([tmp_path / "a.jsonl"], cache)


def test_two_data_sets_of_one_name_are_refused(tmp_path: Path, cache: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", 50)
    with pytest.raises(DecontamError, match="two data sets are called"):
        scan(make_job([data, data], cache), tmp_path / "out")


# -- files that change --


def meddling(happen: Callable[[], object]) -> Plain:
    """A scanner during whose third shard something happens to the data."""

    class Meddling(Plain):
        def scan(self, index: Any, selection: Any, shard: Shard, options: Options) -> Any:
            found = super().scan(index, selection, shard, options)
            if shard.number == 2:
                happen()
            return found

    return Meddling()


@pytest.mark.parametrize(
    ("happen", "told"),
    [
        (lambda path: path.write_text(path.read_text() + "{}\n"), "changed during the run"),
        (lambda path: os.utime(path, ns=(1, 1)), "was written during the run"),
        (lambda path: path.unlink(), "is gone"),
    ],
    ids=["longer", "written", "gone"],
)
def test_a_file_that_changes_during_the_run_fails_it_with_exit_3(
    tmp_path: Path, cache: Path, happen: Callable[[Path], object], told: str
) -> None:
    path = write_rows(tmp_path / "a.jsonl", 100)
    job = make_job([path], cache, scanner=meddling(lambda: happen(path)))
    with pytest.raises(Incomplete, match=rf"a\.jsonl {told}") as caught:
        scan(job, tmp_path / "out", 1)
    assert caught.value.exit_code == 3
    out = tree(tmp_path / "out")
    assert "verdict.json" not in out
    assert "shards/00001.done" in out
    assert "shards/00002.done" not in out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text + '{"text": "more"}\n', r"a\.jsonl changed, 3,\d\d\d → 3,\d\d\d bytes"),
        (lambda text: text.replace("row 7", "row 8"), r"a\.jsonl changed"),
    ],
    ids=["longer", "other bytes"],
)
def test_a_file_that_changed_since_is_refused(
    tmp_path: Path, cache: Path, change: Callable[[str], str], told: str
) -> None:
    path = write_rows(tmp_path / "a.jsonl", 90)
    scan(make_job([path], cache), tmp_path / "out")
    path.write_text(change(path.read_text()))
    with pytest.raises(DecontamError, match=rf"of another job: file .*{told}.*--fresh"):
        scan(make_job([path], cache), tmp_path / "out")


def test_the_same_bytes_fetched_again_are_the_same_file(tmp_path: Path, cache: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", 90)
    scan(make_job([path], cache), tmp_path / "out")
    before = tree(tmp_path / "out")
    os.utime(path, ns=(1, 1))
    scan(make_job([path], cache), tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_names_and_keys_that_no_utf_8_can_hold_are_escaped(tmp_path: Path, cache: Path) -> None:
    data, out = tmp_path / os.fsdecode(b"odd\xff.jsonl"), tmp_path / "out"
    data.write_bytes(b'{"\\ud800": 1, "text": "x"}\n' * 3)
    scan(make_job([data], cache, scanner=Kernel()), out)
    scan(make_job([data], cache, scanner=Kernel()), out)  # and known again
    assert read(out / "manifest.json")["files"][0]["file"] == str(data)
    assert read(out / "summary.json")["datasets"][0]["name"] == str(data)
    data.write_bytes(b'{"\\ud800": 1}\n' * 3)
    with pytest.raises(DecontamError, match="no row has text at 'text'"):
        scan(make_job([data], cache, scanner=Kernel(), select=["text"]), out, fresh=True)


# -- the folder of another job --


def test_the_folder_of_another_job_is_refused_with_what_differs(tmp_path: Path, cache: Path) -> None:
    a, b = write_rows(tmp_path / "a.jsonl", 50), write_rows(tmp_path / "b.jsonl", 50)
    scan(make_job([a], cache), tmp_path / "out")
    before = tree(tmp_path / "out")
    others: dict[str, Any] = {
        r"rule was tulu3, now any-8": make_job([a], cache, rule="any-8"),
        r"cap was 50, now 10": make_job([a], cache, cap=10),
        r"index \(the evals, or how they are read\) was \w{12}, now \w{12}": make_job([a], cache, sums(99)),
        r"selectors of .*a\.jsonl were text, now text, --scan all": make_job([a], cache, scan_all=True),
        r"--short was off, now True": make_job([a], cache, options=Options(short=True)),
        r"training data was .*a\.jsonl, now .*b\.jsonl; file .*a\.jsonl is gone; file .*b\.jsonl is new": make_job(
            [b], cache
        ),
        r"--shard-mb was": make_job([a], cache, shard_bytes=900),
    }
    for told, job in others.items():
        with pytest.raises(DecontamError, match=told) as caught:
            scan(job, tmp_path / "out")
        assert caught.value.exit_code == 2
        assert tree(tmp_path / "out") == before


def test_fresh_starts_anew_and_leaves_what_people_did(tmp_path: Path, cache: Path) -> None:
    data, out = write_rows(tmp_path / "a.jsonl", 50), tmp_path / "out"
    scan(make_job([data], cache, sums(), sums(3, "old")), out)
    (out / "review.jsonl").write_text("{}\n")
    scan(make_job([data], cache), out, fresh=True)
    scan(make_job([data], cache), tmp_path / "other")
    assert tree(out) == tree(tmp_path / "other") | {"review.jsonl": b"{}\n"}


def test_what_a_folder_without_a_manifest_holds_does_not_count(tmp_path: Path, cache: Path) -> None:
    data, out = write_rows(tmp_path / "a.jsonl", 50), tmp_path / "out"
    scan(make_job([data], cache), out)
    whole = tree(out)
    write_rows(tmp_path / "a.jsonl", 40)
    (out / "manifest.json").unlink()  # where --fresh was killed
    scan(make_job([data], cache), out)
    scan(make_job([data], cache), tmp_path / "other")
    assert tree(out) == tree(tmp_path / "other") != whole


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, cache: Path, fresh: bool) -> None:
    job = make_job([write_rows(tmp_path / "a.jsonl", 50)], cache)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(DecontamError, match=r"it holds 'thesis\.tex'"):
        scan(job, tmp_path / "out", fresh=fresh)
    assert tree(tmp_path / "out") == {"thesis.tex": b"x"}
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_folder_that_another_process_writes_is_refused(tmp_path: Path, cache: Path) -> None:
    job, out = make_job([write_rows(tmp_path / "a.jsonl", 50)], cache), tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as other:  # a lock belongs to the opened file, so this stands for another process
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DecontamError, match="another scan is writing there"):
            scan(job, out)
    scan(job, out)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, cache: Path) -> None:
    job = make_job([write_rows(tmp_path / "a.jsonl", 50)], cache)
    with pytest.raises(DecontamError, match="out"):
        scan(job, tmp_path / "a.jsonl" / "out")


# -- going on --


class Counting(Plain):
    """Notes each scan of a shard."""

    scanned: list[int]

    def scan(self, index: Any, selection: Any, shard: Shard, options: Options) -> Any:
        self.scanned.append(shard.number)
        return super().scan(index, selection, shard, options)


def test_a_finished_job_scans_nothing_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "scanned", [], raising=False)
    job = make_job([write_rows(tmp_path / "a.jsonl", 50)], cache, scanner=Counting())
    scan(job, tmp_path / "out")
    n = sum(name.endswith(".arrow") for name in tree(tmp_path / "out"))
    Counting.scanned.clear()
    before = tree(tmp_path / "out")
    scan(job, tmp_path / "out")
    assert n > 1
    assert Counting.scanned == []
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("damage", ["00001.arrow", "00001.done"])
def test_a_damaged_result_is_made_again(
    tmp_path: Path, cache: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "scanned", [], raising=False)
    job = make_job([write_rows(tmp_path / "a.jsonl", 50)], cache, scanner=Counting())
    scan(job, tmp_path / "out")
    Counting.scanned.clear()
    before = tree(tmp_path / "out")
    file = tmp_path / "out" / "shards" / damage
    file.write_bytes(file.read_bytes()[:40])
    scan(job, tmp_path / "out")
    assert Counting.scanned == [1]
    assert tree(tmp_path / "out") == before


class Crash(BaseException):
    """Stands for the death of the process."""


@pytest.mark.parametrize("kind", ["crash", "disk full"])
def test_a_job_stopped_at_any_file_leaves_whole_files_and_goes_on(
    tmp_path: Path, cache: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies, or the disk is full, at the n-th file that takes its name, for every n."""
    job = make_job([write_rows(tmp_path / "a.jsonl", 30)], cache, shard_bytes=400)
    scan(job, tmp_path / "whole", 1)
    whole = tree(tmp_path / "whole")
    replace = Path.replace
    left = 0

    def counted(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash if kind == "crash" else OSError(errno.ENOSPC, "No space left on device", str(self))
        return replace(self, target)

    n_files = len(whole) - 1  # all but the lock
    assert n_files > 15  # evals, manifest, a digest, two files a shard, the reports
    for n in range(n_files + 1):
        out = tmp_path / f"out-{n}"
        left = n
        monkeypatch.setattr(Path, "replace", counted)
        stops: Any = (
            pytest.raises(Crash) if kind == "crash" else pytest.raises(DecontamError, match="No space left on device")
        )
        if n == n_files:
            stops = nullcontext()
        with stops:
            scan(job, out, 1)
        monkeypatch.setattr(Path, "replace", replace)
        stopped = tree(out)
        assert stopped.items() <= whole.items(), f"after {n} files"
        scan(job, out, 2)
        assert tree(out) == whole, f"after {n} files"
