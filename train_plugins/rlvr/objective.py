"""From the rollouts of an iteration to its optimizer steps: PPO as in Tülu 3, GRPO as in Tülu 3.1. Imports torch.

What is the same for all epochs (old and reference log-probabilities, rewards, advantages, returns) is an `Experience`;
`learn` walks over it. Tensors are (n, W) with n rollouts and W tokens of the longest response, or (n, P) where a value
is read (see `train_plugins.rlvr.losses`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from evalsuite.errors import TrainerFailed
from train_plugins.rlvr import gaps, losses
from train_plugins.rlvr.learner import Learner, learning_rate
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.pages import Group, Page
from train_plugins.rlvr.plan import schedule_of, warmup_of
from train_plugins.rlvr.rollouts import Batch

SAME = {"float32": 1e-4, "bfloat16": 2e-2}  # how far ρ may be from 1 before anything was updated
POLICY, VALUE = 0, 1


@dataclass(slots=True)
class Experience:
    """An iteration's rollouts as tensors. `old` is filled while the first epoch runs where that changes nothing."""

    groups: list[Group]
    mask: Tensor  # (n, W)
    last: Tensor  # (n,), e
    scores: Tensor  # (n,)
    generated: Tensor  # (n, W): the generator's log-probabilities
    old: Tensor  # (n, W)
    old_known: bool
    reference: Tensor | None  # (n, W)
    advantages: Tensor  # (n, W)
    raw_advantages: tuple[float, float]  # mean and standard deviation before whitening
    returns: Tensor | None = None  # (n, P)
    old_values: Tensor | None = None  # (n, P)
    value_mask: Tensor | None = None  # (n, P)
    flat_groups: float = 0.0  # share of prompts whose rollouts all score the same


@dataclass(slots=True)
class Tally:
    """What the optimizer steps of an iteration came to; sums over this process's part, divided at the end."""

    policy_loss: list[float] = field(default_factory=list)
    value_loss: list[float] = field(default_factory=list)
    policy_norm: list[float] = field(default_factory=list)
    value_norm: list[float] = field(default_factory=list)
    clipped: float = 0.0
    value_clipped: float = 0.0
    ratio: float = 0.0
    ratio_max: float = 0.0
    k3: float = 0.0
    n: float = 0.0
    n_value: float = 0.0
    skips: list[bool] = field(default_factory=list)  # for each update whether it was thrown away
    lr: float = 0.0

    def add(self, network: int, loss: float, norm: float) -> None:
        losses_of, norms_of = ((self.policy_loss, self.policy_norm), (self.value_loss, self.value_norm))[network]
        losses_of.append(loss)
        norms_of.append(norm)


def experience(learner: Learner, batch: Batch) -> Experience:
    """Everything about a batch that its updates read."""
    options = learner.options
    learner.forget()
    groups = grouped(batch)
    n = len(batch.rollouts)
    last = torch.tensor([len(r.response.ids) - 1 for r in batch.rollouts], device=learner.device)
    width = int(last.max()) + 1
    mask = losses.response_mask(last, width)
    generated = torch.zeros(n, width, device=learner.device)
    generated[mask] = torch.tensor([p for r in batch.rollouts for p in r.response.logprobs], device=learner.device)
    scores = torch.tensor([r.score for r in batch.rollouts], dtype=torch.float32, device=learner.device)
    scores = scores + _reward_model_scores(learner, groups, n)
    old_known = needs_old(options)
    old = _logprobs(learner, learner.model, groups, n, width) if old_known else torch.zeros_like(generated)
    reference = None
    if learner.reference is not None:
        reference = _logprobs(learner, learner.reference, groups, n, width)
    made = Experience(groups, mask, last, scores, generated, old, old_known, reference, generated, (0.0, 0.0))
    if options.algorithm == "grpo":
        _group_advantages(options, made)
    else:
        _value_advantages(learner, made)
    return made


