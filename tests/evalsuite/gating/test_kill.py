"""A gate that is killed, wherever it is, and run again ends in the bytes of one that was not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite import run as running
from evalsuite.gate.policy import KRule, Method, Rule, Samples
from evalsuite.registry import FAULTS
from tests.evalsuite.gating.world import POLICY, Checkpoint, World, every, make_world
from tests.evalsuite.registry.places import in_child

NAMES = ("choose", "toy")
ITEMS = 120
SLOW_S = 16 * 0.004  # 4 ms an answer, with 16 in flight
N_KILLS = 50
TWO = replace(
    POLICY,
    method=Method(looks=10),
    default=Rule(margin=0.3),
    samples=Samples(when=(KRule(ITEMS + 1, 2),)),
    infra=("loads", "generates"),
)


def play(folder: Path, latency_s: float = 0.0) -> None:
    """The gate that is killed: three sides, two samples an item, and losses and wins that cancel."""
    world = World(folder, NAMES, latency_s=latency_s)
    running.open_model = world.open
    mine, theirs, anchor = (Checkpoint(name, every(3, i)) for i, name in enumerate(("new", "old", "base")))
    world.gate(mine, theirs, TWO, anchor=anchor, anchor_generation=1)


def apart(forks: Any, action: Callable[..., None], *arguments: Any) -> None:
    """Runs `action` in a process that has nothing but imports, so that it may fork quickly and safely."""
    process = forks.Process(target=action, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def played(folder: Path) -> None:
    assert in_child(lambda: play(folder)) == 0


# -- at random --


def kill_often(whole: Path, killed: Path, n: int) -> None:
    """One gate that is left alone, and one that is killed n times before it may come to its end."""
    started = time.monotonic()
    played(whole)
    duration_s, moments, told = time.monotonic() - started, random.Random(0), []
    world = World(killed, NAMES)
    for k in range(n):
        before = n_answers(world)
        pid = os.fork()
        if pid == 0:
            try:
                play(killed, SLOW_S)
            finally:
                os._exit(0)
        if k % 2:  # while it answers; else anywhere
            deadline = time.monotonic() + 30
            while n_answers(world) == before and time.monotonic() < deadline and not ended(pid):
                time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.05 if k % 2 else duration_s))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        told.append(n_answers(world))
    played(killed)
    (killed / "told.json").write_text(json.dumps(told))


def ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def n_answers(world: World) -> int:
    return sum(world.answers().values())


@pytest.mark.slow
def test_fifty_kills_end_in_the_bytes_of_a_gate_that_was_left_alone(tmp_path: Path, forks: Any) -> None:
    whole, killed = (make_world(tmp_path / name, NAMES, ITEMS) for name in ("whole", "killed"))
    apart(forks, kill_often, whole.root, killed.root, N_KILLS)
    told = json.loads((killed.root / "told.json").read_text())
    assert len(set(told)) > N_KILLS // 3, "too few of the gates were killed at work"
    assert len(whole.written()) == 1
    assert killed.written() == whole.written()
    # A journal holds each answer once: whatever reached it was not asked again.
    assert set(killed.answers().values()) == {1}
    # How far a reference is asked ahead depends on where its engine was opened again; the candidate is not asked more.
    assert set(killed.answers("new")) == set(whole.answers("new"))
    assert killed.registry.verify(pause_s=0) == ()
    assert [len(killed.events(kind)) for kind in ("attempt", "verdict")] == [1, 1]
    assert killed.events("verdict")[0].verdict == whole.events("verdict")[0].verdict


# -- at each step of writing things down --


def kill_at_each(folder: Path) -> None:
    """A gate with every answer in its journals, killed at each point of FAULTS each time that it comes there."""
    played(folder / "whole")
    shutil.copytree(folder / "whole", folder / "answered")
    for name in ("registry", "gates"):
        shutil.rmtree(folder / "answered" / "results" / name)
    for point in FAULTS:
        for nth in range(1, 9):
            place = folder / f"{point}-{nth}"
            shutil.copytree(folder / "answered", place)
            code = in_child(lambda place=place: play(place), {"EVALSUITE_FAULT": f"{point}:{nth}"})
            if code == 0:
                shutil.rmtree(place)
                break
            assert code == -signal.SIGKILL
            played(place)


@pytest.mark.slow
def test_a_kill_at_any_step_of_writing_things_down_leaves_one_verdict(tmp_path: Path, forks: Any) -> None:
    whole = make_world(tmp_path / "whole", NAMES, ITEMS)
    apart(forks, kill_at_each, tmp_path)
    places = sorted(path.name for path in tmp_path.iterdir() if path.name[-1].isdigit())
    # An attempt is one event; a verdict is two objects, the policy and itself, and one event.
    assert {"event-write-1", "event-write-2", "object-rename-1", "object-rename-2"} <= set(places)
    for place in places:
        world = World(tmp_path / place, NAMES)
        assert world.written() == whole.written(), place
        assert world.registry.verify(pause_s=0) == (), place
        assert [event.verdict for event in world.events("verdict")] == [
            event.verdict for event in whole.events("verdict")
        ], place
        assert len(world.events("attempt")) == 1, place
        assert not list(world.results.rglob("*.part")), place
