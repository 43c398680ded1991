"""Small DPO jobs: two tiny models far apart, pairs of unequal lengths, and the loss and gradient of a step."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evalsuite.checkpoint import open_checkpoint
from evalsuite.trainers import Coupling, DataRef, SaveRule, TrainJob, parse, read_events, worker_command, write_job
from train_plugins.dpo_feed import Layout
from train_plugins.dpo_trainer import PairTrainer
from train_plugins.dpo_worker import prepare, work
from train_plugins.settings import DPOOptions
from train_plugins.tiny import write_tiny
from train_plugins.worker import Run, main

SMALL = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64}
PLAIN: dict[str, Any] = {
    "lr": 1e-3, "epochs": 1, "batch": 4, "max_length": 128, "weight_decay": 0.0, "dtype": "float32", "beta": 5.0,
    "threads": 1,
}  # fmt: skip
LAYOUTS: tuple[Layout, ...] = ("shared_prompt", "packed", "padded")


def model_folder(folder: Path, seed: int) -> Path:
    """A tiny model whose weights are spread enough that margins are far from 0."""
    from safetensors.torch import load_file, save_file

    write_tiny(folder, seed, **SMALL)
    weights = {n: t * (4 if t.dim() == 2 else 1) for n, t in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: model_folder(root / name, seed) for seed, name in enumerate(("start", "other"))}


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def rows(n: int, seed: int = 0, turns: int = 1) -> list[dict[str, Any]]:
    """Preference rows of unequal lengths; `turns` exchanges, of which the last one differs."""
    rng = random.Random(seed)

    def said(least: int, most: int, alphabet: str) -> str:
        return "".join(rng.choice(alphabet) for _ in range(rng.randint(least, most)))

    made = []
    for i in range(n):
        before: list[dict[str, str]] = []
        for _ in range(turns - 1):
            before += [turn("user", said(3, 9, "abcdef ")), turn("assistant", said(3, 9, "0123456789"))]
        before.append(turn("user", said(4, 20, "abcdef ")))
        answers = [[*before, turn("assistant", said(3, 24, "0123456789"))] for _ in range(2)]
        made.append({"id": f"row{seed}-{i}", "source": "test", "chosen": answers[0], "rejected": answers[1]})
    return made


def write_rows(path: Path, content: Sequence[Mapping[str, Any]]) -> DataRef:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return DataRef(path.name, location=str(path))


def job_in(
    out: Path,
    models: Mapping[str, Path],
    content: Sequence[Mapping[str, Any]],
    *,
    reference: str = "start",
    **options: Any,
) -> TrainJob:
    out.mkdir(parents=True, exist_ok=True)
    data = write_rows(out.parent / f"{out.name}.jsonl", content)
    named = {} if reference == "start" else {"reference": open_checkpoint(models[reference])}
    start = open_checkpoint(models["start"])
    coupling = Coupling("off")
    return TrainJob("dpo", start, (data,), out, 0, SaveRule(), {**PLAIN, **options}, named, coupling=coupling)


def run_of(job: TrainJob) -> Run:
    write_job(job)
    return Run(job, parse(DPOOptions, job.options, "options"))


def trained(job: TrainJob) -> list[dict[str, Any]]:
    """Runs the worker in this process; returns its step events."""
    write_job(job)
    assert main(DPOOptions, work, ["--job", str(job.out / "job.json")]) == 0
    return steps_of(job.out)


def worker(job: TrainJob, *, fault: str = "") -> int:
    write_job(job)
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "EVALSUITE_TRAIN_FAULT": fault}
    command = worker_command("train_plugins.dpo_worker", job)
    return subprocess.run(command, env=variables, stderr=subprocess.DEVNULL).returncode


def steps_of(out: Path) -> list[dict[str, Any]]:
    return [dict(event) for event in read_events(out / "events.jsonl") if event["kind"] == "step"]


def losses(steps: Sequence[Mapping[str, Any]]) -> list[float]:
    return [step["loss"] for step in steps]


def loss_and_gradient(
    trainer: PairTrainer, passes: Sequence[Mapping[str, Tensor]], n_pairs: int
) -> tuple[float, Tensor]:
    model = trainer.model
    model.zero_grad()
    total = 0.0
    for part in passes:
        loss = trainer.compute_loss(model, dict(part), num_items_in_batch=n_pairs)
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.fixture
def against_other(tmp_path: Path, models: dict[str, Path]) -> PairTrainer:
    """A trainer on 8 pairs whose reference is another model, so that no margin is 0."""
    return prepare(run_of(job_in(tmp_path / "dpo", models, rows(8), reference="other", per_device_batch=2)))
