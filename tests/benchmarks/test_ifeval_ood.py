"""IFEval-OOD and its relatives: the composed prompts keep their rules, cases score as written, rows load from a hub."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from evalsuite.__main__ import main
from evalsuite.benchmark import find_benchmark
from evalsuite.checking import check_benchmark
from evalsuite.errors import BenchmarkError, DataError
from evalsuite.types import Ratio
from evalsuite.verify.constraints import all_constraints
from evalsuite.verify.constraints.language_tools import backend
from evalsuite.verify.constraints.ood import EXTRA_IDS, IFBENCH_IDS, OOD_IDS, RETIRED_IDS
from evalsuite.verify.constraints.ood_count import NAMES
from tests.evalsuite.test_hub import in_fresh_process
from tests.hub import serve, write_repo

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "ifeval_ood"
FOLDERS = ("ifeval_ood", "ifeval_ood_hub", "ifbench")
KINDS = (
    "explain describe list howto story letter opinion compare advice plan travel people"
    " rewrite quote yesno know mcq code"
)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@cache
def composer() -> Any:
    spec = importlib.util.spec_from_file_location("compose_ifeval_ood", FOLDER / "compose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def prompts() -> list[dict[str, Any]]:
    return lines(FOLDER / "prompts.jsonl")


@cache
def bases() -> dict[str, dict[str, Any]]:
    return {row["base_id"]: row for row in lines(FOLDER / "base_prompts.jsonl")}


def module(name: str) -> Any:
    return find_benchmark(name).module


# -- base prompts ------------------------------------------------------------------------------------------------------

# A base prompt asks for nothing about form: that is left to the constraint.
FORM = re.compile(
    r"bullet|\btable\b|\bwords?\b|sentence|paragraph|json|csv|markdown|heading|\bpages?\b|brief|concise|length|emoji"
    r"|rhym|\bupper|\blower|capital|format|\bonly\b|exactly|at least|at most|\d"
    r"|\b(two|three|four|five|six|seven|eight|nine|ten)\b",
    re.IGNORECASE,
)


def test_there_are_enough_base_prompts_of_every_kind() -> None:
    counted = Counter(kind for base in bases().values() for kind in base["kinds"])
    assert len(bases()) >= 130
    assert set(counted) == set(KINDS.split())
    assert min(counted.values()) >= 5
    assert len({base["prompt"] + base.get("passage", "") for base in bases().values()}) == len(bases())


def test_no_base_prompt_makes_a_demand_about_form() -> None:
    found = {i: FORM.search(b["prompt"]) for i, b in bases().items()}
    assert {i: m[0] for i, m in found.items() if m} == {}


def test_base_prompts_are_one_or_two_sentences_in_english() -> None:
    for base in bases().values():
        assert base["prompt"].isascii()
        assert base["size"] in ("short", "medium", "long")
        if base["kinds"] != ["mcq"]:
            assert 1 <= len(re.findall(r"[.?!](?:\s|$)", base["prompt"])) <= 2, base


def test_base_prompts_hold_what_their_kind_needs() -> None:
    for base in bases().values():
        assert ("passage" in base) == ("rewrite" in base["kinds"])
        if "rewrite" in base["kinds"]:
            assert 80 <= len(base["passage"]) <= 400
        if "mcq" in base["kinds"]:
            assert re.search(r"a\) .+, b\) .+, c\) .+, d\) .+", base["prompt"])
        if "code" in base["kinds"]:
            assert base["prompt"].startswith("Write a short Python function")
        if "quote" in base["kinds"]:
            assert re.search(r"\b[Qq]uote\b.*\bdiscuss\b", base["prompt"])


def eight_grams(text: str) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return zip(*(words[n:] for n in range(8)), strict=False)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def hub_rows(hub: Path) -> Iterator[Any]:
    for path in sorted(hub.rglob("*.json*")):
        for line in path.read_text(encoding="utf-8").split("\n") if path.suffix == ".jsonl" else ():
            if line.strip():
                yield json.loads(line)
    parquet = pytest.importorskip("pyarrow.parquet")
    for path in sorted(hub.rglob("*.parquet")):
        yield from parquet.read_table(path).to_pylist()


@pytest.mark.slow
def test_no_prompt_shares_eight_words_in_a_row_with_a_benchmark(hub_data: Path) -> None:
    ours = {gram for row in prompts() for gram in eight_grams(row["prompt"])}
    ours |= {gram for b in bases().values() for gram in eight_grams(b["prompt"] + "\n" + b.get("passage", ""))}
    shared, n_rows = Counter[tuple[str, ...]](), 0
    for row in hub_rows(hub_data):
        n_rows += 1
        shared.update(ours.intersection(gram for text in strings(row) for gram in eight_grams(text)))
    assert n_rows > 20_000
    assert shared == Counter()


# -- composed prompts --------------------------------------------------------------------------------------------------


def test_the_shipped_prompts_are_what_seed_3_composes_byte_for_byte() -> None:
    shipped = (FOLDER / "prompts.jsonl").read_bytes()
    assert composer().file_text(3).encode() == shipped
    sha256 = find_benchmark("ifeval_ood").tasks[0].config["dataset_kwargs"]["sha256"]
    assert hashlib.sha256(shipped).hexdigest() == sha256


def test_each_id_has_its_eight_prompts_and_each_custom_one_its_five() -> None:
    counted = Counter(row["cluster"] for row in prompts())
    assert counted == {id: 5 if id.startswith("custom:") else 8 for id in OOD_IDS}
    assert len(prompts()) == 41 * 8 + 11 * 5 == find_benchmark("ifeval_ood").meta.n_expected
    assert len({row["prompt"] for row in prompts()}) == len(prompts())
    for row in prompts():
        assert row["instruction_id_list"] == [row["cluster"]] == [row["key"].partition("#")[0]]
        assert row["seed"] == 3
    for id, wordings in composer().templates().items():
        assert len(set(wordings)) == len(wordings) >= 2
        used = {row["base_id"] for row in prompts() if row["cluster"] == id}
        assert len(used) == (1 if id.startswith("custom:") else 8)


BOUNDS = {
    "count:unique_word_count": ("N", 180, 300),
    "count:conjunctions": ("small_n", 5, 6),
    "count:person_names": ("N", 3, 12),
    "count:countries": ("percentage", 3, 12),
    "count:levenshtein": ("N", 10, 40),
    "count:numbers": ("N", 3, 9),
    "count:pronouns": ("N", 20, 45),
    "count:words_japanese": ("N", 3, 12),
    "ratio:stop_words": ("percentage", 20, 33),
    "ratio:overlap": ("percentage", 30, 70),
    "words:repeats": ("small_n", 2, 4),
    "sentence:increment": ("small_n", 1, 4),
    "sentence:keyword": ("N", 2, 10),
    "count:word_count_range": ("min_words", 60, 300),
}


@pytest.mark.parametrize("seed", [3, 4])
def test_parameters_are_those_of_the_check_and_within_their_range(seed: int) -> None:
    for row in composer().rows(seed):
        id, [kwargs], base = row["cluster"], row["kwargs"], bases().get(row["base_id"], {})
        assert set(kwargs) == set(all_constraints()[id].params), row["key"]
        if id in BOUNDS:
            name, low, high = BOUNDS[id]
            assert low <= kwargs[name] <= high
        if "reference_text" in kwargs:
            assert kwargs["reference_text"] == base["passage"]
        if id == "count:levenshtein":
            assert kwargs["N"] <= len(base["passage"]) / 4
        if id == "count:word_count_range":
            assert kwargs["max_words"] == kwargs["min_words"] + max(10, round(kwargs["min_words"] / 10))
            assert kwargs["min_words"] <= 150 or base["size"] != "short"
        if id == "sentence:keyword":
            assert kwargs["word"] in composer().NOUNS
            assert kwargs["word"] not in base["prompt"].lower()
            assert kwargs["N"] <= 4 or base["size"] != "short"


def test_constraints_are_joined_to_the_bases_they_make_sense_with() -> None:
    special = {"rewrite", "quote", "yesno", "know", "mcq", "code"}
    needs = {
        "count:levenshtein": "rewrite",
        "ratio:overlap": "rewrite",
        "format:quote_unquote": "quote",
        "format:camel_case": "code",
        "format:list": "list",
        "count:countries": "travel",
    }
    short = "alphabet vowel consonants prime_lengths odd_even_syllables repeats no_consecutive newline sentence_words"
    for row in prompts():
        id, base = row["cluster"], bases().get(row["base_id"])
        if base is None:
            assert id.startswith("custom:")
            continue
        if id in needs:
            assert needs[id] in base["kinds"]
        elif id != "format:options":
            assert not special & set(base["kinds"])
        if id.partition(":")[2] in short.split():
            assert base["size"] == "short"
        if id in ("count:pronouns", "count:person_names", "count:unique_word_count"):
            assert base["size"] != "short"
        if id == "count:numbers":
            assert not base["numeric"]
        if id == "format:options":
            assert {"yes/no/maybe": "yesno", "a), b), c), d)": "mcq"}.get(row["kwargs"][0]["options"], "know") in base[
                "kinds"
            ]


def test_the_wording_holds_the_parameters_and_the_base_prompt() -> None:
    for row in prompts():
        [kwargs], prompt = row["kwargs"], row["prompt"]
        assert all(str(value) in prompt for value in kwargs.values()), row["key"]
        assert not re.search(r"[{}]", prompt.replace("[] and {}", "")), row["key"]
        base = bases().get(row["base_id"])
        if base is not None:
            assert base["prompt"] in prompt
        if "reference_text" in kwargs:
            assert f"\n---\n{kwargs['reference_text']}\n---" in prompt
        if row["cluster"] == "count:person_names":
            assert ", ".join(NAMES) in prompt


def test_one_constraint_in_four_stands_before_the_base_prompt_on_its_own_line() -> None:
    before = Counter(
        r["cluster"] for r in prompts() if r["base_id"] and not r["prompt"].startswith(bases()[r["base_id"]]["prompt"])
    )
    assert set(before.values()) == {2}
    assert len(before) == 41


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_parameters_are_spread_evenly_over_their_range_whatever_the_seed(seed: int) -> None:
    rows = list(composer().rows(seed))
    marks = Counter(row["kwargs"][0]["sep"] for row in rows if row["cluster"] == "format:list")
    assert marks == {"...": 2, "SEPARATOR": 2, "!?!?": 2, "-": 2}
    drawn = sorted(row["kwargs"][0]["N"] for row in rows if row["cluster"] == "count:unique_word_count")
    eighth = (300 - 180 + 1) / 8
    assert [int((n - 180) / eighth) for n in drawn] == pytest.approx(list(range(8)), abs=1)


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (1, "1st"),
        (2, "2nd"),
        (3, "3rd"),
        (4, "4th"),
        (11, "11th"),
        (12, "12th"),
        (13, "13th"),
        (21, "21st"),
        (111, "111th"),
    ],
)
def test_ordinals_are_english(n: int, said: str) -> None:
    assert composer().ordinal(n) == said


def test_another_seed_makes_a_private_set_with_a_digest_of_its_own(tmp_path: Path) -> None:
    composer().write(11, tmp_path / "ifeval_ood")
    private, shipped = find_benchmark("ifeval_ood", [tmp_path]), find_benchmark("ifeval_ood")
    assert private.folder == tmp_path / "ifeval_ood"
    assert (private.digest, private.prompt_digest) != (shipped.digest, shipped.prompt_digest)
    assert private.prompt_digest != shipped.prompt_digest
    finding = check_benchmark(private, [])
    assert (finding.problems, finding.n_golds) == ((), 383)
    fresh = {row["prompt"] for row in lines(tmp_path / "ifeval_ood/prompts.jsonl")}
    assert len(fresh & {row["prompt"] for row in prompts()}) < 120  # the 55 custom prompts are the same


def test_an_id_draws_from_a_generator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {id: w for id, w in composer().templates().items() if id != "count:numbers"}
    monkeypatch.setattr(composer(), "templates", lambda: fewer)
    assert list(composer().rows(3)) == [row for row in prompts() if row["cluster"] != "count:numbers"]


def test_prompts_that_do_not_match_their_digest_are_refused() -> None:
    with pytest.raises(BenchmarkError, match=r"prompts\.jsonl: not the prompts that ifeval_ood\.yaml names"):
        module("ifeval_ood").dataset(sha256="0" * 64)


# -- cases, golds, settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDERS)
def test_hand_written_cases_score_as_written(name: str) -> None:
    for case in lines(ROOT / "benchmarks" / name / "cases.jsonl"):
        score = module(name).verify(case["response"], case["doc"])
        assert case["variant"] == module(name).VARIANT
        assert (score.value, score.parts["prompt_level_strict_acc"]) == (case["value"], case["strict"]), case
        assert bool(score.why) == (score.value == 0)


def test_a_call_may_name_the_other_variant() -> None:
    ours, other, differing = module("ifbench"), module("ifeval_ood"), 0
    for case in lines(ROOT / "benchmarks" / "ifbench" / "cases.jsonl"):
        response, doc = case["response"], case["doc"]
        assert ours.verify(response, doc, "tulu3") == other.verify(response, doc)
        assert ours.verdicts(response, doc, variant="tulu3") == other.verdicts(response, doc)
        differing += ours.verify(response, doc).value != other.verify(response, doc).value
    assert differing > 0


def verdicts_by_id(name: str) -> dict[str, set[float]]:
    found = defaultdict(set)
    for case in lines(ROOT / "benchmarks" / name / "cases.jsonl"):
        found[case["doc"]["instruction_id_list"][0]].add(case["value"])
    return dict(found)


def test_every_id_has_a_passing_and_a_failing_case() -> None:
    found = verdicts_by_id("ifeval_ood")
    # Loosely, any response passes sub-bullets: one of its eight texts has no star.
    assert found.pop("format:sub-bullets") == {1.0}
    assert found == {id: {0.0, 1.0} for id in {*OOD_IDS, *EXTRA_IDS} - {"format:sub-bullets"}}


def test_ids_that_differ_between_the_variants_have_cases_in_both() -> None:
    found = verdicts_by_id("ifbench")
    assert {id for id in EXTRA_IDS if found[id] != {0.0, 1.0}} == set()
    differ = {id for id in IFBENCH_IDS if len(set(all_constraints()[id].checks.values())) > 1}
    assert differ - set(found) - {"custom:sentence_alphabet"} == set()


@pytest.mark.skipif(backend("sentences") != "punkt", reason="nltk's punkt_tab data are not installed")
def test_punkt_ends_a_sentence_after_a_single_letter() -> None:
    doc = {"instruction_id_list": ["ratio:sentence_balance"], "kwargs": [{}]}
    assert module("ifbench").verify("A. B? C!", doc).value == 1.0


@pytest.mark.parametrize("name", FOLDERS)
def test_evalsuite_check_finds_nothing_wrong(name: str) -> None:
    finding = check_benchmark(find_benchmark(name), roots=[])
    assert finding.problems == ()
    assert finding.n_golds == (383 if name == "ifeval_ood" else None)
    assert finding.rejected == ()


@pytest.mark.parametrize("name", FOLDERS)
def test_the_settings_are_tulu_3s(name: str) -> None:
    benchmark = find_benchmark(name)
    config = benchmark.tasks[0].config
    assert config["generation_kwargs"] == {"until": [], "max_gen_toks": 2048, "do_sample": False, "temperature": 0.0}
    assert (config["num_fewshot"], benchmark.meta.chat, benchmark.meta.split) == (0, True, "unseen")
    assert benchmark.meta.metric == "prompt_level_loose_acc"
    assert module(name).prompt({"prompt": " as it\nstands "}) == " as it\nstands "


def test_instruction_metrics_pool_over_the_instructions_of_all_prompts() -> None:
    doc = {"instruction_id_list": ["count:numbers", "words:vowel"], "kwargs": [{"N": 1}, {}]}
    other = {"instruction_id_list": ["words:vowel"], "kwargs": [{}]}
    results = [
        module("ifbench").process_results(doc, ["Sure:\n7 owls"]),
        module("ifbench").process_results(other, ["Each quiet orchid owl"]),
    ]
    assert results[0] == {
        "prompt_level_loose_acc": 1.0,
        "prompt_level_strict_acc": 0.0,
        "inst_level_loose_acc": Ratio(2, 2),
        "inst_level_strict_acc": Ratio(1, 2),
    }
    assert module("ifbench").micro([r["inst_level_loose_acc"] for r in results]) == 2 / 3


def test_retired_ids_are_unknown_to_ifbench() -> None:
    for id in RETIRED_IDS:
        row = {"key": 1, "prompt": "?", "instruction_id_list": [id], "kwargs": [{}]}
        with pytest.raises(DataError, match=f"no instruction id '{id}'"):
            module("ifbench").process_docs([row])


# -- loading -----------------------------------------------------------------------------------------------------------

LOADER = """
import json, sys
from evalsuite.benchmark import find_benchmark
from evalsuite.data import go_offline_when_local, resolve_all
from evalsuite.errors import DataError
from evalsuite.harness import datasets_of, documents
benchmark = find_benchmark(sys.argv[1])
try:
    found = resolve_all(datasets_of(benchmark), (), offline=False)
    go_offline_when_local(found.values())
    docs = documents(benchmark, found)
