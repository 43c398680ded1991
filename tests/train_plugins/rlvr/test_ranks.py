"""Two processes (gloo) learn what one learns, act at the same step, and can go on after a kill."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from accelerate.state import AcceleratorState  # noqa: E402

from evalsuite.trainers import SaveRule, TrainJob  # noqa: E402
from tests.train_plugins.rlvr import made  # noqa: E402
from tests.train_plugins.rlvr.made import GRPO, PPO, WORKER, curve, job_in, journal  # noqa: E402
from tests.train_plugins.runs import digests, fork, log_of, of, run, wait, warm  # noqa: E402

pytestmark = [pytest.mark.usefixtures("letters"), pytest.mark.slow]
letters = made.letters
# 5 and 7 prompts: the processes have unequal shares, and the last pass of one of them is empty.
CASES: Mapping[str, Mapping[str, Any]] = {
    "grpo": {**GRPO, "prompts_per_iteration": 5, "tokens_per_pass": 60, "mini_batches": 2},
    "ppo": {**PPO, "prompts_per_iteration": 7, "tokens_per_pass": 40},
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warm(made.spread(tmp_path_factory.mktemp("start") / "tiny"))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def on_two(job: TrainJob) -> list[int]:
    """Exit codes of two forked workers that know each other as a launcher would have told them."""
    port, pids = free_port(), []
    for rank in range(2):

        def prepare(rank: int = rank) -> None:
            AcceleratorState._reset_state(reset_partial_state=True)  # what a test before this one left
            where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
            os.environ |= {**{key: str(value) for key, value in where.items()}, "MASTER_ADDR": "127.0.0.1"}
            os.environ["ACCELERATE_USE_CPU"] = "true"

        pids.append(fork(job, WORKER, prepare=prepare))
    return [wait(pid) for pid in pids]


@pytest.mark.parametrize("algorithm", CASES)
def test_two_processes_learn_what_one_learns(algorithm: str, start: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    options = {**CASES[algorithm], "iterations": 2}
    one = job_in(tmp_path / "one", start, options, save=SaveRule())
    two = job_in(tmp_path / "two", start, options, save=SaveRule(), processes=2)
    assert run(one, WORKER) == 0, log_of(one)
    assert on_two(two) == [0, 0], log_of(two)
    assert [of(job, "start")[0]["processes"] for job in (one, two)] == [1, 2]
    assert [line["text"] for line in journal(one)] == [line["text"] for line in journal(two)]
    files = [f"state/step-000002/{name}.safetensors" for name in ("model", *(["value"] if algorithm == "ppo" else []))]
    for file in files:
        first, second = load_file(one.out / file), load_file(two.out / file)
        assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-6
    assert list(digests(two)) == ["step-000002"]
    for mine, theirs in zip(curve(one).values(), curve(two).values(), strict=True):
        told = {key: value for key, value in mine.items() if isinstance(value, float)}
        apart = {"tokens_per_s", "gap_max", "gap_p99", "gap_mean", "gap_k3"}  # rounding, which differs by place
        for key in told.keys() - apart:
            assert theirs[key] == pytest.approx(told[key], abs=2e-5), key
