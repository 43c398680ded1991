"""Training data before a stage trains: which reports are asked for, made, and obeyed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsuite.__main__ import main
from evalsuite.errors import UsageError
from evalsuite.gate.policy import Decontamination
from evalsuite.loop.data import Against, Given, check_data
from evalsuite.recipe import DataRule, load_recipe
from evalsuite.trainers.types import DataRef
from tests.toy import make_benchmark

REPOSITORY = Path(__file__).resolve().parents[3]
CLEAN = {"a": 0.0, "b": 0.0}
KNOWN = {"a": frozenset({"data-a"}), "b": frozenset[str]()}
REQUIRED = Against("house", KNOWN, Decontamination(required=True), ("--suite", "house.yaml"))
OPTIONAL = Against("house", KNOWN, Decontamination(required=False), ("--suite", "house.yaml"))


def given(folder: Path, text: str = '{"text": "a"}\n') -> Given:
    path = folder / "mix.jsonl"
    path.write_text(text)
    return Given(DataRef("mix.jsonl", sha256(text.encode()).hexdigest()), path)


def report(
    folder: Path,
    digest: str,
    rates: Mapping[str, float],
    actions: Mapping[str, str] | None = None,
    evals: Mapping[str, str] | None = None,
    **changes: Any,
) -> None:
    """What a scan leaves in a folder, by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = evals if evals is not None else {"a": "data-a", "b": "data-b"}
    raw = {
        "schema": "decontam/1",
        "complete": True,
        "training": [{"name": "mix.jsonl", "digest": digest, "path": "mix.jsonl"}],
        "evals": {name: {"digest": d, "kind": "development", "n": 100} for name, d in digests.items()},
        "rates": {digest: rates},
        "actions": {digest: actions or dict.fromkeys(rates, "none")},
    }
    (folder / "verdict.json").write_text(json.dumps(raw | changes))


def check(
    folder: Path, data: Given, against: Against | None = REQUIRED, rule: DataRule | None = None, scan: Any = None
) -> None:
    def never(arguments: Sequence[str]) -> int:
        raise AssertionError(arguments)

    check_data("sft", [data], against, folder / "results", rule or DataRule(), scan or never)


def refusal(*arguments: Any, **named: Any) -> str:
    with pytest.raises(UsageError) as caught:
        check(*arguments, **named)
    return str(caught.value)


def test_a_required_report_that_is_not_there_is_asked_for_with_the_command_to_type(tmp_path: Path) -> None:
    data = given(tmp_path)
    said = refusal(tmp_path, data)
    assert said.startswith("stage 'sft': the policy requires a decontamination report, and there is none of mix.jsonl")
    assert f"evalsuite decontam scan {data.path} --suite house.yaml (or in the recipe: decontam: {{run: true}})" in said
    check(tmp_path, data, OPTIONAL)  # nobody asks for one


@pytest.mark.parametrize("place", ["mix-house", "deep/er"])
def test_a_complete_report_without_hits_lets_the_stage_train(tmp_path: Path, place: str) -> None:
    data = given(tmp_path)
    report(tmp_path / "results" / "decontam" / place, data.ref.digest, CLEAN)
    check(tmp_path, data)


@pytest.mark.parametrize(
    ("changes", "lacks"),
    [
        ({"complete": False}, "none that is complete"),
        ({"rates": {"a": 0.0}}, "none that is complete"),  # b was not looked at, whatever it says
        ({"evals": {"a": "data-a"}}, "none"),  # a part of the suite
        ({"evals": {"a": "old data", "b": ""}}, "none"),
        ({"digest": "0" * 64}, "none"),  # of a file that this one was before
    ],
)
def test_a_report_that_the_gate_would_not_take_is_none_here_either(
    tmp_path: Path, changes: dict[str, Any], lacks: str
) -> None:
    data = given(tmp_path)
    facts = {"digest": data.ref.digest, "rates": CLEAN, **changes}
    report(tmp_path / "results" / "decontam" / "r", facts.pop("digest"), facts.pop("rates"), **facts)
    assert f"there is {lacks} of mix.jsonl" in refusal(tmp_path, data)


