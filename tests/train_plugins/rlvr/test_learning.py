"""PPO and GRPO learn what is rewarded, from starts that are sometimes right, and learn nothing of rewards at random."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from evalsuite.trainers import SaveRule  # noqa: E402
from tests.train_plugins.rlvr.made import WORKER, job_in  # noqa: E402
from tests.train_plugins.runs import log_of, of, run, warm  # noqa: E402
from train_plugins.chat import load_tokenizer  # noqa: E402
from train_plugins.rlvr import rewarding, worker  # noqa: E402
from train_plugins.rlvr.prompts import prompt_ids  # noqa: E402
from train_plugins.rlvr.rollouts import Reward  # noqa: E402
from train_plugins.tiny import EOS_ID, write_tiny  # noqa: E402

LETTERS = "abcdefgh"
RIGHT = 0.4  # a start is right this often
SHARED: Mapping[str, Any] = {
    "response_tokens": 5, "prompt_tokens": 16, "weight_decay": 0.0, "schedule": "constant", "dtype": "float32",
    "threads": 1, "rollouts": "off",
}  # fmt: skip
GRPO: Mapping[str, Any] = {
    **SHARED, "algorithm": "grpo", "prompts_per_iteration": 16, "samples_per_prompt": 8, "beta": 0.01, "kl": "kl3",
    "kl_in": "loss", "eos_penalty": 0.0, "lr": 1e-3, "iterations": 30,
}  # fmt: skip
PPO: Mapping[str, Any] = {
    **SHARED, "algorithm": "ppo", "prompts_per_iteration": 128, "epochs": 4, "beta": 0.05, "eos_penalty": -10.0,
    "lr": 5e-4, "value_lr": 1e-3, "value_init": "policy", "value_warmup": 5, "iterations": 20,
}  # fmt: skip


def words() -> list[str]:
    return [a + b + c for a in LETTERS for b in LETTERS for c in LETTERS]


def rows() -> list[dict[str, Any]]:
    return [
        {"id": word, "source": "t", "messages": [{"role": "user", "content": word}], "ground_truth": word[::-1],
         "dataset": "exact"}
        for word in words()
    ]  # fmt: skip


def sometimes_right(folder: Path, seed: int) -> Path:
    """A model that writes words backwards, trained until a sampled answer is right with a probability of RIGHT."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    write_tiny(folder, seed, hidden=64, layers=2, heads=2, intermediate=128)
    tokenizer, model = load_tokenizer(folder, "tulu"), AutoModelForCausalLM.from_pretrained(folder)
    stepper, rng = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.0), random.Random(seed)
    for _ in range(1000):
        asked = rng.sample(words(), 64)
        prompts = [prompt_ids(tokenizer, [{"role": "user", "content": word}]) for word in asked]
        answers = [[*tokenizer(word[::-1])["input_ids"], EOS_ID] for word in asked]
        ids = torch.tensor([[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)])
        told = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)[:, -5:-1]
        logprobs = told.gather(-1, ids[:, -4:, None])[..., 0]
        if float(logprobs.sum(1).exp().mean()) >= RIGHT:
            break
        (-logprobs.mean()).backward()
        stepper.step()
        stepper.zero_grad()
    model.save_pretrained(folder)
    return folder


class Shuffled(rewarding.Rewarder):
    """The true rewards of a batch, given to any of its responses."""

    def __call__(self, items: Any) -> list[Reward]:
        rewards = super().__call__(items)
        random.Random(len(items) + int(sum(r.total for r in rewards))).shuffle(rewards)
        return rewards


def rise(out: Path, start: Path, options: Mapping[str, Any], seed: int, *, shuffled: bool = False) -> float:
    """By how much the rate of right answers grew from the first three iterations to the last three."""
    job = job_in(out, start, options, content=rows(), save=SaveRule(), seed=seed)

    def prepare() -> None:
        if shuffled:
            setattr(worker, "Rewarder", Shuffled)  # noqa: B010

    assert run(job, WORKER, prepare=prepare) == 0, log_of(job)
    rates = [event["pass_rate"] for event in of(job, "step")]
    return float(sum(rates[-3:]) - sum(rates[:3])) / 3


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("starts")
    return [warm(sometimes_right(root / f"start{seed}", seed)) for seed in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("options", [GRPO, PPO], ids=["grpo", "ppo"])
def test_the_rate_of_right_answers_rises_on_every_seed(
    options: Mapping[str, Any], starts: list[Path], tmp_path: Path
) -> None:
    rises = [rise(tmp_path / f"out{seed}", start, options, seed) for seed, start in enumerate(starts)]
    assert min(rises) >= 0.10, rises


@pytest.mark.slow
@pytest.mark.parametrize("options", [GRPO, PPO], ids=["grpo", "ppo"])
def test_rewards_at_random_teach_nothing(options: Mapping[str, Any], starts: list[Path], tmp_path: Path) -> None:
    """A rate is of 384 responses, so the difference of two has a standard error below 0.036; 0.10 is 2.8 of them."""
    found = rise(tmp_path / "out", starts[0], options, 0, shuffled=True)
    assert found < 0.10
