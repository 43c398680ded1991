"""decontam ↔ real training files and real evals: what the rule `tulu3` finds in each, row by row.

Numbers are those of spec/decontam.md, section 12.4; they hang on spaCy 3.8. results/DECONTAM.md says what they mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from decontam.evals import load_evals
from decontam.job import in_threads, prepare, run
from decontam.job.progress import Silent
from decontam.text import analyze
from decontam.types import EvalSet

pytestmark = pytest.mark.slow

USED = ("mmlu", "humaneval", "gsm8k", "alpaca_eval", "bbh")
MBPP = "google-research-datasets/mbpp/full/test.parquet"
FILES = {  # training file and the selector of its prompts
    "adapters": ("contaminated/llm_adapters_math", "instruction"),
    "gsm8k train": ("contaminated/gsm8k_train_alpaca", "instruction"),
    "humaneval": ("contaminated/test_HumanEval", "text"),
    "rephrased": ("contaminated/rephrase_humaneval_python", "text"),
    "oasst1": ("sft/oasst1_en100", "messages[role=user][0].content"),
    "code alpaca": ("sft/code_alpaca_2k", "instruction+input"),
    "gpteacher": ("sft/gpteacher_codegen", "instruction+input"),
    "alpaca demo": ("sft/alpaca_en_demo", "instruction+input"),
    "hh": ("preference/hh_rlhf_harmless", "chosen"),
    "dpo demo": ("preference/dpo_en_demo", "conversations[from=human].value"),
    "llmbar": ("preference/llmbar", "input"),
}
# file: exit code of its scan, rows, and by eval (rows flagged, instances flagged, instances that the cap leaves)
FOUND: Mapping[str, tuple[int, int, Mapping[str, tuple[int, int, int]]]] = {
    "adapters": (1, 2306, {"gsm8k": (754, 755, 755)}),
    "gsm8k train": (0, 7473, {"gsm8k": (3, 2, 2), "mmlu": (1, 1, 1)}),
    "humaneval": (1, 164, {"humaneval": (164, 164, 164)}),
    "rephrased": (0, 164, {"humaneval": (9, 2, 2), "mmlu": (1, 1, 1)}),
    "oasst1": (0, 120, {"alpaca_eval": (10, 4, 4)}),
    "code alpaca": (1, 1418, {"mbpp": (10, 15, 15)}),
    "gpteacher": (1, 3180, {"mbpp": (17, 19, 19), "alpaca_eval": (1, 1, 1), "humaneval": (2, 1, 1)}),
    "alpaca demo": (0, 700, {"mmlu": (1, 42, 0)}),
    "hh": (0, 1605, {"bbh": (6, 1, 1), "alpaca_eval": (1, 1, 1)}),
    "dpo demo": (0, 217, {"bbh": (1, 1, 0)}),
    "llmbar": (0, 300, {"alpaca_eval": (3, 3, 3), "gsm8k": (1, 1, 1)}),
}


@dataclass(frozen=True, slots=True)
class Scanned:
    """What the scan of one training file wrote."""

    exit: int
    n_rows: int
    matches: Sequence[Mapping[str, Any]]
    verdict: Mapping[str, Any]

    def pairs(self, name: str) -> dict[tuple[int, str], float]:
        """(row, instance) to score of the matches with an eval, rounded to three places."""
        return {(m["row"], m["instance"]): round(m["score"], 3) for m in self.matches if m["eval"] == name}

    def only(self, key: str) -> Mapping[str, Any]:
        """Of the one training file: an entry of the verdict that is by training digest."""
        [found] = self.verdict[key].values()
        return dict(found)


@pytest.fixture(scope="module")
def evals(hub_data: Path) -> Sequence[EvalSet]:
    listed = [each for each in load_evals("decontam:tulu3", data_root=hub_data, skip_missing=True) if each.name in USED]
    assert {each.name: len(each.ids) for each in listed} == {
        "mmlu": 14042, "humaneval": 164, "gsm8k": 1319, "alpaca_eval": 805, "bbh": 6511,
    }  # fmt: skip
    return [*listed, *load_evals(f"mbpp={hub_data / MBPP}", ["text"])]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where reports go, and the index that all scans share."""
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def scanned(evals: Sequence[EvalSet], shared_data: Path, work: Path) -> Callable[[str], Scanned]:
    """Scans a file by its name in FILES, once, as `python -m decontam scan` does."""

    @cache
    def scan(name: str) -> Scanned:
        file, selector = FILES[name]
        train = f"{name}={shared_data / 'train' / file}.jsonl"
        job = prepare([train], evals, select=[selector], cache=work / "cache", say=lambda line: None)
        out = work / name
        finished = run(job, out, in_threads(1), Silent())
        [dataset] = json.loads((out / "summary.json").read_text())["datasets"]
        with (out / "matches.jsonl").open(encoding="utf-8") as lines:
            matches = [json.loads(line) for line in lines]
        return Scanned(finished.exit, dataset["rows"], matches, json.loads((out / "verdict.json").read_text()))

    return scan


