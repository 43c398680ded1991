"""The code benchmarks: cases, reference solutions of the real rows, prompts, samples, a hub for the absent data."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalsuite.benchmark import find_benchmark
from evalsuite.checking import check_benchmark
from evalsuite.errors import DataError
from evalsuite.sandbox import Policy, SandboxError, levels, pool, require, use
from evalsuite.types import Score
from tests.benchmarks.test_folders import ROOT, build, load, rows, turns
from tests.hub import serve, write_repo

NAMES = ("humaneval", "humaneval_plus", "mbpp", "bigcodebench_hard")
SLOW_ROWS = {"HumanEval/15", "HumanEval/130", "HumanEval/139"}  # 5 to 13 CPU-seconds each


@pytest.fixture(scope="module", params=["bwrap", "landlock"])
def _level(request: pytest.FixtureRequest) -> Iterator[None]:
    means, why = levels.probe(request.param)
    if means is None:
        pytest.skip(f"{request.param} does not work here: {why}")
    use(Policy(level=request.param))
    yield
    use(Policy())
    pool.close_all()


@pytest.fixture(scope="module")
def _sandbox() -> None:
    try:
        require()
    except SandboxError as error:
        pytest.skip(str(error))


def module_of(name: str) -> Any:
    return find_benchmark(name).module


# -- cases and solutions -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_sandbox")
@pytest.mark.parametrize("name", NAMES)
def test_hand_written_cases_score_as_written(name: str) -> None:
    cases = rows(find_benchmark(name).folder / "cases.jsonl")
    assert len(cases) >= 10
    scores = module_of(name).verify_many([(case["response"], case["doc"]) for case in cases])
    wrong = [(c["note"], s.why) for c, s in zip(cases, scores, strict=True) if s.value != c["value"]]
    assert wrong == []
    assert all(score.why for score in scores if score.value == 0.0)


@pytest.mark.usefixtures("_sandbox")
@pytest.mark.parametrize("name", NAMES)
def test_evalsuite_check_finds_nothing_wrong_without_data(name: str) -> None:
    assert check_benchmark(find_benchmark(name), roots=[]).problems == ()


def real(name: str, hub: Path) -> list[dict[str, Any]]:
    if name == "humaneval":
        return rows(hub / "openai/openai_humaneval/openai_humaneval/test.jsonl")
    parquet = pytest.importorskip("pyarrow.parquet")
    if name == "humaneval_plus":
        return list(parquet.read_table(hub / "evalplus/humanevalplus/default/test.parquet").to_pylist())
    splits = ("test", "train", "validation", "prompt")
    read = [parquet.read_table(hub / f"google-research-datasets/mbpp/full/{s}.parquet").to_pylist() for s in splits]
    return [row for part in read for row in part]


def failing(name: str, docs: list[dict[str, Any]], *quirks: frozenset[str]) -> dict[str, str]:
    module = module_of(name)
    scores: list[Score] = module.verify_many([(module.gold_response(doc), doc) for doc in docs], *quirks)
    return {doc["task_id"]: score.why for doc, score in zip(docs, scores, strict=True) if score.value != 1.0}


@pytest.mark.usefixtures("_level")
def test_all_canonical_solutions_of_humaneval_pass(hub_data: Path) -> None:
    docs = real("humaneval", hub_data)
    assert len(docs) == 164
    assert failing("humaneval", docs) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("_level")
def test_all_reference_solutions_of_mbpp_pass(hub_data: Path) -> None:
    docs = real("mbpp", hub_data)
    assert len(docs) == 974
    assert failing("mbpp", docs) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("_sandbox")
def test_all_canonical_solutions_of_humaneval_plus_pass_once_the_swapped_test_is_repaired(hub_data: Path) -> None:
    docs = real("humaneval_plus", hub_data)
    assert len(docs) == 164
    assert failing("humaneval_plus", docs, frozenset()) == {}


@pytest.mark.usefixtures("_level")
def test_the_swapped_test_of_humaneval_plus_fails_under_plain_python_too(hub_data: Path, tmp_path: Path) -> None:
    docs = [doc for doc in real("humaneval_plus", hub_data) if doc["task_id"] in ("HumanEval/32", "HumanEval/33")]
    assert list(failing("humaneval_plus", docs)) == ["HumanEval/32"]
    assert find_benchmark("humaneval_plus").meta.known_rejects == 1
    file = tmp_path / "plain.py"
    file.write_text(f"{docs[0]['prompt']}{docs[0]['canonical_solution']}{docs[0]['test']}\ncheck(find_zero)\n")
    assert subprocess.run([sys.executable, str(file)], capture_output=True, check=False).returncode == 1


@pytest.mark.usefixtures("_sandbox")
def test_answers_of_other_rows_do_not_pass(hub_data: Path) -> None:
    module, docs = module_of("humaneval"), real("humaneval", hub_data)
    pairs = [(f"    return {value}\n", doc) for doc, value in zip(docs, ["None", "[]", "0", "True"] * 41, strict=True)]
    assert sum(score.value for score in module.verify_many(pairs)) == 0


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["humaneval", "humaneval_plus"])
def test_the_prefilled_phrase_stands_in_the_users_turn_as_well(name: str, hub_data: Path) -> None:
    # Its digest is the published one: the phrase is the upstream's, letter for letter.
    phrase = module_of(name).PREFILL
    assert hashlib.sha256(phrase.encode()).hexdigest()[:16] == "d4c4e5b0f1cc4b5e"
    benchmark = find_benchmark(name)
    path = hub_data / benchmark.tasks[0].dataset  # type: ignore[operator]
    [instance] = build(benchmark, load(name, path)[name], limit=1)
    doc = real(name, hub_data)[0]
    assert turns(instance) == [("user", doc["prompt"] + phrase), ("assistant", phrase)]
    assert instance.repeats == 20
    asked = instance.args[1]
    assert (asked["temperature"], asked["top_p"], asked["do_sample"]) == (0.8, 0.95, True)
    assert asked["max_gen_toks"] == 999999
    assert asked["until"] == ["\nclass", "\nif", "\nprint", "\n#", "\n```", "\n```\n\n", "<|eot_id|>"]


def test_each_of_the_twenty_samples_has_its_own_seed(tmp_path: Path) -> None:
    from evalsuite.data import resolve_all
    from evalsuite.harness import build_plan, datasets_of

    write_humaneval(tmp_path)
    benchmark = find_benchmark("humaneval")
    resolved = resolve_all(datasets_of(benchmark), [tmp_path], offline=True)
    plan = build_plan(benchmark, resolved, lambda messages, add_generation_prompt=True: json.dumps(messages))
    assert [p.number for p in plan.planned] == list(range(20))
    assert len({p.request.sampling.seed for p in plan.planned}) == 20  # type: ignore[union-attr]


def write_humaneval(root: Path) -> dict[str, Any]:
    doc: dict[str, Any] = rows(find_benchmark("humaneval").folder / "cases.jsonl")[0]["doc"]
    row = doc | {"canonical_solution": "    return sum(numbers)\n"}
    write_repo(root, "openai/openai_humaneval", {"openai_humaneval": {"test": [row]}})
    return row


@pytest.mark.slow
@pytest.mark.usefixtures("_sandbox")
def test_stock_lm_eval_keeps_all_samples_and_reports_both_numbers(tmp_path: Path) -> None:
    write_humaneval(tmp_path / "data")
    command = [sys.executable, "-m", "lm_eval", "run", "--include_path", str(ROOT / "benchmarks")]
    command += ["--tasks", "humaneval", "--model", "dummy", "--output_path", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path / "data", env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    [result] = (tmp_path / "out").rglob("results*.json")
    found = json.loads(result.read_text())["results"]["humaneval"]
    assert (found["pass@10,all"], found["pass@1,all"]) == (0.0, 0.0)


def test_an_mbpp_prompt_shows_the_asserts_and_opens_a_fence(hub_data: Path) -> None:
    benchmark = find_benchmark("mbpp")
    [instance] = build(benchmark, load("mbpp", hub_data / "google-research-datasets/mbpp")["mbpp"], limit=1)
    [(role, text), prefill] = turns(instance)
    doc = real("mbpp", hub_data)[0]
    assert role == "user"
    assert doc["text"] in text
    assert all(test in text for test in doc["test_list"])
    assert prefill == ("assistant", "```python\n")


# -- BigCodeBench-Hard, whose data is not here -------------------------------------------------------------------------

HARD = {
    "complete_prompt": "",
    "doc_struct": "{}",
    "entry_point": "task_func",
    "code_prompt": "import collections\nimport numpy as np\ndef task_func(values):",
    "canonical_solution": "    return float(np.mean(values)), dict(collections.Counter(values))",
    "instruct_prompt": "Give the mean of the values and how often each occurs.",
    "test": (
        "import unittest\nclass TestCases(unittest.TestCase):\n"
        "    def test_mean(self):\n        self.assertEqual(task_func([1, 3, 3, 1]), (2.0, {1: 2, 3: 2}))\n"
    ),
}
RUN = """
import json, sys
from evalsuite.benchmark import find_benchmark
from evalsuite.data import go_offline_when_local, resolve_all
from evalsuite.harness import build_plan, datasets_of
benchmark = find_benchmark("bigcodebench_hard")
found = resolve_all(datasets_of(benchmark), (), offline=False)
go_offline_when_local(found.values())
plan = build_plan(benchmark, found, lambda messages, add_generation_prompt=True: json.dumps(messages))
module = benchmark.module
scores = module.verify_many([(module.gold_response(doc), doc) for doc in plan.docs.values()])
print(json.dumps([list(plan.docs), [s.value for s in scores], plan.planned[0].request.prompt.text, list(plan.notes)]))
"""


def hard(**changes: Any) -> dict[str, Any]:
    return {"task_id": "BigCodeBench/0", **HARD, "libs": "['numpy', 'collections']", **changes}


@pytest.mark.slow
@pytest.mark.usefixtures("_sandbox")
def test_bigcodebench_is_loaded_from_a_hub_and_its_golds_pass(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    made = [hard(), hard(task_id="BigCodeBench/1", instruct_prompt="Another.")]
    with serve(tmp_path / "root") as hub:
        write_repo(hub.root, "bigcode/bigcodebench-hard", {"default": {"v0.1.2": made, "v0.1.1": made[:1]}})
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    ids, values, prompt, notes = json.loads(done.stdout.splitlines()[-1])
    assert ids == ["BigCodeBench/0", "BigCodeBench/1"]
    assert values == [1.0, 1.0]
    assert HARD["instruct_prompt"] in prompt
    assert module_of("bigcodebench_hard").PREFILL in prompt or "```python" in prompt
    assert "partial dataset 2/148" in notes
    assert "prompt: paraphrased" in notes


def test_a_missing_library_stops_the_run_before_anything_is_generated() -> None:
    datasets = pytest.importorskip("datasets")
    module = module_of("bigcodebench_hard")
    assert module.libraries(hard(libs=["sklearn", "os", "matplotlib.pyplot"])) == ("matplotlib", "sklearn")
    made = datasets.Dataset.from_list([hard(), hard(task_id="BigCodeBench/7", libs="['no_such_library', 're']")])
    with pytest.raises(DataError, match=r"1 libraries that are not installed \(no_such_library; BigCodeBench/7 needs"):
        module.docs(made)


@pytest.mark.usefixtures("_sandbox")
def test_a_solution_that_changes_unittest_for_good_fails() -> None:
    module = module_of("bigcodebench_hard")
    cheat = "def task_func(values):\n    import unittest\n    unittest.{} = lambda *a: None\n    return 1"
    names = ("TestResult.addFailure", "case._Outcome.testPartExecutor", "TestCase.assertEqual")
    scores = module.verify_many([(cheat.format(name), hard()) for name in names])
    assert [score.value for score in scores] == [0.0] * 3
    assert scores[0].why.startswith("Tampered: the program changed unittest")
