"""Whole iterations of PPO and GRPO against plain ones: forward passes of each rollout alone, sums of lists, AdamW."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from evalsuite.errors import TrainerFailed, UsageError  # noqa: E402
from tests.train_plugins.rlvr.made import GRPO, PPO, batch_of, job_in, learner_of, reward_model, spread  # noqa: E402
from tests.train_plugins.rlvr.plain import (  # noqa: E402
    PlainOptions,
    PlainRollout,
    advantages_of,
    grpo_loss,
    ppo_loss,
    rewards_of,
    whitened,
)
from train_plugins.rlvr import losses, objective  # noqa: E402
from train_plugins.rlvr.learner import Learner, learning_rate  # noqa: E402
from train_plugins.rlvr.options import RLVROptions  # noqa: E402
from train_plugins.rlvr.rollouts import Batch, Rollout  # noqa: E402

SEED = 11
Floats = list[float]


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The start, and another model: a policy that has gone away from its reference."""
    root = tmp_path_factory.mktemp("models")
    found = {name: spread(root / name, seed) for seed, name in enumerate(("start", "other"))}
    return found | {"rm": reward_model(root / "rm", found["start"])}


Make = Callable[..., Learner]


@pytest.fixture
def make(starts: Mapping[str, Path], tmp_path: Path) -> Make:
    """Makes a learner whose policy differs from its reference, and whose values are spread."""
    count = iter(range(100))

    def made(options: Mapping[str, Any], *, rm: bool = False, **more: Any) -> Learner:
        named = {"reward_model": starts["rm"]} if rm else {}
        learner = learner_of(job_in(tmp_path / f"o{next(count)}", starts["start"], options, inputs=named, **more))
        with torch.no_grad():
            generator = torch.Generator().manual_seed(5)
            for network in filter(None, (learner.model, learner.value)):
                for parameter in network.parameters():
                    parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        return learner

    return made


# -- plain forward passes --


def logprobs_of(model: Any, rollout: Rollout, temperature: float) -> Tensor:
    prompt, response = rollout.prompt.ids, rollout.response.ids
    logits = model(torch.tensor([[*prompt, *response]]), use_cache=False).logits[0] / temperature
    places = torch.arange(len(response)) + len(prompt) - 1
    found: Tensor = logits.log_softmax(-1)[places, torch.tensor(response)]
    return found


def values_of(network: Any, rollout: Rollout, length: int) -> Tensor:
    """Before each token, and after the last one where the configured length has room."""
    prompt, response = rollout.prompt.ids, rollout.response.ids
    hidden = network.model.model(torch.tensor([[*prompt, *response]]), use_cache=False).last_hidden_state[0]
    values = network.model.score(hidden)[:, 0] + network.bias
    found: Tensor = values[len(prompt) - 1 :][:length]
    return found


def mean(parts: Sequence[Tensor]) -> Tensor:
    found: Tensor = torch.cat([part.reshape(-1) for part in parts]).mean()
    return found


