"""PPO and GRPO on lists of floats, written from the formulas with nothing shared, padded or vectorised.

What the tensors of `train_plugins.rlvr.losses` are compared with. Every rollout has lists of its own length; positions
run over the whole configured response length, and advantages are sums over all later positions, not a recursion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlainRollout:
    """One response: a log-probability for each token; a value for each token and, where it fits, the place after."""

    logprobs: list[float]
    old_logprobs: list[float]
    reference: list[float]
    score: float
    values: list[float]
    old_values: list[float]


@dataclass(frozen=True, slots=True)
class PlainOptions:
    beta: float = 0.05
    gamma: float = 0.97
    lam: float = 0.95
    clip: float = 0.2
    clip_high: float = 0.2
    value_clip: float = 0.2
    value_coef: float = 0.1


def rewards_of(rollout: PlainRollout, length: int, beta: float) -> list[float]:
    """kl1 and the score, one number for each of the `length` configured positions."""
    last = len(rollout.old_logprobs) - 1
    rewards = [0.0] * length
    for t in range(last + 1):
        rewards[t] = -beta * (rollout.old_logprobs[t] - rollout.reference[t])
    rewards[last + 1 if last + 1 < length else last] += rollout.score
    return rewards


def advantages_of(rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> list[float]:
    """A_t is the sum over l of (γλ)^l δ_{t+l}; as many rewards as values."""
    ahead = [*values, 0.0]
    deltas = [rewards[t] + gamma * ahead[t + 1] - ahead[t] for t in range(len(rewards))]
    return [sum((gamma * lam) ** (u - t) * deltas[u] for u in range(t, len(deltas))) for t in range(len(deltas))]


def whitened(values: Sequence[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return [(value - mean) / math.sqrt(variance + 1e-8) for value in values]


def clipped_policy_loss(ratio: float, advantage: float, low: float, high: float) -> float:
    return max(-advantage * ratio, -advantage * min(max(ratio, 1 - low), 1 + high))


def clipped_value_loss(value: float, old: float, wanted: float, clip: float) -> float:
    bounded = min(max(value, old - clip), old + clip)
    return 0.5 * max((value - wanted) ** 2, (bounded - wanted) ** 2)


def ppo_loss(rollouts: Sequence[PlainRollout], length: int, options: PlainOptions) -> float:
    """Mean over all tokens of the policy's loss, and the coefficient times the mean over all valued positions."""
    raw: list[float] = []
    of_values: list[float] = []
    ratios: list[float] = []
    for rollout in rollouts:
        n_tokens, n_values = len(rollout.logprobs), len(rollout.old_values)
        old_values = rollout.old_values + [0.0] * (length - n_values)
        rewards = rewards_of(rollout, length, options.beta)
        advantages = advantages_of(rewards, old_values, options.gamma, options.lam)
        for t in range(n_tokens):
            raw.append(advantages[t])
            ratios.append(math.exp(rollout.logprobs[t] - rollout.old_logprobs[t]))
        for t in range(n_values):
            wanted = advantages[t] + old_values[t]
            of_values.append(clipped_value_loss(rollout.values[t], old_values[t], wanted, options.value_clip))
    of_policy = [
        clipped_policy_loss(ratio, advantage, options.clip, options.clip_high)
        for ratio, advantage in zip(ratios, whitened(raw), strict=True)
    ]
    return sum(of_policy) / len(of_policy) + options.value_coef * sum(of_values) / len(of_values)


def grpo_loss(groups: Sequence[Sequence[PlainRollout]], options: PlainOptions) -> float:
    """Mean over all tokens of all groups of the clipped loss and β·kl3, log-ratios cut to ±40."""
    losses: list[float] = []
    for group in groups:
        scores = [rollout.score for rollout in group]
        mean = sum(scores) / len(scores)
        std = math.sqrt(sum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
        for rollout in group:
            advantage = (rollout.score - mean) / (std + 1e-8)
            for new, old, reference in zip(rollout.logprobs, rollout.old_logprobs, rollout.reference, strict=True):
                d = min(max(new - reference, -40.0), 40.0)
                kl3 = math.exp(-d) - 1 + d
                policy = clipped_policy_loss(math.exp(new - old), advantage, options.clip, options.clip_high)
                losses.append(policy + options.beta * kl3)
    return sum(losses) / len(losses)
