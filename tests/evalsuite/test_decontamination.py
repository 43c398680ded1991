"""The texts of suites for decontamination: which fields, which ids, which digest, and what is absent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from evalsuite.benchmark import find_benchmark, known_benchmarks, read_benchmark
from evalsuite.data import resolve_all
from evalsuite.decontamination import Found, benchmarks_of, data_digests, find_texts, note_unseen, text_fields
from evalsuite.errors import BenchmarkError, DataError, UsageError
from evalsuite.gating.evidence import dataset_digests
from evalsuite.harness import build_plan, datasets_of, documents
from evalsuite.registry import Registry
from evalsuite.suite import adhoc_suite, load_suite
from evalsuite.unseen import peeks
from tests.evalsuite.looks import Clock, registry_at
from tests.hub import write_repo
from tests.toy import make_benchmark

PUBLISHED: Mapping[str, tuple[str, ...]] = {
    "cais/mmlu": ("question",),
    "openai/gsm8k": ("question",),
    "akariasai/PopQA": ("subj", "prop", "obj"),
    "allenai/tulu-3-harmbench-eval": ("Behavior",),
    "allenai/tulu-3-do-anything-now-eval": ("prompt",),  # the documents call it otherwise
}
# What training data must not hold, where the published list does not settle it.
FIELDS = {
    "drop": ("passage", "question"),
    "agieval": ("passage", "question"),
    "bigcodebench_hard": ("instruct_prompt",),
    "do_anything_now": ("adversarial",),
    "wildjailbreak": ("adversarial",),
    "popqa": ("subj", "prop", "obj"),
    "harmbench": ("Behavior",),
    "mmlu_cot": ("question",),
    "gpqa": ("Question",),
    "math": ("problem",),
    "math500": ("problem",),
    "humaneval_plus": ("prompt",),
    "xstest": ("prompt",),
    "bbh": ("input",),
    "href": ("instruction",),
    "mbpp": ("text",),
}
GSM8K = [{"question": f"How many are {i} and {i + 1} together?", "answer": f"#### {2 * i + 1}"} for i in range(9)]


def toys(root: Path, split: str = "development", rename: str = "question") -> Path:
    folder = make_benchmark(root / "benchmarks", "toy", 20)
    for name in ("toy.yaml", "verify.py"):
        path = folder / "toy" / name
        path.write_text(path.read_text().replace("split: development", f"split: {split}").replace("question", rename))
    return folder


def found(names: str, roots: list[Path], extra: Path | None = None, *, skip_missing: bool = False) -> Found:
    suite = adhoc_suite(names.split(","), [extra] if extra else [])
    return find_texts(benchmarks_of([suite]), roots, PUBLISHED, offline=True, skip_missing=skip_missing)


# -- which fields --


@pytest.mark.parametrize("name", sorted(known_benchmarks()))
def test_every_shipped_benchmark_has_text_fields(name: str) -> None:
    from decontam.evals.hub import read_list

    published = {each.dataset: each.fields for each in read_list("tulu3") if not each.ours}
    benchmark = find_benchmark(name)
    if datasets_of(benchmark):
        # Declared are the columns that scoring reads; the rows have these as well.
        more = {"agieval": ("passage",), "popqa": ("subj", "prop", "obj")}
        columns = (*benchmark.meta.columns, *more.get(name, ()))
        docs = {"any": dict.fromkeys(columns, "text")}
    else:
        docs = documents(benchmark, {})
    fields = text_fields(benchmark, docs, published)
    assert fields
    assert set(fields) <= next(iter(docs.values())).keys()
    if name in FIELDS:
        assert fields == FIELDS[name]


def test_published_fields_stand_before_declared_ones_and_those_before_the_usual_ones(tmp_path: Path) -> None:
    drop = find_benchmark("drop")
    docs = {"q1": {"passage": "p", "question": "q", "answer": "a"}}
    assert text_fields(drop, docs, {"EleutherAI/drop": ("answer",)}) == ("answer",)
    assert text_fields(drop, docs, {"EleutherAI/drop": ("text",)}) == ("passage", "question")  # its documents lack it
    toy = read_benchmark(toys(tmp_path) / "toy")
    assert text_fields(toy, {"q1": {"text": "t", "prompt": "p", "answer": "a"}}, {}) == ("prompt",)
    assert text_fields(toy, {"q1": {"answer": "a"}}, {}) == ()


def test_a_declared_field_may_stand_alone_and_changes_no_digest(tmp_path: Path) -> None:
    folder = toys(tmp_path) / "toy"
    plain = read_benchmark(folder)
    path = folder / "toy.yaml"
    path.write_text(path.read_text().replace("id: id,", "id: id, decontam_fields: answer,"))
    declared = read_benchmark(folder)
    assert text_fields(declared, {"q1": {"question": "q", "answer": "a"}}, {}) == ("answer",)
    # It says nothing of how a checkpoint is asked or graded: stored scores stay what they are.
    assert (declared.digest, declared.prompt_digest) == (plain.digest, plain.prompt_digest)


def test_a_benchmark_without_a_text_field_is_an_error_that_names_its_fields(tmp_path: Path) -> None:
    extra = toys(tmp_path, rename="riddle")
    with pytest.raises(
        BenchmarkError, match=r"toy: no text field; its documents have id, riddle, answer, kind"
    ) as told:
        found("toy", [], extra)
    assert "metadata.decontam_fields" in str(told.value)


# -- ids, digests, kinds --


@pytest.mark.parametrize("suite", ["demo", "tulu3-dev"])
def test_ids_and_digests_are_those_that_a_gate_knows(suite: str, hub_data: Path, tmp_path: Path) -> None:
    names = {"demo": ("demo_add",), "tulu3-dev": ("gsm8k", "bbh", "humaneval")}[suite]
    loaded = load_suite(suite)
    texts = find_texts(benchmarks_of([loaded], names), [hub_data], PUBLISHED, offline=True).texts
    assert [each.name for each in texts] == [n for n in loaded.columns if n in names] or suite == "demo"
    for each in texts:
        benchmark = find_benchmark(each.name)
        resolved = resolve_all(datasets_of(benchmark), [hub_data], offline=True)
        plan = build_plan(benchmark, resolved, lambda *a, **k: "")
        assert set(each.docs) == {planned.sample for planned in plan.planned}
        known = dataset_digests(plan.dataset)
        assert known == data_digests(benchmark, resolved) == (frozenset({each.digest}) - {""})
        assert bool(known) == (suite != "demo")  # generated tasks read nothing


def test_the_digest_of_many_configs_is_one_of_all(hub_data: Path) -> None:
    (bbh,) = find_texts({"bbh": find_benchmark("bbh")}, [hub_data], PUBLISHED, offline=True).texts
    resolved = resolve_all(datasets_of(find_benchmark("bbh")), [hub_data], offline=True)
    parts = sorted(r.digest for r in resolved.values())
    assert len(parts) == 27
    assert bbh.digest == hashlib.sha256("\n".join(parts).encode()).hexdigest()
    assert (bbh.kind, bbh.datasets) == ("development", ("lukaemon/bbh",))


# -- suites --


def test_a_group_is_spread_and_a_benchmark_of_two_suites_is_one() -> None:
    safety = load_suite("tulu3-safety")
    both = benchmarks_of([load_suite("tulu3-dev"), safety])
    assert {b.name for b in safety.columns.values()} <= both.keys()
    assert "safety" not in both
    assert len(both) == 17  # eleven and the six of safety
    assert list(benchmarks_of([load_suite("tulu3-dev")], ["mmlu", "popqa"])) == ["mmlu_cot", "popqa"]
    some = benchmarks_of([load_suite("tulu3-dev"), load_suite("tulu3-unseen")], ["gsm8k", "gpqa"])
    assert list(some) == ["gsm8k", "gpqa"]
    with pytest.raises(UsageError, match="no benchmark named 'gsm-8k' in suite 'tulu3-dev'; did you mean 'gsm8k'"):
        benchmarks_of([load_suite("tulu3-dev"), safety], ["gsm-8k"])


# -- absent data --


def test_all_absent_data_is_told_at_once_and_may_be_skipped(tmp_path: Path) -> None:
    write_repo(tmp_path, "openai/gsm8k", {"main": {"train": GSM8K, "test": GSM8K}})
    with pytest.raises(DataError, match="2 of 3 datasets cannot be used: openai/openai_humaneval, google/IFEval"):
        found("gsm8k,humaneval,ifeval", [tmp_path])
    told = found("gsm8k,humaneval,ifeval", [tmp_path], skip_missing=True)
    assert [(each.name, each.fields, len(each.docs)) for each in told.texts] == [("gsm8k", ("question",), 9)]
    assert list(told.missing) == ["humaneval", "ifeval"]
    assert "google/IFEval" in told.missing["ifeval"]


def test_data_that_is_there_and_broken_is_not_skipped(tmp_path: Path) -> None:
    write_repo(tmp_path, "openai/gsm8k", {"main": {"train": GSM8K, "test": [{"question": "and no answer?"}]}})
    with pytest.raises(DataError, match="answer"):
        found("gsm8k,humaneval", [tmp_path], skip_missing=True)


# -- the ledger --


def test_reading_unseen_texts_is_noted_where_there_is_a_registry_and_is_no_look(tmp_path: Path) -> None:
    unseen, dev = load_suite("tulu3-unseen"), load_suite("demo")
    note_unseen(tmp_path, [unseen], ["gpqa"], ["mix.jsonl"])
    assert not (tmp_path / "registry").exists()  # nothing is created
    registry_at(tmp_path, Clock()).record("epoch", reason="begin")
    note_unseen(tmp_path, [dev], list(dev.columns), ["mix.jsonl"])
    registry = Registry.at(tmp_path)
    assert registry.peeks.read() == ()
    note_unseen(tmp_path, [dev, unseen], ["demo_add", "gpqa"], ["mix.jsonl"])
    (event,) = registry.peeks.read()
    assert event.event == "decontam"
    suite = {"name": "tulu3-unseen", "digest": unseen.digest}
    assert event.detail == {"suite": suite, "read": ["gpqa"], "data": ["mix.jsonl"]}
    assert peeks(registry) == ()
    assert registry.verify() == ()