class Plain:
    """An iteration in the plainest way, with networks of its own that begin as those of the learner."""

    def __init__(self, learner: Learner, batch: Batch) -> None:
        self.options, self.batch = learner.options, batch
        self.policy, self.reference, self.value = learner.policy, learner.reference, learner.value
        with torch.no_grad():
            self.old = [logprobs_of(self.policy, r, self.options.temperature).tolist() for r in batch.rollouts]
            self.ref = [logprobs_of(self.reference, r, self.options.temperature).tolist() for r in batch.rollouts]
            length = self.options.response_tokens
            self.old_values: list[Floats] = (
                [values_of(self.value, r, length).tolist() for r in batch.rollouts] if self.value else []
            )
        self.advantages, self.returns = self._of_ppo() if self.value else (self._of_grpo(), [])

    def _of_grpo(self) -> list[Floats]:
        each, found = self.options.samples_per_prompt, []
        scores = [r.score for r in self.batch.rollouts]
        for i in range(0, len(scores), each):
            group = torch.tensor(scores[i : i + each])
            told = (group - group.mean()) / (group.std() + 1e-8)
            found += [[float(a)] * len(r.response.ids) for a, r in zip(told, self.batch.rollouts[i:], strict=False)]
        return found

    def _of_ppo(self) -> tuple[list[Floats], list[Floats]]:
        options = self.options
        length, beta = options.response_tokens, options.beta if options.kl_in == "reward" else 0.0
        raw, returns = [], []
        for i, rollout in enumerate(self.batch.rollouts):
            told = PlainRollout(self.old[i], self.old[i], self.ref[i], rollout.score, [], [])
            values = self.old_values[i] + [0.0] * (length - len(self.old_values[i]))
            found = advantages_of(rewards_of(told, length, beta), values, options.gamma, options.lam)
            raw.append(found[: len(self.old[i])])
            returns.append([a + v for a, v in zip(found, values, strict=True)][: len(self.old_values[i])])
        flat = iter(whitened([a for row in raw for a in row]))
        return [[next(flat) for _ in row] for row in raw], returns

    def policy_loss(self, numbers: Sequence[int]) -> Tensor:
        """Of the rollouts of one mini-batch, with the weights of now."""
        options, rows = self.options, []
        for i in numbers:
            new = logprobs_of(self.policy, self.batch.rollouts[i], options.temperature)
            old, ref, a = (torch.tensor(row[i]) for row in (self.old, self.ref, self.advantages))
            ratio = (new - old).exp()
            high = options.clip if options.clip_high is None else options.clip_high
            loss = torch.max(-a * ratio, -a * ratio.clamp(1 - options.clip, 1 + high))
            if options.gap_correction == "truncated":
                generated = torch.tensor(self.batch.rollouts[i].response.logprobs)
                loss = loss * (old - generated).exp().clamp(max=2.0)
            if options.kl_in == "loss":
                d = new - ref
                loss = loss + options.beta * {"kl3": (-d).exp() - 1 + d, "kl2": d * d / 2, "kl4": ratio * d}[options.kl]
            rows.append(loss)
        return self._mean(rows, numbers)

    def value_loss(self, numbers: Sequence[int]) -> Tensor:
        options, rows = self.options, []
        for i in numbers:
            values = values_of(self.value, self.batch.rollouts[i], options.response_tokens)
            old, wanted = torch.tensor(self.old_values[i]), torch.tensor(self.returns[i])
            bounded = torch.max(torch.min(values, old + options.value_clip), old - options.value_clip)
            rows.append(0.5 * torch.max((values - wanted) ** 2, (bounded - wanted) ** 2))
        over = mean(rows) if options.loss_norm == "sequence" else self._mean(rows, numbers)
        return options.value_coef * over

    def _mean(self, rows: list[Tensor], numbers: Sequence[int]) -> Tensor:
        if self.options.loss_norm == "sequence":
            return mean([row.mean() for row in rows])
        if self.options.loss_norm == "microbatch":  # these tests have one prompt in each pass
            by: dict[int, list[Tensor]] = {}
            for i, row in zip(numbers, rows, strict=True):
                by.setdefault(self.batch.rollouts[i].prompt.number, []).append(row)
            return mean([torch.cat(part).mean() for part in by.values()])
        return mean(rows)

    def learn(self) -> tuple[list[float], list[float]]:
        """Losses of policy and value in each optimizer step."""
        options = self.options
        networks = [(self.policy, options.lr, self.policy_loss)]
        if self.value:
            networks.append((self.value, options.value_lr or options.lr, self.value_loss))
        steppers = [
            torch.optim.AdamW(model.parameters(), lr, options.adam_betas, options.adam_eps, options.weight_decay)
            for model, lr, _ in networks
        ]
        told: tuple[list[float], list[float]] = ([], [])
        each = options.samples_per_prompt
        for epoch in range(options.epochs):
            order = list(range(options.prompts_per_iteration))
            random.Random(f"{SEED}:1:{epoch}").shuffle(order)
            for part in objective.split(order, options.mini_batches):
                numbers = [i * each + s for i in part for s in range(each)]
                for (model, _, loss_of), stepper, losses_of in zip(networks, steppers, told, strict=False):
                    loss: Any = loss_of(numbers)
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), options.max_grad_norm)
                    stepper.step()
                    stepper.zero_grad()
                    losses_of.append(loss.item())
        return told


def weights(network: Any) -> Tensor:
    found: Tensor = torch.cat([p.detach().flatten() for p in network.parameters()])
    return found


