"""tests/speed/decontam_workload.py ↔ what its text, evals, rows and plants have to be."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest

from tests.speed.decontam_workload import KINDS, SUITES, Workload, make

ROWS, EVALS = 6_000, 4_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    return make(tmp_path_factory.mktemp("plain"), ROWS, EVALS)


@pytest.fixture(scope="module")
def rows(made: Workload) -> list[dict[str, Any]]:
    return read(made.train)


@pytest.fixture(scope="module")
def evals(made: Workload) -> dict[str, str]:
    return {row["id"]: row["question"] for file in made.suites for row in read(file)}


@pytest.fixture(scope="module")
def truth(made: Workload) -> dict[int, Mapping[str, Any]]:
    return {each["row"]: each for each in read(made.truth)}


@pytest.fixture(scope="module")
def templates(evals: Mapping[str, str]) -> set[str]:
    """What more than ten evals start with, up to a colon, and nothing longer of the same kind."""
    starts: Counter[str] = Counter()
    for text in evals.values():
        starts.update({text[: found.start()] for found in re.finditer(": ", text) if found.start() < 300})
    often = {start for start, n in starts.items() if n > 10 and len(start.split()) >= 9}
    return {start for start in often if not any(start.startswith(f"{other}: ") for other in often)}


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def prompt(row: Mapping[str, Any]) -> str:
    text: str = row["messages"][0]["content"]
    return text


def words(text: str) -> list[str]:
    return [word for word in re.split(r"[ ,.?:;\n]+", text.lower()) if word]


def test_rows_are_conversations_of_one_user_and_one_assistant_turn(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == ROWS
    assert len({row["id"] for row in rows}) == ROWS
    assert {tuple(row) for row in rows} == {("id", "messages", "source")}
    assert {tuple(m["role"] for m in row["messages"]) for row in rows} == {("user", "assistant")}


def test_ten_suites_share_the_evals_evenly(made: Workload, evals: Mapping[str, str]) -> None:
    assert [len(read(file)) for file in made.suites] == [EVALS // SUITES] * SUITES
    assert len(evals) == EVALS
    assert {tuple(row) for row in read(made.suites[3])} == {("id", "question")}


def test_lengths_are_lognormal_and_cut(rows: list[dict[str, Any]], evals: Mapping[str, str], made: Workload) -> None:
    # Medians: exp(3.6) = 36.6 words and some templates, exp(4.65) = 104.6, exp(3.7) = 40.4 and more templates.
    prompts = [len(prompt(row).split()) for row in rows]
    answers = [len(row["messages"][1]["content"].split()) for row in rows]
    questions = [len(text.split()) for text in evals.values()]
    assert (min(prompts), min(questions)) == (5, 10)
    assert min(answers) >= 10
    assert 36 <= median(prompts) <= 40
    assert 102 <= median(answers) <= 107
    assert 41 <= median(questions) <= 46
    assert max(questions) <= 400 + 15
    assert max(answers) <= 1_000 + max(questions)
    assert 1_190 < made.train.stat().st_size / ROWS < 1_260
    assert 360 < mean(len(text.encode()) for text in evals.values()) + len('{"id": "3-000123", "question": ""}\n') < 410


def test_forty_templates_start_a_tenth_of_the_rows_and_three_tenths_of_the_evals(
    rows: list[dict[str, Any]], evals: Mapping[str, str], templates: set[str]
) -> None:
    assert len(templates) == 40
    assert {len(t.split()) for t in templates} <= set(range(9, 16))
    starts = tuple(f"{t}: " for t in templates)
    # Four standard deviations of a share p of n: 4·sqrt(p(1-p)/n).
    assert sum(prompt(row).startswith(starts) for row in rows) / ROWS == pytest.approx(0.1, abs=0.0155)
    assert sum(text.startswith(starts) for text in evals.values()) / EVALS == pytest.approx(0.3, abs=0.029)


def test_two_percent_of_rows_are_planted_each_kind_alike(truth: dict[int, Mapping[str, Any]]) -> None:
    counts = Counter(each["kind"] for each in truth.values())
    assert len(truth) / ROWS == pytest.approx(0.02, abs=0.0073)
    assert set(counts) == set(KINDS)
    assert max(counts.values()) < 15 + 4 * 15**0.5  # 6,000 · .25 % = 15 expected


def test_plants_stand_where_the_truth_says(
    rows: list[dict[str, Any]], evals: Mapping[str, str], truth: dict[int, Mapping[str, Any]], templates: set[str]
) -> None:
    wrong = [
        each
        for number, each in truth.items()
        if not stands(each["kind"], rows[number], evals.get(each["eval"] or "", ""), templates)
    ]
    assert not wrong


def stands(kind: str, row: Mapping[str, Any], question: str, templates: set[str]) -> bool:
    text, have, asked = prompt(row), words(prompt(row)), words(question)
    n = len(question.split())
    match kind:
        case "exact":
            return f"\n{question}" in text
        case "recase":
            return question not in text and run_in(asked, have) and text != text.lower()
        case "part75":
            return run_in(words(" ".join(question.split()[: max(9, n * 3 // 4)])), have)
        case "typo12":
            return run_in(words(" ".join(question.split()[:11])), have) and (n < 12 or not run_in(asked, have))
        case "part30":
            return longest(asked, have) >= max(9, int(0.3 * n))
        case "para5":
            return longest(asked, have) >= 4 and not run_in(asked, have)
        case "tplonly":
            return any(f"\n{t}" in text for t in templates)
        case _:
            return bool(row["messages"][1]["content"].endswith(f"\n{question}")) and question not in text


def run_in(some: list[str], many: list[str]) -> bool:
    return f" {' '.join(some)} " in f" {' '.join(many)} "


def longest(some: list[str], many: list[str]) -> int:
    """Words of the longest stretch that both share."""
    best = 0
    ends: dict[int, int] = {}
    at = defaultdict(list)
    for j, word in enumerate(many):
        at[word].append(j)
    for word in some:
        ends = {j: ends.get(j - 1, 0) + 1 for j in at[word]}
        best = max([best, *ends.values()])
    return best


def test_rows_without_a_plant_hold_no_text_of_the_evals(
    rows: list[dict[str, Any]], evals: Mapping[str, str], truth: dict[int, Mapping[str, Any]]
) -> None:
    ends = {tuple(words(text)[-9:]) for text in evals.values()}
    for number, row in enumerate(rows):
        if number in truth:
            continue
        for message in row["messages"]:
            have = words(message["content"])
            assert ends.isdisjoint(zip(*(have[i:] for i in range(9)), strict=False)), number


def test_the_most_frequent_word_is_as_frequent_as_its_rank_says(rows: list[dict[str, Any]]) -> None:
    counts = Counter(word for row in rows for word in words(row["messages"][1]["content"]))
    shares = [(rank + 2.7) ** -1.05 for rank in range(60_000)]
    assert counts.most_common(1)[0][1] / counts.total() == pytest.approx(shares[0] / sum(shares), rel=0.05)


def test_the_seed_decides_every_byte_and_fewer_rows_are_a_prefix(made: Workload, tmp_path: Path) -> None:
    again, other = make(tmp_path / "again", 2_500, EVALS), make(tmp_path / "other", 200, EVALS, seed=8)
    assert made.train.read_bytes().startswith(again.train.read_bytes())
    assert again.train.read_bytes().count(b"\n") == 2_500
    assert read(again.truth) == [each for each in read(made.truth) if each["row"] < 2_500]
    assert [f.read_bytes() for f in again.suites] == [f.read_bytes() for f in made.suites]
    assert other.suites[0].read_bytes() != made.suites[0].read_bytes()
    assert not made.train.read_bytes().startswith(other.train.read_bytes())


def test_a_folder_is_written_once_and_anew_for_other_parameters(tmp_path: Path) -> None:
    first = make(tmp_path, 100, 50)
    written = first.train.stat().st_mtime_ns
    assert make(tmp_path, 100, 50).train.stat().st_mtime_ns == written
    assert len(read(make(tmp_path, 120, 50).train)) == 120


def test_the_escaped_variant_is_cyrillic_in_ascii(tmp_path: Path) -> None:
    made = make(tmp_path, 300, 100, variant="escaped")
    raw = made.train.read_bytes()
    assert raw.isascii()
    assert raw.count(b"\\u04") > 100_000  # 300 rows of about 800 letters
    assert re.search("[а-я]{4} [а-я]{2}", prompt(read(made.train)[0]))
    assert made.suites[0].read_bytes().isascii()


def test_the_parquet_variant_holds_the_same_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    made = make(tmp_path, 300, 100, variant="parquet")
    assert made.train.suffix == ".parquet"
    assert pq.read_table(made.train).to_pylist() == read(tmp_path / "train.jsonl")
