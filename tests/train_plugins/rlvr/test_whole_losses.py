"""PPO and GRPO put together of their parts, on ragged rollouts: against plain lists, padded this way and that."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.train_plugins.rlvr import plain
from tests.train_plugins.rlvr.comparing import close, gradients, padded, tensor
from tests.train_plugins.rlvr.plain import PlainOptions, PlainRollout
from train_plugins.rlvr.losses import (
    KL_CLAMP,
    gae,
    group_advantages,
    kl_estimate,
    masked_mean,
    policy_loss,
    response_mask,
    token_rewards,
    value_loss,
    value_mask,
    whiten,
)

Leaf = Literal["logprobs", "values"]

LENGTH = 6  # the configured response length, T


def some_rollouts(seed: int, n: int, longest: int = LENGTH, length: int = LENGTH) -> list[PlainRollout]:
    """Ragged ones, among them one of a single token, one of `longest` tokens and one of a token less."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(n):
        n_tokens = {0: 1, 1: longest - 1, 2: longest}.get(i) or int(random.integers(1, longest + 1))
        old = -random.exponential(1.0, n_tokens)
        n_values = min(n_tokens + 1, length)
        old_values = random.normal(2.0, 3.0, n_values)
        made.append(
            PlainRollout(
                logprobs=list(old + random.normal(0, 0.3, n_tokens)),
                old_logprobs=list(old),
                reference=list(old + random.normal(0, 0.5, n_tokens)),
                score=float(random.choice([10.0, 0.0, -10.0])),
                values=list(old_values + random.normal(0, 0.3, n_values)),
                old_values=list(old_values),
            )
        )
    return made


