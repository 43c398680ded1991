"""Benchmark folders and suites are read whole, and every problem of a folder is named at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalsuite.benchmark import find_benchmark, known_benchmarks, read_benchmark
from evalsuite.errors import BenchmarkError, UsageError
from evalsuite.suite import adhoc_suite, known_suites, load_suite
from tests.toy import make_benchmark


def edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name / f"{name}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("name", sorted(known_benchmarks()))
def test_every_shipped_benchmark_reads(name: str) -> None:
    benchmark = find_benchmark(name)
    assert benchmark.name == name
    assert len(benchmark.digest) == 64
    assert benchmark.meta.license
    assert (benchmark.folder / "README.md").is_file()


def test_an_unknown_benchmark_names_the_near_miss() -> None:
    with pytest.raises(BenchmarkError, match="no benchmark named 'gsm8'; did you mean 'gsm8k'"):
        find_benchmark("gsm8")


def test_all_problems_of_a_folder_are_reported_at_once(tmp_path: Path) -> None:
    make_benchmark(tmp_path, "toy")
    edit(tmp_path, "toy", "until: [], ", "")
    edit(tmp_path, "toy", "split: development", "split: test, colour: blue")
    with pytest.raises(BenchmarkError) as error:
        read_benchmark(tmp_path / "toy")
    lines = str(error.value).splitlines()
    assert any("metadata.split is 'test'; use development, unseen or safety" in line for line in lines)
    assert any("metadata.colour: unknown key" in line for line in lines)
    assert any("generation_kwargs.until is missing" in line for line in lines)


def test_a_yaml_that_does_not_parse_is_named_with_its_line(tmp_path: Path) -> None:
    make_benchmark(tmp_path, "toy")
    edit(tmp_path, "toy", "num_fewshot: 0", "num_fewshot: [0")
    with pytest.raises(BenchmarkError, match=r"toy\.yaml: line \d+"):
        read_benchmark(tmp_path / "toy")


def test_a_verifier_that_does_not_load_is_named(tmp_path: Path) -> None:
    make_benchmark(tmp_path, "toy")
    (tmp_path / "toy" / "verify.py").write_text("import does_not_exist_anywhere\n")
    with pytest.raises(BenchmarkError, match=r"verify\.py: does not load \(ModuleNotFoundError"):
        _ = read_benchmark(tmp_path / "toy").module


def test_metric_fields_and_verifiers_leave_the_prompt_digest_alone(tmp_path: Path) -> None:
    make_benchmark(tmp_path, "toy")
    before = read_benchmark(tmp_path / "toy")
    before_digest = before.digest
    edit(tmp_path, "toy", "aggregation: mean", "aggregation: median")
    graded = read_benchmark(tmp_path / "toy")
    assert graded.prompt_digest == before.prompt_digest
    assert graded.digest != before_digest
    edit(tmp_path, "toy", "max_gen_toks: 16", "max_gen_toks: 17")
    assert read_benchmark(tmp_path / "toy").prompt_digest != before.prompt_digest


def test_a_module_of_evalsuite_verify_is_part_of_the_digest_of_those_that_use_it() -> None:
    from evalsuite.benchmark import _grader_modules

    used = {p.name for p in _grader_modules(find_benchmark("gsm8k").folder / "verify.py")}
    assert "numbers.py" in used
    assert "math_text.py" not in used


@pytest.mark.parametrize("name", sorted(known_suites()))
def test_every_shipped_suite_reads_and_its_columns_exist(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.columns
    assert not set(suite.columns) & set(suite.missing)


def test_the_development_suite_says_which_published_columns_are_missing() -> None:
    suite = load_suite("tulu3-dev")
    assert len(suite.table) + len(suite.missing) == 12


def test_a_column_or_a_benchmark_name_selects() -> None:
    suite = load_suite("tulu3-dev")
    assert list(suite.select(["mmlu", "gsm8k"])) == ["mmlu", "gsm8k"]
    assert list(suite.select(["mmlu_cot"])) == ["mmlu"]
    with pytest.raises(UsageError, match="no benchmark named 'gsm9k' in suite 'tulu3-dev'; did you mean 'gsm8k'"):
        suite.select(["gsm9k"])


def test_a_suite_file_with_several_problems_names_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("suite: mine\nregime: r\nsplit: training\ncolumns: {a: gsm8, b: ifeval}\ncolour: blue\n")
    with pytest.raises(BenchmarkError) as error:
        load_suite(str(path))
    said = str(error.value)
    assert all(part in said for part in ("colour: unknown key", "did you mean 'gsm8k'", "split is 'training'"))


def test_a_users_folder_hides_a_shipped_benchmark_of_the_same_name(tmp_path: Path) -> None:
    make_benchmark(tmp_path, "gsm8k")
    assert find_benchmark("gsm8k", [tmp_path]).folder == tmp_path / "gsm8k"
    assert adhoc_suite(["gsm8k"], [tmp_path]).digest != adhoc_suite(["gsm8k"]).digest


@pytest.mark.parametrize("name", sorted(known_benchmarks()))
def test_cases_are_json_objects_with_an_expected_value(name: str) -> None:
    path = find_benchmark(name).folder / "cases.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert rows
    assert all("value" in row and "doc" in row and ("response" in row or "totals" in row) for row in rows)
