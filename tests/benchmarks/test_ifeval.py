"""The folder benchmarks/ifeval: its cases, its made-up gold answers on the real rows, and its four metrics."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evalsuite.benchmark import Benchmark, find_benchmark
from evalsuite.errors import DataError
from evalsuite.types import Ratio
from evalsuite.verify.constraints import IFEVAL_IDS
from tests.evalsuite.verify.constraints.oracle import cases, official

# The request that must be repeated holds the very commas or words that are forbidden.
CONTRADICTORY = {"374", "1627", "3369", "3371", "3718"}


@pytest.fixture(scope="module")
def ifeval() -> Benchmark:
    return find_benchmark("ifeval")


@pytest.fixture(scope="module")
def rows(hub_data: Path) -> list[dict[str, Any]]:
    path = hub_data / "google/IFEval/default/train.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def doc(*asks: tuple[str, dict[str, Any]], key: int = 1) -> dict[str, Any]:
    return {"key": key, "prompt": "?", "instruction_id_list": [a[0] for a in asks], "kwargs": [a[1] for a in asks]}


def test_the_settings_are_tulu_3s(ifeval: Benchmark) -> None:
    config = ifeval.tasks[0].config
    assert config["generation_kwargs"] == {"until": [], "max_gen_toks": 2048, "do_sample": False, "temperature": 0.0}
    assert (config["num_fewshot"], ifeval.meta.chat) == (0, True)
    assert ifeval.meta.metric == "prompt_level_loose_acc"
    assert ifeval.module is not None
    assert ifeval.module.prompt({"prompt": " as it\nstands "}) == " as it\nstands "


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["note"])
def test_each_case_gets_its_verdicts(ifeval: Benchmark, case: dict[str, Any]) -> None:
    assert ifeval.module is not None
    score = ifeval.module.verify(case["response"], case["doc"])
    assert (score.value, score.parts["prompt_level_strict_acc"]) == (case["value"], case["strict"])
    assert bool(score.why) == (case["value"] == 0)


def test_each_case_gets_lm_evals_verdicts_too() -> None:
    for case in cases():
        ids, kwargs = case["doc"]["instruction_id_list"], case["doc"]["kwargs"]
        if any(k.get("letter") == "#" for k in kwargs):
            continue  # upstream draws a random letter in its place
        strict, loose = official(case["response"], ids, kwargs)
        assert (all(loose), all(strict)) == (case["value"] == 1, case["strict"] == 1), case


def test_every_id_has_a_passing_and_a_failing_case() -> None:
    found = defaultdict(set)
    for case in cases():
        if len(case["doc"]["instruction_id_list"]) == 1:
            found[case["doc"]["instruction_id_list"][0]].add(case["value"])
    assert dict(found) == {id: {0.0, 1.0} for id in IFEVAL_IDS}


def test_the_four_metrics_on_six_rows(ifeval: Benchmark) -> None:
    comma, title = ("punctuation:no_comma", {}), ("detectable_format:title", {})
    quoted = ("startend:quotation", {})
    table = [  # (row, response, strict hits, loose hits)
        (doc(comma), "none", 1, 1),
        (doc(comma), "Sure, so:\nnone", 0, 1),
        (doc(comma, title), "<<T>>, x", 1, 1),
        (doc(comma, title), "Sure, so:\n<<T>>", 1, 2),
        (doc(comma, title, quoted), '"<<T>>"', 3, 3),
        (doc(comma, title, quoted), "a, b", 0, 0),
    ]
    module = ifeval.module
    assert module is not None
    results = [module.process_results(row, [response]) for row, response, *_ in table]
    assert {name: tuple(r[name] for r in results) for name in results[0]} == {
        "prompt_level_loose_acc": (1, 1, 0, 1, 1, 0),
        "prompt_level_strict_acc": (1, 0, 0, 0, 1, 0),
        "inst_level_loose_acc": tuple(Ratio(loose, len(row["kwargs"])) for row, _, _, loose in table),
        "inst_level_strict_acc": tuple(Ratio(strict, len(row["kwargs"])) for row, _, strict, _ in table),
    }
    assert module.micro([r["inst_level_loose_acc"] for r in results]) == 8 / 12  # pooled, not the mean of the fractions
    assert module.micro([r["inst_level_strict_acc"] for r in results]) == 6 / 12


def test_parts_hold_both_modes_of_every_id_of_the_row(ifeval: Benchmark) -> None:
    assert ifeval.module is not None
    capital = "change_case:capital_word_frequency"
    row = doc(
        (capital, {"capital_frequency": 1, "capital_relation": "at least"}),
        (capital, {"capital_frequency": 2, "capital_relation": "less than"}),
    )
    score = ifeval.module.verify("NASA and ESA", row)
    assert score.parts[f"{capital}/loose"] == Ratio(1, 2)
    assert score.parts[f"{capital}/strict"] == Ratio(1, 2)
    assert score.why == f"{capital}: words in capitals: 2, asked for less than 2"


def test_a_bad_row_is_refused_before_anything_is_asked_of_a_model(ifeval: Benchmark) -> None:
    assert ifeval.module is not None
    with pytest.raises(DataError, match=r"row 9: no instruction id 'keywords:existense'; did you mean"):
        ifeval.module.process_docs([doc(("keywords:existense", {"keywords": ["a"]}), key=9)])


def gold_scores(ifeval: Benchmark, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    assert ifeval.module is not None
    return {str(row["key"]): ifeval.module.verify(ifeval.module.gold_response(row), row) for row in rows}


def test_every_row_accepts_the_answer_that_was_made_up_for_it(ifeval: Benchmark, rows: list[dict[str, Any]]) -> None:
    scores = gold_scores(ifeval, rows)
    assert len(scores) == ifeval.meta.n_expected == 541
    assert sum(s.parts["inst_level_loose_acc"].of for s in scores.values()) == 834
    assert {key for key, s in scores.items() if s.value < 1} == set()
    assert {key for key, s in scores.items() if s.parts["prompt_level_strict_acc"] < 1} == CONTRADICTORY


def test_rows_that_datasets_filled_with_nulls_are_judged_the_same(
    ifeval: Benchmark, rows: list[dict[str, Any]]
) -> None:
    names = {name for row in rows for kwargs in row["kwargs"] for name in kwargs}
    module = ifeval.module
    assert module is not None
    for row in rows[:60]:
        filled = [{name: kwargs.get(name) for name in names} for kwargs in row["kwargs"]]
        filled = [{k: float(v) if type(v) is int else v for k, v in kwargs.items()} for kwargs in filled]
        other = {**row, "kwargs": filled}
        assert module.gold_response(other) == module.gold_response(row)
        for text in (module.gold_response(row), "One, two."):
            assert module.verify(text, other) == module.verify(text, row)


def test_a_fresh_interpreter_without_a_network_scores_the_rows(hub_data: Path) -> None:
    code = """if True:
        import json, socket, sys
        def refuse(*a, **k): raise OSError("no network here")
        socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
        from evalsuite.benchmark import find_benchmark
        module = find_benchmark("ifeval").module
        rows = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")][:100]
        print(sum(module.verify(module.gold_response(row), row).value for row in rows))
        assert not {"nltk", "lm_eval", "datasets", "torch"} & set(sys.modules)
    """
    path = hub_data / "google/IFEval/default/train.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "100.0\n"


@pytest.mark.slow
def test_541_answers_are_judged_in_a_few_seconds(ifeval: Benchmark, rows: list[dict[str, Any]], hub_data: Path) -> None:
    baseline = hub_data / "tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline"
    written = [json.loads(line)["output"] for path in baseline.glob("*.jsonl") for line in path.open(encoding="utf-8")]
    assert ifeval.module is not None
    began = time.process_time()
    for row, text in zip(rows, written, strict=False):
        ifeval.module.verify(text, row)
    assert time.process_time() - began < 6  # about one second on an idle core; lm-eval's checks take 5.8
