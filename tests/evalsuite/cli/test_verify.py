"""`evalsuite verify` grades what others generated, row by row, without a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalsuite.__main__ import main


def write(path: Path, *rows: object) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


DOC = {"question": "12+7=", "answer": "19"}


def test_rows_with_their_own_document_need_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write(tmp_path / "r.jsonl", {"doc": DOC, "response": "19"}, {"id": "b", "doc": DOC, "response": "20"})
    assert main(["verify", "demo_add", rows]) == 0
    out, said = capsys.readouterr()
    verdicts = [json.loads(line) for line in out.splitlines()]
    assert [(v["id"], v["score"], v["extracted"]) for v in verdicts] == [("1", 1.0, "19"), ("b", 0.0, "20")]
    assert said == "demo_add: exact_match 50.0 ±50.0 (n 2)\n"


def test_rows_with_an_id_find_their_document(
    hub_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from evalsuite.benchmark import find_benchmark
    from evalsuite.data import resolve_all
    from evalsuite.harness import datasets_of, documents

    benchmark = find_benchmark("gsm8k")
    docs = documents(benchmark, resolve_all(datasets_of(benchmark), [hub_data], offline=True))
    name, doc = next(iter(docs.items()))
    gold = doc["answer"].split("####")[-1].strip()
    rows = write(
        tmp_path / "r.jsonl",
        {"id": name, "response": f"So the answer is {gold}."},
        {"doc_id": 0, "response": f"It is {gold}"},
        {"doc_id": 1, "response": "no idea"},
    )
    assert main(["verify", "gsm8k", rows, "--data-root", str(hub_data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [v["score"] for v in found["verdicts"]] == [1.0, 1.0, 0.0]
    assert found["summary"]["metrics"]["exact_match"]["value"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"response": ', "line 2: not JSON"),
        ("[1]", "line 2: expected an object"),
        ({"doc": DOC}, "line 2: field 'response' is None, expected a string"),
        ({"doc": DOC, "response": 19}, "line 2: field 'response' is 19, expected a string"),
        ({"doc": "12+7=", "response": "19"}, "line 2: field 'doc' is '12+7=', expected an object"),
        ({"response": "19"}, "line 2: neither 'id' nor 'doc' is given"),
        ({"id": "nobody", "response": "19"}, "line 2: no sample has the id 'nobody'"),
        ({"doc_id": 10_000, "response": "19"}, "line 2: field 'doc_id' is 10000, the dataset has 200 rows"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(
    row: object, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "r.jsonl", {"doc": DOC, "response": "19"}, row)
    assert main(["verify", "demo_add", rows]) == 2
    said = capsys.readouterr().err
    assert f"r.jsonl: {expected}" in said
    assert "Traceback" not in said


def test_a_document_that_lacks_a_field_is_a_failed_row_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "r.jsonl", {"doc": {"question": "?"}, "response": "19"})
    assert main(["verify", "demo_add", rows]) == 0
    out, said = capsys.readouterr()
    assert "cannot use this document (KeyError: 'answer')" in json.loads(out)["failed"]
    assert "1 could not be graded" in said


def test_control_characters_of_a_response_never_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "r.jsonl", {"doc": DOC, "response": "\x1b[31m19\ud800\x07"})
    assert main(["verify", "demo_add", rows]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out


def test_log_likelihood_benchmarks_have_no_response_to_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "r.jsonl", {"doc": {}, "response": "A"})
    assert main(["verify", "truthfulqa", rows]) == 2
    assert "scored by log-likelihoods" in capsys.readouterr().err