CASES: dict[str, Mapping[str, Any]] = {
    "grpo": GRPO,
    "grpo, 3 epochs of 2": {**GRPO, "epochs": 3, "mini_batches": 2, "lr": 5e-3, "clip_high": 0.3},
    "grpo, packed, warm, sequences": {**GRPO, "layout": "packed", "temperature": 0.7, "loss_norm": "sequence"},
    "grpo, a prompt a pass": {**GRPO, "tokens_per_pass": 1, "loss_norm": "microbatch", "weight_decay": 0.1},
    "grpo, gap weights, kl4": {**GRPO, "gap_correction": "truncated", "kl": "kl4", "epochs": 2, "clip": 0.05},
    "ppo": PPO,
    "ppo, 4 epochs of 2": {**PPO, "epochs": 4, "mini_batches": 2, "lr": 5e-3, "value_clip": 0.02, "lam": 0.9},
    "ppo, packed, a prompt a pass": {**PPO, "layout": "packed", "tokens_per_pass": 1, "temperature": 1.3},
    "ppo, samples, KL in the loss": {**PPO, "samples_per_prompt": 2, "kl_in": "loss", "kl": "kl2", "gamma": 0.9},
    "ppo, short": {**PPO, "response_tokens": 9},  # scores stand after the end also of the longest response
    "ppo, means of passes": {**PPO, "loss_norm": "microbatch", "tokens_per_pass": 1},
    "ppo, means of sequences": {**PPO, "loss_norm": "sequence", "max_grad_norm": 0.1},
}


@pytest.mark.parametrize("case", CASES)
def test_an_iteration_has_the_losses_and_the_weights_of_a_plain_one(case: str, make: Make) -> None:
    ours, theirs = make(CASES[case]), make(CASES[case])
    before = weights(ours.model)
    batch = batch_of(ours.options, longest=6)
    plain = Plain(theirs, batch)
    made = objective.experience(ours, batch)
    tally = objective.learn(ours, made, 1, SEED, 0)
    policy, value = plain.learn()
    assert tally.policy_loss == pytest.approx(policy, abs=1e-5)
    assert tally.value_loss == pytest.approx(value, abs=1e-5)
    assert (weights(ours.model) - before).abs().max() > 1e-4  # it learnt something
    assert (weights(ours.model) - weights(theirs.model)).abs().max() < 1e-5
    if ours.value is not None:
        assert (weights(ours.value) - weights(theirs.value)).abs().max() < 1e-5


def test_the_loss_of_a_second_grpo_epoch_is_that_of_lists_of_floats(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "_check_same", lambda *_: None)  # the second call is not the first update
    learner = make({**GRPO, "lr": 2e-2})
    options, batch = learner.options, batch_of(learner.options)
    plain = Plain(learner, batch)
    made = objective.experience(learner, batch)
    objective.learn(learner, made, 1, SEED, 0)
    told = _told(plain, learner, batch)
    groups = [told[i : i + 3] for i in range(0, len(told), 3)]
    expected = grpo_loss(groups, PlainOptions(beta=options.beta))
    tally = objective.learn(learner, made, 1, SEED, 1)
    assert tally.ratio_max > 1.2  # where clipping matters
    assert tally.policy_loss == pytest.approx([expected], abs=1e-5)


def test_the_loss_of_a_later_ppo_epoch_is_that_of_lists_of_floats(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "_check_same", lambda *_: None)  # the second call is not the first update
    learner = make({**PPO, "lr": 2e-2, "value_lr": 2e-2, "epochs": 1})
    options, batch = learner.options, batch_of(learner.options)
    plain = Plain(learner, batch)
    made = objective.experience(learner, batch)
    objective.learn(learner, made, 1, SEED, 0)
    told = _told(plain, learner, batch)
    expected = ppo_loss(told, options.response_tokens, PlainOptions(gamma=1.0))
    tally = objective.learn(learner, made, 1, SEED, 1)
    assert tally.ratio_max > 1.2
    assert tally.value_clipped > 0
    assert tally.policy_loss[0] + tally.value_loss[0] == pytest.approx(expected, abs=1e-5)


def _told(plain: Plain, learner: Learner, batch: Batch) -> list[PlainRollout]:
    found = []
    with torch.no_grad():
        for i, rollout in enumerate(batch.rollouts):
            new = logprobs_of(learner.policy, rollout, 1.0).tolist()
            values = (
                values_of(learner.value, rollout, learner.options.response_tokens).tolist() if learner.value else []
            )
            old_values = plain.old_values[i] if learner.value else []
            found.append(PlainRollout(new, plain.old[i], plain.ref[i], rollout.score, values, old_values))
    return found


# -- however it is cut --