def needs_old(options: RLVROptions) -> bool:
    """Whether old log-probabilities take a pass of their own: not where each rollout is seen once and before any
    update, as the first forward pass gives them then."""
    if options.algorithm == "ppo" or options.gap_correction != "none":
        return True
    return options.old_logprobs == "first" and options.updates_per_iteration > 1


def grouped(batch: Batch) -> list[Group]:
    """Responses by the prompt that they answer; rollouts of a prompt stand side by side."""
    groups: list[Group] = []
    rollouts = batch.rollouts
    i = 0
    while i < len(rollouts):
        j = i + 1
        while j < len(rollouts) and rollouts[j].sample > rollouts[j - 1].sample:
            j += 1
        responses = tuple(r.response.ids for r in rollouts[i:j])
        groups.append(Group(rollouts[i].prompt.ids, responses, tuple(range(i, j))))
        i = j
    return groups


def _logprobs(learner: Learner, model: Any, groups: Sequence[Group], n: int, width: int) -> Tensor:
    def forward(page: Page) -> tuple[Tensor, Tensor]:
        return learner.logprobs(model, page), page.mask(width)

    return learner.over_all(groups, n, width, forward)


def _reward_model_scores(learner: Learner, groups: Sequence[Group], n: int) -> Tensor | float:
    network, weight = learner.reward_model, learner.options.reward_model_multiplier
    if network is None:
        return 0.0

    def forward(page: Page) -> tuple[Tensor, Tensor]:
        mask = torch.ones(len(page.rollouts), 1, dtype=torch.bool, device=learner.device)
        return learner.values(network, page, page.end_at), mask

    return weight * learner.over_all(groups, n, 1, forward)[:, 0]


# -- advantages --


def _group_advantages(options: RLVROptions, made: Experience) -> None:
    scores_BG = made.scores.view(-1, options.samples_per_prompt)
    advantages_BG = losses.group_advantages(scores_BG, options.advantage)
    made.advantages = advantages_BG.reshape(-1, 1).expand_as(made.mask)
    made.flat_groups = float(losses.flat_groups(scores_BG).float().mean())
    centred = scores_BG - scores_BG.mean(1, keepdim=True)
    made.raw_advantages = (float(centred.mean()), float(centred.std()))


def _value_advantages(learner: Learner, made: Experience) -> None:
    """Rewards of tokens, values, GAE, whitening."""
    options, groups = learner.options, made.groups
    n, width = made.mask.shape
    positions = losses.n_value_positions(made.last, options.response_tokens)
    value_mask = losses.value_mask(made.last, positions)
    network = learner.value

    def forward(page: Page) -> tuple[Tensor, Tensor]:
        mask = _value_page_mask(page, positions)
        return learner.values(network, page, value_places(page, mask)), mask

    values = learner.over_all(groups, n, positions, forward)
    if made.reference is None or options.kl_in == "loss":
        kl, beta = torch.zeros_like(made.old), 0.0
    else:
        kl, beta = losses.kl_estimate(options.kl, made.old - made.reference), options.beta
    rewards = losses.token_rewards(kl, made.scores, made.last, beta, options.response_tokens)
    if options.whiten_rewards:
        rewards = losses.whiten(rewards, value_mask, shift_mean=False)
    advantages, returns = losses.gae(rewards, values, options.gamma, options.lam)
    made.returns, made.old_values, made.value_mask = returns, values, value_mask
    advantages = advantages[:, :width]
    kept = advantages[made.mask]
    made.raw_advantages = (float(kept.mean()), float(kept.std()) if kept.numel() > 1 else 0.0)
    made.advantages = _whitened(learner, advantages, made.mask)


def _whitened(learner: Learner, advantages: Tensor, mask: Tensor) -> Tensor:
    """Over the whole iteration, or as in the release over the rollouts of each process."""
    if learner.options.whiten == "global" or learner.run.processes == 1:
        return losses.whiten(advantages, mask)
    white = torch.zeros_like(advantages)
    for part in torch.arange(len(mask), device=mask.device).chunk(learner.run.processes):
        white[part] = losses.whiten(advantages[part], mask[part])
    return white


