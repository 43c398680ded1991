"""What the trainers minimise: arithmetic on tensors, with no model and no data. For the worker process: imports torch.

Sums and counts go in, one value per pair comes out; the mean over the pairs of an optimizer step is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from train_plugins.chat import IGNORED
from train_plugins.settings import PairLoss

SIMPO_MARGIN = 0.3  # γ/β, as in open-instruct's flag `gamma_beta_ratio`


@dataclass(frozen=True, slots=True)
class PairLogprobs:
    """Log-probabilities of both responses, summed over their tokens, and the numbers of those tokens; each (B,)."""

    chosen: Tensor
    rejected: Tensor
    n_chosen: Tensor
    n_rejected: Tensor

    def means(self) -> tuple[Tensor, Tensor]:
        """Mean log-probability of a token, (chosen, rejected). A response without tokens gives NaN."""
        return self.chosen / self.n_chosen, self.rejected / self.n_rejected


def length_normalized_dpo(
    policy: PairLogprobs, reference: PairLogprobs, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """Per-pair DPO loss on mean token log-probabilities, shape (B,).

    The log-ratio of each response is divided by its number of tokens, end-of-text included, before the margin is taken
    (Tülu 3, arXiv 2411.15124, preference tuning; open-instruct `dpo_norm`). `beta` is around 5 here, not 0.1: a mean is
    far smaller than a sum. Policy and reference hold the same tokens, so the counts of the policy are used.
    """
    chosen = (policy.chosen - reference.chosen) / policy.n_chosen
    rejected = (policy.rejected - reference.rejected) / policy.n_rejected
    return _logistic(beta * (chosen - rejected), label_smoothing)


def preference_loss(
    kind: PairLoss,
    policy: PairLogprobs,
    reference: PairLogprobs,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Per-pair loss, shape (B,), of DPO length-normalised or not, SimPO or IPO.

    `dpo`: arXiv 2305.18290, equation 7, smoothed as in its conservative form. `simpo`: arXiv 2405.14734, equation 6,
    with γ = 0.3 β; it ignores the reference. `ipo`: arXiv 2310.12036, equation 17, on means over tokens, as its authors
    confirmed to TRL; it knows no smoothing.
    """
    if kind == "dpo_norm":
        return length_normalized_dpo(policy, reference, beta, label_smoothing)
    if kind == "dpo":
        margin = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
        return _logistic(beta * margin, label_smoothing)
    chosen, rejected = policy.means()
    if kind == "simpo":
        return _logistic(beta * (chosen - rejected - SIMPO_MARGIN), label_smoothing)
    margin = (chosen - reference.chosen / policy.n_chosen) - (rejected - reference.rejected / policy.n_rejected)
    return (margin - 1 / (2 * beta)).square()


def reward_pair_loss(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """-log σ(r_chosen - r_rejected), shape (B,) (Bradley-Terry)."""
    return -logsigmoid(chosen_B - rejected_B)


def token_logprobs(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """log π of every target, shape of the targets, at least float32; any number of leading axes."""
    logits_BTV = _at_least_float32(logits_BTV)
    chosen_BT = logits_BTV.gather(-1, targets_BT[..., None])[..., 0]
    return chosen_BT - torch.logsumexp(logits_BTV, -1)


def summed_nll(logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of -log π over label tokens, their number). The logits of a position belong to the label after it.

    Divided by the label tokens of a whole optimizer step it weighs every token the same, however the step is cut into
    passes; a mean per pass does not.
    """
    return nll_of(logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten())


def nll_of(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of -log π over the targets that are not IGNORED, their number); nothing is shifted."""
    total = cross_entropy(_at_least_float32(logits_NV), targets_N, ignore_index=IGNORED, reduction="sum")
    return total, (targets_N != IGNORED).sum()


def _logistic(margin_B: Tensor, label_smoothing: float) -> Tensor:
    """-log σ(margin), with the given probability that the pair is the wrong way round."""
    loss = -logsigmoid(margin_B) * (1 - label_smoothing)
    return loss - logsigmoid(-margin_B) * label_smoothing if label_smoothing else loss


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