@pytest.mark.parametrize("options", [{**GRPO, "mini_batches": 2}, {**PPO, "mini_batches": 2}], ids=["grpo", "ppo"])
def test_small_passes_and_large_ones_learn_the_same(options: Mapping[str, Any], make: Make) -> None:
    found: list[tuple[int, Any, Tensor]] = []
    for more in ({"tokens_per_pass": 1}, {"tokens_per_pass": 70}, {}, {"layout": "packed", "tokens_per_pass": 90}):
        learner = make({**options, **more})
        batch = batch_of(learner.options)
        n = len(learner.passes(objective.grouped(batch), range(learner.options.prompts_per_iteration)))
        tally = objective.learn(learner, objective.experience(learner, batch), 1, SEED, 0)
        found.append((n, tally, weights(learner.model)))
    assert found[0][0] == options["prompts_per_iteration"]
    assert found[2][0] == 1
    for _, tally, told in found[1:]:
        assert tally.policy_loss == pytest.approx(found[0][1].policy_loss, abs=1e-6)
        assert tally.policy_norm == pytest.approx(found[0][1].policy_norm, rel=1e-4)
        assert tally.n == found[0][1].n
        assert (told - found[0][2]).abs().max() < 1e-6


def test_a_page_holds_no_more_tokens_than_a_pass_may(make: Make) -> None:
    for layout in ("shared_prompt", "packed"):
        learner = make({**GRPO, "layout": layout, "tokens_per_pass": 60})
        batch = batch_of(learner.options)
        groups = objective.grouped(batch)
        for numbers in learner.passes(groups, range(len(groups))):
            n_tokens = int(sum(groups[i].n_tokens_as(layout) for i in numbers))
            assert n_tokens <= 60 or len(numbers) == 1


def test_with_one_update_lazy_and_first_are_the_same_and_rho_is_1(make: Make) -> None:
    found: list[Tensor] = []
    for kind in ("lazy", "first"):
        learner = make({**GRPO, "old_logprobs": kind})
        made = objective.experience(learner, batch_of(learner.options))
        assert not made.old_known
        tally = objective.learn(learner, made, 1, SEED, 0)
        assert (tally.ratio / tally.n, tally.ratio_max, tally.clipped) == (1.0, 1.0, 0.0)
        assert made.old_known
        assert float(made.old[made.mask].max()) < 0
        found.append(weights(learner.model))
    assert torch.equal(*found)


def test_with_two_mini_batches_lazy_never_clips_and_first_may(make: Make) -> None:
    found = {}
    for kind in ("lazy", "first"):
        learner = make({**GRPO, "old_logprobs": kind, "mini_batches": 2, "lr": 2e-2})
        made = objective.experience(learner, batch_of(learner.options))
        found[kind] = objective.learn(learner, made, 1, SEED, 0)
    assert (found["lazy"].ratio_max, found["lazy"].clipped) == (1.0, 0.0)
    assert found["first"].ratio_max > 1.2
    assert found["first"].clipped > 0


@pytest.mark.parametrize("options", [{**GRPO, "epochs": 2}, PPO], ids=["grpo", "ppo"])
def test_old_log_probabilities_computed_in_another_way_end_the_run(options: Mapping[str, Any], make: Make) -> None:
    learner = make(options)
    made = objective.experience(learner, batch_of(learner.options))
    made.old = made.old + 2e-4
    with pytest.raises(TrainerFailed, match=r"the ratio of the first update is off 1 by 0\.0002"):
        objective.learn(learner, made, 1, SEED, 0)


# -- rewards and advantages --


def test_a_reward_model_adds_its_score_at_the_end_of_each_response(make: Make) -> None:
    learner = make({**GRPO, "reward_model_multiplier": 0.5}, rm=True)
    batch = batch_of(learner.options)
    made = objective.experience(learner, batch)
    assert learner.reward_model is not None
    for i, rollout in enumerate(batch.rollouts):
        with torch.no_grad():
            said = float(values_of(learner.reward_model, rollout, 99)[-1])
        assert abs(said) > 1e-3
        assert float(made.scores[i]) == pytest.approx(rollout.score + 0.5 * said, abs=1e-5)


def test_a_reward_model_that_is_not_named_is_asked_for(make: Make) -> None:
    with pytest.raises(UsageError, match="reward_model_multiplier needs inputs"):
        make({**GRPO, "reward_model_multiplier": 0.5})


@pytest.mark.parametrize(("whiten", "processes"), [("global", 2), ("per_rank", 2), ("per_rank", 1)])
def test_whitening_is_over_all_or_over_the_rollouts_of_each_process(whiten: str, processes: int) -> None:
    learner: Any = SimpleNamespace(options=SimpleNamespace(whiten=whiten), run=SimpleNamespace(processes=processes))
    advantages, mask = torch.tensor([[1.0, 2.0], [4.0, 8.0]]), torch.tensor([[True, True], [True, True]])
    found = objective._whitened(learner, advantages, mask)
    if whiten == "per_rank" and processes == 2:
        # Two numbers lie half their distance from the mean, and their unbiased deviation is distance/√2: ±√½.
        expected = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]) * 0.5**0.5
    else:
        expected = torch.tensor(whitened([1.0, 2.0, 4.0, 8.0])).view(2, 2)
    assert torch.allclose(found, expected, atol=1e-6)


