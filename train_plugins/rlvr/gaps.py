"""How far the learner is from the generator that wrote its rollouts, by their log-probabilities. Imports torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from train_plugins.rlvr.losses import policy_ratio

WEIGHT_LIMIT = 2.0


@dataclass(frozen=True, slots=True)
class Gap:
    """How far the learner's log-probabilities are from the generator's, over the tokens of a batch.

    `mean`, `p99`, `maximum` of |Δ|, Δ = learner - generator. `correlation` of the two, NaN where one is constant.
    `k3`: mean of exp(Δ) - 1 - Δ, an estimate of KL(generator, learner). `beyond_clip`: share with |exp(Δ) - 1| > clip.
    """

    mean: float
    p99: float
    maximum: float
    correlation: float
    k3: float
    beyond_clip: float


def gap(learner_logprobs: Tensor, generator_logprobs: Tensor, clip: float) -> Gap:
    """The gap over tokens given as two tensors of one shape, response tokens only. Raises ValueError for no tokens."""
    learner, generator = learner_logprobs.detach().double().flatten(), generator_logprobs.detach().double().flatten()
    if not learner.numel():
        raise ValueError("no tokens to compare the learner with the generator on")
    delta = learner - generator
    ranked = delta.abs().sort().values
    return Gap(
        mean=ranked.mean().item(),
        p99=_quantile(ranked, 0.99),
        maximum=ranked[-1].item(),
        correlation=_correlation(learner, generator),
        k3=(torch.expm1(delta) - delta).mean().item(),
        beyond_clip=(torch.expm1(delta).abs() > clip).double().mean().item(),
    )


def gap_weight(learner_logprobs: Tensor, generator_logprobs: Tensor, limit: float = WEIGHT_LIMIT) -> Tensor:
    """min(exp Δ, limit) of each token, without gradient: truncated importance weights (`gap_correction: truncated`)."""
    return policy_ratio(learner_logprobs, generator_logprobs).detach().clamp(max=limit)


def _quantile(ranked_N: Tensor, q: float) -> float:
    """Linear between ranks, as numpy; torch.quantile refuses more than 2**24 values."""
    at = q * (ranked_N.numel() - 1)
    low = int(at)
    high = min(low + 1, ranked_N.numel() - 1)
    return float(torch.lerp(ranked_N[low], ranked_N[high], at - low))


def _correlation(a_N: Tensor, b_N: Tensor) -> float:
    """Pearson's."""
    if a_N.min() == a_N.max() or b_N.min() == b_N.max():
        return float("nan")
    a_N, b_N = a_N - a_N.mean(), b_N - b_N.mean()
    return float((a_N * b_N).sum() / (a_N.norm() * b_N.norm()))
