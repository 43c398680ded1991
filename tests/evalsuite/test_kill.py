"""`evalsuite score` on real data with real engines, killed five times with -9, ends in the bytes of a whole run."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evalsuite.__main__ import main
from tests.tiny import Shape, make_model, make_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SHAPE = Shape(vocab=4096, hidden=128, layers=2, positions=4096)  # vLLM on a CPU wants heads of 32 and more


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose end-of-text logit is spread out, so that responses stop after some tens of tokens."""
    folder = make_tokenizer(tmp_path_factory.mktemp("kill") / "tiny", SHAPE.vocab)
    model = make_model(SHAPE, seed=3)
    model.lm_head.weight.data[2] *= 6
    model.save_pretrained(folder)
    return folder


def arguments(checkpoint: Path, data: Path, engine: str) -> list[str]:
    found = ["score", str(checkpoint), "--suite", "tulu3-dev", "--limit", "200", "--results", "results"]
    found += ["--tasks", "gsm8k,mmlu,truthfulqa,ifeval", "--data-root", str(data), "--model", engine]
    return [*found, "--threads", "1"]


def play(arguments: list[str], folder: str) -> None:
    """The command in a session of its own, in silence."""
    os.setsid()
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.argv = ["evalsuite", *arguments]
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    sys.exit(main())


def records(results: Path) -> list[str]:
    """`benchmark/key` of every answer in the journal, in no order."""
    lines = [
        (path.parent.name, line)
        for path in results.rglob("*.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"}\n")
    ]
    return [f"{name}/{raw['key']}" for name, line in lines if "key" in (raw := json.loads(line))]


def kill_after(process: Any, results: Path, n_more: int) -> None:
    """Starts a run and kills it and its children once the journal holds n_more answers than now."""
    wanted = len(records(results)) + n_more
    deadline = time.monotonic() + 300
    process.start()
    while len(records(results)) < wanted and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def finish(arguments: list[str], results: Path) -> bytes:
    """Runs the command, which must succeed, in an interpreter of its own; the bytes of its scorecard."""
    command = [sys.executable, "-m", "evalsuite", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=results, capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (card,) = results.rglob("scorecards/*/*.json")
    content, n_found = re.subn(rb'("git_commit": )(null|"[^"]*")', rb"\1null", card.read_bytes())
    assert n_found == 1  # somebody may commit while the test runs
    return content


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hf", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_five_kills_end_in_the_scorecard_of_an_uninterrupted_run(
    engine: str, checkpoint: Path, hub_data: Path, tmp_path: Path, forks: Any
) -> None:
    if engine == "vllm":
        pytest.importorskip("vllm", reason="vllm is not installed")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    typed = arguments(checkpoint, hub_data, engine)
    expected = finish(typed, whole)
    moments = random.Random(engine)
    for _ in range(5):
        kill_after(forks.Process(target=play, args=(typed, str(killed))), killed, moments.randrange(1, 140))
    answered = set(records(killed))
    assert 5 <= len(answered) < 800
    finished = finish(typed, killed)
    # Line by line first: the difference of two long byte strings says nothing.
    assert [a for a, b in zip(finished.splitlines(), expected.splitlines(), strict=False) if a != b] == []
    assert finished == expected
    # What the kills left behind was not asked again.
    assert answered <= set(records(killed))
    assert len(set(records(killed))) == 800
    if engine == "hf":
        assert len(records(killed)) == 800
    scores = {r["benchmark"]: r for r in json.loads(expected)["results"]}
    assert scores["truthfulqa"]["value"] > 0.1
    assert sum(r["n_planned"] for r in scores.values()) == 800
