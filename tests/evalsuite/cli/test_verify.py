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


# -- rows of instructions: no dataset is needed ------------------------------------------------------------------------


def ask(id: str, response: str, key: object = "k", **kwargs: object) -> dict[str, object]:
    return {"key": key, "prompt": "?", "instruction_id_list": [id], "kwargs": [kwargs], "response": response}


def instructions(capsys: pytest.CaptureFixture[str]) -> list[list[dict[str, object]]]:
    return [json.loads(line)["instructions"] for line in capsys.readouterr().out.splitlines()]


def test_each_instruction_of_a_row_gets_both_verdicts_and_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = {**ask("count:numbers", "Sure:\n7 owls", key="a#1", N=1.0, sep=None)}
    two["instruction_id_list"], two["kwargs"] = ["count:numbers", "words:vowel"], [{"N": 1.0, "sep": None}, {}]
    rows = write(tmp_path / "r.jsonl", two, ask("repeat:repeat_simple", "no", key=8))
    assert main(["verify", "ifeval_ood", rows]) == 0
    out, said = capsys.readouterr()
    first, second = (json.loads(line) for line in out.splitlines())
    assert (first["id"], first["score"], first["parts"]["prompt_level_strict_acc"]) == ("a#1", 1.0, 0.0)
    assert first["parts"]["inst_level_strict_acc"] == [1, 2]
    assert first["instructions"] == [
        {"id": "count:numbers", "strict": True, "loose": True, "why": "", "backend": ""},
        {"id": "words:vowel", "strict": False, "loose": True, "why": "more than one line", "backend": ""},
    ]
    assert (second["id"], second["score"], second["instructions"][0]["loose"]) == ("8", 0.0, False)  # one of the nine
    assert "count:numbers/" not in said


@pytest.mark.parametrize(("variant", "loose"), [((), False), (("--variant", "ifbench"), True)])
def test_the_variant_decides_where_the_official_checkers_differ(
    variant: tuple[str, ...], loose: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "r.jsonl", ask("count:pronouns", "This and that, who?", N=3))
    assert main(["verify", "ifeval_ood", rows, "--json", *variant]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [i["loose"] for v in found["verdicts"] for i in v["instructions"]] == [loose]
    assert found["summary"]["variant"] == (variant[1] if variant else "tulu3")


def test_rows_of_ifeval_name_the_language_tool_that_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "r.jsonl", ask("change_case:english_lowercase", "what a fine day for a walk this is"))
    assert main(["verify", "ifeval", rows]) == 0
    [[found]] = instructions(capsys)
    assert found["loose"]
    assert str(found["backend"]).startswith("language: ")


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("demo_add", ("--variant", "tulu3"), "demo_add has no variants; leave --variant out"),
        ("ifeval", ("--variant", "tulu3"), "ifeval has no variants"),
        ("ifeval_ood", ("--variant", "tulu"), "no variant 'tulu'; did you mean 'tulu3'? (known: tulu3, ifbench)"),
        ("demo_add", ("--tools", "exact"), "demo_add uses no language tools; leave --tools out"),
    ],
)
def test_options_of_instruction_benchmarks_are_refused_elsewhere(
    name: str, arguments: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "r.jsonl", {"doc": DOC, "response": "19"})
    assert main(["verify", name, rows, *arguments]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""


def test_exact_tools_are_asked_of_the_ids_in_the_rows_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalsuite.verify.constraints import language_tools

    monkeypatch.setattr(language_tools, "_has_punkt", lambda: False)
    language_tools.backend.cache_clear()
    plain = write(tmp_path / "plain.jsonl", ask("count:numbers", "7", N=1))
    assert main(["verify", "ifeval_ood", plain, "--tools", "exact"]) == 0
    capsys.readouterr()
    needs = write(tmp_path / "needs.jsonl", ask("ratio:sentence_type", "One. Two. Three?"))
    assert main(["verify", "ifeval_ood", needs, "--tools", "exact"]) == 0  # the regex splitter is no tool
    capsys.readouterr()
    assert main(["verify", "ifeval_ood", needs, "--tools", "exact", "--variant", "ifbench"]) == 2
    out, err = capsys.readouterr()
    language_tools.backend.cache_clear()
    assert out == ""
    assert "punkt_tab" in err


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ask("count:number", "7", N=1), "field 'instruction_id_list': no instruction id 'count:number'; did you mean"),
        (ask("count:numbers", "7"), "field 'kwargs': count:numbers: N is missing"),
        (ask("count:numbers", "7", N=None), "field 'kwargs': count:numbers: N is missing"),
        (ask("count:numbers", "7", N=1.5), "N is 1.5: expected a whole number"),
        (ask("count:numbers", "7", N=1, word="a"), "unknown parameter 'word'"),
        (ask("count:numbers", "7", N=1) | {"kwargs": {"N": 1}}, "field 'kwargs' is {'N': 1}, expected a list"),
        (ask("count:numbers", "7", N=1) | {"kwargs": []}, "field 'kwargs': 1 instruction ids but 0 kwargs"),
        (ask("x", "7") | {"instruction_id_list": []}, "field 'instruction_id_list' is [], expected a list"),
        (ask("count:numbers", "7", N=1) | {"response": None}, "field 'response' is None, expected a string"),
        ({"doc": {"kwargs": []}, "response": "7"}, "field 'instruction_id_list' is None, expected a list"),
    ],
)
def test_a_bad_row_of_instructions_is_refused_before_anything_is_graded(
    row: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "r.jsonl", ask("count:numbers", "7", N=1), row)
    assert main(["verify", "ifeval_ood", rows]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "r.jsonl: line 2: field " in err
    assert said in err


def test_of_many_bad_rows_the_first_twenty_and_the_count_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "r.jsonl", "{", *[ask("count:numbers", "7", key=n) for n in range(24)])
    assert main(["verify", "ifeval_ood", rows]) == 2
    said = capsys.readouterr().err
    assert "25 rows cannot be used" in said
    assert "line 1: not JSON" in said
    assert [n for n in range(1, 26) if f": line {n}: " in said] == list(range(1, 21))
    assert "and 5 more" in said