@pytest.mark.parametrize("against", [REQUIRED, OPTIONAL])
def test_data_over_the_limit_is_refused_with_how_to_clean_it(tmp_path: Path, against: Against) -> None:
    data = given(tmp_path)
    place = tmp_path / "results" / "decontam" / "r"
    report(place, data.ref.digest, {"a": 0.572, "b": 0.02}, {"a": "drop_or_clean", "b": "none"})
    said = refusal(tmp_path, data, against)
    # 2 % itself is not over the limit
    assert "mix.jsonl holds 57.2% of a (at most 2.0%): the gate would block whatever is trained on it" in said
    assert said.endswith(f"evalsuite decontam clean {place} -o mix-clean")


@pytest.mark.parametrize("against", [REQUIRED, OPTIONAL, None])
def test_data_that_any_report_says_to_drop_is_never_trained_on(tmp_path: Path, against: Against | None) -> None:
    data = given(tmp_path)
    reports = tmp_path / "results" / "decontam"
    report(reports / "dev", data.ref.digest, CLEAN)
    check(tmp_path, data, against)
    # A report on another suite: the policy's limit is not about it, its own action is.
    report(reports / "unseen", data.ref.digest, {"x": 0.3}, {"x": "drop"}, {"x": "data-x"})
    said = refusal(tmp_path, data, against)
    path = reports / "unseen" / "verdict.json"
    assert said == f"stage 'sft': {path} says to drop mix.jsonl: it holds items of x; train on other data"


def test_all_data_of_a_stage_is_told_at_once(tmp_path: Path) -> None:
    one, other = given(tmp_path), Given(DataRef("web.jsonl", "e" * 64), tmp_path / "web.jsonl")
    with pytest.raises(UsageError) as caught:
        check_data("sft", [one, other], REQUIRED, tmp_path / "results", DataRule())
    assert [line.split("none of ")[1].split()[0] for line in str(caught.value).splitlines()] == [
        "mix.jsonl",
        "web.jsonl",
    ]


# -- decontam: {run: true} --


def test_with_run_what_has_no_report_is_scanned_and_then_judged(tmp_path: Path) -> None:
    data = given(tmp_path)
    typed: list[list[str]] = []

    def scan(arguments: Sequence[str]) -> int:
        typed.append(list(arguments))
        report(Path(arguments[arguments.index("--out") + 1]), data.ref.digest, CLEAN)
        return 0

    rule = DataRule(run=True, select=("prompt", "answer"), scan="all")
    check(tmp_path, data, REQUIRED, rule, scan)
    out = tmp_path / "results" / "decontam" / f"mix-{data.ref.digest[:8]}-house"
    wanted = ["--suite", "house.yaml", "--select", "prompt", "--select", "answer", "--scan", "all", "--out", str(out)]
    assert typed == [[str(data.path), *wanted]]
    check(tmp_path, data, REQUIRED, rule)  # nothing is scanned twice


@pytest.mark.parametrize("code", [1, 3])
def test_what_a_scan_of_the_loops_own_found_counts_like_any_report(tmp_path: Path, code: int) -> None:
    data = given(tmp_path)

    def scan(arguments: Sequence[str]) -> int:
        rates = {"a": 0.5, "b": 0.0} if code == 1 else CLEAN
        report(Path(arguments[-1]), data.ref.digest, rates, complete=code == 1)
        return code

    said = refusal(tmp_path, data, REQUIRED, DataRule(run=True), scan)
    assert ("holds 50.0% of a" if code == 1 else "none that is complete") in said


@pytest.mark.parametrize("code", [2, 70, -9])
def test_a_scan_that_fails_ends_the_loop_with_its_command(tmp_path: Path, code: int) -> None:
    said = refusal(tmp_path, given(tmp_path), REQUIRED, DataRule(run=True), lambda arguments: code)
    assert f"failed with exit code {code}" in said
    assert "evalsuite decontam scan" in said


