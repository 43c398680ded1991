"""Plans are byte for byte the same on every run, and lm-eval's own metrics grade what has no verifier of ours."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evalsuite import grading
from evalsuite.benchmark import find_benchmark, read_benchmark
from evalsuite.data import resolve_all
from evalsuite.errors import BenchmarkError, DataError
from evalsuite.harness import build_plan, datasets_of, documents
from evalsuite.models.fake import FakeModel
from evalsuite.plan import Plan, Selection
from evalsuite.types import Failed, GenerateRequest, LoglikRequest, Response
from tests.toy import make_benchmark

STOCK = """
task: stock
dataset_path: mine/stock
dataset_name: default
test_split: test
fewshot_split: train
output_type: generate_until
doc_to_text: "Q: {{question}}"
doc_to_target: "{{answer}}"
num_fewshot: 2
repeats: REPEATS
generation_kwargs: {until: ["."], max_gen_toks: 8, KWARGS}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1, split: development, chat: false, metric: exact_match, id: [question]}
"""


def plan_of(name: str, data: Path, selection: Selection | None = None, render: Any = None) -> Plan:
    benchmark = find_benchmark(name)
    resolved = resolve_all(datasets_of(benchmark), [data], offline=True)
    return build_plan(benchmark, resolved, render or FakeModel().render, selection or Selection())


@pytest.fixture
def stock(tmp_path: Path) -> Any:
    """Makes a benchmark of plain lm-eval YAML (default sampler, no verify.py) and plans it."""
    data = tmp_path / "data" / "mine" / "stock"
    (data / "default").mkdir(parents=True)
    parts = "".join(f"  - split: {s}\n    path: default/{s}.jsonl\n" for s in ("train", "test"))
    (data / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{parts}---\n")
    for split, n in (("train", 9), ("test", 12)):
        rows = "".join(f'{{"question": "{split} {i}?", "answer": "{i}"}}\n' for i in range(n))
        (data / "default" / f"{split}.jsonl").write_text(rows)

    def make(selection: Selection | None = None, repeats: int = 1, kwargs: str = "do_sample: false") -> Plan:
        folder = tmp_path / "benchmarks" / "stock"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stock.yaml").write_text(STOCK.replace("REPEATS", str(repeats)).replace("KWARGS", kwargs))
        benchmark = read_benchmark(folder)
        resolved = resolve_all(datasets_of(benchmark), [tmp_path / "data"], offline=True)
        return build_plan(benchmark, resolved, None, selection or Selection())

    return make


def texts(plan: Plan) -> dict[tuple[str, int], str]:
    return {
        (p.sample, p.number): (p.request.prompt if isinstance(p.request, GenerateRequest) else p.request.context).text
        for p in plan.planned
    }


def test_a_part_of_a_benchmark_is_asked_what_the_whole_is_asked_also_with_random_shots(stock: Any) -> None:
    whole = texts(stock())
    part = texts(stock(Selection(limit=5)))
    assert len(part) == 5
    # lm-eval's default sampler draws on from document to document; each prompt has its own two shots.
    assert len(set(whole.values())) == 12
    assert all(whole[key] == text for key, text in part.items())


@pytest.mark.parametrize("name", ["gsm8k", "mmlu_mc", "bbh"])
def test_a_part_of_a_real_benchmark_is_asked_what_the_whole_is_asked(name: str, hub_data: Path) -> None:
    whole = texts(plan_of(name, hub_data))
    part = texts(plan_of(name, hub_data, Selection(limit=40)))
    assert len(part) == 40
    assert all(whole[key] == text for key, text in part.items())


def test_a_folder_without_verifier_is_graded_by_lm_evals_own_metric(stock: Any) -> None:
    plan = stock()
    answers = {
        (p.sample, 0): Response(plan.docs[p.sample]["answer"] if i % 3 else "no") for i, p in enumerate(plan.planned)
    }
    result = grading.grade(plan, answers)
    assert result.value == pytest.approx(8 / 12)


def test_repeats_are_numbered_and_sampled_with_seeds_of_their_own(stock: Any) -> None:
    plan = stock(repeats=3, kwargs="temperature: 0.7, do_sample: true")
    numbers = Counter(p.sample for p in plan.planned)
    assert set(numbers.values()) == {3}
    seeds = [p.request.sampling.seed for p in plan.planned]
    assert len(set(seeds)) == 36
    again = stock(repeats=3, kwargs="temperature: 0.7, do_sample: true")
    assert [p.request.sampling.seed for p in again.planned] == seeds


def test_an_unknown_generation_setting_is_an_error(stock: Any) -> None:
    with pytest.raises(BenchmarkError, match=r"generation_kwargs\.temprature: unknown key"):
        stock(kwargs="temprature: 0.7")


def test_a_choice_keeps_its_options_together(hub_data: Path) -> None:
    plan = plan_of("mmlu_mc", hub_data, Selection(limit=10))
    assert all(isinstance(p.request, LoglikRequest) and len(p.request.options) == 4 for p in plan.planned)
    assert set(plan.categories) == set(plan.docs)


def test_samples_that_the_data_does_not_have_are_named(hub_data: Path) -> None:
    with pytest.raises(DataError, match="1 ids are not in the data, the first is 'nobody'"):
        plan_of("gsm8k", hub_data, Selection(samples=frozenset({"nobody"})))


def test_sample_ids_are_unique_and_do_not_depend_on_the_selection(hub_data: Path) -> None:
    for name in ("gsm8k", "bbh", "mmlu_cot", "truthfulqa", "ifeval", "math500"):
        benchmark = find_benchmark(name)
        docs = documents(benchmark, resolve_all(datasets_of(benchmark), [hub_data], offline=True))
        assert len(docs) == benchmark.meta.n_expected


def test_failed_and_missing_answers_are_failures_with_their_reason(tmp_path: Path) -> None:
    make_benchmark(tmp_path, "choose", 4, choices=True)
    plan = build_plan(read_benchmark(tmp_path / "choose"), {}, None)
    first, second, *_ = [p.sample for p in plan.planned]
    result = grading.grade(plan, {(first, 0): Failed("context longer than the window of 8 tokens")})
    assert result.failures[first] == "context longer than the window of 8 tokens"
    assert result.failures[second] == "not answered"
    assert (result.n_planned, result.n, result.n_failed, result.n_prompt_too_long) == (4, 0, 4, 1)
    assert result.value is None