except DataError as error:
    print(error)
    sys.exit(error.exit_code)
module = benchmark.module
print(json.dumps({i: module.verify(module.gold_response(d), d).value for i, d in docs.items()}))
"""
STAND_INS = {
    "ifeval_ood_hub": ("valpy/ifeval_ood3", {"count:countries": {"percentage": 3.0}, "count:numbers": {"N": 4.0}}),
    "ifbench": (
        "allenai/IFBench_test",
        {
            "count:numbers": {"N": 3.0},
            "words:keywords_specific_position": {"keyword": "owl", "n": 2.0, "m": 5.0},
            "repeat:repeat_span": {"prompt_to_repeat": "Copy a part of this.", "n_start": 2.0, "n_end": 7.0},
        },
    ),
}


def stand_in(asks: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as the hub has them: string keys, counts as floats, every parameter name in every row, null when unused."""
    names = sorted({name for c in all_constraints().values() for name in c.params})
    return [
        {
            "key": f"{number}",
            "prompt": f"An invented request, number {number}.",
            "instruction_id_list": [id],
            "kwargs": [dict.fromkeys(names) | kwargs],
        }
        for number, (id, kwargs) in enumerate(asks.items())
    ]


@pytest.mark.parametrize("name", STAND_INS)
def test_rows_of_the_hub_with_floats_and_nulls_are_loaded_and_judged(name: str, tmp_path: Path) -> None:
    dataset, asks = STAND_INS[name]
    write_repo(tmp_path / "root", dataset, {"default": {"train": stand_in(asks)}})
    with serve(tmp_path / "root") as hub:
        run = in_fresh_process(LOADER, name, home=tmp_path / "home", cwd=tmp_path, HF_ENDPOINT=hub.url)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {str(n): 1.0 for n in range(len(asks))}