def test_groups_are_told_apart_also_where_neighbours_have_the_same_prompt(make: Make) -> None:
    batch = batch_of(make(GRPO).options)
    first = batch.rollouts[0].prompt
    same = replace(batch, rollouts=tuple(replace(r, prompt=first) for r in batch.rollouts))
    assert [group.rollouts for group in objective.grouped(same)] == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]


# -- what is not finite, and warm-up --


@pytest.mark.parametrize("broken", ["policy_loss", "value_loss"])
def test_an_update_that_is_not_finite_changes_neither_network(
    broken: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make({**PPO, "epochs": 3})
    made = objective.experience(learner, batch_of(learner.options))
    plain, calls = getattr(losses, broken), [0]

    def once(*given: Any) -> Tensor:
        calls[0] += 1
        found: Tensor = plain(*given)
        return found * float("nan") if calls[0] == 2 else found

    seen: list[tuple[Tensor, Tensor]] = []
    step = objective._step

    def watched(*given: Any, **named: Any) -> None:
        step(*given, **named)
        seen.append((weights(learner.model), weights(learner.value)))

    monkeypatch.setattr(losses, broken, once)
    monkeypatch.setattr(objective, "_step", watched)
    tally = objective.learn(learner, made, 1, SEED, 0)
    assert tally.skips == [False, True, False]
    assert len(tally.policy_loss) == len(tally.value_loss) == 2
    for network in range(2):
        assert torch.equal(seen[0][network], seen[1][network])
        assert not torch.equal(seen[1][network], seen[2][network])
        assert bool(torch.isfinite(seen[2][network]).all())


@pytest.mark.parametrize("warmup_ratio", [0.0, 0.5])
def test_warming_the_value_network_moves_it_alone(warmup_ratio: float, make: Make) -> None:
    learner = make({**PPO, "iterations": 10, "warmup_ratio": warmup_ratio})
    assert learner.value is not None
    made = objective.experience(learner, batch_of(learner.options))
    before = weights(learner.model), weights(learner.value)
    tally = objective.learn(learner, made, -1, SEED, 0, value_only=True)
    assert torch.equal(weights(learner.model), before[0])
    assert (weights(learner.value) - before[1]).abs().max() > 1e-3  # value_lr is 2e-3
    assert not tally.policy_loss
    assert tally.value_loss[1] < tally.value_loss[0]


def test_a_value_network_that_starts_from_a_mean_says_it_everywhere(make: Make) -> None:
    learner = make(PPO)
    assert learner.value is not None
    learner.value.start_from(2.5)
    made = objective.experience(learner, batch_of(learner.options))
    assert made.old_values is not None
    assert made.value_mask is not None
    assert set(made.old_values[made.value_mask].tolist()) == {2.5}
    assert float(made.old_values[~made.value_mask].abs().max()) == 0.0


RATES: list[tuple[str, int, int, list[float]]] = [
    ("linear", 4, 0, [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
    ("linear", 6, 2, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]),
    ("cosine", 2, 0, [1.0, 0.5, 0.0]),
    ("constant", 2, 2, [0.0, 0.5, 1.0, 1.0]),
]


@pytest.mark.parametrize(("schedule", "total", "warmup", "expected"), RATES)
def test_the_rate_of_each_update(schedule: str, total: int, warmup: int, expected: list[float]) -> None:
    found = [learning_rate(1.0, i, total, warmup, schedule) for i in range(len(expected))]
    assert found == pytest.approx(expected, abs=1e-12)


def test_mini_batches_differ_by_one_prompt_at_most() -> None:
    assert objective.split([5, 3, 1, 4, 2], 2) == [[5, 3, 1], [4, 2]]
    assert objective.split([1, 2, 3], 3) == [[1], [2], [3]]


def options_of(given: Mapping[str, Any]) -> RLVROptions:
    return RLVROptions(**given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PPO, True),
        (GRPO, False),
        ({**GRPO, "epochs": 2}, True),
        ({**GRPO, "epochs": 2, "old_logprobs": "lazy"}, False),
        ({**GRPO, "gap_correction": "truncated"}, True),
    ],
)
def test_old_log_probabilities_take_a_pass_where_they_have_to(given: Mapping[str, Any], expected: bool) -> None:
    assert objective.needs_old(options_of(given)) is expected
