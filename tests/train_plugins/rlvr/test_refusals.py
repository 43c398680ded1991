"""What no reward may be made of: every way in which an unseen benchmark, or a test row, comes into a recipe."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsuite.__main__ import main
from evalsuite.benchmark import benchmarks_folder, find_benchmark
from evalsuite.errors import DataError, UnseenBudget, UsageError
from evalsuite.loop import make_plan
from evalsuite.recipe import load_recipe
from evalsuite.trainers.types import Places
from tests.toy import make_benchmark
from train_plugins.rlvr.fingerprints import asked, fingerprint, held_prompts
from train_plugins.rlvr.refusals import find_unseen, refuse_unseen, unseen_constraints

OPTIONS = {
    "algorithm": "grpo", "lr": 1e-4, "prompts_per_iteration": 2, "samples_per_prompt": 2, "response_tokens": 8,
    "prompt_tokens": 64, "beta": 0.0, "weight_decay": 0.0, "iterations": 1, "kl_in": "loss", "dtype": "float32",
}  # fmt: skip


def row(prompt: str = "How many legs have three dogs?", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], "ground_truth": "12", "dataset": "exact", **more}


def write(path: Path, rows: Sequence[Mapping[str, Any]], meta: Mapping[str, Any] | None = None) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    if meta is not None:
        path.with_name(f"{path.name}.meta.json").write_text(json.dumps(meta))
    return path


def refused(
    *rows: Mapping[str, Any], verifiers: Mapping[str, str] | None = None, meta: Any = None, at: Path, **places: Any
) -> list[str]:
    """The reasons; which kind of error they came as is the caller's to know."""
    with pytest.raises((UnseenBudget, DataError)) as error:
        refuse_unseen(verifiers or {}, [write(at / "t.jsonl", rows, meta)], Places(**places))
    return [type(error.value).__name__, *str(error.value).splitlines()]


def unseen_question() -> str:
    folder = benchmarks_folder() / "ifeval_ood"
    return str(json.loads((folder / "prompts.jsonl").read_text().splitlines()[3])["prompt"])


# -- names --


@pytest.mark.parametrize(
    "name", ["gpqa", "GPQA", "mmlu-pro", "TIGER-Lab/MMLU-Pro", "ruixiangcui/AGIEval", "ifeval_ood"]
)
def test_a_dataset_or_a_verifier_that_is_an_unseen_benchmark_is_refused_under_every_spelling(
    tmp_path: Path, name: str
) -> None:
    kind, line = refused(row(), row(dataset=name), row(dataset=name), at=tmp_path)
    assert kind == "UnseenBudget"
    assert line.startswith(f"t.jsonl: dataset names {name!r}, the unseen benchmark ")
    assert "(2 rows, the first is row 2)" in line
    assert len(refused(row(), verifiers={"exact": name}, at=tmp_path)) == 3  # in the mapping, and in each row by it
    assert len(refused(row(dataset=f"exact, {name}"), at=tmp_path)) == 2
    assert len(refused(row(dataset=["exact", name]), at=tmp_path)) == 2


def test_a_mapping_is_refused_without_any_data_and_hides_no_name(tmp_path: Path) -> None:
    with pytest.raises(UnseenBudget, match=r"options\.verifiers: x: gpqa names the unseen benchmark gpqa"):
        refuse_unseen({"x": "gpqa"}, [])
    kind, *lines = refused(row(dataset="gpqa"), verifiers={"gpqa": "exact"}, at=tmp_path)
    assert kind == "UnseenBudget"
    assert len(lines) == 2


def test_development_benchmarks_may_reward(tmp_path: Path) -> None:
    names = ["gsm8k", "math", "ifeval", "demo_reverse", "exact"]
    file = write(tmp_path / "t.jsonl", [row(dataset=name) for name in names])
    refuse_unseen({"gsm8k": "rlvr_gsm8k", "math": "rlvr_math", "ifeval": "ifeval_old"}, [file])


def test_a_benchmark_of_the_users_own_is_unseen_when_it_says_so(tmp_path: Path) -> None:
    make_benchmark(tmp_path, "secret")
    path = tmp_path / "secret" / "secret.yaml"
    refuse_unseen({"x": "secret"}, [], Places((tmp_path,)))
    path.write_text(path.read_text().replace("split: development", "split: unseen"))
    with pytest.raises(UnseenBudget, match="the unseen benchmark secret"):
        refuse_unseen({"x": "secret"}, [], Places((tmp_path,)))


