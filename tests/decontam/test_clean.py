"""Cleaning end to end: every format and way, what is refused, and what is left after a failure."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decontam.__main__ import main
from decontam.clean.decide import HOWS, way_of
from decontam.clean.run import clean
from decontam.errors import DecontamError
from decontam.inputs import dataset_digest, discover, file_digest, fingerprint
from decontam.report.decisions import append_decision
from decontam.report.match import read_matches
from tests.decontam.clean_outs import (
    CHAT,
    OTHER,
    QUESTION,
    chat,
    rows_of,
    scan,
    write_lines,
)

ROWS = [
    chat("Name a colour, please.", "Blue.", id="r0"),
    chat(QUESTION, "Eighteen.", "Thanks! Tell me now about rivers and lakes.", "Rivers flow.", id="r1"),
    chat(f"Here is a long task that you may like to solve for me: {QUESTION}", "Eighteen.", id="r2"),
    chat("Füße und Straßen, bitte übersetzen.", "Feet and streets.", id="r3"),
    chat(OTHER, "The Tiber.", id="r4"),
]
FORMS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow", "stream.arrow")


def write(folder: Path, form: str, rows: Sequence[dict[str, Any]] = ROWS, name: str = "train") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{form}"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=2, compression="zstd")
    elif form.endswith("arrow"):
        start = pa.ipc.new_stream if "stream" in form else pa.ipc.new_file
        table = pa.Table.from_pylist(list(rows))
        with start(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    elif form == "jsonl.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(text)
    else:
        path.write_bytes(gzip.compress(text) if form == "jsonl.gz" else text)
    return path


def cleaned(
    train: Path, tmp_path: Path, how: Any = "drop-row", select: Sequence[str] = (CHAT,), **options: Any
) -> Path:
    """Scans, cleans, and returns the folder of cleaned data."""
    scan(str(train), tmp_path / "out", select)
    clean(tmp_path / "out", tmp_path / "new", way_of(how), **options)
    return tmp_path / "new"


@pytest.mark.parametrize("how", [how for how in HOWS if how != "tag"])
@pytest.mark.parametrize("form", FORMS)
def test_a_scan_of_the_output_finds_nothing_and_the_rest_is_as_it_was(form: str, how: Any, tmp_path: Path) -> None:
    train = write(tmp_path / "data", form)
    new = cleaned(train, tmp_path, how) / train.name
    assert scan(str(new), tmp_path / "again") == []
    left = {row["id"]: row for row in rows_of(new)}
    assert list(left) == [row["id"] for row in ROWS if row["id"] in left]
    assert left["r0"] == ROWS[0]
    assert left["r3"] == ROWS[3]
    assert {"r2", "r4"} - left.keys() == ({"r4"} if how == "mask-span" else {"r2", "r4"})
    if how == "drop-row":
        assert "r1" not in left
    else:
        assert left["r1"]["messages"] == ROWS[1]["messages"][2:]
    if how == "mask-span":
        assert left["r2"]["messages"][0]["content"] == "Here is a long task that you may like to solve for me: […]"


@pytest.mark.parametrize("form", FORMS)
def test_tags_name_eval_instance_and_score(form: str, tmp_path: Path) -> None:
    train = write(tmp_path / "data", form)
    rows = rows_of(cleaned(train, tmp_path, "tag") / train.name)
    assert [{k: v for k, v in row.items() if k != "contamination"} for row in rows] == ROWS
    tags = [[(t["eval"], t["instance"], t["score"]) for t in row.get("contamination") or ()] for row in rows]
    assert tags == [[], [("quiz", "quiz-0", 1.0)], [("quiz", "quiz-0", 1.0)], [], [("quiz", "quiz-1", 1.0)]]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("form", FORMS)
def test_a_file_without_a_hit_is_copied_and_the_report_counts_it(form: str, how: Any, tmp_path: Path) -> None:
    train = write(tmp_path / "data", form, [ROWS[0], ROWS[3]])
    new = cleaned(train, tmp_path, how)
    assert (new / train.name).read_bytes() == train.read_bytes()
    report = json.loads((new / "cleaning.json").read_text())
    (file,) = report["files"]
    assert (file["n_rows_before"], file["n_rows_after"], file["dropped"], file["changed"]) == (2, 2, [], [])
    assert file["digest_before"] == file["digest_after"] == file_digest(str(train))


def test_untouched_lines_keep_their_bytes_whatever_they_hold(tmp_path: Path) -> None:
    odd = [
        b'{"id":0,  "messages":[{"role":"user","content":"\\u00fc\\/\\ud800"}],"n":1e5,"n":' + b"9" * 400 + b"}\r\n",
        b"\r\n",
        b"  \t\n",
        b'{"id":1,"messages":[]}\n',
    ]
    bad = json.dumps(chat(QUESTION, "x", id="bad")).encode() + b"\n"
    last = b'{"id":2,"messages":[{"content":"no newline at the end","role":"user"}]}'
    train = tmp_path / "train.jsonl"
    train.write_bytes(b"\xef\xbb\xbf" + bad + odd[0] + odd[1] + bad + odd[2] + odd[3] + bad + last)
    new = cleaned(train, tmp_path) / "train.jsonl"
    assert new.read_bytes() == b"\xef\xbb\xbf" + b"".join(odd) + last


def test_a_touched_line_changes_in_the_masked_string_alone(tmp_path: Path) -> None:
    text = f'"text":  "{QUESTION} and then a tail that is long enough", '
    line = '{"z": 1.10, "big": ' + "9" * 4000 + ", " + text + '"u": "\\u00e9\\/", "z2":[1,2 ]}\r\n'
    train = tmp_path / "train.jsonl"
    train.write_text(line)
    new = cleaned(train, tmp_path, "mask-span", ["text"]) / "train.jsonl"
    assert new.read_bytes().decode() == line.replace(QUESTION[:-1], "[\\u2026]")


def test_a_hidden_twin_of_a_masked_field_does_not_survive(tmp_path: Path) -> None:
    tail = "and then a tail that is long enough"
    train = tmp_path / "train.jsonl"
    train.write_text(f'{{"text":"{QUESTION}","k":1,"text":"{QUESTION} {tail}"}}\n')
    new = cleaned(train, tmp_path, "mask-span", ["text"]) / "train.jsonl"
    assert new.read_text() == f'{{"k":1,"text":"[\\u2026]. {tail}"}}\n'


def test_masks_count_code_points_of_the_decoded_text(tmp_path: Path) -> None:
    before = "Zwölf \U0001f600\U0001f600 Boxkämpfer \ud800 jagen Viktor: "
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps({"text": before + QUESTION}) + "\n")  # pairs of escapes, and a lone one
    new = cleaned(train, tmp_path, "mask-span", ["text"]) / "train.jsonl"
    assert json.loads(new.read_text())["text"] == before + "[…]"


def test_a_text_that_stands_in_a_message_twice_is_masked_twice(tmp_path: Path) -> None:
    part = " ".join(QUESTION.split()[:11])  # a scan places the windows of these words here, the others below
    text = f"{part}. This is what I was told some days ago. {QUESTION} What do you think about all of this?"
    train = write(tmp_path / "data", "jsonl", [{"text": text}])
    found = scan(str(train), tmp_path / "out", ["text"])
    assert len(found[0]["runs"]) > 1
    clean(tmp_path / "out", tmp_path / "new", way_of("mask-span"))
    assert scan(str(tmp_path / "new" / "train.jsonl"), tmp_path / "again", ["text"]) == []
    (row,) = rows_of(tmp_path / "new" / "train.jsonl")
    assert row["text"].endswith("What do you think about all of this?")


@pytest.mark.parametrize("rule", ["tulu3-standard", "any-8", "gpt3-13", "fixed-8", "exact"])
def test_masks_satisfy_every_rule(rule: str, tmp_path: Path) -> None:
    text = f"Once more with feeling: {QUESTION} Now write a poem about it. {QUESTION}"
    train = write(tmp_path / "data", "jsonl", [{"text": text}])
    assert scan(str(train), tmp_path / "out", ["text"], rule=rule)
    clean(tmp_path / "out", tmp_path / "new", way_of("mask-span"))
    assert scan(str(tmp_path / "new" / "train.jsonl"), tmp_path / "again", ["text"], rule=rule) == []
    assert "Now write a poem about it" in rows_of(tmp_path / "new" / "train.jsonl")[0]["text"]


def test_the_cap_acquits_rows_when_asked_by_it(tmp_path: Path) -> None:
    train = write(tmp_path / "data", "jsonl")
    matches = scan(str(train), tmp_path / "out")
    for match in matches:
        match["flags"] = ["exact"] if match["id"] == "r4" else ["exact", "capped"]
    write_lines(tmp_path / "out" / "matches.jsonl", matches)
    clean(tmp_path / "out", tmp_path / "new", way_of("drop-row"), "capped")
    assert [row["id"] for row in rows_of(tmp_path / "new" / "train.jsonl")] == ["r0", "r3", "r4"]


PARAPHRASED = "A grocer sells seven baskets of plums and eight jars of honey at the market every single evening."


@pytest.mark.parametrize(
    ("by", "also", "left"),
    [("exact", (), ["near", "r0", "r3"]), ("near", (), ["r0", "r3"]), ("exact", ("near",), ["r0", "r3"])],
)
def test_near_duplicates_are_cleaned_when_asked_for(by: Any, also: Any, left: list[str], tmp_path: Path) -> None:
    train = write(tmp_path / "data", "jsonl", [chat(PARAPHRASED, "x", id="near"), *ROWS])
    found = scan(str(train), tmp_path / "out", near="default")
    assert [each["id"] for each in found if each["row"] == 0] == ["near"]  # no match of the exact rule
    clean(tmp_path / "out", tmp_path / "new", way_of("drop-row"), by, also)
    assert [row["id"] for row in rows_of(tmp_path / "new" / "train.jsonl")] == left


def test_masks_of_near_duplicates_leave_none(tmp_path: Path) -> None:
    text = f"{PARAPHRASED} Then somebody else comes along and says that {PARAPHRASED} What now, my friend?"
    train = write(tmp_path / "data", "jsonl", [{"text": text}])
    assert len(scan(str(train), tmp_path / "out", ["text"], near="default")) == 1
    clean(tmp_path / "out", tmp_path / "new", way_of("mask-span"), "near")
    assert scan(str(tmp_path / "new" / "train.jsonl"), tmp_path / "again", ["text"], near="default") == []
    assert rows_of(tmp_path / "new" / "train.jsonl")[0]["text"].endswith("What now, my friend?")


def test_a_score_of_a_near_duplicate_is_tagged_from_0_to_1(tmp_path: Path) -> None:
    train = write(tmp_path / "data", "jsonl", [chat(PARAPHRASED, "x", id="near")])
    (near,) = scan(str(train), tmp_path / "out", near="default")
    clean(tmp_path / "out", tmp_path / "new", way_of("tag"), "near")
    (tag,) = rows_of(tmp_path / "new" / "train.jsonl")[0]["contamination"]
    assert tag == {"eval": "quiz", "instance": "quiz-0", "score": near["score"] / 100}


def test_of_reviewed_matches_the_accepted_ones_are_cleaned(tmp_path: Path) -> None:
    train = write(tmp_path / "data", "jsonl", [chat(PARAPHRASED, "x", id="near"), *ROWS])
    scan(str(train), tmp_path / "out", near="default")
    for file, number, decision in (("near", 0, "accept"), ("matches", 0, "reject"), ("matches", 1, "accept")):
        match = list(read_matches(tmp_path / "out" / f"{file}.jsonl"))[number]
        append_decision(tmp_path / "out", match, decision)  # type: ignore[arg-type]
    clean(tmp_path / "out", tmp_path / "new", way_of("drop-row"), "reviewed")
    assert [row["id"] for row in rows_of(tmp_path / "new" / "train.jsonl")] == ["r0", "r1", "r3", "r4"]


def test_sharding_names_and_several_data_sets_stay(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, "jsonl", ROWS[:2], "train-00000-of-00002")
    write(a, "jsonl.gz", ROWS[2:], "train-00001-of-00002")
    write(b / "data", "parquet", ROWS)
    scan({"first": str(a), "second": str(b)}, tmp_path / "out")
    report = clean(tmp_path / "out", tmp_path / "new", way_of("drop-row"))
    assert sorted(str(p.relative_to(tmp_path / "new")) for p in (tmp_path / "new").rglob("*.*")) == [
        "cleaning.json",
        "first/train-00000-of-00002.jsonl",
        "first/train-00001-of-00002.jsonl.gz",
        "second/data/train.parquet",
    ]
    assert [(d["n_rows_before"], d["n_rows_after"]) for d in report["datasets"]] == [(5, 2), (5, 2)]
    for told, name, source in zip(report["datasets"], ("first", "second"), (a, b), strict=True):
        assert told["digest_before"] == dataset_digest(discover(str(source)))
        assert told["digest_after"] == dataset_digest(discover(str(tmp_path / "new" / name)))
    assert report["files"][0]["dropped"] == [{"row": 1, "id": "r1", "why": "row"}]


def test_the_output_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    train = write(tmp_path / "data", "jsonl.gz")
    scan(str(train), tmp_path / "out")
    for name in ("one", "two"):
        clean(tmp_path / "out", tmp_path / name, way_of("mask-span"))
        time.sleep(0.01)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


# -- what `datasets` saved --


@pytest.mark.parametrize("how", ["drop-row", "tag", "mask-span"])
def test_a_data_set_saved_by_datasets_loads_again(how: Any, tmp_path: Path) -> None:
    import datasets

    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(str(tmp_path / "data"), num_shards=2)
    before = datasets.load_from_disk(str(tmp_path / "data"))
    after = datasets.load_from_disk(str(cleaned(tmp_path / "data", tmp_path, how)))
    assert after._fingerprint != before._fingerprint
    if how == "tag":
        assert [len(each or ()) for each in after["contamination"]] == [0, 1, 1, 0, 1]
        assert after.remove_columns("contamination").features == before.features
    else:
        assert after.features == before.features
        assert after["id"] == (["r0", "r3"] if how == "drop-row" else ["r0", "r1", "r2", "r3"])


def test_of_saved_splits_the_scanned_ones_are_written(tmp_path: Path) -> None:
    import datasets

    both = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS[:1]))
    both.save_to_disk(str(tmp_path / "data"))
    after = datasets.load_from_disk(str(cleaned(tmp_path / "data", tmp_path)))
    assert list(after) == ["train"]
    assert after["train"]["id"] == ["r0", "r3"]


def test_tags_of_parquet_shards_load_as_one_data_set(tmp_path: Path) -> None:
    import datasets

    for i, rows in enumerate((ROWS[:1], ROWS[1:])):  # nothing is found in the first shard
        datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "data" / f"train-{i}.parquet"))
    new = cleaned(tmp_path / "data", tmp_path, "tag")
    loaded = datasets.load_dataset("parquet", data_files=str(new / "*.parquet"), split="train")
    assert {row["id"]: len(row["contamination"] or ()) for row in loaded} == {
        "r0": 0,
        "r1": 1,
        "r2": 1,
        "r3": 0,
        "r4": 1,
    }


# -- refusals --


def _change_one_byte(train: Path, out: Path, new: Path) -> None:
    train.write_bytes(train.read_bytes().replace(b"Blue", b"Grey"))


def _touch(train: Path, out: Path, new: Path) -> None:
    os.utime(train, ns=(1, 1))


def _grow(train: Path, out: Path, new: Path) -> None:
    train.write_bytes(train.read_bytes() + b"{}\n")


def _fill(train: Path, out: Path, new: Path) -> None:
    new.mkdir()
    (new / "mine.txt").write_text("keep")


def _file(train: Path, out: Path, new: Path) -> None:
    new.write_text("a file")


def _no_verdict(train: Path, out: Path, new: Path) -> None:
    (out / "verdict.json").unlink()


def _torn_matches(train: Path, out: Path, new: Path) -> None:
    data = (out / "matches.jsonl").read_bytes()
    (out / "matches.jsonl").write_bytes(data[: len(data) // 2])


def _row_beyond(train: Path, out: Path, new: Path) -> None:
    data = (out / "matches.jsonl").read_text()
    (out / "matches.jsonl").write_text(data.replace('"row": 4', '"row": 99'))


def _other_file(train: Path, out: Path, new: Path) -> None:
    data = (out / "matches.jsonl").read_text()
    (out / "matches.jsonl").write_text(data.replace("train.jsonl", "other.jsonl"))


def _other_row(train: Path, out: Path, new: Path) -> None:
    data = (out / "matches.jsonl").read_text()
    (out / "matches.jsonl").write_text(data.replace('"row": 4', '"row": 3'))


def _other_digest(train: Path, out: Path, new: Path) -> None:
    data = json.loads((out / "verdict.json").read_text())
    data["training"][0]["digest"] = "0" * 64
    (out / "verdict.json").write_text(json.dumps(data))


def _gone(train: Path, out: Path, new: Path) -> None:
    train.unlink()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_change_one_byte, "changed since the scan"),
        (_touch, "changed since the scan"),
        (_grow, "changed since the scan"),
        (_gone, "no such file"),
        (_fill, "is not empty"),
        (_file, "is not a folder"),
        (_no_verdict, "expected the folder of a finished scan"),
        (_torn_matches, "is no match"),
        (_row_beyond, "has no row 99"),
        (_other_row, "row 3: not the row that was scanned"),
        (_other_file, "a file that manifest.json lacks"),
        (_other_digest, "not the data that were scanned"),
    ],
)
def test_what_does_not_fit_together_is_refused_and_nothing_is_left(
    spoil: Callable[[Path, Path, Path], None], why: str, tmp_path: Path
) -> None:
    train, out, new = write(tmp_path / "data", "jsonl"), tmp_path / "out", tmp_path / "new"
    scan(str(train), out)
    spoil(train, out, new)
    with pytest.raises(DecontamError, match=why):
        clean(out, new, way_of("drop-row"))
    assert sorted(p.name for p in tmp_path.iterdir() if p != new) == ["data", "out"]
    assert not new.is_dir() or [p.name for p in new.iterdir()] == ["mine.txt"]


def test_a_scan_that_is_not_complete_is_cleaned_only_on_request(tmp_path: Path) -> None:
    train = write(tmp_path / "data", "jsonl")
    broken = tmp_path / "data" / "more.jsonl"
    broken.write_text("{}\n")
    scan(str(train), tmp_path / "out", complete=False)
    with pytest.raises(DecontamError, match="--incomplete"):
        clean(tmp_path / "out", tmp_path / "new", way_of("drop-row"))
    report = clean(tmp_path / "out", tmp_path / "new", way_of("drop-row"), incomplete=True)
    assert report["complete"] is False


@pytest.mark.parametrize("form", ["jsonl.gz", "jsonl.zst"])
def test_a_file_that_is_cut_short_is_refused(form: str, tmp_path: Path) -> None:
    train = write(tmp_path / "data", form, ROWS * 200)
    whole = scan(str(train), tmp_path / "whole")
    train.write_bytes(train.read_bytes()[:-20])
    new = write(tmp_path / "other", form, [])
    scan(str(new), tmp_path / "out", complete=False)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    found = fingerprint(str(train))
    manifest["files"][0].update(file=str(train), size=found["size"], mtime_ns=found["mtime_ns"], ends=found["sha256"])
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    for match in whole:
        match["dataset"] = str(new)
    write_lines(tmp_path / "out" / "matches.jsonl", whole)
    with pytest.raises(DecontamError, match="cut short"):
        clean(tmp_path / "out", tmp_path / "new", way_of("drop-row"), incomplete=True)
    assert not (tmp_path / "new").exists()


def test_an_output_inside_the_data_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "data", "jsonl", name="a")
    write(tmp_path / "data", "jsonl", name="b")
    scan(str(tmp_path / "data"), tmp_path / "out")
    with pytest.raises(DecontamError, match="lies within the data"):
        clean(tmp_path / "out", tmp_path / "data" / "clean", way_of("drop-row"))


def test_a_foreign_column_of_tags_is_refused(tmp_path: Path) -> None:
    for form in ("jsonl", "parquet"):
        train = write(tmp_path / form, form, [{**row, "contamination": "high"} for row in ROWS])
        scan(str(train), tmp_path / f"out-{form}")
        with pytest.raises(DecontamError, match="'contamination'"):
            clean(tmp_path / f"out-{form}", tmp_path / "new", way_of("tag"))


# -- the disk --


def _limit_size() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow"])
def test_a_disk_that_is_full_leaves_nothing_and_says_so(form: str, tmp_path: Path) -> None:
    noise = [chat("n" + os.urandom(600).hex(), "x", id=f"n{i}") for i in range(300)]  # 180 kB, packed too
    train = write(tmp_path / "data", form, [*ROWS, *noise])
    scan(str(train), tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-m", "decontam", "clean", str(tmp_path / "out"), "-o", str(tmp_path / "new"), "--quiet"],
        preexec_fn=_limit_size,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert os.strerror(errno.EFBIG) in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "out"]


def test_a_killed_clean_leaves_no_folder_of_that_name_and_the_next_one_sweeps_up(tmp_path: Path) -> None:
    train = write(tmp_path / "data", "jsonl", ROWS * 20_000)
    scan(str(write(tmp_path / "small", "jsonl", ROWS)), tmp_path / "out")
    _of(train, tmp_path / "out")
    command = [sys.executable, "-m", "decontam", "clean", str(tmp_path / "out"), "-o", str(tmp_path / "new"), "--quiet"]
    part = tmp_path / ".new.part"
    process = subprocess.Popen(command)
    while not part.is_dir() or not any(part.iterdir()):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "new").exists()
    (part / "stale.jsonl").write_text("{}")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["cleaning.json", "train.jsonl"]
    assert not part.exists()


def test_two_cleans_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    from decontam.clean.output import new_folder

    with new_folder(tmp_path / "new") as part:
        (part / "mine").write_text("1")
        with pytest.raises(DecontamError, match="another clean is writing"), new_folder(tmp_path / "new"):
            pass
    assert (tmp_path / "new" / "mine").read_text() == "1"


# -- the command --


def test_the_command_prints_a_line_a_file_or_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(tmp_path / "data", "jsonl")
    scan(str(train), tmp_path / "out")
    assert main(["clean", str(tmp_path / "out"), "-o", str(tmp_path / "a")]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split()[-4:] == ["5", "2", "3", "0"]
    assert told.err == f"{train}\n"
    assert main(["clean", str(tmp_path / "out"), "-o", str(tmp_path / "b"), "--json", "--how", "drop-turn"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "b" / "cleaning.json").read_text())
    assert [d["n_changed"] for d in report["datasets"]] == [1]


def test_names_of_files_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(tmp_path / "\x1b[2Jdata", "jsonl")
    scan(str(train), tmp_path / "out")
    assert main(["clean", str(tmp_path / "out"), "-o", str(tmp_path / "a")]) == 0
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "\\x1b[2Jdata" in told.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--how", "tag", "--window", "5"], "--window and --min-slice are for"),
        (["--by", "near"], "decontam scan --near-dup"),
        (["--also", "near"], "decontam scan --near-dup"),
        (["--by", "reviewed"], "decontam review"),
    ],
)
def test_misuse_exits_2(arguments: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan(str(write(tmp_path / "data", "jsonl")), tmp_path / "out")
    assert main(["clean", str(tmp_path / "out"), "-o", str(tmp_path / "new"), *arguments]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_relative_paths_count_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data", "jsonl")
    monkeypatch.chdir(tmp_path)
    scan("data/train.jsonl", Path("out"))
    monkeypatch.chdir("/")
    with pytest.raises(DecontamError, match="--root"):
        clean(tmp_path / "out", tmp_path / "new", way_of("drop-row"))
    clean(tmp_path / "out", tmp_path / "new", way_of("drop-row"), root=tmp_path)
    assert [row["id"] for row in rows_of(tmp_path / "new" / "train.jsonl")] == ["r0", "r3"]


def _of(train: Path, out: Path) -> None:
    """Makes the scan in `out`, of one small file, one of another file with the same first rows."""
    manifest, verdict = (json.loads((out / name).read_text()) for name in ("manifest.json", "verdict.json"))
    found = fingerprint(str(train))
    manifest["files"][0].update(file=str(train), size=found["size"], mtime_ns=found["mtime_ns"], ends=found["sha256"])
    verdict["training"][0]["digest"] = file_digest(str(train))
    matches = [json.loads(line) for line in (out / "matches.jsonl").read_text().splitlines()]
    write_lines(out / "matches.jsonl", [match | {"file": str(train)} for match in matches])
    (out / "manifest.json").write_text(json.dumps(manifest))
    (out / "verdict.json").write_text(json.dumps(verdict))
