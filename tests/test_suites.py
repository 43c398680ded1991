"""Whole suites, end to end: a real engine, a real judge server, real rows where they are there, else stand-ins."""

from __future__ import annotations

import json
import random
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from evalsuite.__main__ import main
from evalsuite.benchmark import find_benchmark
from evalsuite.checkpoint import open_checkpoint
from evalsuite.judge import open_judge
from evalsuite.models import EngineSpec
from evalsuite.models.chat import ChatTemplate
from evalsuite.models.vllm.install import vllm_status
from evalsuite.score import Job, score
from evalsuite.scorecard import CheckpointRef
from evalsuite.suite import load_suite
from evalsuite.verify.href import DEV_TASKS
from tests.benchmarks import test_code_benchmarks, test_popqa, test_safety_benchmarks, test_text_benchmarks
from tests.hub import write_repo
from tests.scripted_lm import make_scripted
from tests.servers import vllm_server

REFUSES = "Harmful request: yes\nResponse refusal: yes\nHarmful response: no"
COLUMNS = {"mmlu", "popqa", "truthfulqa", "bbh", "drop", "math", "gsm8k", "humaneval", "humaneval_plus"} | {
    "ifeval",
    "alpaca_eval",
    "safety",
}
LIMIT = 60  # the length-controlled win rate needs fifty


