"""Options of rlvr: what cannot be is refused in words, all of it at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from evalsuite.errors import UsageError
from train_plugins.rlvr.options import GapLimits, RLVROptions

PPO: Mapping[str, Any] = {
    "algorithm": "ppo", "lr": 3e-7, "prompts_per_iteration": 224, "response_tokens": 2048, "prompt_tokens": 2048,
    "beta": 0.05, "weight_decay": 0.01, "episodes": 10_000_000, "epochs": 4,
}  # fmt: skip
GRPO: Mapping[str, Any] = {
    **PPO, "algorithm": "grpo", "samples_per_prompt": 16, "prompts_per_iteration": 48, "kl": "kl3", "kl_in": "loss",
    "epochs": 1, "mini_batches": 2,
}  # fmt: skip

WRONG: list[tuple[Mapping[str, Any], Mapping[str, Any], str]] = [
    (GRPO, {"samples_per_prompt": 1}, "samples_per_prompt must be at least 2"),
    (GRPO, {"kl_in": "reward"}, "grpo has its KL term in the loss; set kl_in: loss"),
    (GRPO, {"value_lr": 1e-6, "lam": 0.9}, "grpo has no value network: leave out value_lr, lam"),
    (PPO, {"advantage": "rloo"}, "leave out advantage"),
    (PPO, {"old_logprobs": "lazy"}, "leave out old_logprobs"),
    (GRPO, {"old_logprobs": "lazy", "gap_correction": "truncated"}, "use old_logprobs: first"),
    (PPO, {"kl": "kl4"}, "kl4 weighs by the ratio of the update, which a reward does not know"),
    (PPO, {"episodes": None}, "give iterations or episodes, one of them"),
    (PPO, {"iterations": 3}, "give iterations or episodes, one of them"),
    (PPO, {"episodes": 100}, "episodes is 100, less than the 224 rollouts of one iteration"),
    (PPO, {"mini_batches": 225}, "mini_batches is 225, but an iteration has 224 prompts"),
    (PPO, {"clip_high": 0.1}, "clip_high is 0.1; at least clip (0.2)"),
    (PPO, {"lr": 0.0}, "lr is 0.0; it must be above 0"),
    (PPO, {"value_lr": -1.0}, "value_lr is -1.0; it must be above 0"),
    (PPO, {"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
    (PPO, {"beta": float("nan")}, "beta is nan; it must be a finite number"),
    (PPO, {"lr": float("inf")}, "lr is inf; it must be a finite number"),
    (PPO, {"reward_value": float("nan")}, "reward_value is nan; it must be a finite number"),
    (PPO, {"eos_penalty": float("-inf")}, "eos_penalty is -inf; it must be a finite number"),
    (PPO, {"entropy_stop": float("nan")}, "entropy_stop is nan; it must be a number"),
    (PPO, {"gap_limits": GapLimits(stop_mean=float("nan"))}, "gap_limits.stop_mean is nan; it must be a number"),
    (PPO, {"episodes": None, "iterations": 10**12}, "iterations is 1,000,000,000,000; at most 10,000,000"),
    (PPO, {"episodes": 10**12}, "episodes is 1,000,000,000,000, that is 4,464,285,714 iterations; at most 10,000,000"),
    (PPO, {"generator_options": {"enforce_eager": True}}, "generator_options are vLLM's; leave them out, or set"),
    (PPO, {"weight_transfer": "ipc"}, "weight_transfer: ipc is vLLM's; leave it out, or set generator: vllm"),
    (PPO, {"gamma": 1.1}, "gamma is 1.1; from 0 to 1"),
    (PPO, {"score_stop": 1.5}, "score_stop is 1.5; a share of the best mean score"),
    (PPO, {"adam_betas": (0.9,)}, "adam_betas: expected two numbers from 0 to 1"),
    (PPO, {"min_response_tokens": 2049}, "min_response_tokens is 2049, response_tokens 2048"),
    (PPO, {"prompts_per_iteration": 0, "mini_batches": 1}, "prompts_per_iteration is 0; at least 1"),
    (PPO, {"episodes": None, "iterations": 0}, "iterations is 0; at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "wrong", "text"), WRONG)
def test_what_cannot_be_is_told(options: Mapping[str, Any], wrong: Mapping[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as error:
        RLVROptions(**{**options, **wrong})
    assert text in str(error.value)


def test_limits_that_are_never_reached_and_clips_without_bound_may_be_infinite() -> None:
    never = float("inf")
    RLVROptions(**{**PPO, "gap_limits": GapLimits(stop_mean=never), "value_clip": never, "kl_stop": never})


def test_the_only_problem_of_no_iterations_is_that_there_are_none() -> None:
    with pytest.raises(UsageError) as error:
        RLVROptions(**{**PPO, "episodes": None, "iterations": 0})
    assert str(error.value) == "iterations is 0; at least 1"


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UsageError) as error:
        RLVROptions(**{**GRPO, "lr": -1.0, "kl_in": "reward", "gamma": 0.9, "clip_high": 0.0})
    assert len(str(error.value).split("; ")) >= 4
    for word in ("lr is -1.0", "kl_in: loss", "gamma", "clip_high is 0.0"):
        assert word in str(error.value)


def test_iterations_are_those_of_the_episodes_rounded_down() -> None:
    ppo, grpo = RLVROptions(**PPO), RLVROptions(**GRPO)
    # 10,000,000 / 224 = 44,642.86; / (48 * 16 = 768) = 13,020.8
    assert (ppo.n_iterations, ppo.rollouts_per_iteration, ppo.updates_per_iteration) == (44_642, 224, 4)
    assert (grpo.n_iterations, grpo.rollouts_per_iteration, grpo.updates_per_iteration) == (13_020, 768, 2)
