"""The arithmetic of RLVR against numbers worked out by hand; float64, within 1e-9."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.train_plugins.rlvr import plain
from tests.train_plugins.rlvr.comparing import close, gradients, tensor
from train_plugins.rlvr.gaps import gap, gap_weight
from train_plugins.rlvr.losses import (
    KL_CLAMP,
    explained_variance,
    flat_groups,
    gae,
    group_advantages,
    kl_estimate,
    mean_and_variance,
    moments,
    n_value_positions,
    policy_clipped,
    policy_loss,
    policy_ratio,
    response_mask,
    token_rewards,
    value_clipped,
    value_loss,
    value_mask,
    whiten,
)
from train_plugins.rlvr.options import KL, Advantage

# -- rewards and advantages by hand ------------------------------------------------------------------------------------

LOGPROBS, REFERENCE = tensor([[-1.0, -2.0, -0.5]]), tensor([[-1.2, -1.5, -0.5]])
LAST = torch.tensor([2])


# kl1 is (0.2, −0.5, 0), so β 0.05 gives rewards (−0.01, 0.025, 0); decay γλ = 0.95; values after the last one are 0.
# T 5: s = 3. δ = (−0.01 + 2 − 1, 0.025 + 3 − 2, 4 − 3, 10 − 4, 0) = (0.99, 1.025, 1, 6, 0);
#      A = (…, 1.025 + 0.95·6.7, 1 + 0.95·6, 6, 0).
# T 3: nothing fits after e, s = 2 and there is no fourth value. δ = (0.99, 1.025, 10 − 3).
# T 3, no end-of-text: the score is −10. δ = (0.99, 1.025, −10 − 3).
@pytest.mark.parametrize(
    ("length", "score", "values", "rewards", "advantages", "returns"),
    [
        (5, 10.0, [1, 2, 3, 4], [-0.01, 0.025, 0, 10], [8.0105, 7.39, 6.7, 6], [9.0105, 9.39, 9.7, 10]),
        (4, 10.0, [1, 2, 3, 4], [-0.01, 0.025, 0, 10], [8.0105, 7.39, 6.7, 6], [9.0105, 9.39, 9.7, 10]),
        (3, 10.0, [1, 2, 3], [-0.01, 0.025, 10], [8.28125, 7.675, 7], [9.28125, 9.675, 10]),
        (3, -10.0, [1, 2, 3], [-0.01, 0.025, -10], [-9.76875, -11.325, -13], [-8.76875, -9.325, -10]),
    ],
)
def test_rewards_advantages_and_returns_of_one_rollout(
    length: int, score: float, values: list[float], rewards: list[float], advantages: list[float], returns: list[float]
) -> None:
    got = token_rewards(kl_estimate("kl1", LOGPROBS - REFERENCE), tensor([score]), LAST, 0.05, length)
    close(got, [rewards])
    got_advantages, got_returns = gae(got, tensor([values]), 1.0, 0.95)
    close(got_advantages, [advantages])
    close(got_returns, [returns])


def test_all_positions_of_the_configured_length_give_the_same_as_those_that_matter() -> None:
    rewards, values = tensor([[-0.01, 0.025, 0, 10, 0]]), tensor([[1.0, 2, 3, 4, 0]])
    advantages, returns = gae(rewards, values, 1.0, 0.95)
    close(advantages, [[8.0105, 7.39, 6.7, 6, 0]])
    close(returns, [[9.0105, 9.39, 9.7, 10, 0]])


def test_gamma_discounts_the_next_value_and_lambda_only_what_is_carried() -> None:
    # γ 0.5, λ 0.1: δ = (0 + 0.5·4 − 2, 8 − 4) = (0, 4); A = (0 + 0.05·4, 4)
    close(gae(tensor([[0.0, 8.0]]), tensor([[2.0, 4.0]]), 0.5, 0.1)[0], [[0.2, 4.0]])
    # λ 1 makes the returns the discounted rewards, whatever the values: (1 + 0.5·(2 + 0.5·4), 2 + 0.5·4, 4)
    close(gae(tensor([[1.0, 2.0, 4.0]]), tensor([[7.0, -3.0, 5.0]]), 0.5, 1.0)[1], [[3.0, 4.0, 4.0]])


@pytest.mark.parametrize(("length", "expected"), [(4, [[-0.2, 10.0]]), (2, [[-0.2, 10.0]]), (1, [[9.8]])])
def test_a_response_of_its_end_alone_has_its_score_one_place_later_or_on_top_of_its_kl(
    length: int, expected: list[list[float]]
) -> None:
    # e = 0, kl 4, β 0.05
    close(token_rewards(tensor([[4.0]]), tensor([10.0]), torch.tensor([0]), 0.05, length), expected)


def test_what_stands_after_a_response_is_not_read() -> None:
    kl = tensor([[1.0, math.nan, math.inf], [1.0, 1.0, math.nan]])
    got = token_rewards(kl, tensor([5.0, -5.0]), torch.tensor([0, 1]), 0.5, 7)
    close(got, [[-0.5, 5.0, 0.0], [-0.5, -0.5, -5.0]])


def test_a_response_longer_than_the_configured_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a response has 3 tokens, more than the configured 2"):
        token_rewards(tensor([[0.0, 0.0, 0.0]]), tensor([1.0]), LAST, 0.05, 2)


def test_masks_hold_the_tokens_and_for_values_one_more() -> None:
    last = torch.tensor([0, 2])
    assert response_mask(last, 4).tolist() == [[True, False, False, False], [True, True, True, False]]
    assert value_mask(last, 4).tolist() == [[True, True, False, False], [True, True, True, True]]
    assert value_mask(last, 3).tolist() == [[True, True, False], [True, True, True]]  # of 3 positions the last is e
    assert [n_value_positions(last, length) for length in (3, 4, 9)] == [3, 4, 4]


# -- whitening ---------------------------------------------------------------------------------------------------------

RAW = tensor([[8.0105, 7.39, 6.7, 6.0]])


def test_whitening_is_over_the_tokens_of_responses_and_zero_elsewhere() -> None:
    mask = response_mask(LAST, 4)
    mean, variance = mean_and_variance(moments(RAW, mask))
    close(mean, 7.366833333, atol=5e-10)
    close(variance, 0.429755083, atol=5e-10)
    close(whiten(RAW, mask), [[0.981862114, 0.035338901, -1.017201015, 0.0]])


def test_whitening_can_leave_the_mean_where_it_is() -> None:
    mean = 22.1005 / 3
    expected = [[0.981862114 + mean, 0.035338901 + mean, -1.017201015 + mean, 0.0]]
    close(whiten(RAW, response_mask(LAST, 4), shift_mean=False), expected)


def test_whitening_by_the_counts_of_two_halves_equals_whitening_the_whole() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(6, 5, generator=generator, dtype=torch.float64) * 3 + 7
    mask = response_mask(torch.tensor([0, 1, 4, 2, 3, 0]), 5)
    counts = moments(values[:2], mask[:2]) + moments(values[2:], mask[2:])
    halves = torch.cat([whiten(values[:2], mask[:2], counts), whiten(values[2:], mask[2:], counts.tolist())])
    close(halves, whiten(values, mask))
    white = whiten(values, mask)[mask]
    close(white.mean(), 0.0)
    close(white.var(), 1.0, atol=1e-8)
    alone = torch.cat([whiten(values[:2], mask[:2]), whiten(values[2:], mask[2:])])
    assert (alone - whiten(values, mask)).abs().max() > 0.1  # per process is another thing


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=30))
def test_whitening_is_that_of_the_plain_reference(values: list[float]) -> None:
    got = whiten(tensor([values]), torch.ones(1, len(values), dtype=torch.bool))
    # The sum of squares leaves 1e-13 of the variance, which counts beside ε = 1e-8 where the values are almost equal.
    np.testing.assert_allclose(got[0].numpy(), plain.whitened(values), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("values", [[3.3], [3.3] * 7])
def test_whitening_what_does_not_vary_gives_nothing(values: list[float]) -> None:
    got = whiten(tensor([values]), torch.ones(1, len(values), dtype=torch.bool))
    close(got, [[0.0] * len(values)], atol=1e-6)


def test_rounding_leaves_no_variance_below_zero() -> None:
    # squares less total·mean is −4e-8 here in floating point, more than ε makes up for: the root would be NaN
    values, mask = torch.full((1, 7), 12345.6, dtype=torch.float64), torch.ones(1, 7, dtype=torch.bool)
    assert mean_and_variance(moments(values, mask))[1].item() == 0
    close(whiten(values, mask), [[0.0] * 7], atol=1e-6)


# -- KL ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "d", "expected"),
    [
        ("kl1", 0.2, 0.2),
        ("kl2", 0.2, 0.02),
        ("kl3", 0.2, 0.018730753),
        ("kl1", -0.5, -0.5),
        ("kl2", -0.5, 0.125),
        ("kl3", -0.5, 0.148721271),
        ("kl3", 0.0, 0.0),
    ],
)
def test_the_estimates_of_a_log_ratio(kind: KL, d: float, expected: float) -> None:
    close(kl_estimate(kind, tensor([d])), [expected])


def test_kl4_is_the_log_ratio_weighted_by_the_ratio_of_the_update_and_has_its_gradient() -> None:
    logprob = tensor([-1.0]).requires_grad_()
    old, reference = tensor([-1.5]), tensor([-1.2])
    got = kl_estimate("kl4", logprob - reference, policy_ratio(logprob, old))
    close(got, [math.exp(0.5) * 0.2])
    close(gradients(got, logprob)[0], [math.exp(0.5) * 1.2])  # (ρ·d)' = ρ·d + ρ
    with pytest.raises(ValueError, match="kl4 needs the ratio"):
        kl_estimate("kl4", logprob - reference)


@given(st.floats(-30, 30))
def test_kl3_is_never_negative_and_equals_its_plain_form(d: float) -> None:
    got = kl_estimate("kl3", tensor([d])).item()
    assert got >= 0
    assert got == pytest.approx(math.exp(-d) - 1 + d, rel=1e-12, abs=1e-14)
    assert kl_estimate("kl3", torch.tensor([d], dtype=torch.float32)).item() >= 0


def test_kl3_of_a_small_log_ratio_keeps_its_digits_in_float32() -> None:
    # d²/2 - d³/6: the plain form loses all of it beside 1, where float32 has steps of 1.2e-7
    d = torch.tensor([1e-3])
    assert kl_estimate("kl3", d).item() == pytest.approx(0.5e-6 - 1e-9 / 6, rel=2e-3)
    assert (torch.exp(-d) - 1 + d).item() != pytest.approx(0.5e-6 - 1e-9 / 6, rel=2e-3)


@pytest.mark.parametrize("kind", ["kl1", "kl2", "kl3"])
def test_the_clamp_cuts_the_log_ratio_on_both_sides(kind: KL) -> None:
    d = tensor([-90.0, 90.0, 1.5])
    close(kl_estimate(kind, d, clamp=KL_CLAMP), kl_estimate(kind, tensor([-40.0, 40.0, 1.5])))
    assert torch.isfinite(kl_estimate(kind, d.float(), clamp=KL_CLAMP)).all()
    assert not torch.equal(kl_estimate(kind, d), kl_estimate(kind, d, clamp=KL_CLAMP))


# -- clipping ----------------------------------------------------------------------------------------------------------


# −A·ρ against −A·clip(ρ, 0.8, 1.2): the greater one.
@pytest.mark.parametrize(
    ("advantage", "ratio", "clip_high", "expected", "is_clipped"),
    [
        (2.0, 1.5, None, -2.4, True),
        (2.0, 0.5, None, -1.0, False),
        (-1.0, 1.5, None, 1.5, False),
        (-1.0, 0.5, None, 0.8, True),
        (2.0, 1.25, 0.28, -2.5, False),  # within 1.28
        (2.0, 1.5, 0.28, -2.56, True),
        (-1.0, 0.5, 0.28, 0.8, True),  # the lower bound stays
        (3.0, 1.0, None, -3.0, False),
    ],
)
def test_clipping_takes_the_worse_of_two(
    advantage: float, ratio: float, clip_high: float | None, expected: float, is_clipped: bool
) -> None:
    old = tensor([-1.7])
    new = (old + math.log(ratio)).requires_grad_()
    loss = policy_loss(new, old, tensor([advantage]), 0.2, clip_high)
    close(loss, [expected])
    assert policy_clipped(new, old, tensor([advantage]), 0.2, clip_high).tolist() == [is_clipped]
    close(gradients(loss, new)[0], [0.0 if is_clipped else -advantage * ratio])


# v_old 1, v 2, R 3: the value may move to 1.2, so 0.5·max(1, 1.8²). To R 0 from v 2: max(2², 1.2²). v 1.1: not bounded.
@pytest.mark.parametrize(
    ("value", "wanted", "clip", "expected", "is_clipped"),
    [
        (2.0, 3.0, 0.2, 1.62, True),
        (2.0, 0.0, 0.2, 2.0, False),
        (0.0, -3.0, 0.2, 0.5 * 3.8**2, True),
        (1.1, 3.0, 0.2, 0.5 * 1.9**2, False),
        (2.0, 3.0, None, 0.5, False),
    ],
)
def test_the_value_moves_no_further_than_its_clip(
    value: float, wanted: float, clip: float | None, expected: float, is_clipped: bool
) -> None:
    given_ = tensor([value]), tensor([1.0]), tensor([wanted])
    close(value_loss(*given_, clip), [expected])
    assert value_clipped(*given_, clip).tolist() == [is_clipped]
    close(0.1 * value_loss(tensor([2.0]), tensor([1.0]), tensor([3.0]), 0.2), [0.162])


def test_at_the_first_step_the_gradient_is_that_of_the_unclipped_loss() -> None:
    # ρ = 1 and v = v_old: both sides of max are equal; 2·(−A)/2 and not twice or half of it
    new, value = tensor([-1.0]).requires_grad_(), tensor([1.0]).requires_grad_()
    of_policy = policy_loss(new, new.detach(), tensor([2.0]), 0.2)
    of_value = value_loss(value, value.detach(), tensor([3.0]), 0.2)
    by_new, by_value = gradients(of_policy + of_value, new, value)
    close(by_new, [-2.0])
    close(by_value, [-2.0])


# -- groups ------------------------------------------------------------------------------------------------------------


STD_4, STD_8 = math.sqrt(100 / 3) + 1e-8, math.sqrt(87.5 / 7) + 1e-8


# (10, 0, 0, 10): mean 5, std √(100/3). Seven 10 and one 0: mean 8.75, std √((7·1.25² + 8.75²)/7) = √(87.5/7).
# rloo of (10, 0, 0, 10): 10 − 10/3 and 0 − 20/3. (9, 3, 0): means of the others 1.5, 4.5, 6.
@pytest.mark.parametrize(
    ("kind", "scores", "expected"),
    [
        ("group", [10, 0, 0, 10], [5 / STD_4, -5 / STD_4, -5 / STD_4, 5 / STD_4]),
        ("group", [10] * 7 + [0], [1.25 / STD_8] * 7 + [-8.75 / STD_8]),
        ("mean_only", [10, 0, 0, 10], [5.0, -5.0, -5.0, 5.0]),
        ("mean_only", [10] * 7 + [0], [1.25] * 7 + [-8.75]),
        ("rloo", [10, 0, 0, 10], [20 / 3, -20 / 3, -20 / 3, 20 / 3]),
        ("rloo", [9, 3, 0], [7.5, -1.5, -6.0]),
        ("rloo", [10, 0], [10.0, -10.0]),
    ],
)
def test_advantages_of_one_group(kind: Advantage, scores: list[float], expected: list[float]) -> None:
    close(group_advantages(tensor([scores]).double(), kind), [expected])


def test_advantages_of_two_groups_without_the_epsilon_are_the_known_numbers() -> None:
    # 1e-8 beside a standard deviation near 4 shifts the ninth digit
    close(group_advantages(tensor([[10.0, 0, 0, 10]]), "group").abs(), [[0.866025404] * 4], atol=1e-8)
    close(group_advantages(tensor([[10.0] * 7 + [0]]), "group"), [[0.353553391] * 7 + [-2.474873734]], atol=1e-8)


@pytest.mark.parametrize("kind", ["group", "mean_only", "rloo"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("score", [0.0, 10.0, 10 / 3, -0.1])
def test_a_constant_group_has_no_advantage_at_all(kind: Advantage, dtype: torch.dtype, score: float) -> None:
    scores = torch.full((2, 7), score, dtype=dtype)  # the float32 mean of seven 3.3333333 is not 3.3333333
    assert group_advantages(scores, kind).tolist() == [[0.0] * 7] * 2
    assert flat_groups(torch.cat([scores, torch.arange(7.0).to(dtype)[None]])).tolist() == [True, True, False]


@settings(deadline=None)
@given(st.data())
def test_advantages_depend_neither_on_the_order_of_groups_nor_on_that_within_them(data: st.DataObject) -> None:
    n_groups, n_samples = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 6))
    score = st.sampled_from([10.0, 0.0, -10.0, 20.0, 3.3])
    scores = tensor(data.draw(st.lists(st.lists(score, min_size=n_samples, max_size=n_samples),
                                       min_size=n_groups, max_size=n_groups)))  # fmt: skip
    groups = torch.tensor(data.draw(st.permutations(range(n_groups))))
    samples = torch.tensor(data.draw(st.permutations(range(n_samples))))
    for kind in ("group", "mean_only", "rloo"):
        expected = group_advantages(scores, kind)
        close(group_advantages(scores[groups][:, samples], kind), expected[groups][:, samples])
        close(expected.sum(1), [0.0] * n_groups, atol=1e-6)


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two rollouts"):
        group_advantages(tensor([[10.0]]), "rloo")


# -- what is watched ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 100, 1001])
def test_the_gap_is_what_numpy_says(n: int) -> None:
    random = np.random.default_rng(n)
    generator = -random.exponential(1.0, n)
    learner = generator + random.normal(0, 0.2, n)
    delta = learner - generator
    got = gap(tensor(list(learner)), tensor(list(generator)), 0.2)
    assert got.mean == pytest.approx(np.abs(delta).mean(), abs=1e-12)
    assert got.p99 == pytest.approx(np.percentile(np.abs(delta), 99), abs=1e-12)
    assert got.maximum == pytest.approx(np.abs(delta).max(), abs=1e-12)
    assert got.k3 == pytest.approx((np.exp(delta) - 1 - delta).mean(), abs=1e-12)
    assert got.beyond_clip == pytest.approx((np.abs(np.exp(delta) - 1) > 0.2).mean(), abs=1e-12)
    if n > 1:
        assert got.correlation == pytest.approx(np.corrcoef(learner, generator)[0, 1], abs=1e-9)
    else:
        assert math.isnan(got.correlation)


def test_a_gap_needs_tokens() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        gap(tensor([]), tensor([]), 0.2)


def test_weights_against_the_gap_end_at_two_and_have_no_gradient() -> None:
    learner = tensor([-1.0, -1.0, -1.0]).requires_grad_()
    got = gap_weight(learner, tensor([-1.0, -3.0, -0.5]))
    close(got, [1.0, 2.0, math.exp(-0.5)])
    assert not got.requires_grad


# Returns (1, 2, 3): variance 1. Exact values leave 0 of it, a constant leaves all, (3, 2, 1) misses by
# (−2, 0, 2): 1 − 4.
@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, 2.0, 3.0], 1.0), ([7.0, 7.0, 7.0], 0.0), ([3.0, 2.0, 1.0], -3.0), ([11.0, 12.0, 13.0], 1.0)],
)
def test_explained_variance_by_hand(values: list[float], expected: float) -> None:
    mask = torch.tensor([[True, True, True, False]])
    got = explained_variance(tensor([[*values, 99.0]]), tensor([[1.0, 2.0, 3.0, -99.0]]), mask)
    assert got == pytest.approx(expected, abs=1e-12)


def test_explained_variance_of_constant_returns_is_not_a_number() -> None:
    assert math.isnan(explained_variance(tensor([1.0, 2.0]), tensor([3.0, 3.0]), torch.tensor([True, True])))


# -- dtypes and arguments ----------------------------------------------------------------------------------------------


def some_numbers(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    a, b, c = (torch.randn(6, 6, generator=generator, dtype=torch.float64) * 3 for _ in range(3))
    return a.to(dtype), b.to(dtype), c.to(dtype)


def everything(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """(arguments, results) of one call of each function on tensors."""
    a, b, c = some_numbers(dtype)
    last, mask = torch.tensor([0, 1, 2, 3, 4, 5]), response_mask(torch.tensor([0, 1, 2, 3, 4, 5]), 6)
    results = [
        *(kl_estimate(kind, a / 10, b, clamp=40.0) for kind in ("kl1", "kl2", "kl3", "kl4")),
        token_rewards(a, b[:, 0], last, 0.05, 6),
        *gae(a, b, 1.0, 0.95),
        whiten(a, mask),
        whiten(a, mask, moments(b, mask), shift_mean=False),
        *(group_advantages(a, kind) for kind in ("group", "mean_only", "rloo")),
        policy_loss(a / 10, b / 10, c, 0.2),
        value_loss(a, b, c, 0.2),
        gap_weight(a / 10, b / 10),
        tensor([explained_variance(a, b, mask), gap(a, b, 0.2).k3]),
    ]
    return [a, b, c, last, mask], results


def test_no_argument_is_changed_and_float32_stays_float32() -> None:
    arguments, results = everything(torch.float32)
    untouched, _ = everything(torch.float32)
    fresh = some_numbers(torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(arguments, [*fresh, *untouched[3:]], strict=True))
    assert {result.dtype for result in results[:-1]} == {torch.float32}
    _, exact = everything(torch.float64)
    assert {result.dtype for result in exact} == {torch.float64}
    for got, expected in zip(results, exact, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)


def test_half_precision_is_raised_before_anything_is_computed() -> None:
    new, old = torch.tensor([-1.0], dtype=torch.bfloat16), torch.tensor([-1.0078125], dtype=torch.bfloat16)
    got = policy_loss(new, old, torch.tensor([-1.0]), 0.2)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(math.exp(0.0078125), abs=1e-6)  # bfloat16 has steps of 0.0078 there
