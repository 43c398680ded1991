"""The arithmetic of RLVR: rewards of tokens, advantages, losses. For the worker process.

Imports torch, knows no model and no data, changes none of its arguments. Axes: N rollouts, T response tokens, P
positions that have a value (one more than the longest response where that fits), B prompts, G rollouts of one prompt.
`last_N` is e, the index of a rollout's last token (its end-of-text, if it has one). Results are at least float32.

"Release" is open-instruct's `ppo_vllm_thread_ray_gtrl.py` (PPO) and `grpo_vllm_thread_ray_gtrl.py` (GRPO), as of Tülu 3
and 3.1 (arXiv 2411.15124). Losses come back per position: sums and counts over a whole optimizer step are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from train_plugins.rlvr.options import KL, Advantage

KL_CLAMP = 40.0  # GRPO's release clamps the log-ratio to ±40, where exp still fits float32
WHITEN_EPS = 1e-8
GROUP_EPS = 1e-8


def response_mask(last_N: Tensor, width: int) -> Tensor:
    """True at the tokens of each response, t <= e; (N, width)."""
    return torch.arange(width, device=last_N.device) <= last_N[:, None]


def value_mask(last_N: Tensor, width: int) -> Tensor:
    """True where a value is learnt, t <= e + 1; (N, width). The value at e + 1 is read at the response's last token.

    `width` is P, or anything wider up to the configured response length: beyond that there is no position.
    """
    return torch.arange(width, device=last_N.device) <= last_N[:, None] + 1


def n_value_positions(last_N: Tensor, n_positions: int) -> int:
    """P: the longest response's tokens and the position after it, where that fits.

    Raises ValueError for a response longer than `n_positions`, the configured length.
    """
    longest = int(last_N.max()) + 1
    if longest > n_positions:
        raise ValueError(f"a response has {longest} tokens, more than the configured {n_positions}")
    return min(n_positions, longest + 1)


def kl_estimate(kind: KL, logratio: Tensor, ratio: Tensor | None = None, clamp: float | None = None) -> Tensor:
    """Estimate of KL(policy, reference) at each token, any shape; `logratio` d = log π - log π_ref.

    kl1 d, kl2 d²/2, kl3 exp(-d) - 1 + d (never negative; http://joschu.net/blog/kl-approx.html), kl4 ρ·d, with `ratio`
    ρ = π / π_old. `clamp`: d is cut to ± this first, whatever the kind (KL_CLAMP in GRPO's release, None in PPO's).
    """
    d = _at_least_float32(logratio)
    d = d if clamp is None else d.clamp(-clamp, clamp)
    if kind == "kl1":
        return d
    if kind == "kl2":
        return d.square() / 2
    if kind == "kl3":
        return torch.expm1(-d) + d
    if ratio is None:
        raise ValueError(f"{kind} needs the ratio of the update")
    return ratio * d


def token_rewards(kl_NT: Tensor, score_N: Tensor, last_N: Tensor, beta: float, n_positions: int) -> Tensor:
    """-β·KL at t <= e, 0 after, plus the score one position after the last token, or on it where none is left; (N, P).

    `n_positions` is the configured response length, never the width of the batch: a batch trimmed to its longest
    response would move that response's score from e + 1 to e. What `kl_NT` holds after e is not read.
    """
    width = n_value_positions(last_N, n_positions)
    kl_NP = _to_width(_at_least_float32(kl_NT), width)
    kept_NP = torch.where(response_mask(last_N, width), -beta * kl_NP, 0.0)
    at_N = torch.where(last_N + 1 < n_positions, last_N + 1, last_N)
    is_scored_NP = torch.arange(width, device=last_N.device) == at_N[:, None]
    return kept_NP + torch.where(is_scored_NP, score_N.to(kl_NP.dtype)[:, None], 0.0)


def gae(rewards_NP: Tensor, values_NP: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """(advantages, returns), each (N, P), by generalised advantage estimation (arXiv 1506.02438, equation 16).

    δ_t = r_t + γ·v_{t+1} - v_t, A_t = δ_t + γλ·A_{t+1}, R_t = A_t + v_t; the value after the last position is 0. Values
    after e + 1 must be 0 (see `value_mask`): then nothing past P could change anything.
    """
    rewards_NP, values_NP = _at_least_float32(rewards_NP), _at_least_float32(values_NP)
    next_NP = torch.cat([values_NP[:, 1:], torch.zeros_like(values_NP[:, :1])], dim=1)
    deltas = (rewards_NP + gamma * next_NP - values_NP).unbind(1)
    carried_N = torch.zeros_like(deltas[0])
    backwards: list[Tensor] = []
    for delta_N in reversed(deltas):
        carried_N = torch.add(delta_N, carried_N, alpha=gamma * lam)
        backwards.append(carried_N)
    advantages_NP = torch.stack(backwards[::-1], dim=1)
    return advantages_NP, advantages_NP + values_NP


def moments(values: Tensor, mask: Tensor) -> Tensor:
    """(number, sum, sum of squares) of the values under the mask, (3,), float64. They add up over processes."""
    kept = values[mask].double()
    return torch.stack([kept.new_tensor(float(kept.numel())), kept.sum(), kept.square().sum()])


def mean_and_variance(counts: Tensor | Sequence[float]) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance from `moments`, float64 scalars. Of fewer values than they need: 0."""
    n, total, squares = torch.as_tensor(counts, dtype=torch.float64).unbind()
    mean = total / n.clamp(min=1)
    return mean, (squares - total * mean).clamp(min=0) / (n - 1).clamp(min=1)


def whiten(
    values: Tensor, mask: Tensor, counts: Tensor | Sequence[float] | None = None, *, shift_mean: bool = True
) -> Tensor:
    """(x - mean)·rsqrt(variance + 1e-8) under the mask, 0 elsewhere; any shape.

    `counts` are the `moments` summed over all processes; without them the values are their own. `shift_mean=False`
    puts the mean back, as the release does with whitened rewards.
    """
    values = _at_least_float32(values)
    counts = moments(values, mask) if counts is None else counts
    mean, variance = (moment.to(values.device) for moment in mean_and_variance(counts))
    white = (values.double() - mean) * torch.rsqrt(variance + WHITEN_EPS)
    white = white if shift_mean else white + mean
    return torch.where(mask, white, 0.0).to(values.dtype)


def group_advantages(scores_BG: Tensor, kind: Advantage) -> Tensor:
    """How much better each rollout is than the others of its prompt, (B, G). Raises ValueError for groups of one.

    group: (x - mean) / (std + 1e-8), std unbiased (GRPO, arXiv 2402.03300). mean_only: x - mean (Dr. GRPO, arXiv
    2503.20783). rloo: x - mean of the others (arXiv 2402.14740). A constant group has advantage 0 exactly.
    """
    n_samples = scores_BG.shape[1]
    if n_samples < 2:
        raise ValueError("an advantage within a group needs at least two rollouts of a prompt")
    scores_BG = _at_least_float32(scores_BG)
    # Taken from the least score first: the mean of equal numbers need not be that number in floating point, and the
    # division by a standard deviation that small would make advantages near 1 of the difference.
    above_BG = scores_BG - scores_BG.amin(1, keepdim=True)
    centred_BG = above_BG - above_BG.mean(1, keepdim=True)
    if kind == "mean_only":
        return centred_BG
    if kind == "rloo":
        return centred_BG * (n_samples / (n_samples - 1))
    return centred_BG / (above_BG.std(1, keepdim=True) + GROUP_EPS)


def flat_groups(scores_BG: Tensor) -> Tensor:
    """True for the prompts whose rollouts all have the same score: they teach nothing; (B,)."""
    return scores_BG.amin(1) == scores_BG.amax(1)


def policy_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """ρ = π / π_old of each token, any shape."""
    return torch.exp(_at_least_float32(logprobs) - _at_least_float32(old_logprobs))


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float, clip_high: float | None = None
) -> Tensor:
    """max(-A·ρ, -A·clip(ρ, 1 - clip, 1 + clip_high)) of each token, any shape (arXiv 1707.06347, equation 7).

    `clip_high` is `clip` unless given (DAPO's clip-higher, arXiv 2503.14476). Give it the response's tokens, or
    something finite elsewhere: the gradient of a masked infinity is NaN.
    """
    plain, clipped = _policy_losses(logprobs, old_logprobs, advantages, clip, clip_high)
    return torch.maximum(plain, clipped)


