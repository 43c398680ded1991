"""Regimes: the data in them is complete, agrees with the benchmark folders, and decides what is asked and graded."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from evalsuite.benchmark import find_benchmark
from evalsuite.data import resolve_all
from evalsuite.errors import BenchmarkError, UsageError
from evalsuite.grading import grade
from evalsuite.harness import build_plan, datasets_of
from evalsuite.regime import known_regimes, load_regime
from evalsuite.suite import adhoc_suite, load_suite
from evalsuite.types import Response
from tests.hub import write_repo

V5 = load_regime("tulu3@v5")
SUITES = ("tulu3-dev", "tulu3-unseen", "tulu3-safety")
IN_SUITES = sorted({b.name for suite in SUITES for b in load_suite(suite).columns.values()})


@pytest.mark.parametrize("name", sorted(V5.benchmarks))
def test_the_default_regime_says_what_the_folder_says(name: str) -> None:
    folder = find_benchmark(name)
    applied = V5.apply(folder)
    assert (applied.prompt_digest, applied.digest) == (folder.prompt_digest, folder.digest)
    entry, config = V5.benchmarks[name], folder.tasks[0].config
    assert entry.task == folder.name
    assert entry.dataset["id"] == folder.tasks[0].dataset or "prompts.jsonl" in entry.dataset["id"]
    assert entry.dataset["split"] == (config.get("test_split") or config.get("validation_split"))
    assert entry.n_expected == folder.meta.n_expected
    # TruthfulQA's six pairs are part of its text, so lm-eval is told of no shots.
    assert entry.shots["n"] == (6 if name == "truthfulqa" else config.get("num_fewshot", 0))
    assert set(entry.unconfirmed) <= set(folder.meta.unconfirmed)


@pytest.mark.parametrize("regime", known_regimes())
def test_every_benchmark_of_the_suites_has_an_entry_in_every_regime(regime: str) -> None:
    entries = load_regime(regime).benchmarks
    assert set(IN_SUITES) <= set(entries)
    assert all(e.upstream is not None for name, e in entries.items() if name not in ("ifeval_ood", "href"))


def differences(name: str) -> dict[str, set[str]]:
    """Benchmark to the fields in which a regime differs from the default one."""
    other = load_regime(name).benchmarks
    found = {
        b: {f for f in entry.__slots__ if getattr(entry, f) != getattr(V5.benchmarks[b], f)}
        for b, entry in other.items()
    }
    return {
        b: fields - {"upstream", "unconfirmed"} for b, fields in found.items() if fields - {"upstream", "unconfirmed"}
    }


def test_the_differences_between_regimes_are_the_known_ones() -> None:
    assert differences("tulu3@v1") == {"bbh": {"extraction", "quirks"}, "math": {"dataset"}}
    assert differences("olmes-public") == {"math": {"metric"}, "deepmind_math": {"prompt", "extraction"}}
    launcher = differences("tulu3@v5+launcher")
    assert {frozenset(fields) for fields in launcher.values()} == {frozenset({"max_gen_toks"})}
    assert {b for b, e in V5.benchmarks.items() if e.max_gen_toks not in (None, 4096)} == set(launcher)


def test_a_regime_changes_the_suite_digest_only_where_it_differs() -> None:
    default, old = load_suite("tulu3-dev"), load_suite("tulu3-dev", regime="tulu3@v1")
    assert default.digest != old.digest
    changed = {c for c, b in default.columns.items() if b.digest != old.columns[c].digest}
    assert changed == {"bbh", "math"}
    assert old.columns["bbh"].prompt_digest == default.columns["bbh"].prompt_digest  # only read otherwise


def test_the_public_suite_asks_mmlu_by_options_and_has_no_safety() -> None:
    suite = load_suite("tulu3-dev", regime="olmes-public")
    assert suite.columns["mmlu"].name == "mmlu_mc"
    assert "safety" not in suite.table
    assert len(suite.table) == 11
    assert suite.columns["math"].meta.metric == "exact_match"
    assert suite.columns["math"].own_metric == "exact_match_flex"


def test_the_development_suite_has_twelve_columns_one_of_them_the_mean_of_six_sets() -> None:
    suite = load_suite("tulu3-dev")
    columns = "mmlu popqa truthfulqa bbh drop math gsm8k humaneval humaneval_plus ifeval alpaca_eval safety"
    assert " ".join(suite.table) == columns
    assert suite.groups == {"safety": tuple(b.name for b in load_suite("tulu3-safety").columns.values())}
    assert len(suite.groups["safety"]) == 6


def test_without_quirks_the_graders_are_repaired_under_another_tag() -> None:
    suite = load_suite("tulu3-dev", quirks=False)
    assert suite.regime == "tulu3@v5/noquirks"
    assert suite.columns["gsm8k"].options == {"quirks": frozenset()}
    assert suite.columns["gsm8k"].digest != load_suite("tulu3-dev").columns["gsm8k"].digest


def test_quirks_of_prompts_are_dropped_with_the_others(tmp_path: Path) -> None:
    repaired = load_suite("tulu3-dev", quirks=False).columns
    assert repaired["math"].tasks[0].overrides["fewshot_config"]["samples"] == "!function verify.shots_repaired"
    assert repaired["popqa"].meta.n_expected == 14267 - 15
    row = {"task_id": "t/0", "prompt": "def f():\n", "canonical_solution": "    return 1\n", "entry_point": "f"}
    write_repo(tmp_path, "openai/openai_humaneval", {"default": {"test": [{**row, "test": "def check(c): pass"}]}})
    asked = {}
    for quirks in (True, False):
        benchmark = load_suite("tulu3-dev", quirks=quirks).columns["humaneval"]
        resolved = resolve_all(datasets_of(benchmark), [tmp_path], offline=True)
        plan = build_plan(benchmark, resolved, lambda messages, **_: messages[0]["content"])
        asked[quirks] = plan.planned[0].request.prompt.text
        assert len(plan.planned) == 20
        answers = {("t/0", n): Response("    return 1\n") for n in range(20)}
        assert grade(plan, answers).value == 1.0
    assert (asked[True].count("Here is the completed"), asked[False].count("Here is the completed")) == (1, 0)


def test_a_regime_file_with_several_problems_names_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "regime: mine\nextends: tulu3@v5\ncolour: blue\nbenchmarks:\n"
        "  gsm8k: {max_gen_tokens: 5, aggregate: {kind: macro}, sampling: {do_sample: maybe, temp: 1}}\n"
        "  humaneval: {sampling: {do_sample: true, temperature: 0.8, repeats: 5}}\n"
        "  made_up: {task: made_up, chat: 1}\n"
    )
    with pytest.raises(BenchmarkError) as error:
        load_regime(str(path))
    assert "colour: unknown key" in str(error.value)
    path.write_text(path.read_text().replace("colour: blue\n", ""))
    with pytest.raises(BenchmarkError) as error:
        load_regime(str(path))
    expected = (
        "gsm8k.max_gen_tokens: unknown key; did you mean 'max_gen_toks'?",
        "gsm8k.aggregate.over is missing",
        "gsm8k.sampling.temp: unknown key",
        "humaneval.sampling.repeats is 5; pass@10 needs at least 10",
        "made_up.dataset is missing",
        "made_up.chat is 1; use true or false",
    )
    assert [part for part in expected if part not in str(error.value)] == []


def test_an_unknown_regime_names_the_near_one() -> None:
    with pytest.raises(UsageError, match=r"no regime named 'tulu3@v6'; did you mean 'tulu3@v5'\?"):
        load_regime("tulu3@v6")


def test_any_changed_setting_of_generation_changes_what_is_asked() -> None:
    folder = find_benchmark("gsm8k")
    entry = V5.benchmarks["gsm8k"]
    for other in (
        replace(entry, stops=("x",)),
        replace(entry, max_gen_toks=7),
        replace(entry, sampling={"do_sample": True, "temperature": 0.5, "top_p": 1.0, "repeats": 1}),
        replace(entry, sampling={**(entry.sampling or {}), "repeats": 2}),
        replace(entry, chat=False),
    ):
        changed = replace(V5, benchmarks={"gsm8k": other}).apply(folder)
        assert changed.prompt_digest != folder.prompt_digest


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("quirks: [gsm8k-unsigned-innt]", "quirks: 'gsm8k-unsigned-innt' is no quirk of this benchmark; did you mean"),
        ("metric: exact_matchx", "metric is 'exact_matchx'; did you mean 'exact_match'?"),
        ("extraction: laddr", "extraction is 'laddr'; it has only one way"),
        ("judge: wildguard", "judge is 'wildguard'; the benchmark is judged by None"),
        ("shots: {n: 0}", "shots.n is 0, and only {8} can be had"),
        ("dataset: {id: openai/gsm8k, config: socratic, split: test}", "dataset.config is 'socratic'"),
        ("truncate_context: true", "truncate_context is True"),
        ("aggregate: {kind: macro, over: subjects}", "its documents have no categories"),
    ],
)
def test_a_setting_that_cannot_be_had_is_refused(settings: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"regime: mine\nextends: tulu3@v5\nbenchmarks:\n  gsm8k: {{{settings}}}\n")
    with pytest.raises(BenchmarkError, match=re.escape(why)):
        load_regime(str(path)).apply(find_benchmark("gsm8k"))


def test_without_quirks_every_benchmark_is_repaired_also_those_that_no_regime_names() -> None:
    suite = adhoc_suite(["math500"], quirks=False)
    assert suite.regime == "tulu3@v5/noquirks"
    assert suite.columns["math500"].options == {"quirks": frozenset()}


USER_SUITES = {
    "a suite of suites": ("{dev: {suite: tulu3-dev}}", "columns.dev: no benchmark named"),
    "a list": ("[gsm8k]", "columns: expected a mapping of column to benchmark, found list"),
    "twice the same": ("{hb: harmbench, safety: {suite: tulu3-safety}}", "'harmbench' stands in two columns"),
}


@pytest.mark.parametrize("kind", USER_SUITES)
def test_a_suite_file_that_makes_no_sense_is_refused_in_a_line(kind: str, tmp_path: Path) -> None:
    columns, why = USER_SUITES[kind]
    path = tmp_path / "mine.yaml"
    path.write_text(f"suite: mine\nregime: my-settings\nsplit: development\ncolumns: {columns}\n")
    with pytest.raises(BenchmarkError, match=re.escape(why)):
        load_suite(str(path))


def test_a_tag_that_looks_like_a_shipped_regime_is_a_typo(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("suite: mine\nregime: tulu3@v6\nsplit: development\ncolumns: {a: gsm8k}\n")
    with pytest.raises(BenchmarkError, match="no regime named 'tulu3@v6'; did you mean 'tulu3@v5'"):
        load_suite(str(path))


def test_a_column_that_is_no_benchmark_says_in_which_suite_it_is() -> None:
    with pytest.raises(
        UsageError, match="'safety' is a column of tulu3-dev, no benchmark: --suite tulu3-dev --tasks safety"
    ):
        adhoc_suite(["safety"])
