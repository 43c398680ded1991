"""A whole loop for real: a foreign program's checkpoints, asked by the hf engine, judged, promoted; killed twice.

The four checkpoints say one thing each, whatever they are asked: the answers to the first so many of N questions.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsuite.__main__ import main
from evalsuite.loop.log import FAULT, LoopLog
from evalsuite.registry import Registry
from tests.scripted_lm import make_scripted
from tests.toy import make_benchmark

ROOT = Path(__file__).resolve().parents[3]
N = 120
RIGHT = {10: 60, 20: 0, 30: 120, 40: 66}  # step -> questions answered right
OUTCOMES = {
    "step-000010": "promote",  # no champion: checks alone decide
    "step-000020": "block",  # 60 lost and none won against the first
    "step-000030": "promote",  # 60 won and none lost
    "step-000040": "block",  # 54 lost and none won against the third
}
# argv: folder with ready checkpoints, folder to copy them to, seconds between two. What was copied is left alone.
PROGRAM = """
import pathlib, shutil, sys, time
made, out, pause = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), float(sys.argv[3])
out.mkdir(parents=True, exist_ok=True)
with open(out / "starts.txt", "a") as file:
    file.write("started\\n")
for source in sorted(made.iterdir()):
    target = out / source.name
    if not target.exists():
        part = out / f"{source.name}.part"
        part.mkdir(exist_ok=True)
        for path in sorted(source.iterdir()):
            shutil.copy(path, part)
            time.sleep(pause)
        part.rename(target)
"""


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the loops read, but for the checkpoints."""
    root = tmp_path_factory.mktemp("setting")
    make_benchmark(root / "benchmarks", "toy", N)
    (root / "train.py").write_text(PROGRAM)
    (root / "data.jsonl").write_text('{"text": "a"}\n\n{"text": "b"}\n')
    suite = {"suite": "toy", "regime": "toy@v1", "split": "development", "columns": {"toy": "toy"}}
    (root / "suite.yaml").write_text(yaml.safe_dump(suite))
    policy = {"version": 1, "suite": "toy", "method": {"looks": 3}, "samples": {"when": []}}
    (root / "policy.yaml").write_text(yaml.safe_dump(policy))
    return root


@pytest.fixture(scope="module")
def made(setting: Path) -> Path:
    """The setting with the four checkpoints, made once."""
    for step, right in RIGHT.items():
        said = " ".join(str(2 * i) for i in range(right)) or "nothing"
        make_scripted(setting / "made" / f"checkpoint-{step}", said)
    return setting


class Run:
    """One loop over the four checkpoints, with a registry of its own."""

    def __init__(self, root: Path, setting: Path, **gate: Any) -> None:
        self.setting, self.results, self.out, self.screen = setting, root / "results", root / "out", root / "said.txt"
        root.mkdir(exist_ok=True)
        made, program = str(setting / "made"), str(setting / "train.py")
        options = {
            "command": [sys.executable, program, made, "{out}/run", "0.05"], "watch": "{out}/run",
            "pattern": r"checkpoint-(?P<step>\d+)", "complete": {"settled_s": 0.1}, "poll_s": 0.05,
            "data": "data.jsonl",
        }  # fmt: skip
        about = {"suite": "suite.yaml", "policy": "policy.yaml", "on_block": "continue", **gate}
        stages = [{"name": "sft", "trainer": "exec", "options": options}]
        self.recipe = setting / ("-".join(gate) or "plain")
        self.recipe.write_text(yaml.safe_dump({"schema": 1, "name": "four", "gate": about, "stages": stages}))

    def typed(self, *more: str) -> list[str]:
        where = ["--results", str(self.results), "--out", str(self.out)]
        where += ["--benchmarks", str(self.setting / "benchmarks")]
        return ["loop", str(self.recipe), *where, "--model", "hf", "--device", "cpu", "--threads", "1", *more]

    def start(self, forks: Any, fault: str = "") -> Any:
        process = forks.Process(target=play, args=(self.typed(), str(self.screen), fault))
        process.start()
        return process

    def finish(self, forks: Any) -> str:
        """Runs the loop to its end, which must be a good one; what it said."""
        process = self.start(forks)
        process.join(200)
        assert process.exitcode == 0, self.screen.read_text()
        return self.screen.read_text()

    def kill_when(self, forks: Any, happened: Callable[[], bool], fault: str = "") -> None:
        """Kills the loop with all its process group as soon as something has happened, or it killed itself."""
        process, deadline = self.start(forks, fault), time.monotonic() + 200
        while not happened() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        with suppress(ProcessLookupError):  # it was alone in its group
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, self.screen.read_text()

    def answers(self, benchmark: str = "*") -> Counter[str]:
        """How often each key stands in the journals of all checkpoints."""
        found: Counter[str] = Counter()
        for path in self.results.glob(f"journal/*/{benchmark}/*.jsonl"):
            lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            found.update(json.loads(line)["key"] for line in lines[1:])
        return found

    def gated(self) -> list[str]:
        """Names of the checkpoints that the loop's log has a verdict for."""
        stage = LoopLog(self.out).stage("sft")
        return [stage.seen[digest]["name"] for digest in stage.gated]

    def state(self) -> Mapping[str, Any]:
        """Everything that must not depend on kills."""
        registry = Registry.at(self.results)
        stage = LoopLog(self.out).stage("sft")
        names = {digest: event["name"] for digest, event in stage.seen.items()}
        champion = registry.ref("champion")
        assert champion is not None
        return {
            "head": (champion.id, champion.generation),
            "audit": [(e.event, e.ref, e.id, e.generation, e.verdict) for e in registry.events()],
            "outcomes": {names[digest]: event["outcome"] for digest, event in stage.gated.items()},
            "promoted": {names[digest]: generation for digest, generation in stage.promoted.items()},
            "answers": self.answers(),
            "starts": (self.out / "sft" / "run" / "starts.txt").read_text().count("started"),
        }


