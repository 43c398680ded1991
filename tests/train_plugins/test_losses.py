"""The losses against numbers worked out by hand and against finite differences; float64, within 1e-9."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from train_plugins.chat import IGNORED
from train_plugins.losses import (
    PairLogprobs,
    length_normalized_dpo,
    nll_of,
    preference_loss,
    reward_pair_loss,
    summed_nll,
    token_logprobs,
)
from train_plugins.settings import PairLoss

KINDS: tuple[PairLoss, ...] = get_args(PairLoss)


def pairs(chosen: Any, rejected: Any, n_chosen: Any, n_rejected: Any) -> PairLogprobs:
    given = (chosen, rejected, n_chosen, n_rejected)
    return PairLogprobs(*(torch.tensor(value, dtype=torch.float64).reshape(-1) for value in given))


POLICY = pairs(-12, -9, 6, 4)
REFERENCE = pairs(-15, -8, 6, 4)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# Mean log-ratios: (−12 + 15)/6 = 0.5 and (−9 + 8)/4 = −0.25, so the margin is 0.75 and β 5 makes 3.75 of it.
# Sums: 3 and −1, margin 4, times β 0.1. SimPO: means −2 and −2.25, less 0.3: −0.05, times β 2. IPO: (0.75 − 1/(2·5))².
@pytest.mark.parametrize(
    ("kind", "beta", "expected"),
    [
        ("dpo_norm", 5.0, 0.023245464372),
        ("dpo_norm", 5.0, softplus(-3.75)),
        ("dpo", 0.1, 0.513015252400),
        ("dpo", 0.1, softplus(-0.4)),
        ("simpo", 2.0, softplus(0.1)),
        ("ipo", 5.0, 0.65**2),
    ],
)
def test_the_value_of_one_pair(kind: PairLoss, beta: float, expected: float) -> None:
    assert preference_loss(kind, POLICY, REFERENCE, beta).item() == pytest.approx(expected, abs=1e-9)


def test_smoothing_mixes_the_loss_of_the_pair_the_other_way_round() -> None:
    expected = 0.9 * softplus(-3.75) + 0.1 * softplus(3.75)
    assert length_normalized_dpo(POLICY, REFERENCE, 5.0, 0.1).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("kind", "beta"), [("dpo_norm", 5.0), ("dpo", 0.1)])
@pytest.mark.parametrize(("n_chosen", "n_rejected"), [(6, 4), (1, 100), (7, 7)])
def test_equal_policy_and_reference_give_ln_2_for_any_lengths(
    kind: PairLoss, beta: float, n_chosen: int, n_rejected: int
) -> None:
    same = pairs(-12, -9, n_chosen, n_rejected)
    assert preference_loss(kind, same, same, beta).item() == pytest.approx(math.log(2), abs=1e-12)


def test_saying_every_token_twice_changes_nothing_once_lengths_are_divided_out() -> None:
    twice = pairs(-24, -18, 12, 8), pairs(-30, -16, 12, 8)
    for kind in ("dpo_norm", "simpo", "ipo"):
        once = preference_loss(kind, POLICY, REFERENCE, 5.0)
        assert preference_loss(kind, *twice, 5.0).item() == pytest.approx(once.item(), abs=1e-12)
    assert preference_loss("dpo", *twice, 0.1).item() == pytest.approx(softplus(-0.8), abs=1e-12)


def test_every_pair_of_a_batch_has_its_own_loss() -> None:
    policy, reference = pairs([-12, -9], [-9, -12], [6, 4], [4, 6]), pairs([-15, -8], [-8, -15], [6, 4], [4, 6])
    losses = length_normalized_dpo(policy, reference, 5.0)
    assert losses.tolist() == pytest.approx([softplus(-3.75), softplus(3.75)], abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradients_agree_with_finite_differences(kind: PairLoss, smoothing: float) -> None:
    def loss(chosen: Tensor, rejected: Tensor) -> Tensor:
        return preference_loss(kind, replace(POLICY, chosen=chosen, rejected=rejected), REFERENCE, 0.5, smoothing)

    sums = (POLICY.chosen.clone().requires_grad_(), POLICY.rejected.clone().requires_grad_())
    assert torch.autograd.gradcheck(loss, sums, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize(("kind", "beta"), [("dpo_norm", 5.0), ("dpo", 0.1)])
def test_the_reward_margin_that_is_sure_has_no_gradient_left(kind: PairLoss, beta: float) -> None:
    sure = pairs(-1, -20_000, 1, 10)
    assert preference_loss(kind, sure, pairs(-1, -1, 1, 10), beta).item() == 0.0
    assert torch.isfinite(preference_loss(kind, pairs(-20_000, -1, 10, 1), pairs(-1, -1, 10, 1), beta)).all()


def test_the_loss_of_a_reward_model_and_its_gradient() -> None:
    chosen = torch.tensor([1.5, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    losses = reward_pair_loss(chosen, rejected)
    assert losses.tolist() == pytest.approx([softplus(-1), math.log(2), softplus(2)], abs=1e-12)
    losses.sum().backward()
    # d/dr_chosen of −log σ(m) is σ(m) − 1.
    expected = [1 / (1 + math.exp(-m)) - 1 for m in (1, 0, -2)]
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx(expected, abs=1e-12)
    assert rejected.grad.tolist() == pytest.approx([-v for v in expected], abs=1e-12)


def test_logprobs_are_those_of_a_softmax() -> None:
    logits_BTV = torch.tensor([[[0.0, math.log(3)], [1.0, 1.0]]], dtype=torch.float64)  # odds 1:3, then 1:1
    found = token_logprobs(logits_BTV, torch.tensor([[1, 0]]))
    assert found.tolist() == [pytest.approx([math.log(0.75), math.log(0.5)], abs=1e-12)]


def test_logprobs_of_half_precision_logits_are_taken_in_single() -> None:
    logits = torch.linspace(-8, 8, 64).bfloat16().reshape(1, 4, 16)
    found = token_logprobs(logits, torch.zeros(1, 4, dtype=torch.long))
    assert found.dtype == torch.float32
    assert torch.equal(found, token_logprobs(logits.float(), torch.zeros(1, 4, dtype=torch.long)))


def test_the_loss_of_fine_tuning_is_a_plain_mean_over_label_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    labels = torch.tensor([[IGNORED, 3, IGNORED, 6, 0], [2, IGNORED, 1, IGNORED, IGNORED]])
    total, n = summed_nll(logits, labels)
    # The label at t is predicted at t - 1; that of the first token by nothing.
    said = [(0, 0, 3), (0, 2, 6), (0, 3, 0), (1, 1, 1)]
    by_hand = [-torch.log_softmax(logits[row, at], 0)[token].item() for row, at, token in said]
    assert n.item() == 4
    assert (total / n).item() == pytest.approx(sum(by_hand) / 4, abs=1e-12)


def test_passes_of_a_step_add_up_whatever_their_lengths_while_a_mean_of_means_does_not() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 6, 7, generator=generator, dtype=torch.float64)
    labels = torch.full((3, 6), IGNORED)
    labels[0, 1:], labels[1, 1], labels[2, 2:4] = 1, 2, 3
    total, n = summed_nll(logits, labels)
    parts = [summed_nll(logits[i : i + 1], labels[i : i + 1]) for i in range(3)]
    assert sum(part[0].item() for part in parts) / 8 == pytest.approx((total / n).item(), abs=1e-12)
    means = sum((part[0] / part[1]).item() for part in parts) / 3
    assert abs(means - (total / n).item()) > 0.01


def test_a_batch_without_labels_has_no_loss_and_no_tokens() -> None:
    total, n = nll_of(torch.zeros(2, 3, requires_grad=True), torch.full((2,), IGNORED))
    assert (total.item(), n.item()) == (0.0, 0)