def policy_clipped(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float, clip_high: float | None = None
) -> Tensor:
    """True at the tokens where clipping decides the loss, so that they have no gradient; same shape."""
    plain, clipped = _policy_losses(logprobs.detach(), old_logprobs, advantages, clip, clip_high)
    return clipped > plain


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """0.5·max((v - R)², (clip(v, v_old ± clip) - R)²) of each position, any shape; without `clip` 0.5·(v - R)²."""
    plain, clipped = _value_losses(values, old_values, returns, clip)
    return 0.5 * torch.maximum(plain, clipped)


def value_clipped(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """True at the positions where clipping decides the value's loss; same shape."""
    plain, clipped = _value_losses(values.detach(), old_values, returns, clip)
    return clipped > plain


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of the values under the mask, a scalar; what is elsewhere is not read."""
    return torch.where(mask, values, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values under the mask, a scalar; NaN under a mask of nothing."""
    return masked_sum(values, mask) / mask.sum()


def _policy_losses(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float, clip_high: float | None
) -> tuple[Tensor, Tensor]:
    """(unclipped, clipped)."""
    ratio = policy_ratio(logprobs, old_logprobs)
    bounded = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    return -advantages * ratio, -advantages * bounded


def _value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> tuple[Tensor, Tensor]:
    """(unclipped, clipped), not halved."""
    values = _at_least_float32(values)
    plain = (values - returns).square()
    if clip is None:
        return plain, plain
    return plain, (torch.clamp(values, old_values - clip, old_values + clip) - returns).square()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - var(R - v) / var(R) under the mask: 1 is perfect, 0 as good as a constant. NaN for constant returns."""
    kept, wanted = values.detach()[mask].double(), returns.detach()[mask].double()
    if kept.numel() < 2 or wanted.min() == wanted.max():
        return float("nan")
    return 1.0 - ((wanted - kept).var() / wanted.var()).item()


def _to_width(values_NT: Tensor, width: int) -> Tensor:
    """Cut, or filled up with zeros."""
    missing = width - values_NT.shape[1]
    if missing <= 0:
        return values_NT[:, :width]
    return torch.cat([values_NT, values_NT.new_zeros(values_NT.shape[0], missing)], dim=1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