@pytest.mark.parametrize("name", FILES)
def test_a_file_holds_what_is_written_down(name: str, scanned: Callable[[str], Scanned]) -> None:
    found = scanned(name)
    exit_code, n_rows, by_eval = FOUND[name]
    counted = {}
    for each in sorted({m["eval"] for m in found.matches}):
        mine = [m for m in found.matches if m["eval"] == each]
        left = {m["instance"] for m in mine if "capped" in m["flags"]}
        counted[each] = (len({m["row"] for m in mine}), len({m["instance"] for m in mine}), len(left))
    assert (found.exit, found.n_rows, counted) == (exit_code, n_rows, by_eval)
    assert all("exact" in m["flags"] and 0.5 < m["score"] <= 1 for m in found.matches)
    for each, of in found.verdict["evals"].items():
        rows, instances, kept = by_eval.get(each, (0, 0, 0))
        assert found.only("rates")[each] == pytest.approx(instances / of["n"], abs=1e-9)
        assert found.only("row_rates")[each] == pytest.approx(rows / n_rows, abs=1e-9)
        assert found.only("capped_rates")[each] == pytest.approx(kept / of["n"], abs=1e-9)
        over = instances > 0.02 * of["n"]
        assert found.only("actions")[each] == ("drop_or_clean" if over else "none")
    assert found.verdict["complete"] is True


def test_the_rows_flagged_in_llm_adapters_are_those_that_equal_a_question_of_gsm8k(
    scanned: Callable[[str], Scanned], evals: Sequence[EvalSet], shared_data: Path
) -> None:
    gsm8k = next(each for each in evals if each.name == "gsm8k")
    of_question = {str(texts[0]).strip(): name for name, texts in zip(gsm8k.ids, gsm8k.texts, strict=True)}
    with (shared_data / "train" / f"{FILES['adapters'][0]}.jsonl").open(encoding="utf-8") as lines:
        instructions = [json.loads(line)["instruction"].strip() for line in lines]
    copies = {(row, of_question[text]) for row, text in enumerate(instructions) if text in of_question}
    pairs = scanned("adapters").pairs("gsm8k")
    assert {row for row, _ in pairs} == {row for row, _ in copies}
    assert min(pairs[copy] for copy in copies) == 0.961
    beside = pairs.keys() - copies  # another question than the one that is copied
    assert len({row for row, _ in beside}) == 5
    assert {name for _, name in beside} - {name for _, name in copies} == {"33"}
    assert [score for (_, name), score in pairs.items() if name == "33"] == [0.522]


def test_the_other_analyzer_flags_the_same_rows_of_llm_adapters(
    evals: Sequence[EvalSet], shared_data: Path, work: Path, scanned: Callable[[str], Scanned]
) -> None:
    """Which of the two upstream's index ends up with does not matter here, but scores differ."""
    file, selector = FILES["adapters"]
    gsm8k = [each for each in evals if each.name == "gsm8k"]
    train = [f"{shared_data / 'train' / file}.jsonl"]
    job = prepare(train, gsm8k, select=[selector], rule="tulu3-standard", cache=work / "cache", say=lambda line: None)
    assert run(job, work / "standard", in_threads(1), Silent()).exit == 1
    with (work / "standard" / "matches.jsonl").open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    assert {m["rule"] for m in found} == {"tulu3-standard"}
    assert (len({m["row"] for m in found}), len({m["instance"] for m in found})) == (754, 755)
    pairs = {(m["row"], m["instance"]): round(m["score"], 3) for m in found}
    assert pairs.keys() == scanned("adapters").pairs("gsm8k").keys()
    assert pairs != scanned("adapters").pairs("gsm8k")


def test_few_rows_of_gsm8k_train_come_near_its_test_questions(scanned: Callable[[str], Scanned]) -> None:
    found = scanned("gsm8k train")
    assert found.pairs("gsm8k") == {(20, "632"): 0.75, (1314, "602"): 0.75, (5162, "602"): 0.75}
    assert found.pairs("mmlu") == {(1973, "2207"): 0.571}  # a short algebra question: false


