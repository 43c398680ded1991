"""What is logged of an iteration (`step` events). For the worker process: imports torch.

Units: scores, values and returns are reward points, rates 0 to 1, KL per response in nats (sum over its tokens),
entropy per token in nats (by the tokens that were drawn), lengths in tokens, times in seconds. `pass_rate` is the share
of responses that are right in full, `pass_rate_NAME` the mean of what verifiers say of rows whose `dataset` is NAME.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from train_plugins.rlvr import gaps, losses
from train_plugins.rlvr.learner import Learner
from train_plugins.rlvr.objective import Experience, Tally
from train_plugins.rlvr.rollouts import Batch, Rollout


def metrics_of(learner: Learner, batch: Batch, made: Experience, tally: Tally) -> dict[str, Any]:
    """Every number of an iteration but its times; needs `made.old`, so it comes after the updates."""
    rollouts = batch.rollouts
    tokens = made.old[made.mask]
    apart = gaps.gap(tokens, made.generated[made.mask], learner.options.clip)
    found: dict[str, Any] = {
        "score": float(made.scores.mean()),
        "score_std": float(made.scores.std(unbiased=False)),
        "score_min": float(made.scores.min()),
        "score_max": float(made.scores.max()),
        "pass_rate": _mean([float(r.reward.total >= 1) for r in rollouts]),
        "prompt_length": _mean([float(len(r.prompt.ids)) for r in rollouts]),
        "at_limit": _mean([float(not r.response.finished) for r in rollouts]),
        "entropy": float(-tokens.mean()),
        "advantage_mean": made.raw_advantages[0],
        "advantage_std": made.raw_advantages[1],
        "staleness": batch.iteration - 1 - batch.version,
        "weights_version": batch.version,
        "verifier_errors": sum(r.reward.failed for r in rollouts),
        "gap_mean": apart.mean,
        "gap_p99": apart.p99,
        "gap_max": apart.maximum,
        "gap_correlation": apart.correlation if math.isfinite(apart.correlation) else 1.0,
        "gap_k3": apart.k3,
        "gap_beyond_clip": apart.beyond_clip,
        "skipped": sum(tally.skips),
    }
    found |= {f"pass_rate_{name}": rate for name, rate in rates(rollouts).items()}
    if made.reference is not None:
        found |= _kl(made)
    if made.returns is None:
        found["flat_groups"] = made.flat_groups
    else:
        found |= _of_value(learner, made, tally)
    return found | _of_updates(learner, tally)


def advantages_of(made: Experience) -> list[float]:
    """What the loss weighs each rollout by: the mean over its tokens."""
    weighed = torch.where(made.mask, made.advantages, 0.0).sum(1) / made.mask.sum(1)
    return [float(value) for value in weighed]


def rates(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Mean value of each data set's verifiers."""
    by: dict[str, list[float]] = {}
    for rollout in rollouts:
        by.setdefault(rollout.prompt.dataset, []).append(rollout.reward.total)
    return {name: _mean(values) for name, values in sorted(by.items())}


def _kl(made: Experience) -> dict[str, float]:
    """The three estimates, each summed over the tokens of a response and averaged over responses."""
    assert made.reference is not None
    apart = (made.old - made.reference) * made.mask

    def per_response(kind: Any) -> float:
        values: Tensor = losses.kl_estimate(kind, apart) * made.mask
        return float(values.sum(1).mean())

    return {"kl": per_response("kl1"), "kl2": per_response("kl2"), "kl3": per_response("kl3")}


def _of_value(learner: Learner, made: Experience, tally: Tally) -> dict[str, Any]:
    assert made.returns is not None
    assert made.old_values is not None
    assert made.value_mask is not None
    n, clipped = learner.run.ranks.total(tally.n_value, tally.value_clipped)
    explained = losses.explained_variance(made.old_values, made.returns, made.value_mask)
    return {
        "value_mean": float(made.old_values[made.value_mask].mean()),
        "return_mean": float(made.returns[made.value_mask].mean()),
        "explained_variance": explained if math.isfinite(explained) else 0.0,
        "value_loss": _mean(tally.value_loss),
        "value_grad_norm": _mean(tally.value_norm),
        "value_clip_fraction": clipped / max(n, 1.0),
    }


def _of_updates(learner: Learner, tally: Tally) -> dict[str, Any]:
    n, clipped, ratio, k3 = learner.run.ranks.total(tally.n, tally.clipped, tally.ratio, tally.k3)
    n, ratio_max = max(n, 1.0), learner.run.ranks.greatest(tally.ratio_max)
    return {
        "loss": _mean(tally.policy_loss), "grad_norm": _mean(tally.policy_norm), "lr": tally.lr,
        "clip_fraction": clipped / n, "ratio": ratio / n, "ratio_max": ratio_max, "update_kl": k3 / n,
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