def _value_page_mask(page: Page, positions: int) -> Tensor:
    """(n, positions): True at t <= e + 1, for the rollouts of a page."""
    return losses.value_mask(page.lengths - 1, positions)


def value_places(page: Page, mask: Tensor) -> Tensor:
    """The places whose outputs are the values under a mask: before each token, and at the last one where its next
    position counts; in the order of `mask.nonzero()`."""
    n, positions = mask.shape
    places = torch.zeros(n, positions, dtype=torch.long, device=mask.device)
    tokens = page.mask(positions)
    places[tokens] = page.at
    after = mask & ~tokens
    places[after] = page.end_at[after.any(1)]
    return places[mask]


# -- updates --


def learn(
    learner: Learner, made: Experience, iteration: int, seed: int, update: int, *, value_only: bool = False
) -> Tally:
    """All optimizer steps of an iteration; `update` counts those before it. `value_only` leaves the policy alone and
    does not clip the value's loss: the warm start of a value network."""
    options, tally = learner.options, Tally()
    rows = range(len(made.groups))
    for epoch in range(options.epochs):
        order = list(rows)
        random.Random(f"{seed}:{iteration}:{epoch}").shuffle(order)
        if not made.old_known:
            made.old.zero_()
        for part in split(order, options.mini_batches):
            _step(learner, made, part, update, tally, epoch, value_only=value_only)
            update += not value_only
        if not made.old_known:  # every rollout was visited once
            made.old, made.old_known = learner.summed(made.old), True
    return tally


def split(order: Sequence[int], n: int) -> list[list[int]]:
    """`n` parts whose sizes differ by one at most."""
    size, more = divmod(len(order), n)
    bounds = [i * size + min(i, more) for i in range(n + 1)]
    return [list(order[a:b]) for a, b in pairwise(bounds)]


def _step(
    learner: Learner, made: Experience, numbers: list[int], update: int, tally: Tally, epoch: int, *, value_only: bool
) -> None:
    """One mini-batch: a step of the policy and, in PPO, one of the value network. Either both are made or none."""
    options, run = learner.options, learner.run
    passes = learner.passes(made.groups, numbers)
    rollouts = [r for i in numbers for r in made.groups[i].rollouts]
    total, warmup = schedule_of(options), warmup_of(options)
    # A value network is warmed before the schedule begins.
    rate = [(peak if value_only else learning_rate(peak, update, total, warmup, options.schedule)) * run.lr_scale
            for peak in (options.lr, options.value_lr or options.lr)]  # fmt: skip
    tally.lr = rate[POLICY]
    found: dict[int, tuple[float, float] | None] = {}
    if not value_only:
        policy = _policy_losses(learner, made, passes, rollouts, tally, check=epoch == 0 and not tally.skips)
        found[POLICY] = learner.gradient(POLICY, policy, len(passes))
    if learner.value is not None:
        value = _value_losses(learner, made, passes, rollouts, tally, clip=not value_only)
        found[VALUE] = learner.gradient(VALUE, value, len(passes))
    tally.skips.append(None in found.values())
    for network, facts in found.items():
        learner.descend(network, None if tally.skips[-1] else rate[network])
        if facts is not None and not tally.skips[-1]:
            tally.add(network, *facts)


