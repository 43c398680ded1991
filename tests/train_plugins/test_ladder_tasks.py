"""Rows for training on the demo ladder: canonical, the same for the same seed, and none of any test set."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from evalsuite.benchmark import find_benchmark
from evalsuite.verify.drawn import held_out
from evalsuite.verify.rewards import find_reward
from train_plugins.data.rows import read_rows
from train_plugins.data.writing import write_dataset
from train_plugins.ladder.tasks import SHARES, TASKS, rlvr_rows, sft_rows

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 1, 2)


def questions(rows: list[dict[str, object]]) -> set[str]:
    return {row["messages"][0]["content"] for row in rows}  # type: ignore[index]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_row_for_training_asks_a_question_of_a_test_set(seed: int) -> None:
    asked = questions(sft_rows(4000, seed)) | questions(rlvr_rows(4000, seed))
    tested = {
        row["question"]
        for name in (*TASKS, "ladder_unseen")
        for row in find_benchmark(name).module.test_rows()  # type: ignore[union-attr]
    }
    assert len(tested) == 2500
    assert asked & tested == set()
    assert not any(held_out(question) for question in asked)  # the reason why, whatever the test sets are


def test_answers_of_the_rows_are_right_by_the_benchmarks_own_verifiers() -> None:
    for row in sft_rows(300, 5):
        reward = find_reward(row["source"])
        assert reward.verify(row["messages"][1]["content"], {"ground_truth": row["messages"][1]["content"]}).value == 1
    for row in rlvr_rows(300, 5):
        assert find_reward(row["dataset"]).verify(row["ground_truth"], row).value == 1


def test_a_seed_gives_the_same_rows_and_a_longer_draw_begins_with_them() -> None:
    assert sft_rows(50, 1) == sft_rows(80, 1)[:50]
    assert sft_rows(50, 1) != sft_rows(50, 2)
    assert questions(sft_rows(50, 1)) != questions(rlvr_rows(50, 1))


def test_tasks_come_by_their_shares_and_one_task_alone_can_be_asked_for() -> None:
    counts = Counter(row["dataset"] for row in rlvr_rows(6000, 0))
    of = sum(SHARES.values())
    # Six thousand draws: the standard error of a share of a third is 0.006.
    assert {task: counts[task] / 6000 for task in TASKS} == pytest.approx(
        {task: share / of for task, share in SHARES.items()}, abs=0.03
    )
    assert {row["dataset"] for row in rlvr_rows(40, 0, ("ladder_reverse",))} == {"ladder_reverse"}


@pytest.mark.parametrize("kind", ["sft", "rlvr"])
def test_rows_are_read_back_as_canonical_ones(kind: str, tmp_path: Path) -> None:
    rows = sft_rows(200, 0) if kind == "sft" else rlvr_rows(200, 0)
    assert len({row["id"] for row in rows}) == 200
    written = write_dataset(tmp_path / "rows.jsonl", rows, {"origin": "test"})
    assert list(read_rows(written.path, kind)) == rows  # type: ignore[arg-type]


def test_importing_the_tasks_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'numpy', 'lm_eval'}"
    program = (
        "import sys, train_plugins.ladder.tasks as tasks; tasks.sft_rows(5, 0); tasks.rlvr_rows(5, 0);"
        f"sys.exit(' '.join({heavy} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")
