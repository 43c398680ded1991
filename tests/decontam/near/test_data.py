"""decontam/near ↔ real training files and the synthetic workload: how many pairs, and are they right."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from decontam.near import PROFILES, build
from tests.decontam.near.world import evals_of, told
from tests.speed.decontam_workload import Workload, make

EVALS = {
    "gsm8k": ("openai/gsm8k/main/test.jsonl", "question"),
    "humaneval": ("openai/openai_humaneval/openai_humaneval/test.jsonl", "prompt"),
}
TRAIN = {
    "adapters": ("contaminated/llm_adapters_math.jsonl", "instruction"),
    "gsm8k train": ("contaminated/gsm8k_train_alpaca.jsonl", "instruction"),
    "rephrased": ("contaminated/rephrase_humaneval_python.jsonl", "text"),
    "labelled copies": ("contaminated/database_CodeAlpacaDB.jsonl", "train"),
    "gpteacher": ("sft/gpteacher_codegen.jsonl", ""),
    "code alpaca": ("sft/code_alpaca_2k.jsonl", ""),
}

# training file, eval, profile: candidates, pairs, rows, instances (spec/decontam.md, section 5). CodeAlpacaDB's rows
# name the training texts that its authors call semantic copies: they share no wording, and the stage finds none.
COUNTS = [
    ("adapters", "gsm8k", "default", 788, 763, 758, 757),
    ("gsm8k train", "gsm8k", "default", 99, 10, 10, 9),
    ("gsm8k train", "gsm8k", "wide", 1422, 66, 64, 50),
    ("rephrased", "humaneval", "default", 40, 4, 4, 4),
    ("rephrased", "humaneval", "wide", 130, 52, 52, 52),
    ("labelled copies", "humaneval", "default", 0, 0, 0, 0),
    ("labelled copies", "humaneval", "wide", 2, 0, 0, 0),
    ("gpteacher", "humaneval", "wide", 287, 0, 0, 0),
    ("code alpaca", "humaneval", "wide", 53, 0, 0, 0),
]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:  # str.splitlines would cut at U+2028 too
        yield from map(json.loads, lines)


def texts_of(path: Path, field: str) -> list[str]:
    """The texts of a field, each of a list's; of no field all that a row has, joined by newlines."""
    if not field:
        return ["\n".join(value for value in row.values() if value) for row in rows(path)]
    found = [row[field] for row in rows(path)]
    return [text for each in found for text in (each if isinstance(each, list) else [each])]


@pytest.mark.parametrize(("train", "evals", "profile", "candidates", "pairs", "n_rows", "instances"), COUNTS)
def test_the_pairs_of_real_files_are_those_of_the_specification(
    train: str, evals: str, profile: str, candidates: int, pairs: int, n_rows: int, instances: int,
    shared_data: Path, hub_data: Path,
) -> None:  # fmt: skip
    messages = texts_of(shared_data / "train" / TRAIN[train][0], TRAIN[train][1])
    index = build([evals_of(*texts_of(hub_data / EVALS[evals][0], EVALS[evals][1]))])
    assert len(index.candidates(messages, PROFILES[profile])) == candidates
    found = index.find(messages, PROFILES[profile])
    assert (len(found), len({hit.message for hit in found}), len({hit.inst for hit in found})) == (
        pairs, n_rows, instances,
    )  # fmt: skip
    if train == "rephrased":  # row i rewords problem i
        assert all(hit.message == hit.inst for hit in found)


def test_a_reworded_problem_scores_as_written_down(shared_data: Path, hub_data: Path) -> None:
    messages = texts_of(shared_data / "train" / TRAIN["rephrased"][0], "text")[:40]
    texts = texts_of(hub_data / EVALS["humaneval"][0], "prompt")[:40]
    found = build([evals_of(*texts)]).find(messages, PROFILES["wide"])
    expected = told(texts, messages, PROFILES["wide"])
    assert {(hit.message, hit.inst): hit.score for hit in found} == {pair: hit.score for pair, hit in expected.items()}
    assert len(found) > 5


def test_no_instance_of_either_eval_is_uncovered(hub_data: Path) -> None:
    index = build([evals_of(*texts_of(hub_data / path, field), name=name) for name, (path, field) in EVALS.items()])
    assert index.uncovered == {"gsm8k": (), "humaneval": ()}


# -- the synthetic workload --

ROWS, N_EVALS = 6_000, 4_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    return make(tmp_path_factory.mktemp("near"), ROWS, N_EVALS)


@pytest.fixture(scope="module")
def prompts(made: Workload) -> list[str]:
    return [row["messages"][0]["content"] for row in rows(made.train)]


@pytest.fixture(scope="module")
def questions(made: Workload) -> dict[str, str]:
    return {row["id"]: row["question"] for file in made.suites for row in rows(file)}


@pytest.fixture(scope="module")
def planted(made: Workload) -> list[Mapping[str, Any]]:
    return [row for row in rows(made.truth) if row["eval"] is not None]


def test_nine_in_ten_paraphrases_are_found_and_one_in_a_hundred_pairs_is_wrong_at_most(
    prompts: Sequence[str], questions: Mapping[str, str], planted: Sequence[Mapping[str, Any]]
) -> None:
    ids = list(questions)
    hits = build([evals_of(*questions.values())]).find(prompts, PROFILES["default"])
    found = {(hit.message, ids[hit.inst]) for hit in hits}
    right = {(plant["row"], plant["eval"]) for plant in planted}
    for kinds, share in ((["para5"], 0.9), (["exact", "recase", "typo12"], 1.0), (["part75"], 0.9)):
        sought = {(plant["row"], plant["eval"]) for plant in planted if plant["kind"] in kinds}
        assert len(sought) > 5
        assert len(found & sought) >= share * len(sought), kinds
    assert len(found - right) <= 0.01 * len(found)


def test_seeding_and_scoring_keep_to_their_budget(prompts: Sequence[str], questions: Mapping[str, str]) -> None:
    """100 µs a row and 1 ms a pair; 10 µs and .3 ms on a machine with nothing else to do."""
    index, profile = build([evals_of(*questions.values())]), PROFILES["default"]

    def cpu_s() -> tuple[float, float]:
        start = time.thread_time()
        n_pairs = len(index.candidates(prompts, profile))
        seeded = time.thread_time()
        index.find(prompts, profile)
        scored = time.thread_time() - seeded - (seeded - start)
        return (seeded - start) / len(prompts), scored / n_pairs

    measured = [cpu_s() for _ in range(3)]
    assert min(seeding for seeding, _ in measured) < 100e-6
    assert min(scoring for _, scoring in measured) < 1e-3
