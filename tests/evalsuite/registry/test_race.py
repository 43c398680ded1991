"""Many processes at once: one winner per generation, and no reader ever sees half of anything."""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from evalsuite.errors import LostRace
from evalsuite.registry import LockKind
from tests.evalsuite.registry.places import make, memory_folder, promote

FORK = multiprocessing.get_context("fork")
WRITERS = 8


def write(root: Path, lock: LockKind, rounds: int, number: int, start: Barrier, results: str) -> None:
    """Judges against the generation that all see at the start of a round, then promotes at once with the others."""
    registry = make(root, lock=lock)
    won = []
    for _ in range(rounds):
        start.wait(60)
        current = registry.ref("champion")
        generation = current.generation if current else 0
        start.wait(60)
        with suppress(LostRace):
            promote(registry, generation, f"{number:02x}")
            won.append(generation + 1)
    Path(results).write_text(" ".join(map(str, won)))


def read(root: Path, stop: Event, results: str) -> None:
    """Reads without a pause; raises, and leaves no result, when anything cannot be read or goes backwards."""
    registry, newest, n = make(root), 0, 0
    while not stop.is_set():
        refs = registry.refs()
        generation = refs["champion"].generation if refs else 0
        events = registry.events()
        assert generation >= newest
        assert len(events) >= generation
        newest, n = generation, n + 1
    Path(results).write_text(str(n))


def race(folder: Path, rounds: int, lock: LockKind = "flock") -> None:
    root, start, stop = folder / "registry", FORK.Barrier(WRITERS), FORK.Event()
    writers = [
        FORK.Process(target=write, args=(root, lock, rounds, i, start, str(folder / f"writer{i}")))
        for i in range(WRITERS)
    ]
    readers = [FORK.Process(target=read, args=(root, stop, str(folder / f"reader{i}"))) for i in range(2)]
    for process in [*readers, *writers]:
        process.start()
    for process in writers:
        process.join()
    stop.set()
    for process in readers:
        process.join()
    assert [process.exitcode for process in [*writers, *readers]] == [0] * (WRITERS + 2)
    won = [int(g) for i in range(WRITERS) for g in (folder / f"writer{i}").read_text().split()]
    assert sorted(won) == list(range(1, rounds + 1))  # each generation once: one winner, seven losers
    assert all(int((folder / f"reader{i}").read_text()) > 0 for i in range(2))
    registry = make(root)
    assert [e.generation for e in registry.events()] == list(range(1, rounds + 1))
    assert registry.refs()["champion"].generation == rounds
    assert registry.verify() == ()


def test_of_eight_promotions_at_once_one_wins_each_generation(tmp_path: Path) -> None:
    race(tmp_path, rounds=30)


def test_leases_let_one_win_too(tmp_path: Path) -> None:
    race(tmp_path, rounds=3, lock="lease")


@pytest.mark.slow
def test_of_eight_promotions_at_once_one_wins_each_of_two_hundred_generations() -> None:
    with memory_folder() as folder:
        race(folder, rounds=200)