def play(arguments: list[str], screen: str, fault: str) -> None:
    """The command in a session of its own, its output in a file."""
    os.setsid()
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **({FAULT: fault} if fault else {})}
    with open(screen, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))


@pytest.mark.slow
def test_a_loop_that_promotes_two_of_four_and_is_killed_twice_ends_with_the_same_registry(
    made: Path, tmp_path: Path, forks: Any
) -> None:
    whole, killed = Run(tmp_path / "whole", made, bootstrap=True), Run(tmp_path / "killed", made, bootstrap=True)
    whole.finish(forks)
    # First in the middle of a verdict, then between a promotion and the loop's own note of it.
    killed.kill_when(forks, lambda: bool(killed.answers("toy")))
    assert killed.gated() == ["step-000010"]
    killed.kill_when(forks, lambda: False, "promote-returned")
    assert killed.gated() == ["step-000010", "step-000020", "step-000030"]
    killed.finish(forks)

    state = killed.state()
    assert state == whole.state()
    assert state["outcomes"] == OUTCOMES
    assert state["promoted"] == {"step-000010": 1, "step-000030": 2}
    assert state["head"][1] == 2
    assert set(state["answers"].values()) == {1}  # nothing was asked twice
    assert state["starts"] == 1  # nothing was trained twice
    assert Registry.at(killed.results).verify() == ()

    champion = Registry.at(killed.results).manifest(state["head"][0])
    assert champion is not None
    assert champion["checkpoint"]["name"] == "sft/step-000030"
    digest = hashlib.sha256((made / "data.jsonl").read_bytes()).hexdigest()
    assert [(d["path"], d["digest"]) for d in champion["data"]] == [("data.jsonl", digest)]
    # The same command once more: everything is done, nothing is asked, and it exits as it did.
    assert "sft: done before (4 checkpoints, 2 promoted, 2 blocked)" in killed.finish(forks)
    assert killed.state() == state


def test_without_a_champion_a_loop_says_before_it_trains_what_to_write_into_the_recipe(
    setting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, setting)
    assert main(run.typed()) == 2
    said = capsys.readouterr().err
    assert "stage 'sft': there is no champion to compare with" in said
    assert "gate: {bootstrap: true}" in said
    assert not (run.out / "sft" / "run").exists()


def test_a_policy_that_does_not_fit_is_refused_before_the_first_stage_trains(
    setting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, setting, bootstrap=True)
    assert main(run.typed("--set", "must_not_regress.toi.margin=0.1")) == 2
    assert "did you mean 'toy'" in capsys.readouterr().err
    assert not (run.out / "loop.jsonl").exists()  # the loop has not begun: it may begin with other options
