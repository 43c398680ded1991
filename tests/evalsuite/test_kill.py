"""`evalsuite score` on real data with real engines, killed five times with -9, ends in the bytes of a whole run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def start(checkpoint: Path, data: Path, results: Path, engine: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "evalsuite", "score", str(checkpoint), "--suite", "tulu3-dev", "--limit", "200"]
    command += [
        "--tasks",
        "gsm8k,mmlu,truthfulqa,ifeval",
        "--data-root",
        str(data),
        "--model",
        engine,
        "--threads",
        "1",
    ]
    return subprocess.Popen(
        [*command, "--results", "results"],
        cwd=results,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def records(results: Path) -> list[str]:
    """`benchmark/key` of every answer in the journal, in no order."""
    lines = [
        (path.parent.name, line)
        for path in results.rglob("*.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"}\n")
    ]
    return [f"{name}/{raw['key']}" for name, line in lines if "key" in (raw := json.loads(line))]


def kill_after(process: subprocess.Popen[str], results: Path, n_more: int) -> None:
    """Kills the run and its children once the journal holds n_more answers than now."""
    wanted = len(records(results)) + n_more
    deadline = time.monotonic() + 300
    while len(records(results)) < wanted and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def finish(process: subprocess.Popen[str], results: Path) -> bytes:
    """Waits for a run that must succeed; the bytes of its scorecard."""
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    (card,) = results.rglob("scorecards/*/*.json")
    return card.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hf", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_five_kills_end_in_the_scorecard_of_an_uninterrupted_run(
    engine: str, checkpoint: Path, hub_data: Path, tmp_path: Path
) -> None:
    if engine == "vllm":
        pytest.importorskip("vllm", reason="vllm is not installed")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    expected = finish(start(checkpoint, hub_data, whole, engine), whole)
    moments = random.Random(engine)
    for _ in range(5):
        kill_after(start(checkpoint, hub_data, killed, engine), killed, moments.randrange(1, 140))
    answered = set(records(killed))
    assert 5 <= len(answered) < 800
    finished = finish(start(checkpoint, hub_data, killed, engine), killed)
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