def _policy_losses(
    learner: Learner, made: Experience, passes: Sequence[tuple[int, ...]], rollouts: list[int], tally: Tally, *,
    check: bool,
) -> Iterator[Tensor]:  # fmt: skip
    """The loss of each pass, divided so that the passes of all processes add up to the step's."""
    options = learner.options
    for numbers in passes:
        page = learner.page(made.groups, numbers or (0,))
        logprobs = learner.logprobs(learner.model, page)
        if not numbers:
            yield logprobs.sum() * 0.0
            continue
        where = page.rollouts
        mask = made.mask[where]
        if not made.old_known:
            kept = torch.zeros_like(made.old[where])
            kept[mask] = logprobs.detach().to(kept.dtype)
            made.old[where] = kept
        old, advantages = made.old[where][mask], made.advantages[where][mask]
        per_token = losses.policy_loss(logprobs, old, advantages, options.clip, options.clip_high)
        if options.gap_correction == "truncated":
            per_token = per_token * gaps.gap_weight(old, made.generated[where][mask])
        if options.kl_in == "loss" and made.reference is not None and options.beta:
            ratio = losses.policy_ratio(logprobs, old)
            apart = logprobs - made.reference[where][mask]
            per_token = per_token + options.beta * losses.kl_estimate(options.kl, apart, ratio, losses.KL_CLAMP)
        _count(tally, options, logprobs.detach(), old, advantages)
        if check:
            _check_same(options, logprobs.detach(), old)
            check = False
        yield (per_token * _weights(options, made, rollouts, page, mask, len(passes), learner.run.processes)).sum()


def _weights(
    options: RLVROptions, made: Experience, rollouts: list[int], page: Page, mask: Tensor, n_passes: int, processes: int
) -> Tensor:
    """What each token of a page counts, (N,): over a whole optimizer step these sum to 1."""
    if options.loss_norm == "sequence":
        lengths = page.lengths[:, None].expand_as(mask)[mask]
        return 1.0 / (lengths * len(rollouts))
    if options.loss_norm == "microbatch":
        return torch.full((int(mask.sum()),), 1.0 / (int(mask.sum()) * n_passes * processes), device=mask.device)
    n_tokens = int((made.last[rollouts] + 1).sum())
    return torch.full((int(mask.sum()),), 1.0 / n_tokens, device=mask.device)


def _value_losses(
    learner: Learner, made: Experience, passes: Sequence[tuple[int, ...]], rollouts: list[int], tally: Tally, *,
    clip: bool,
) -> Iterator[Tensor]:  # fmt: skip
    options = learner.options
    assert made.returns is not None
    assert made.old_values is not None
    assert made.value_mask is not None
    n_all = int(made.value_mask[rollouts].sum())
    for numbers in passes:
        page = learner.page(made.groups, numbers or (0,))
        mask = _value_page_mask(page, made.value_mask.shape[1])
        values = learner.values(learner.value, page, value_places(page, mask))
        if not numbers:
            yield values.sum() * 0.0
            continue
        where = page.rollouts
        old, returns = made.old_values[where][mask], made.returns[where][mask]
        bound = options.value_clip if clip else None
        per_place = losses.value_loss(values, old, returns, bound)
        tally.value_clipped += float(losses.value_clipped(values, old, returns, bound).sum())
        tally.n_value += len(values)
        by = int(mask.sum()) * len(passes) * learner.run.processes if options.loss_norm == "microbatch" else n_all
        yield options.value_coef * per_place.sum() / by


def _count(tally: Tally, options: RLVROptions, logprobs: Tensor, old: Tensor, advantages: Tensor) -> None:
    ratio = losses.policy_ratio(logprobs, old)
    tally.clipped += float(losses.policy_clipped(logprobs, old, advantages, options.clip, options.clip_high).sum())
    tally.ratio += float(ratio.sum())
    tally.ratio_max = max(tally.ratio_max, float(ratio.max()))
    tally.k3 += float((ratio - 1 - (logprobs - old)).sum())
    tally.n += len(ratio)


def _check_same(options: RLVROptions, logprobs: Tensor, old: Tensor) -> None:
    """Before the first update ρ is 1: otherwise old and new log-probabilities are computed in two ways."""
    apart = float((losses.policy_ratio(logprobs, old) - 1).abs().max())
    if not apart < SAME[options.dtype]:
        raise TrainerFailed(
            f"the ratio of the first update is off 1 by {apart:.2g} (at most {SAME[options.dtype]}): old and new "
            "log-probabilities of this model do not agree; try attention: eager or layout: packed"
        )
