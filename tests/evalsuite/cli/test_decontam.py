"""`evalsuite decontam`: the verbs of decontam, with suites for evals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from decontam.cli import VERBS as THEIRS
from decontam.types import EvalSet
from evalsuite.__main__ import main
from evalsuite.cli.decontam import suite_evals
from evalsuite.decontamination import benchmarks_of
from evalsuite.registry import Registry
from evalsuite.suite import adhoc_suite, load_suite
from tests.evalsuite.looks import Clock, registry_at
from tests.hub import write_repo

POPQA = {"id": 1, "subj": "a river", "prop": "mouth", "obj": "a sea", "question": "Where does the river end?"}


class Scans:
    """Stands in for the scanner and keeps what it was given."""

    def __init__(self, code: int = 0) -> None:
        self.code, self.train, self.out = code, (), Path()
        self.evals: dict[str, EvalSet] = {}
        self.options: Mapping[str, Any] = {}

    def __call__(self, train: Any, evals: Any, out: Any, **options: Any) -> int:
        self.train, self.out, self.options = tuple(train), out, options
        self.evals = {each.name: each for each in evals}
        assert len(self.evals) == len(evals)
        return self.code


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scans:
    made = Scans()
    monkeypatch.setattr("decontam.cli.scan.scan", made)
    monkeypatch.chdir(tmp_path)
    row = {"messages": [{"role": "user", "content": "Say something."}]}
    (tmp_path / "sft.jsonl").write_text(json.dumps(row) + "\n")
    return made


def test_a_suite_is_scanned_for_by_the_names_of_its_benchmarks(
    scans: Scans, capsys: pytest.CaptureFixture[str]
) -> None:
    scans.code = 1
    assert main(["decontam", "scan", "sft.jsonl", "--suite", "demo", "--near-dup", "--select", "text"]) == 1
    assert list(scans.evals) == ["demo_add", "demo_reverse", "demo_larger"]
    assert (scans.train, scans.out) == (("sft.jsonl",), Path("results/decontam/sft.jsonl-demo"))
    assert (scans.options["near_dup"], scans.options["select"], scans.options["rule"]) == (True, ("text",), "tulu3")
    add = scans.evals["demo_add"]
    assert (add.kind, add.fields, len(add.ids), len(add.digest)) == ("development", ("question",), 200, 64)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("typed", "names", "out"),
    [
        (["--tasks", "demo_add"], ["demo_add"], "sft.jsonl-demo_add"),
        (["--suite", "demo", "--tasks", "add,larger"], ["demo_add", "demo_larger"], "sft.jsonl-demo"),
        (["--evals", "own.jsonl"], ["own"], "sft.jsonl-evals"),
        (["--tasks", "demo_add", "--evals", "own.jsonl", "--out", "x"], ["demo_add", "own"], "x"),
    ],
)
def test_tasks_and_files_of_ones_own(
    scans: Scans, tmp_path: Path, typed: list[str], names: list[str], out: str
) -> None:
    (tmp_path / "own.jsonl").write_text('{"id": "o1", "question": "What is it that you want to know?"}\n')
    assert main(["decontam", "scan", "sft.jsonl", *typed]) == 0
    assert list(scans.evals) == names
    assert scans.out.name == out


def test_a_part_of_a_suite_is_said_to_be_no_report_on_it(scans: Scans, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decontam", "scan", "sft.jsonl", "--suite", "demo", "--tasks", "add"]) == 0
    assert (
        "no gate takes this report for the suite: it is not about demo_larger, demo_reverse" in capsys.readouterr().err
    )


def test_absent_data_is_an_error_and_skipped_only_when_asked(
    scans: Scans, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_repo(tmp_path / "data", "akariasai/PopQA", {"default": {"test": [POPQA]}})
    typed = ["decontam", "scan", "sft.jsonl", "--suite", "tulu3-unseen", "--offline", "--data-root", "data"]
    assert main(typed) == 2
    said = capsys.readouterr().err
    for name in ("TIGER-Lab/MMLU-Pro", "Idavidrein/gpqa", "RUCAIBox/agieval", "deepmind/math_dataset"):
        assert name in said
    assert scans.evals == {}
    assert main([*typed, "--skip-missing"]) == 0
    assert list(scans.evals) == ["ifeval_ood"]
    assert scans.evals["ifeval_ood"].kind == "unseen"
    said = capsys.readouterr().err
    assert "left out: gpqa (1 of 1 datasets cannot be used: Idavidrein/gpqa)" in said
    assert "it is not about agieval, bigcodebench_hard, deepmind_math, gpqa, href, mmlu_pro" in said
    assert main(["decontam", "scan", "sft.jsonl", "--tasks", "gpqa", "--offline", "--skip-missing"]) == 2
    assert "the data of no benchmark is there (gpqa); --data-root DIR has it" in capsys.readouterr().err


def test_unseen_texts_are_read_and_the_ledger_says_so(scans: Scans, tmp_path: Path) -> None:
    registry_at(tmp_path / "results", Clock()).record("epoch", reason="begin")
    assert main(["decontam", "scan", "sft.jsonl", "--tasks", "ifeval_ood"]) == 0
    (event,) = Registry.at(tmp_path / "results").peeks.read()
    assert (event.event, event.detail["read"], event.detail["data"]) == ("decontam", ["ifeval_ood"], ["sft.jsonl"])
    assert main(["release", "--status", "--results", str(tmp_path / "results")]) == 0


def test_popqa_comes_with_its_questions_as_one_more_eval(tmp_path: Path, hub_data: Path) -> None:
    evals = {each.name: each for each in suite_evals(benchmarks_of([adhoc_suite(["popqa"])]), [hub_data], offline=True)}
    assert list(evals) == ["popqa", "popqa_question"]
    assert evals["popqa"].fields == ("subj", "prop", "obj")
    assert evals["popqa_question"].fields == ("question",)
    assert evals["popqa"].ids == evals["popqa_question"].ids
    assert evals["popqa"].digest == evals["popqa_question"].digest


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["tulu3-dev", "tulu3-safety", "tulu3-unseen", "demo"])
def test_whatever_of_a_suite_is_at_hand_is_an_eval(suite: str, hub_data: Path) -> None:
    benchmarks = benchmarks_of([load_suite(suite)])
    there = {
        "tulu3-dev": 9,  # without drop, math and the six of safety
        "tulu3-safety": 0,
        "tulu3-unseen": 1,
        "demo": 3,
    }
    if not there[suite]:
        pytest.skip(f"none of the data of {suite} is at hand")
    evals = suite_evals(benchmarks, [hub_data], offline=True, skip_missing=True)
    assert len([each for each in evals if each.name in benchmarks]) >= there[suite]
    for each in evals:
        assert len(each.ids) == len(set(each.ids)) == len(each.texts) > 0
        assert each.kind == benchmarks[each.name if each.name in benchmarks else "popqa"].meta.split


# -- the other verbs --


def test_the_verbs_are_those_of_decontam(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decontam", "--help"]) == 0
    said = capsys.readouterr().out
    assert [verb for verb in THEIRS if f"\n  {verb} " not in said] == ["completion"]
    for verb in THEIRS.keys() - {"completion"}:
        assert main(["decontam", verb, "--help"]) == 0
        assert f"Usage: evalsuite decontam {verb}" in capsys.readouterr().out
    assert main(["decontam", "rules", "--json"]) == 0
    assert "tulu3" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["scna"], "no command named 'scna'; did you mean 'scan'?"),
        (["scan", "nowhere.jsonl", "--suite", "demo"], "nowhere.jsonl"),
        (["scan", "sft.jsonl", "--suite", "dmeo"], "no suite named 'dmeo'; did you mean 'demo'?"),
        (["scan", "sft.jsonl", "--suite", "demo", "--tasks", "ad"], "no benchmark named 'ad' in suite 'demo'"),
        (["scan", "sft.jsonl", "--evals", "nowhere.jsonl"], "nowhere.jsonl"),
        (["scan"], "TRAIN"),
        (["diff", "nowhere", "nothing"], "nowhere"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    scans: Scans, typed: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["decontam", *typed]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


# -- for real --


@pytest.mark.slow
def test_a_copied_question_is_found_by_its_sample_id_and_every_reader_takes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from evalsuite.gating.evidence import training_of
    from evalsuite.tables.clean import read_reported

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECONTAM_CACHE", str(tmp_path / "cache"))
    # Each eight tokens hold the number, so that no question carries another one.
    asked = "On farm {0} there are {0} hens and {0} geese in yard {0}, so how many birds are on farm {0}?"
    rows = [{"question": asked.format(i), "answer": f"#### {2 * i}"} for i in range(40)]
    write_repo(tmp_path / "data", "openai/gsm8k", {"main": {"train": rows[:8], "test": rows}})
    texts = ["Write a short poem about the sea and the wind in the evening."] * 50
    texts[7] = rows[5]["question"]
    lines = [json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n" for text in texts]
    (tmp_path / "sft.jsonl").write_text("".join(lines))
    code = main(["decontam", "scan", "sft.jsonl", "--tasks", "gsm8k", "--data-root", "data", "--offline"])
    assert code == 1, capsys.readouterr().err  # 1 of 40 is 2.5 %, over 2 %
    out = tmp_path / "results" / "decontam" / "sft.jsonl-gsm8k"
    benchmark = benchmarks_of([adhoc_suite(["gsm8k"])])["gsm8k"]
    (eval_set,) = suite_evals({"gsm8k": benchmark}, [tmp_path / "data"], offline=True)
    sample = next(i for i, text in zip(eval_set.ids, eval_set.texts, strict=True) if text == (rows[5]["question"],))
    assert read_reported([out])["gsm8k"] == {sample}
    digest = sha256((tmp_path / "sft.jsonl").read_bytes()).hexdigest()
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "evalsuite.json").write_text(json.dumps({"data": [{"path": "sft.jsonl", "digest": digest}]}))
    known = {"gsm8k": {eval_set.digest}}
    told = training_of(tmp_path / "ckpt", tmp_path / "results", ["gsm8k"], known).reports[digest]
    assert (told.complete, told.fractions, told.touched) == (True, {"gsm8k": 0.025}, {"gsm8k": {sample}})
    (match,) = [json.loads(line) for line in (out / "matches.jsonl").read_text().splitlines()]
    assert (match["row"], match["instance"], match["eval"]) == (7, sample, "gsm8k")