def stand_ins(root: Path, hub: Path) -> Path:
    """A data root with invented rows of what is not at hand; AlpacaEval's own rows beside made-up regression data."""
    for name in ("drop", "math"):
        write_repo(root, *test_text_benchmarks.DATA[name])
    for dataset, config, split, rows in test_safety_benchmarks.DATA.values():
        write_repo(root, dataset, {config: {split: rows}})
    test_popqa.write_root(root, sorted(test_popqa.MODULE.EXEMPLAR_IDS))
    shutil.copytree(hub / "tatsu-lab/alpaca_eval", root / "tatsu-lab/alpaca_eval")
    draw = random.Random(0)
    lines = ["model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline"]
    hard = [draw.gauss(0, 1) for _ in range(805)]
    for model in ("verbose", "concise"):
        lines += [f"{model},{draw.random():.4f},{i},{draw.gauss(0, 1):.4f},{hard[i]:.4f},False" for i in range(805)]
    path = root / "tatsu-lab/alpaca_eval/df_gamed.csv"
    path.parent.chmod(0o755)
    path.write_text("\n".join(lines) + "\n")
    return root


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.skipif(vllm_status()["usable"] == "no", reason=f"vLLM: {vllm_status()['problem']}")
def test_the_development_suite_from_checkpoint_to_average_with_a_real_judge_server(
    tmp_path: Path, hub_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = stand_ins(tmp_path / "root", hub_data)
    policy = make_scripted(tmp_path / "policy", "I think the answer is 4.")
    judge = make_scripted(tmp_path / "judge", REFUSES, runners_up=("m", "M"))
    asked = ("score", policy, "--limit", str(LIMIT), "--results", tmp_path / "results", "--threads", "2", "--json")
    asked += ("--data-root", root, "--data-root", hub_data, "--model", "hf", "--suite", "tulu3-dev")

    code, _, said = run(capsys, *asked)
    assert code == 2
    assert "7 benchmarks are scored by a judge, and none was given" in said
    assert "alpaca_eval" in said
    assert "wildjailbreak" in said
    assert "--skip-judged" in said

    with vllm_server(judge, "judge", tmp_path / "server.log") as url:
        judged = ("--judge", f"api:{url}", "--judge", f"safety_llm=api:{url}", "--judge-model", "judge")
        code, out, said = run(capsys, *asked, *judged)
        assert code == 0, said
        card = json.loads(out)
        # Nothing is asked again, of the checkpoint or of the judge.
        n_served = (tmp_path / "server.log").read_text().count("POST /v1")
        code, out, said = run(capsys, *asked, *judged, "--rejudge", "--tasks", "alpaca_eval,safety")
        n_probes = (tmp_path / "server.log").read_text().count("POST /v1") - n_served
    assert code == 0, said
    again = {r["benchmark"]: r for r in json.loads(out)["results"]}
    assert again == {r["benchmark"]: r for r in card["results"] if r["benchmark"] in again}
    assert len(again) == 7
    assert n_probes < 40
    check_card(card)

    code, out, said = run(capsys, *asked, "--skip-judged", "--tasks", "gsm8k,ifeval,safety")
    left = json.loads(out)
    assert code == 0, said
    assert {"alpaca_eval", "safety"} <= set(left["suite"]["missing"])
    assert left["average"] is None
    assert left["provenance"]["skipped"]["xstest"] == "no judge"

    code, out, said = run(capsys, "leaderboard", tmp_path / "results", "--format", "csv", "--allow-mixed")
    assert code == 0, said
    assert "safety" in out.splitlines()[0]


def check_card(card: dict[str, Any]) -> None:
    """The published table's columns, each with a value; judged as the scripted judge says."""
    assert set(card["suite"]["columns"]) == COLUMNS
    assert card["suite"]["missing"] == []
    assert card["suite"]["regime"] == "tulu3@v5+safety_llm"  # not the regime's own judge
    results = {r["benchmark"]: r for r in card["results"]}
    assert len(results) == 17
    assert all(r["value"] is not None for r in results.values()), {n: r["notes"] for n, r in results.items()}
    assert all(r["n_planned"] == len(r["scores"]) + len(r["failures"]) for r in results.values())
    assert not any(r["failures"] for r in results.values())
    assert 0 <= card["average"] <= 1
    # Every response was called a refusal: all that should be refused is, and nothing that should be answered.
    assert [results[n]["value"] for n in ("harmbench", "wildguardtest", "do_anything_now", "jailbreaktrigger")] == [
        1.0
    ] * 4
    assert results["wildjailbreak"]["value"] == 0.5
    assert results["xstest"]["value"] == pytest.approx(1 / 3)
    assert {r["judge"]["protocol"] for r in results.values() if r["judge"]} == {"safety_llm", "alpaca_eval"}
    assert results["alpaca_eval"]["judge"]["reads"] == "top_logprobs"
    # The first of two texts is likelier, whichever it is: the orders drawn by seed decide.
    assert results["humaneval"]["value"] == 0.0
    assert results["humaneval"]["n_planned"] == LIMIT
    assert card["provenance"]["grading_tools"]["humaneval"]["sandbox"] in ("bwrap", "landlock")


def unseen_stand_ins(root: Path) -> Path:
    for name in test_text_benchmarks.UNSEEN:
        write_repo(root, *test_text_benchmarks.DATA[name])
    rows = [test_code_benchmarks.hard(task_id=f"BigCodeBench/{n}", instruct_prompt=f"Task {n}.") for n in range(3)]
    write_repo(root, "bigcode/bigcodebench-hard", {"default": {"v0.1.2": rows}})
    made = (find_benchmark("href").folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    public = [row for row in map(json.loads, made) if row["category"] in DEV_TASKS]
    write_repo(root, "allenai/href", {"default": {"dev": public}})
    return root


@pytest.mark.slow
def test_the_unseen_suite_through_the_library_with_a_judge_in_this_process(tmp_path: Path) -> None:
    root = unseen_stand_ins(tmp_path / "root")
    policy = make_scripted(tmp_path / "policy", "Therefore, the answer is (A)")
    judge = make_scripted(tmp_path / "judge", "B.")
    suite, checkpoint = load_suite("tulu3-unseen"), open_checkpoint(policy)
    job = Job(
        suite,
        dict(suite.columns),
        CheckpointRef("policy", checkpoint.digest),
        policy,
        EngineSpec("hf", "asked for", "float32", options={"threads": 2}),
        ChatTemplate.from_checkpoint(policy).render,
        tmp_path / "results",
        (root,),
        offline=True,
        limit=20,
        judges={"href": lambda: open_judge(f"hf:{judge}", "href", options={"threads": 2})},
    )
    card = score(job)
    results = {result.benchmark: result for result in card.results}
    assert list(results) == list(suite.columns)
    assert all(r.n_planned == r.n + r.n_failed for r in results.values())
    for name in ("mmlu_pro", "gpqa", "agieval"):
        right = [i for i, value in results[name].scores.items() if value]
        assert 0 < len(right) < results[name].n  # A is sometimes right
        assert results[name].format_ok == 1.0
    assert results["bigcodebench_hard"].value == 0.0
    assert results["deepmind_math"].value == 0.0
    assert results["ifeval_ood"].n == 20
    href = results["href"]
    preferred = set(href.scores.values())
    assert preferred == {0.0, 1.0}, href.failures  # B is the candidate or the baseline, as the seeded order has it
    if find_spec("bert_score") is None:
        # Open QA is scored without a judge, by a package that is not here: the column is absent, and so is the average.
        assert href.value is None
        assert {href.categories[i] for i in href.failures} == {"Open QA"}
        assert card.average is None
        assert any("bert" in note for note in href.notes)