def test_every_unseen_benchmark_that_is_shipped_is_known_by_name_and_data() -> None:
    unseen = find_unseen()
    for folder in benchmarks_folder().iterdir():
        if (folder / f"{folder.name}.yaml").is_file():
            benchmark = find_benchmark(folder.name)
            expected = folder.name if benchmark.meta.split == "unseen" else None
            assert unseen.named(folder.name) == expected
            for task in benchmark.tasks:
                assert task.dataset is None or unseen.named(task.dataset) == expected


# -- constraints --


@pytest.mark.parametrize(
    "label",
    [
        [{"instruction_id": ["count:conjunctions"], "kwargs": [{"small_n": 3}]}],
        json.dumps([{"instruction_id": ["punctuation:no_comma", "count:conjunctions"], "kwargs": [None, {}]}]),
        json.dumps({"func_name": "conjunctions", "small_n": 3}),
        json.dumps({"func_name": "Count:Conjunctions"}),
    ],
)
def test_constraints_that_only_unseen_benchmarks_use_are_refused_in_every_form_of_label(
    tmp_path: Path, label: Any
) -> None:
    kind, line = refused(row(), row(dataset="ifeval", ground_truth=label), at=tmp_path)
    assert kind == "UnseenBudget"
    assert line.startswith("t.jsonl: the constraint count:conjunctions belongs to unseen benchmarks alone (1 row, the ")


def test_constraints_of_ifeval_pass_and_those_of_ifeval_ood_are_all_known(tmp_path: Path) -> None:
    from evalsuite.verify.constraints import IFEVAL_IDS
    from evalsuite.verify.constraints.ood import OOD_IDS

    label = json.dumps([{"instruction_id": list(IFEVAL_IDS), "kwargs": [None] * len(IFEVAL_IDS)}])
    old = json.dumps({"func_name": "verify_keywords", "keyword_list": ["a"]})
    file = write(tmp_path / "t.jsonl", [row(ground_truth=label), row(ground_truth=old), row(ground_truth="[not json")])
    refuse_unseen({}, [file])
    assert len(OOD_IDS) == 52
    assert set(OOD_IDS) <= set(unseen_constraints().values())
    assert not set(IFEVAL_IDS) & set(unseen_constraints())


# -- where the data is from --


@pytest.mark.parametrize(
    "meta",
    [
        {"origin": "TIGER-Lab/MMLU-Pro"},
        {"origin": "generated, tiger-lab/mmlu-pro"},
        {"origin": "x", "sources": [{"name": "a", "origin": "https://huggingface.co/datasets/TIGER-Lab/MMLU-Pro"}]},
        {"sources": [{"name": "mmlu_pro"}]},
        {"sources": ["hub:TIGER-Lab/MMLU-Pro:test"]},
    ],
)
def test_data_made_of_an_unseen_benchmark_is_refused_by_what_stands_beside_it(tmp_path: Path, meta: Any) -> None:
    kind, line = refused(row(), meta=meta, at=tmp_path)
    assert kind == "UnseenBudget"
    assert "the data of the unseen benchmark mmlu_pro; leave it out" in line


def test_data_that_was_cleaned_of_an_unseen_benchmark_is_not_made_of_it(tmp_path: Path) -> None:
    source = {"name": "a", "origin": "mine", "eval_hits": {"mmlu_pro": 3}, "note": "cleaned of TIGER-Lab/MMLU-Pro"}
    meta = {"origin": "mine, TIGER-Lab/MMLU-Pro-like", "sources": [source], "decontamination": ["TIGER-Lab/MMLU-Pro"]}
    refuse_unseen({}, [write(tmp_path / "t.jsonl", [row(source="mine")], meta)])


def test_a_row_whose_source_is_an_unseen_data_set_is_refused(tmp_path: Path) -> None:
    kind, *lines = refused(row(source="allenai/href"), row(source="agieval"), row(source="hrefs"), at=tmp_path)
    assert kind == "UnseenBudget"
    assert [line.partition(" (")[0] for line in lines] == [
        "t.jsonl: source is 'allenai/href', the data of the unseen benchmark href",
        "t.jsonl: source is 'agieval', the data of the unseen benchmark agieval",
    ]


