"""Jobs of the real scanner: rows keep their numbers in every format, and what cannot be protected is what is listed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decontam.__main__ import main
from decontam.evals import eval_set, unprotected
from decontam.job.protection import eval_facts, own_matches
from decontam.job.work import KERNEL, Kernel
from decontam.report.source import training_texts
from decontam.rules import find_rule
from decontam.types import EvalSet
from tests.decontam.job.plain import SUMS, make_job, scan, sums, tree, write_rows

DOTS = "x1.0 y2.0 z3.0 a4.0 b5.0 c6.0 d7.0 e8.0 f9.0"
REPORTS = ("matches.jsonl", "verdict.json", "matrix.tsv", "clean_ids/sums.txt")


def written(folder: Path, form: str, rows: list[dict[str, Any]]) -> Path:
    """The rows as a file of that format, in parts of 40 rows where it has parts."""
    path = folder / f"data.{form}"
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if form == "jsonl":
        path.write_bytes(text)
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(text, mtime=0))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=40)
    else:
        with pa.ipc.new_file(path, pa.Table.from_pylist(rows).schema) as writer:
            writer.write_table(pa.Table.from_pylist(rows), max_chunksize=40)
    return path


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "parquet", "arrow"])
def test_rows_keep_their_numbers_in_every_format(tmp_path: Path, form: str) -> None:
    rows = [json.loads(line) for line in write_rows(tmp_path / "a.jsonl", 200).read_text().splitlines()]
    data = written(tmp_path, form, rows)
    scan(make_job([data], tmp_path / "cache", scanner=KERNEL), tmp_path / "out")
    lines = (tmp_path / "out" / "matches.jsonl").read_text().splitlines()
    # Questions differ in two numbers, so a row holds its own whole and its neighbours by more than half.
    best = {match["row"]: match["instance"] for match in map(json.loads, lines) if match["score"] == 1.0}
    assert best == {10 * i: str(i) for i in range(20)}
    n_shards = sum(name.endswith(".arrow") for name in tree(tmp_path / "out"))
    assert n_shards == 1 if form == "jsonl.gz" else n_shards >= 5


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "parquet"])
def test_copies_of_a_row_are_counted_apart(tmp_path: Path, form: str) -> None:
    texts = [f"tell me: {SUMS[0]}", "nothing", f'"{SUMS[50]}" é', f"tell me: {SUMS[0]}"]
    data = written(tmp_path, form, [{"text": text} for text in texts * 30])
    scan(make_job([data], tmp_path / "cache", sums(100), scanner=KERNEL), tmp_path / "out")
    [cell] = json.loads((tmp_path / "out" / "matrix.json").read_text())["cells"]
    assert (cell["exact"]["rows"], cell["exact"]["texts"]) == (90, 2)
    assert "90 flagged (75.00 %), 2 distinct," in (tmp_path / "out" / "matrix.md").read_text()


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_and_shards_change_no_report(tmp_path: Path, workers: int) -> None:
    data = write_rows(tmp_path / "a.jsonl", 300)
    scan(make_job([data], tmp_path / "cache", scanner=KERNEL, shard_bytes=1 << 20), tmp_path / "one", 1)
    scan(make_job([data], tmp_path / "cache", scanner=KERNEL, shard_bytes=900), tmp_path / "many", workers)
    for name in (*REPORTS, "report.html", "summary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes(), name


def test_the_analyzer_is_known_to_index_scan_review_and_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quiz.jsonl").write_text(json.dumps({"question": DOTS}))
    Path("a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in (DOTS, DOTS.replace(".", " "), "no")))
    asked = ["--evals", "quiz.jsonl", "--cache", "cache"]
    for analyzer, rule, rows in (("pattern", "tulu3", [0, 1]), ("standard", "tulu3-standard", [0])):
        # 2.0 is two words by the separators of `pattern`, and one by Unicode's
        assert main(["index", *asked, "--analyzer", analyzer]) == 0
        index = capsys.readouterr().out.splitlines()[0]
        assert main(["scan", "a.jsonl", *asked, "--analyzer", analyzer, "--out", analyzer, "--quiet"]) == 1
        matches = [json.loads(line) for line in Path(analyzer, "matches.jsonl").read_text().splitlines()]
        assert [(match["row"], match["rule"]) for match in matches] == [(row, rule) for row in rows]
        verdict = json.loads(Path(analyzer, "verdict.json").read_text())
        assert (verdict["rule"]["name"], verdict["rule"]["analyzer"]) == (rule, analyzer)
        assert json.loads(Path(analyzer, "manifest.json").read_text())["index"] == Path(index).name
        assert main(["clean", analyzer, "-o", f"clean-{analyzer}", "--how", "mask-span", "--quiet"]) == 0
        assert len(Path(f"clean-{analyzer}", "a.jsonl").read_text().splitlines()) == 3 - len(rows)
        capsys.readouterr()
        assert main(["review", analyzer]) == 0
        assert capsys.readouterr().out.count("score 1.000") == len(rows)
        assert training_texts(Path(analyzer), None, print).about == find_rule(rule).about
    assert main(["scan", "a.jsonl", *asked, "--out", "standard", "--quiet"]) == 2
    assert "rule was tulu3-standard, now tulu3" in capsys.readouterr().err


def test_an_index_stands_where_it_is_said_to(tmp_path: Path) -> None:
    settings = {"cap": 3, "short": True, "near": False, "drop_empty_fields": True}
    where = KERNEL.where([sums(3)], find_rule("tulu3"), cache=tmp_path, **settings)
    assert not where.exists()
    assert KERNEL.build([sums(3)], find_rule("tulu3"), cache=tmp_path, **settings) == where


def test_an_index_whose_texts_were_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_rows(tmp_path / "a.jsonl", 20)
    index = KERNEL.build([sums(3)], find_rule("fixed-8"), cache=tmp_path / "cache", cap=50)
    assert main(["scan", str(data), "--index", str(index), "--out", "out", "--quiet"]) == 1
    texts = (index / "evals.jsonl").read_text()
    (index / "evals.jsonl").write_text(texts.replace("riddle", "puzzle"))  # as many bytes
    assert main(["scan", str(data), "--index", str(index), "--out", "again", "--quiet"]) == 2
    assert "its evals.jsonl was changed since it was built" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["numbers", "no seal", "a list", "torn", "of another index"])
def test_what_an_index_remembers_counts_only_as_it_was_written(tmp_path: Path, what: str) -> None:
    evals, others = [sums(3), sums(2, "short")], [sums(3), sums(1, "short")]
    settings = {"cap": 50, "short": False, "near": False, "drop_empty_fields": False}
    folder = KERNEL.build(evals, find_rule("fixed-8"), cache=tmp_path, **settings)
    whole = own_matches(KERNEL, folder, evals)
    assert whole == set(range(5))
    path = folder / "own.json"
    written, told = path.read_bytes(), json.loads(path.read_bytes())
    forged = {
        "numbers": json.dumps(told | {"own": [0, 1, 2, 3]}),
        "no seal": json.dumps({"own": [0]}),
        "a list": "[0, 1]",  # how earlier versions wrote it
        "torn": path.read_text()[:9],
    }
    if what == "of another index":
        other = KERNEL.build(others, find_rule("fixed-8"), cache=tmp_path, **settings)
        own_matches(KERNEL, other, others)
        forged[what] = (other / "own.json").read_text()
    path.write_text(forged[what])
    assert own_matches(KERNEL, folder, evals) == whole
    assert path.read_bytes() == written


def test_what_an_index_remembers_is_taken_where_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"cap": 50, "short": False, "near": False, "drop_empty_fields": False}
    folder = KERNEL.build([sums(3)], find_rule("fixed-8"), cache=tmp_path, **settings)
    whole = own_matches(KERNEL, folder, [sums(3)])
    monkeypatch.setattr(Kernel, "scan", lambda *given: pytest.fail("scanned again"))
    assert own_matches(KERNEL, folder, [sums(3)]) == whole


def mixed() -> list[EvalSet]:
    texts = [
        "Far too short",
        "Don't or won't, can't or shan't, isn't or aren't: I've, we've, they've, you've",  # windows end inside words
        "A long enough question about nothing at all, and who wants to know?",
        "What is 2+2",
        "",
    ]
    two = [{"passage": "", "question": texts[2]}, {"passage": texts[2], "question": texts[0]}, {"question": texts[2]}]
    return [
        eval_set("one", [{"question": text} for text in texts]),
        eval_set("two", two, ["passage", "question"]),
        sums(3),
    ]


@pytest.mark.parametrize("rule", ["tulu3", "tulu3-standard", "fixed-8", "any-8", "gpt3-13", "idf", "exact"])
def test_what_a_scan_of_own_texts_misses_is_what_the_reference_says(tmp_path: Path, rule: str) -> None:
    evals = mixed()
    settings = {"cap": 50, "short": False, "near": False, "drop_empty_fields": False}
    folder = KERNEL.build(evals, find_rule(rule), cache=tmp_path, **settings)
    facts = eval_facts(KERNEL.open(folder), evals, own_matches(KERNEL, folder, evals))
    mine = {
        f.eval.name: {f.eval.ids[i]: why for why, found in f.unprotected.items() for i in found if why[0] != "b"}
        for f in facts
    }
    theirs = unprotected(evals, find_rule(rule))
    assert mine == {name: {each.id: each.reason for each in listed} for name, listed in theirs.items()}
    assert [f.skipped for f in facts] == [[], [2], []]
