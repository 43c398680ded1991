"""Runs that want the same journals wait for each other, and none waits for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite import run as running
from evalsuite.errors import JournalError
from evalsuite.gating import gate
from evalsuite.journal import Journal
from evalsuite.score import score
from tests.evalsuite.gating.world import Checkpoint, World, every, make_world

NAMES = ("zulu", "alpha")
PATIENCE_S = 60  # a run takes about three seconds, and waits for one other


class Slow(Journal):
    """Takes its time once it has the lock, so that whoever locks in another order is sure to be caught."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        time.sleep(0.15)


def opened(folder: str) -> World:
    world = World(Path(folder), NAMES)
    running.open_model = world.open
    running.Journal = Slow  # type: ignore[misc]
    return world


def gate_in(folder: str, mine: str, theirs: str) -> None:
    opened(folder).gate(Checkpoint(mine, every(7)), Checkpoint(theirs, every(7, 1)))


def score_in(folder: str, who: str) -> None:
    world = opened(folder)
    score(world.job(Checkpoint(who, every(7))))


def together(forks: Any, *runs: tuple[Callable[..., None], tuple[str, ...]]) -> list[int | None]:
    """Exit codes of runs that start at the same time; None for one that is still there when patience ends."""
    processes = [forks.Process(target=target, args=arguments) for target, arguments in runs]
    for process in processes:
        process.start()
    deadline = time.monotonic() + PATIENCE_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes


PAIRS = {
    "two candidates, one champion": [(gate_in, ("a", "old")), (gate_in, ("b", "old"))],
    "each the other's champion": [(gate_in, ("a", "b")), (gate_in, ("b", "a"))],
    "a gate and a score of its candidate": [(gate_in, ("a", "old")), (score_in, ("a",))],
    "the same gate twice": [(gate_in, ("a", "old")), (gate_in, ("a", "old"))],
}


@pytest.mark.parametrize("kind", PAIRS)
def test_runs_that_want_the_same_journals_do_not_wait_for_ever(kind: str, tmp_path: Path, forks: Any) -> None:
    world = make_world(tmp_path, NAMES)
    runs = [(target, (str(tmp_path), *names)) for target, names in PAIRS[kind]]
    assert together(forks, *runs) == [0, 0]
    assert set(world.answers().values()) == {1}
    assert world.registry.verify(pause_s=0) == ()
    gates = {names for target, names in PAIRS[kind] if target is gate_in}
    assert len({event.verdict for event in world.events("verdict")}) == len(gates)
    assert len(world.events("verdict")) == len(gates)


def test_a_gate_that_may_not_wait_says_whose_journal_is_in_use(world: World) -> None:
    mine, theirs = Checkpoint("new"), Checkpoint("old")
    job = world.gate_job(mine, theirs)
    held = Journal(world.results / "journal" / theirs.digest[:12] / "toy", {})
    hasty = [replace(world.job(who), wait=False) for who in (mine, theirs)]
    with pytest.raises(JournalError, match="in use by another evalsuite process; wait for it, or drop --no-wait"):
        gate(replace(job, candidate=hasty[0], champion=hasty[1]))
    held.close()
    assert gate(job).verdict.outcome == "promote"