def test_a_mix_that_is_not_built_is_refused_by_its_sources(tmp_path: Path) -> None:
    mix = tmp_path / "mix.yaml"
    mix.write_text(yaml.safe_dump({"schema": 1, "sources": [{"origin": "a"}, {"hub": "Idavidrein/gpqa"}]}))
    with pytest.raises(UnseenBudget, match=r"mix\.yaml is made of 'Idavidrein/gpqa'"):
        refuse_unseen({}, [mix])


# -- prompts --


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("What is the capital of France?", "what  is the CAPITAL of france", True),
        ("What is “the” capital of France?", "What is the capital, of France", True),
        ("What is the sum 3 + 4 ?", "What is the sum 3 - 4 ?", False),
        ("Compute the sum: 1 1", "Compute the sum: 11", False),
        ("reverse  abcd", "reverse abcd", True),
        ("Fabc[^?", "Fabc!?", False),  # in short questions every sign may count
        ("Sab?", "SAB?", False),
    ],
)
def test_texts_are_equal_in_words_and_short_ones_in_every_sign(one: str, other: str, equal: bool) -> None:
    assert (fingerprint(one) == fingerprint(other)) is equal


def test_the_last_question_is_found_behind_shots() -> None:
    question = "How many legs do three dogs have together?"
    shots = "Question: How many eyes has a cat?\nAnswer: 2\n\n"
    for text in (question, f"{shots}Question: {question}\nAnswer:", f"{shots}Problem: {question}\nSolution: "):
        assert fingerprint(question) in set(asked([{"role": "user", "content": text}]))
    assert fingerprint(question) not in set(asked([{"role": "assistant", "content": question}]))


def test_prompts_of_an_unseen_benchmark_that_makes_its_rows_are_refused_and_not_shown(tmp_path: Path) -> None:
    question = unseen_question()
    kind, line = refused(row(), row(f"  {question.upper()}!\n"), at=tmp_path)
    assert kind == "UnseenBudget"
    assert line == (
        "t.jsonl: 1 row, the first is row 2, ask what the unseen benchmark ifeval_ood asks (contamination; prompts are "
        "not shown); leave these rows out: evalsuite decontam clean"
    )


def test_test_rows_of_other_benchmarks_are_contamination_and_unseen_reasons_come_first(tmp_path: Path) -> None:
    test_row = row(find_benchmark("demo_reverse").module.test_rows()[5]["question"])  # type: ignore[union-attr]
    kind, line = refused(row(), test_row, test_row, at=tmp_path)
    assert kind == "DataError"
    assert line.startswith("t.jsonl: 2 rows, the first is row 2, ask what the test set of demo_reverse asks")
    kind, *lines = refused(test_row, row(unseen_question(), dataset="gpqa"), at=tmp_path)
    assert kind == "UnseenBudget"
    assert ["gpqa" in lines[0], "ifeval_ood" in lines[1], "demo_reverse" in lines[2]] == [True] * 3


def test_what_benchmarks_ask_is_remembered_by_content() -> None:
    first, second = held_prompts(), held_prompts()
    assert first == second
    assert {"demo_add", "ifeval_ood"} <= {each.benchmark for each in first}
    assert {len(each.prompts) for each in first if each.benchmark == "demo_add"} == {200}


def test_test_rows_of_a_data_root_are_found_and_its_training_rows_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "openai" / "gsm8k" / "main"
    folder.mkdir(parents=True)
    header = {"configs": [{"config_name": "main", "data_files": [
        {"split": split, "path": f"main/{split}.jsonl"} for split in ("train", "test")]}]}  # fmt: skip
    (folder.parent / "README.md").write_text(f"---\n{yaml.safe_dump(header)}---\n")
    for split in ("train", "test"):
        write(folder / f"{split}.jsonl", [{"question": f"How many {split} apples has Ann now?", "answer": "#### 2"}])
    roots = (tmp_path / "root",)
    kind, line = refused(row("How many test apples has Ann, now?"), at=tmp_path, roots=roots)
    assert kind == "DataError"
    assert "the test set of gsm8k" in line
    refuse_unseen({}, [write(tmp_path / "t.jsonl", [row("How many train apples has Ann now?")])], Places((), roots))


