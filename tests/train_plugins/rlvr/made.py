"""Small RLVR jobs, learners and rollouts: real tiny models, and a verifier that says something of any response."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from evalsuite.checkpoint import open_checkpoint
from evalsuite.trainers import Coupling, DataRef, Launch, SaveRule, TrainJob, parse, read_events, write_job
from train_plugins.chat import load_tokenizer
from train_plugins.rlvr import worker
from train_plugins.rlvr.learner import Learner
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.rollouts import Batch, Prompt, Response, Reward, Rollout
from train_plugins.tiny import EOS_ID, VOCABULARY, write_tiny
from train_plugins.worker import Run, main

SIZES = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64}
SHARED: Mapping[str, Any] = {
    "lr": 1e-3, "prompts_per_iteration": 4, "response_tokens": 6, "prompt_tokens": 24, "weight_decay": 0.0,
    "iterations": 3, "schedule": "constant", "dtype": "float32", "threads": 1, "adam_eps": 1e-3,
}  # fmt: skip
GRPO: Mapping[str, Any] = {**SHARED, "algorithm": "grpo", "samples_per_prompt": 3, "beta": 0.1, "kl": "kl3",
                           "kl_in": "loss"}  # fmt: skip
PPO: Mapping[str, Any] = {**SHARED, "algorithm": "ppo", "prompts_per_iteration": 6, "beta": 0.05, "epochs": 2,
                          "value_init": "policy", "value_warmup": 1,
                          "value_lr": 2e-3}  # fmt: skip
WORKER = partial(main, RLVROptions, worker.work)


def spread(folder: Path, seed: int = 0, **sizes: Any) -> Path:
    """A tiny model whose weights are far enough from 0 that tokens and models differ."""
    from safetensors.torch import load_file, save_file

    write_tiny(folder, seed, **{**SIZES, **sizes})
    weights = {n: t * (4 if t.dim() == 2 else 1) for n, t in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def reward_model(folder: Path, start: Path, seed: int = 3) -> Path:
    """A reward model as `trainer: rm` leaves it: one label, no bias, the policy's tokenizer."""
    from transformers import AutoModelForSequenceClassification

    from train_plugins.tiny import write_tokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(start, num_labels=1)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def rows(n: int = 10, seed: int = 0) -> list[dict[str, Any]]:
    """Words of 2 to 7 letters to be written backwards."""
    rng = random.Random(seed)
    words = ["".join(rng.choice("abcdef") for _ in range(rng.randint(2, 7))) for _ in range(n)]
    return [
        {"id": f"r{i}", "source": "t", "messages": [{"role": "user", "content": word}], "ground_truth": word[::-1],
         "dataset": "exact"}
        for i, word in enumerate(words)
    ]  # fmt: skip


def job_in(
    out: Path, start: Path, options: Mapping[str, Any], *, content: Sequence[Mapping[str, Any]] | None = None,
    save: SaveRule | None = None, seed: int = 7, mode: Any = "off", processes: int = 1,
    inputs: Mapping[str, Path] | None = None, **more: Any,
) -> TrainJob:  # fmt: skip
    """A job whose data lies beside `out`; job.json is written."""
    out.mkdir(parents=True, exist_ok=True)
    data = out.parent / f"{out.name}.jsonl"
    content = rows() if content is None else content
    data.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    ref = DataRef("rows.jsonl", hashlib.sha256(data.read_bytes()).hexdigest(), len(content), location=str(data))
    named = {name: open_checkpoint(path) for name, path in (inputs or {}).items()}
    job = TrainJob(
        "rlvr", open_checkpoint(start), (ref,), out, seed, save or SaveRule(steps=1), {**options, **more}, named,
        launch=Launch(processes=processes), coupling=Coupling(mode),
    )  # fmt: skip
    write_job(job)
    return job


def learner_of(job: TrainJob) -> Learner:
    assert job.start is not None
    torch.set_num_threads(1)
    options = parse(RLVROptions, job.options, "options")
    return Learner(Run(job, options), load_tokenizer(job.start.path, options.chat_template))


def batch_of(options: RLVROptions, seed: int = 0, longest: int | None = None) -> Batch:
    """An iteration's rollouts of drawn tokens, of unequal lengths up to the longest that may be; some did not end."""
    longest = longest or options.response_tokens
    rng = random.Random(seed)
    rollouts = []
    for number in range(options.prompts_per_iteration):
        ids = tuple(rng.randrange(6, VOCABULARY) for _ in range(rng.randint(3, 9)))
        prompt = Prompt(number, f"r{number}", ids, "exact", "", {})
        for sample in range(options.samples_per_prompt):
            n = longest if number == sample == 0 else rng.randint(1, longest - 1)
            drawn = tuple(rng.randrange(6, VOCABULARY) for _ in range(n))
            finished = rng.random() < 0.7
            response = Response((*drawn[:-1], EOS_ID) if finished else drawn, (-4.0,) * n, finished)
            score = rng.choice([0.0, 10.0, 4.0]) if finished else -10.0
            rollouts.append(Rollout(prompt, sample, response, "", Reward({"exact": score / 10}), score))
    return Batch(1, 0, tuple(rollouts))


class Letters:
    """In place of the verifiers: the share of small letters in a response, so that nearly all rewards differ."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, items: Sequence[tuple[Any, str, Mapping[str, Any]]]) -> list[Reward]:
        return [Reward({"exact": sum(c.islower() for c in text) / max(1, len(text))}) for _, text, _ in items]

    def close(self) -> None:
        pass


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are forked from here reward letters."""
    monkeypatch.setattr(worker, "Rewarder", Letters)
    monkeypatch.setattr(worker, "check_rows", lambda *_: None)


def curve(job: TrainJob) -> dict[int, dict[str, Any]]:
    """Every number of each iteration but its times; fails where one was done twice with another result."""
    found: dict[int, dict[str, Any]] = {}
    for event in read_events(job.out / "events.jsonl"):
        if event["kind"] != "step":
            continue
        told = {key: v for key, v in event.items() if not key.endswith("_s") and key not in ("seq", "at", "time")}
        assert found.setdefault(event["step"], told) == told, f"iteration {event['step']} differs when done again"
    return found


def journal(job: TrainJob) -> list[dict[str, Any]]:
    text = (job.out / "rollouts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
