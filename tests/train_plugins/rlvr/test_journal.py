"""The journal of rollouts: a line for each, and after a kill the same bytes again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from train_plugins.rlvr.journal import RolloutJournal
from train_plugins.rlvr.rollouts import Batch, Prompt, Response, Reward, Rollout

BROKEN = "half a pair \ud83d"


def batch(iteration: int, n: int = 2, text: str = "ba") -> Batch:
    prompt = Prompt(4, "r4", (5, 6), "exact", "ab", {"messages": [{"role": "user", "content": "ba"}]})
    reward = Reward({"exact": 0.0}, "expected ab")
    rollouts = (Rollout(prompt, i, Response((7, 8, 2), (-1.0,) * 3, True), text, reward, 0.0) for i in range(n))
    return Batch(iteration, iteration - 1, tuple(rollouts))


def read(out: Path) -> list[tuple[int, int]]:
    """(iteration, attempt) of each line."""
    lines = [json.loads(line) for line in (out / "rollouts.jsonl").read_bytes().decode("utf-8", "replace").splitlines()]
    return [(line["iteration"], line["attempt"]) for line in lines]


def test_a_line_says_what_was_answered_and_what_it_was_worth(tmp_path: Path) -> None:
    journal = RolloutJournal(tmp_path, "all", 0, 0)
    journal.add(batch(3), 0, [0.5] * 2)
    journal.close()
    first, second = map(json.loads, (tmp_path / "rollouts.jsonl").read_text().splitlines())
    assert first == {
        "iteration": 3, "version": 2, "attempt": 0, "id": "r4", "dataset": "exact", "sample": 0, "text": "ba",
        "finished": True, "n_tokens": 3, "score": 0.0, "verified": {"exact": 0.0}, "advantage": 0.5,
        "why": "expected ab", "messages": [{"role": "user", "content": "ba"}], "ground_truth": "ab",
    }  # fmt: skip
    assert set(first) - set(second) == {"messages", "ground_truth"}  # a prompt is told once


def test_half_a_surrogate_pair_does_not_end_the_run(tmp_path: Path) -> None:
    journal = RolloutJournal(tmp_path, "all", 0, 0)
    journal.add(batch(1, text=BROKEN), 0, [0.5] * 2)
    journal.close()
    assert read(tmp_path) == [(1, 0), (1, 0)]


@pytest.mark.parametrize(("keep", "n"), [("all", 20), ("samples", 8), ("off", 0)])
def test_as_many_rollouts_are_kept_as_the_option_says(tmp_path: Path, keep: str, n: int) -> None:
    journal = RolloutJournal(tmp_path, keep, 0, 0)  # type: ignore[arg-type]
    journal.add(batch(1, 20), 0, [0.5] * 20)
    assert (journal.sync() > 0) is (n > 0)
    journal.close()
    path = tmp_path / "rollouts.jsonl"
    assert (len(read(tmp_path)) if path.exists() else 0) == n


def test_a_resumed_run_cuts_off_what_its_state_does_not_know(tmp_path: Path) -> None:
    first = RolloutJournal(tmp_path, "all", 0, 0)
    first.add(batch(1), 0, [0.5] * 2)
    length = first.sync()
    first.add(batch(2), 0, [0.5] * 2)
    first.close()
    again = RolloutJournal(tmp_path, "all", length, 0)
    assert again.sync() == length  # what a state that is written before any rollout remembers
    again.add(batch(2), 0, [0.5] * 2)
    assert again.sync() == 2 * length
    again.close()
    assert read(tmp_path) == [(1, 0), (1, 0), (2, 0), (2, 0)]


def test_rollouts_are_in_the_file_before_anything_is_saved(tmp_path: Path) -> None:
    """A worker that is killed takes nothing of them along."""
    journal = RolloutJournal(tmp_path, "all", 0, 0)
    journal.add(batch(1), 0, [0.5] * 2)
    assert read(tmp_path) == [(1, 0), (1, 0)]
    journal.close()


def test_after_a_rollback_earlier_attempts_stay_and_this_one_begins_anew(tmp_path: Path) -> None:
    first = RolloutJournal(tmp_path, "all", 0, 0)
    for iteration in (1, 2):
        first.add(batch(iteration), 0, [0.5] * 2)
    first.close()
    second = RolloutJournal(tmp_path, "all", None, 1)
    second.add(batch(2), 1, [0.5] * 2)
    second.close()
    assert read(tmp_path) == [(1, 0)] * 2 + [(2, 0)] * 2 + [(2, 1)] * 2
    with (tmp_path / "rollouts.jsonl").open("ab") as file:
        file.write(b'{"iteration": 3, "att')  # a kill before the first state of the attempt
    RolloutJournal(tmp_path, "all", None, 1).close()
    assert read(tmp_path) == [(1, 0)] * 2 + [(2, 0)] * 2


def test_a_file_that_somebody_cut_goes_on_with_whole_lines_and_tells_what_is_lost(tmp_path: Path) -> None:
    first = RolloutJournal(tmp_path, "all", 0, 0)
    first.add(batch(1), 0, [0.5] * 2)
    length = first.sync()
    first.close()
    os.truncate(tmp_path / "rollouts.jsonl", length - 9)
    again = RolloutJournal(tmp_path, "all", length, 0)
    assert again.lost == 9
    again.add(batch(2), 0, [0.5] * 2)
    assert again.sync() == (tmp_path / "rollouts.jsonl").stat().st_size
    again.close()
    assert read(tmp_path) == [(1, 0), (2, 0), (2, 0)]


def test_a_damaged_line_ends_no_rollback(tmp_path: Path) -> None:
    first = RolloutJournal(tmp_path, "all", 0, 0)
    first.add(batch(1), 0, [0.5] * 2)
    first.close()
    path = tmp_path / "rollouts.jsonl"
    path.write_bytes(b"torn\n" + path.read_bytes())
    second = RolloutJournal(tmp_path, "all", None, 1)
    second.add(batch(2), 1, [0.5] * 2)
    second.close()
    path.write_bytes(path.read_bytes().removeprefix(b"torn\n"))
    assert read(tmp_path) == [(1, 0)] * 2 + [(2, 1)] * 2
