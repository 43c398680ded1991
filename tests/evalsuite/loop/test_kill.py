"""kill -9 of a loop at every point where it writes, and at random moments, changes nothing of what it comes to."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsuite.loop.log import FAULT, POINTS, LoopLog
from evalsuite.trainers import process, read_events
from tests.evalsuite.loop.folders import PYTHON, program
from tests.evalsuite.loop.world import World

ROOT = Path(__file__).resolve().parents[3]
OUTCOMES = {"step-000010": "promote", "step-000020": "block", "step-000030": "promote", "step-000040": "hold"}
REACHED = [point for point in POINTS if not point.endswith("lost_race")]  # no race is lost in these runs


class Run:
    """A recipe with the exec trainer and four checkpoints, of which the first and the third are promoted."""

    def __init__(self, root: Path, pause_s: float) -> None:
        self.root, self.out = root, root / "out"
        self.world = World(root / "world", OUTCOMES)
        options = {
            "preset": "trl", "command": [PYTHON, str(program(root)), "{output_dir}", "4", str(pause_s)],
            "complete": {"settled_s": max(0.15, 4 * pause_s)}, "poll_s": 0.03,
        }  # fmt: skip
        recipe = {"schema": 1, "name": "four", "gate": {"on_block": "continue"}}
        recipe["stages"] = [{"name": "only", "trainer": "exec", "options": options}]
        (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def start(self, **environment: str) -> subprocess.Popen[str]:
        arguments = [str(self.root / "recipe.yaml"), str(self.out), str(self.world.root), json.dumps(OUTCOMES)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.evalsuite.loop.world", *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip

    def finish(self, **environment: str) -> None:
        process_ = self.start(**environment)
        said, _ = process_.communicate(timeout=60)
        assert process_.returncode == 0, said

    def state(self) -> Mapping[str, Any]:
        """Everything that must not depend on kills."""
        stage = LoopLog(self.out).stage("only")
        names = {digest: event["name"] for digest, event in stage.seen.items()}
        head = self.world.head()
        assert head is not None
        return {
            "seen": list(names.values()),
            "outcomes": {names[d]: e["outcome"] for d, e in stage.gated.items()},
            "promoted": {names[d]: generation for d, generation in stage.promoted.items()},
            "decisions": {names[d]: e["decision"] for d, e in stage.controls.items()},
            "head": (head["id"], head["generation"]),
            "ended": stage.ended,
            "worked": self.world.work(),
            "folders": sorted(p.name for p in (self.out / "only" / "checkpoints").iterdir()),
        }

    def starts(self) -> int:
        return len((self.out / "only" / "run" / "starts.txt").read_text().splitlines())

    def check(self) -> None:
        state = self.state()
        assert state["seen"] == state["worked"] == state["folders"] == list(OUTCOMES)  # each once, in step order
        assert state["outcomes"] == OUTCOMES
        assert state["promoted"] == {"step-000010": 1, "step-000030": 2}
        assert state["decisions"] == dict.fromkeys(OUTCOMES, "continue")
        assert state["head"][1] == 2
        assert state["ended"] == "finished"


@pytest.mark.slow
def test_a_loop_killed_at_each_of_its_write_points_in_turn_ends_as_one_that_was_not(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole, killed = Run(tmp_path / "whole", 0.005), Run(tmp_path / "killed", 0.005)
    whole.finish()
    whole.check()
    n_killed = 0
    for point in REACHED:
        run = killed.start(**{FAULT: point})
        said, _ = run.communicate(timeout=60)
        assert run.returncode in (-signal.SIGKILL, 0), said
        n_killed += run.returncode == -signal.SIGKILL
    assert n_killed == len(REACHED)
    killed.finish()
    killed.check()
    assert killed.state() == whole.state()
    assert killed.starts() == 1  # training outlives the loop, and one that has finished is not started again


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 3])
def test_kills_at_later_checkpoints_change_nothing_either(tmp_path: Path, number: int) -> None:
    points = [p for p in REACHED if p.split("-")[-1] not in ("loop", "stage", "stage_end")]
    # Every second point for each number; a third promotion never comes.
    for i, point in enumerate(p for p in points[number % 2 :: 2] if "promote" not in p or number == 2):
        folder = tmp_path / str(i)
        folder.mkdir()
        run = Run(folder, 0.002)
        killed = run.start(**{FAULT: f"{point}:{number}"})
        said, _ = killed.communicate(timeout=60)
        assert killed.returncode == -signal.SIGKILL, (point, said)
        run.finish()
        run.check()
        assert run.starts() == 1


def test_kills_around_a_lost_race_still_have_the_checkpoint_judged_again_and_promoted(tmp_path: Path) -> None:
    points = [point for point in POINTS if point.endswith("lost_race")]
    assert points == ["before-lost_race", "torn-lost_race", "after-lost_race"]
    run = Run(tmp_path, 0.002)
    for point in points:  # after-lost_race can only be reached while the event is not in the log
        killed = run.start(RACE="step-000030", **{FAULT: point})
        said, _ = killed.communicate(timeout=60)
        assert killed.returncode == -signal.SIGKILL, (point, said)
    run.finish(RACE="step-000030")
    state = run.state()
    assert state["worked"] == ["step-000010", "step-000020", "step-000030", "step-000030", "step-000040"]
    assert state["promoted"] == {"step-000010": 1, "step-000030": 3}  # 2 was somebody else's
    assert state["head"][1] == 3
    assert sum(event["kind"] == "lost_race" for event in read_events(run.out / "loop.jsonl")) == 1
    assert run.starts() == 1


def test_random_kills_of_the_loop_change_nothing(tmp_path: Path) -> None:
    moments = random.Random(5)
    run = Run(tmp_path, 0.02)
    for _ in range(4):
        process_ = run.start(GATE_SECONDS="0.1")
        time.sleep(moments.uniform(0.4, 1.2))
        process_.kill()
        process_.communicate()
    run.finish()
    run.check()
    assert run.starts() == 1


def test_when_training_is_killed_too_it_is_started_again_and_nothing_is_judged_twice(tmp_path: Path) -> None:
    run = Run(tmp_path, 0.1)  # four folders of five files in two halves: four seconds of training
    process_ = run.start()
    deadline = time.monotonic() + 20
    while not run.world.work() and time.monotonic() < deadline:
        time.sleep(0.02)
    process_.kill()
    process_.communicate()
    training = process.find(run.out / "only")
    assert training is not None
    training.signal("KILL")
    assert training.wait(5)
    run.finish()
    run.check()
    assert run.starts() == 2