def test_every_humaneval_prompt_is_found_by_its_own_row(scanned: Callable[[str], Scanned]) -> None:
    pairs = scanned("humaneval").pairs("humaneval")
    own = {row: pairs[row, name] for row, name in pairs if str(row) == name}
    assert own.keys() == set(range(164))
    assert min(own.values()) == 0.721


def test_a_reworded_humaneval_passes_but_for_one_prompt_of_examples(scanned: Callable[[str], Scanned]) -> None:
    pairs = scanned("rephrased").pairs("humaneval")
    assert {row for row, name in pairs if name == "61"} == {31, 43, 56, 61, 95, 119, 132, 134}  # only 61 is right
    assert {pair: score for pair, score in pairs.items() if pair[1] != "61"} == {(121, "121"): 0.518}


def test_open_assistant_holds_four_prompts_of_alpaca_eval_verbatim(scanned: Callable[[str], Scanned]) -> None:
    pairs = scanned("oasst1").pairs("alpaca_eval")
    assert {name for _, name in pairs} == {"337", "356", "376", "470"}
    assert set(pairs.values()) == {1.0}


def test_code_prompts_share_tasks_and_wording_with_mbpp(scanned: Callable[[str], Scanned]) -> None:
    assert len({m["row"] for m in scanned("gpteacher").matches}) == 20
    pairs = scanned("gpteacher").pairs("mbpp")
    assert {row for row, name in pairs if name == "384"} == {664, 1142, 1504, 1769, 1937, 2656}  # one task, six times
    assert pairs[1504, "384"] == 1.0
    assert scanned("code alpaca").pairs("mbpp")[828, "363"] == 0.786


def test_one_blank_is_found_in_forty_two_questions_and_the_cap_acquits_all(scanned: Callable[[str], Scanned]) -> None:
    matches = scanned("alpaca demo").matches
    assert {m["row"] for m in matches} == {387}
    assert all(m["flags"] == ["exact"] and m["common_share"] == 1.0 for m in matches)


def test_short_phrases_are_weak_witnesses(scanned: Callable[[str], Scanned]) -> None:
    """Spans on both sides are told, so that a reader sees at once that these are false."""
    brackets = scanned("hh").pairs("bbh")
    assert {name for _, name in brackets} == {"boolean_expressions/112"}
    assert scanned("hh").pairs("alpaca_eval") == {(685, "61"): 0.533}
    [options] = scanned("dpo demo").matches
    assert options["flags"] == ["exact"]
    assert options["instance"].startswith("snarks/")


def test_llmbar_holds_prompts_of_alpaca_eval_and_an_altered_problem(scanned: Callable[[str], Scanned]) -> None:
    found = scanned("llmbar")
    assert found.pairs("alpaca_eval") == {(9, "741"): 1.0, (10, "745"): 0.571, (126, "296"): 0.923}
    assert found.pairs("gsm8k") == {(6, "326"): 0.953}


def test_both_sides_of_a_run_hold_the_same_words(
    scanned: Callable[[str], Scanned], evals: Sequence[EvalSet], shared_data: Path
) -> None:
    texts = {(each.name, name): fields[0] for each in evals for name, fields in zip(each.ids, each.texts, strict=True)}
    with (shared_data / "train" / f"{FILES['adapters'][0]}.jsonl").open(encoding="utf-8") as lines:
        instructions = [json.loads(line)["instruction"] for line in lines]
    for match in scanned("adapters").matches:
        assert match["runs"]
        for one in match["runs"]:
            trained = instructions[match["row"]][slice(*one["train"])]
            asked = str(texts[match["eval"], match["instance"]])[slice(*one["eval"])]
            assert analyze(trained) == analyze(asked)


def test_a_scan_of_two_files_says_of_each_what_a_scan_of_it_alone_says(
    scanned: Callable[[str], Scanned], evals: Sequence[EvalSet], shared_data: Path, work: Path
) -> None:
    names = ("adapters", "gsm8k train")
    train = [f"{name}={shared_data / 'train' / FILES[name][0]}.jsonl" for name in names]
    job = prepare(train, evals, select=["instruction"], cache=work / "cache", say=lambda line: None)
    assert run(job, work / "both", in_threads(2), Silent()).exit == 1
    verdict = json.loads((work / "both" / "verdict.json").read_text())
    for each, name in zip(verdict["training"], names, strict=True):
        assert verdict["rates"][each["digest"]]["gsm8k"] == scanned(name).only("rates")["gsm8k"]
    ids = (work / "both" / "clean_ids" / "gsm8k.txt").read_text().split()
    assert set(ids) == {instance for name in names for _, instance in scanned(name).pairs("gsm8k")}
    assert len(ids) == 755  # the two that come near GSM8K's own training set are among them