def test_every_bad_row_of_the_hub_is_named_at_load(tmp_path: Path) -> None:
    rows = stand_in({"count:numbers": {}, "format:camelcase": {}})
    write_repo(tmp_path / "root", "allenai/IFBench_test", {"default": {"train": rows}})
    with serve(tmp_path / "root") as hub:
        run = in_fresh_process(LOADER, "ifbench", home=tmp_path / "home", cwd=tmp_path, HF_ENDPOINT=hub.url)
    assert run.returncode == 2, run.stdout + run.stderr
    assert "row 0: count:numbers: N is missing" in run.stdout
    assert "row 1: no instruction id 'format:camelcase'" in run.stdout


@pytest.mark.parametrize(("name", "dataset"), [(n, d) for n, (d, _) in STAND_INS.items()])
def test_without_the_hub_the_run_stops_and_says_where_a_local_copy_is_looked_for(
    name: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.jsonl").write_text('{"id": "0", "response": "7"}\n')
    assert main(["verify", name, str(tmp_path / "r.jsonl"), "--offline", "--data-root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert dataset in said
    assert "--data-root DIR" in said


@pytest.mark.slow
def test_stock_lm_eval_runs_the_prompts_with_its_dummy_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lm_eval", "run", "--include_path", str(ROOT / "benchmarks"), "--model", "dummy"]
    command += ["--tasks", "ifeval_ood", "--output_path", str(tmp_path / "out"), "--log_samples"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    [path] = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(path.read_text())
    assert found["n-samples"]["ifeval_ood"] == {"original": 383, "effective": 383}
    metrics = {name.partition(",")[0] for name in found["results"]["ifeval_ood"]}
    assert {"prompt_level_loose_acc", "prompt_level_strict_acc", "inst_level_loose_acc"} <= metrics
    [samples] = (tmp_path / "out").rglob("samples_*.jsonl")
    asked = [row["arguments"]["gen_args_0"]["arg_0"] for row in lines(samples)]
    assert sorted(asked) == sorted(row["prompt"] for row in prompts())