def tensor_ppo(
    rollouts: Sequence[PlainRollout], length: int, options: PlainOptions, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, log-probabilities, values) of rollouts padded to `width` tokens; the loss has gradients by the others."""
    last = torch.tensor([len(rollout.logprobs) - 1 for rollout in rollouts])
    new = padded([rollout.logprobs for rollout in rollouts], width).requires_grad_()
    old = padded([rollout.old_logprobs for rollout in rollouts], width)
    kl = kl_estimate("kl1", old - padded([rollout.reference for rollout in rollouts], width, math.nan))
    score = tensor([rollout.score for rollout in rollouts])
    rewards = token_rewards(kl, score, last, options.beta, length)
    n_positions = rewards.shape[1]
    values = padded([rollout.values for rollout in rollouts], n_positions).requires_grad_()
    old_values = padded([rollout.old_values for rollout in rollouts], n_positions, 0.0)
    advantages, returns = gae(rewards, old_values, options.gamma, options.lam)
    white = whiten(advantages, response_mask(last, n_positions))[:, :width]
    white = torch.cat([white, torch.zeros(len(rollouts), width - white.shape[1], dtype=white.dtype)], dim=1)
    of_policy = policy_loss(new, old, white, options.clip, options.clip_high)
    of_values = value_loss(values, old_values, returns, options.value_clip)
    loss = masked_mean(of_policy, response_mask(last, width))
    loss = loss + options.value_coef * masked_mean(of_values, value_mask(last, n_positions))
    return loss, new, values


def finite_differences(
    loss: Callable[[list[PlainRollout]], float], rollouts: list[PlainRollout], name: Leaf, width: int
) -> Tensor:
    """Central differences of a plain loss by every entry of the named lists, 0 in the padding; (N, width)."""
    step = 1e-5
    rows = []
    for i, rollout in enumerate(rollouts):
        entries = getattr(rollout, name)
        row = []
        for t in range(len(entries)):
            above, below = (
                loss([*rollouts[:i], with_entry(rollout, name, t, entries[t] + shift), *rollouts[i + 1 :]])
                for shift in (step, -step)
            )
            row.append((above - below) / (2 * step))
        rows.append(row)
    return padded(rows, width, 0.0)


def with_entry(rollout: PlainRollout, name: Leaf, t: int, entry: float) -> PlainRollout:
    moved = [*getattr(rollout, name)]
    moved[t] = entry
    return replace(rollout, logprobs=moved) if name == "logprobs" else replace(rollout, values=moved)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width", [LENGTH, LENGTH + 3])
def test_the_ppo_loss_and_its_gradients_are_those_of_the_plain_reference(seed: int, width: int) -> None:
    rollouts, options = some_rollouts(seed, 7), PlainOptions(clip_high=0.28)
    loss, new, values = tensor_ppo(rollouts, LENGTH, options, width)
    close(loss, plain.ppo_loss(rollouts, LENGTH, options))
    by_new, by_values = gradients(loss, new, values)

    def by_lists(them: list[PlainRollout]) -> float:
        return plain.ppo_loss(them, LENGTH, options)

    assert min(by_new.abs().max(), by_values.abs().max()) > 1e-3
    close(by_new, finite_differences(by_lists, rollouts, "logprobs", width), atol=1e-8)
    close(by_values, finite_differences(by_lists, rollouts, "values", LENGTH), atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_the_grpo_loss_and_its_gradient_are_those_of_the_plain_reference(seed: int) -> None:
    rollouts, options, n_samples = some_rollouts(seed, 8), PlainOptions(beta=0.3), 4
    last = torch.tensor([len(rollout.logprobs) - 1 for rollout in rollouts])
    new = padded([rollout.logprobs for rollout in rollouts], LENGTH).requires_grad_()
    old = padded([rollout.old_logprobs for rollout in rollouts], LENGTH)
    scores = tensor([rollout.score for rollout in rollouts]).view(-1, n_samples)
    advantages = group_advantages(scores, "group").view(-1, 1).expand(-1, LENGTH)
    d = new - padded([rollout.reference for rollout in rollouts], LENGTH)
    per_token = policy_loss(new, old, advantages, options.clip) + options.beta * kl_estimate("kl3", d, clamp=KL_CLAMP)
    loss = masked_mean(per_token, response_mask(last, LENGTH))

    def by_lists(them: list[PlainRollout]) -> float:
        return plain.grpo_loss([them[i : i + n_samples] for i in range(0, len(them), n_samples)], options)

    close(loss, by_lists(rollouts))
    (got,) = gradients(loss, new)
    assert got.abs().max() > 1e-3
    close(got, finite_differences(by_lists, rollouts, "logprobs", LENGTH), atol=1e-8)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), length=st.integers(4, 9), shorter=st.integers(1, 2), extra=st.integers(0, 5))
def test_padding_changes_nothing_and_taking_its_width_for_the_length_does(
    seed: int, length: int, shorter: int, extra: int
) -> None:
    longest = length - shorter  # tokens of the longest response: the score fits after it
    rollouts, options = some_rollouts(seed, 5, longest, length), PlainOptions()
    expected = plain.ppo_loss(rollouts, length, options)
    close(tensor_ppo(rollouts, length, options, longest)[0], expected)
    close(tensor_ppo(rollouts, length, options, longest + extra)[0], expected)
    last = torch.tensor([len(rollout.logprobs) - 1 for rollout in rollouts])
    kl, score = torch.zeros(5, longest, dtype=torch.float64), torch.full((5,), 10.0, dtype=torch.float64)
    right, wrong = (token_rewards(kl, score, last, 0.05, n) for n in (length, longest))
    assert right[2].tolist() == [0.0] * longest + [10.0]
    assert wrong[2].tolist() == [0.0] * (longest - 1) + [10.0]  # moved onto the end-of-text
    values = torch.where(value_mask(last, longest + 1), 2.0, 0.0).double()
    honest, moved = gae(right, values, 1.0, 0.95)[0], gae(wrong, values[:, :longest], 1.0, 0.95)[0]
    assert (honest[2, :longest] - moved[2]).abs().min() > 1e-3  # every advantage of the longest response
    close(honest[0, :longest], moved[0])  # and none of a short one
