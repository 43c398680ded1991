"""What every folder of the first Tülu 3 benchmarks promises: cases, golds on the real rows, generated files, prompts.

Prompts of real rows are held by their digest, not by their text: third-party rows are not copied into this project.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evalsuite import exemplars
from evalsuite.benchmark import Benchmark, find_benchmark
from evalsuite.checking import check_benchmark

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("gsm8k", "mmlu_cot", "mmlu_mc", "truthfulqa", "popqa", "bbh", "math500")
REPAIRED: frozenset[str] = frozenset()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def mmlu_rows(hub: Path, split: str = "test") -> list[dict[str, Any]]:
    parquet = pytest.importorskip("pyarrow.parquet")
    found: list[dict[str, Any]] = parquet.read_table(hub / f"cais/mmlu/all/{split}.parquet").to_pylist()
    return found


def bbh_rows(hub: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(hub.glob("lukaemon/bbh/*/test.jsonl")):
        yield from ({**row, "subtask": path.parent.name} for row in rows(path))


# -- cases and golds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_hand_written_cases_score_as_written(name: str) -> None:
    benchmark = find_benchmark(name)
    cases = rows(benchmark.folder / "cases.jsonl")
    assert len(cases) >= 4
    for case in cases:
        score = benchmark.module.verify(case.get("totals", case.get("response")), case["doc"])  # type: ignore[union-attr]
        assert (score.value, score.extracted) == (pytest.approx(case["value"]), case["extracted"]), case["note"]
        assert {k: score.parts[k] for k in case.get("parts", {})} == case.get("parts", {}), case["note"]


@pytest.mark.parametrize("name", NAMES)
def test_a_case_that_is_right_and_one_that_is_wrong_are_both_there(name: str) -> None:
    values = {case["value"] for case in rows(find_benchmark(name).folder / "cases.jsonl")}
    assert {0.0, 1.0} & values
    assert min(values) < 0.5 <= max(values)


@pytest.mark.parametrize(
    ("name", "read", "n", "rejected"),
    [
        ("gsm8k", lambda hub: rows(hub / "openai/gsm8k/main/test.jsonl"), 1319, 0),
        ("gsm8k", lambda hub: rows(hub / "openai/gsm8k/main/train.jsonl"), 7473, 0),
        ("mmlu_cot", mmlu_rows, 14042, 0),
        ("mmlu_mc", mmlu_rows, 14042, 0),
        ("truthfulqa", lambda hub: rows(hub / "truthfulqa/truthful_qa/multiple_choice/validation.jsonl"), 817, 0),
        ("popqa", lambda hub: rows(hub / "akariasai/PopQA/default/test.jsonl"), None, 0),
        ("bbh", bbh_rows, 6511, 18),
        ("math500", lambda hub: rows(hub / "HuggingFaceH4/MATH-500/default/test.jsonl"), 500, 0),
    ],
)
def test_golds_of_the_real_rows_are_accepted(
    name: str, read: Callable[[Path], Any], n: int | None, rejected: int, hub_data: Path
) -> None:
    benchmark = find_benchmark(name)
    module: Any = benchmark.module
    gold = module.gold_response if hasattr(module, "gold_response") else module.gold_totals
    docs = list(read(hub_data))
    wrong = [doc for doc in docs if module.verify(gold(doc), doc).value < 1]
    assert n is None or len(docs) == n
    assert len(wrong) == rejected == benchmark.meta.known_rejects


def test_the_golds_that_the_bbh_ladder_rejects_are_the_known_ones(hub_data: Path) -> None:
    module: Any = find_benchmark("bbh").module
    docs = list(bbh_rows(hub_data))
    rejected: dict[str, int] = {}
    for doc in docs:
        if not module.verify(module.gold_response(doc), doc).value:
            rejected[doc["subtask"]] = rejected.get(doc["subtask"], 0) + 1
    # Apostrophes in words to sort, and answers to letter questions that are no letter.
    assert rejected == {"word_sorting": 15, "ruin_names": 2, "movie_recommendation": 1}
    assert all(module.verify(module.gold_response(doc), doc, extraction="strict").value for doc in docs)


def test_every_truthfulqa_mc1_option_is_an_mc2_option(hub_data: Path) -> None:
    docs = rows(hub_data / "truthfulqa/truthful_qa/multiple_choice/validation.jsonl")
    assert all(set(d["mc1_targets"]["choices"]) <= set(d["mc2_targets"]["choices"]) for d in docs)
    assert sum(len(d["mc2_targets"]["choices"]) for d in docs) == 6204


def test_math_golds_are_accepted_without_quirks_by_the_minerva_score_too(hub_data: Path) -> None:
    module: Any = find_benchmark("math500").module
    docs = rows(hub_data / "HuggingFaceH4/MATH-500/default/test.jsonl")
    parts = [module.verify(module.gold_response(doc), doc, REPAIRED).parts["exact_match"] for doc in docs]
    assert sum(parts) == 500


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_evalsuite_check_finds_nothing_wrong_without_data(name: str) -> None:
    finding = check_benchmark(find_benchmark(name), roots=[])
    assert finding.problems == ()


@pytest.mark.parametrize("name", ["bbh", "mmlu_mc"])
def test_the_generated_files_are_what_the_generator_writes(name: str) -> None:
    folder = ROOT / "benchmarks" / name
    spec = importlib.util.spec_from_file_location(f"generate_{name}", folder / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {p.name: p.read_text(encoding="utf-8") for p in folder.glob("*.yaml")} == module.files()


@pytest.mark.parametrize("name", NAMES)
def test_the_quirks_of_the_yaml_are_those_the_verifier_reproduces(name: str) -> None:
    benchmark = find_benchmark(name)
    in_grader = getattr(benchmark.module, "QUIRKS", frozenset())
    elsewhere = {"popqa-self-exemplar"}  # a quirk of the data, not of the grader
    assert set(benchmark.meta.quirks) - elsewhere == set(in_grader)


def test_our_folders_win_over_lm_evals_tasks_of_the_same_name() -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    # lm-eval's folders first, as with its defaults, but only those whose names clash: the whole index takes 26 s.
    theirs = [str(Path(lm_eval.__file__).parent / "tasks" / n) for n in ("gsm8k", "bbh", "truthfulqa", "ifeval")]
    alone = TaskManager(include_path=theirs, include_defaults=False)
    both = TaskManager(include_path=[*theirs, str(ROOT / "benchmarks")], include_defaults=False)
    assert {"gsm8k", "bbh", "truthfulqa"} <= set(alone.all_tasks)
    for name in NAMES:
        assert both.task_index[name].yaml_path == ROOT / "benchmarks" / name / f"{name}.yaml"


# -- prompts -----------------------------------------------------------------------------------------------------------


def toy_template(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """JSON, one message to a line, so that a test can read the turns back out of the prompt."""
    return "\n".join(json.dumps(m) for m in messages) + ("\n" if add_generation_prompt else "")


def load(name: str, path: Path, tasks: list[str] | None = None) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    benchmark = find_benchmark(name)
    manager = TaskManager(include_path=str(ROOT / "benchmarks"), include_defaults=False)
    names = tasks or [t.name for t in benchmark.tasks]
    # datasets keys its cache of local folders by neither path nor content (a trap of datasets 5).
    kwargs = {"cache_dir": str(Path(os.environ["HF_HOME"]) / hashlib.sha256(str(path).encode()).hexdigest()[:16])}
    entries = [{"task": n, "dataset_path": str(path), "dataset_kwargs": kwargs} for n in names]
    group = {"group": "resolved", "task": entries}
    loaded: dict[str, Any] = manager.load([group])["tasks"]
    return loaded


def build(benchmark: Benchmark, task: Any, limit: int | None = None) -> list[Any]:
    task.build_all_requests(
        limit=limit,
        rank=0,
        world_size=1,
        apply_chat_template=benchmark.meta.chat,
        fewshot_as_multiturn=benchmark.meta.multiturn,
        chat_template=toy_template,
    )
    return list(task.instances)


def turns(instance: Any) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in map(json.loads, instance.args[0].splitlines())]


PROMPTS = {
    # task: dataset, turns of a prompt, digest of the first two prompts with their stops or options
    "gsm8k": ("openai/gsm8k", 18, "ccc17d76cf17b795"),  # 8 shots of two turns, the question, the prefill
    "mmlu_cot": ("cais/mmlu", 1, "36235518df394b22"),
    "mmlu_mc_astronomy": ("cais/mmlu", 11, "564d6c7323c05ef0"),
    "truthfulqa": ("truthfulqa/truthful_qa", 1, "523961f941055457"),
    "bbh_word_sorting": ("lukaemon/bbh", 7, "5d641f465fff5c72"),
    "bbh_causal_judgement": ("lukaemon/bbh", 7, "4d0cf2ed3ba5e3ad"),
    "math500": ("HuggingFaceH4/MATH-500", 9, "fb7d7d17a0f891c9"),
}


@pytest.mark.parametrize("task", PROMPTS)
def test_the_first_two_prompts_are_the_reviewed_ones(task: str, hub_data: Path) -> None:
    dataset, n_turns, digest = PROMPTS[task]
    name = next(n for n in NAMES if task == n or task.startswith(f"{n}_"))
    benchmark = find_benchmark(name)
    instances = build(benchmark, load(name, hub_data / dataset, [task])[task], limit=2)
    assert {len(turns(i)) for i in instances} == {n_turns}
    asked = json.dumps([[*i.args] for i in instances], ensure_ascii=True)
    assert hashlib.sha256(asked.encode()).hexdigest()[:16] == digest


def test_a_gsm8k_prompt_ends_in_the_prefill_as_an_assistant_turn(hub_data: Path) -> None:
    instance = build(find_benchmark("gsm8k"), load("gsm8k", hub_data / "openai/gsm8k")["gsm8k"], limit=1)[0]
    [row, *_] = rows(hub_data / "openai/gsm8k/main/test.jsonl")
    *shots, question, prefill = turns(instance)
    assert question == ("user", f"Question: {row['question']}")
    assert prefill == ("assistant", "Answer:")
    expected = [("user", f"Question: {e['question']}") for e in exemplars.gsm8k()]
    assert shots[::2] == expected
    assert shots[1::2] == [("assistant", f"Answer: {e['target']}") for e in exemplars.gsm8k()]
    assert instance.args[1] == {"until": ["Question:", "</s>", "<|im_end|>"], "max_gen_toks": 512, "do_sample": False}


def test_the_description_of_a_bbh_task_stands_in_the_first_turn_only(hub_data: Path) -> None:
    tasks = load("bbh", hub_data / "lukaemon/bbh", ["bbh_navigate"])
    [row, *_] = rows(hub_data / "lukaemon/bbh/navigate/test.jsonl")
    *shots, question = turns(build(find_benchmark("bbh"), tasks["bbh_navigate"], limit=1)[0])
    assert question == ("user", f"Q: {row['input']}\nA: Let's think step by step.")
    assert shots[0][1].startswith(exemplars.bbh("navigate")[0] + "Q: ")
    assert all(content.startswith("Q: ") for role, content in shots[2:] if role == "user")
    assert not any(content != content.strip() for role, content in shots if role == "assistant")


def test_mmlu_shots_are_the_first_five_dev_rows_of_the_subject(hub_data: Path) -> None:
    dev = [row for row in mmlu_rows(hub_data, "dev") if row["subject"] == "virology"]
    tasks = load("mmlu_mc", hub_data / "cais/mmlu", ["mmlu_mc_virology"])
    benchmark = find_benchmark("mmlu_mc")
    instances = build(benchmark, tasks["mmlu_mc_virology"], limit=1)
    assert [i.args[1] for i in instances] == ["A", "B", "C", "D"]  # no leading space under a chat template
    conversation = turns(instances[0])
    assert [text for role, text in conversation if role == "assistant"] == ["ABCD"[row["answer"]] for row in dev[:5]]
    assert all(row["question"] in conversation[2 * n][1] for n, row in enumerate(dev[:5]))
    assert ["virology" in text.split("\n")[0] for role, text in conversation if role == "user"] == [True] + [False] * 5


def test_a_mmlu_question_names_its_subject_and_asks_for_the_literal_phrase(hub_data: Path) -> None:
    task = load("mmlu_cot", hub_data / "cais/mmlu")["mmlu_cot"]
    [(role, text)] = turns(build(find_benchmark("mmlu_cot"), task, limit=1)[0])
    assert role == "user"
    assert "abstract algebra" in text.split("\n\n")[0]
    assert "`Therefore, the answer is: X`" in text
    assert re.search(r"\n\nQuestion: .*\n A\. .*\n B\. .*\n C\. .*\n D\. .*\n$", text)


def test_subjects_cover_every_row_of_the_data(hub_data: Path) -> None:
    counted: dict[str, int] = {}
    for row in mmlu_rows(hub_data):
        counted[row["subject"]] = counted.get(row["subject"], 0) + 1
    assert [f"mmlu_mc_{s}" for s in counted] == [t.name for t in find_benchmark("mmlu_mc").tasks]
    assert sum(counted.values()) == find_benchmark("mmlu_mc").meta.n_expected


@pytest.mark.parametrize(
    ("name", "dataset", "limit_s"),
    [("gsm8k", "openai/gsm8k", 1.5), ("mmlu_cot", "cais/mmlu", 6.0), ("bbh", "lukaemon/bbh", 6.0)],
)
def test_prompts_are_built_fast(name: str, dataset: str, limit_s: float, hub_data: Path) -> None:
    benchmark = find_benchmark(name)
    tasks = load(name, hub_data / dataset)
    start = time.process_time()
    n = sum(len(build(benchmark, task)) for task in tasks.values())
    assert time.process_time() - start < limit_s  # measured: 0.1 s, 0.7 s, 0.4 s
    assert n == benchmark.meta.n_expected