# -- through the command --


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy suite whose policy requires reports, and a program that would leave a trace."""
    make_benchmark(tmp_path / "benchmarks", "toy", 20)
    (tmp_path / "data.jsonl").write_text('{"text": "nothing of the kind"}\n')
    suite = {"suite": "toy", "regime": "toy@v1", "split": "development", "columns": {"toy": "toy"}}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    policy = {"version": 1, "suite": "toy", "method": {"looks": 1}, "samples": {"when": []}}
    policy |= {"decontamination": {"required": True}}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(folder: Path, gates: Sequence[Any] = ({},), **more: Any) -> list[str]:
    """Writes a recipe of stages with these gates, and returns how it is run."""
    code = "import pathlib; pathlib.Path('trained').touch()"
    options = {"command": [sys.executable, "-c", code], "watch": "{out}", "pattern": "none-(?P<step>\\d+)"}
    stages = [
        {"name": f"s{i}", "trainer": "exec", "data": "data.jsonl", "options": options, "gate": gate}
        for i, gate in enumerate(gates)
    ]
    about = {"suite": "suite.yaml", "policy": "policy.yaml", "bootstrap": True}
    content = {"schema": 1, "name": "r", "gate": about, "stages": stages, **more}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return ["loop", "recipe.yaml", "--benchmarks", "benchmarks", "--model", "fake"]


@pytest.mark.parametrize("gates", [[{}], [False, {}]])
def test_the_command_refuses_unchecked_data_before_anything_is_trained(
    setting: Path, capsys: pytest.CaptureFixture[str], gates: list[Any]
) -> None:
    # What an ungated stage learns is judged after the next one: the same report is asked of its data.
    assert main(recipe(setting, gates)) == 2
    said = capsys.readouterr().err
    assert "stage 's0': the policy requires a decontamination report" in said
    assert "evalsuite decontam scan data.jsonl --suite suite.yaml --benchmarks benchmarks" in said
    assert not (setting / "trained").exists()
    assert not (setting / "results" / "loops" / "r" / "loop.jsonl").exists()


def test_the_command_trains_on_data_with_a_report(setting: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = sha256((setting / "data.jsonl").read_bytes()).hexdigest()
    report(setting / "results" / "decontam" / "r", digest, {"toy": 0.0}, evals={"toy": ""})
    assert main(recipe(setting)) == 2  # the program trains and leaves no checkpoint
    assert "ended without a checkpoint" in capsys.readouterr().err
    assert (setting / "results" / "loops" / "r" / "loop.jsonl").exists()


def test_run_without_any_gate_is_a_question_and_no_gate_no_requirement(
    setting: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(recipe(setting, [False], decontam={"run": True})) == 2
    assert "stage 's0': decontam.run, but no gate judges what it trains" in capsys.readouterr().err
    assert main(recipe(setting, [False])) == 2
    assert "ended without a checkpoint" in capsys.readouterr().err


def test_a_stage_says_over_the_recipe_how_its_data_is_scanned(setting: Path) -> None:
    recipe(setting, [{}, {}], decontam={"run": True, "select": "prompt"})
    written = yaml.safe_load((setting / "recipe.yaml").read_text())
    written["stages"][1]["decontam"] = {"scan": "all", "run": False}
    (setting / "recipe.yaml").write_text(yaml.safe_dump(written))
    first, second = load_recipe(setting / "recipe.yaml").stages
    assert first.decontam == DataRule(run=True, select="prompt")
    assert second.decontam == DataRule(run=False, select="prompt", scan="all")


@pytest.mark.slow
@pytest.mark.parametrize("held", [False, True])
def test_the_loop_has_its_data_scanned_for_real(
    setting: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("DECONTAM_CACHE", str(setting / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # 20 questions "What is 7 + 7?": 6 spaCy tokens are too few for a window, so they are made longer.
    verify = setting / "benchmarks" / "toy" / "verify.py"
    asked = 'f"Somebody has {i} apples in a bag and {i} more in a box. What is {i} + {i}?"'
    verify.write_text(verify.read_text().replace('f"What is {i} + {i}?"', asked))
    texts = ["A text about something else that nobody asks of anybody at all."] * 30
    if held:
        texts[3] = "Somebody has 7 apples in a bag and 7 more in a box. What is 7 + 7?"
    lines = [json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n" for text in texts]
    (setting / "data.jsonl").write_text("".join(lines))
    code = main(recipe(setting, decontam={"run": True}))
    said = capfd.readouterr().err
    assert code == 2, said
    (verdict,) = (setting / "results" / "decontam").rglob("verdict.json")
    told = json.loads(verdict.read_text())
    digest = sha256((setting / "data.jsonl").read_bytes()).hexdigest()
    assert [each["digest"] for each in told["training"]] == [digest]
    assert told["complete"] is True
    assert told["rates"][digest] == {"toy": 0.05 if held else 0.0}  # 1 of 20
    if held:
        assert "stage 's0': data.jsonl holds 5.0% of toy (at most 2.0%)" in said
        assert (verdict.parent / "clean_ids" / "toy.txt").read_text() == "q7\n"
        assert not (setting / "trained").exists()
    else:
        assert "ended without a checkpoint" in said