def test_a_real_test_row_behind_shots_is_found(tmp_path: Path, hub_data: Path) -> None:
    lines_of = (hub_data / "openai" / "gsm8k" / "main" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    question = json.loads(lines_of[7])["question"]
    shots = "Question: How many eyes has a cat?\nAnswer: Two. So the answer is 2.\n\n" * 8
    (tests,) = (each for each in held_prompts((), (hub_data,)) if each.benchmark == "gsm8k")
    assert len(tests.prompts) == 1319
    kind, *lines = refused(row(), row(f"{shots}Question: {question}\nAnswer:"), at=tmp_path, roots=(hub_data,))
    assert kind == "DataError"
    assert [line for line in lines if "the first is row 2, ask what the test set of gsm8k asks" in line] == lines


def test_thirty_thousand_rows_behind_twenty_shots_take_seconds_and_not_minutes(tmp_path: Path) -> None:
    shots = "Question: How many eyes have seven cats that met four dogs?\nAnswer: They have 14.\n\n" * 20
    rows = [row(f"{shots}Question: What is {n} and {n} when they are taken together?\nAnswer:", source="mine")
            for n in range(30_000)]  # fmt: skip
    file = write(tmp_path / "t.jsonl", rows)
    held_prompts()
    began = time.process_time()
    refuse_unseen({"gsm8k": "rlvr_gsm8k"}, [file])
    assert time.process_time() - began < 30.0  # three, on a machine with nothing else to do


# -- a whole recipe --


def recipe(folder: Path, *stages: Mapping[str, Any]) -> Path:
    usual = {"trainer": "rlvr", "start": "model", "data": "rows.jsonl", "seed": 1, "options": OPTIONS}
    content = {"schema": 1, "name": "r", "model": "nowhere", "stages": [{**usual, **stage} for stage in stages]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return folder / "recipe.yaml"


def test_reasons_of_all_stages_and_other_problems_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [row()])
    write(tmp_path / "other.jsonl", [row(source="Idavidrein/gpqa")])
    path = recipe(
        tmp_path,
        {"name": "one", "options": {**OPTIONS, "verifiers": {"exact": "agieval"}}},
        {"name": "two", "data": ["other.jsonl", "absent.jsonl"]},
        {"name": "three", "options": {**OPTIONS, "lr": -1}},
    )
    with pytest.raises(UnseenBudget) as error:
        make_plan(load_recipe(path), tmp_path / "out")
    told = str(error.value)
    assert all(line.startswith("r: ") for line in told.splitlines())
    for part in ("r: one: options.verifiers: exact: agieval", "r: two: other.jsonl: source is 'Idavidrein/gpqa'",
                 "two.data: no file 'absent.jsonl'", "lr is -1"):  # fmt: skip
        assert part in told


def test_test_rows_alone_are_a_data_error_and_with_other_problems_misuse(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [row(find_benchmark("demo_add").module.test_rows()[0]["question"])])  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"r: one: rows\.jsonl: 1 row, .* ask what the test set of demo_add asks"):
        make_plan(load_recipe(recipe(tmp_path, {"name": "one"})), tmp_path / "out")
    with pytest.raises(UsageError, match="demo_add"):
        make_plan(load_recipe(recipe(tmp_path, {"name": "one", "launch": {"config": "no"}})), tmp_path / "out")


@pytest.mark.parametrize("verb", [["train", "one", "-c"], ["loop"]])
def test_train_and_loop_end_with_5_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    write(tmp_path / "rows.jsonl", [row(dataset="mmlu_pro")])
    recipe(tmp_path, {"name": "one"})
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main([*verb, "recipe.yaml"]) == 5
    assert "dataset names 'mmlu_pro', the unseen benchmark mmlu_pro" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unseen_benchmark_of_the_command_line_ends_with_5_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_benchmark(tmp_path / "own", "secret")
    path = tmp_path / "own" / "secret" / "secret.yaml"
    path.write_text(path.read_text().replace("split: development", "split: unseen"))
    write(tmp_path / "rows.jsonl", [row("What is 3 + 3?"), row(dataset="secret")])
    recipe(tmp_path, {"name": "one"})
    monkeypatch.chdir(tmp_path)
    assert main(["train", "one", "-c", "recipe.yaml", "--benchmarks", "own"]) == 5
    told = capsys.readouterr().err
    assert "dataset names 'secret'" in told
    assert "1 row, the first is row 1, ask what the unseen benchmark secret asks" in told
