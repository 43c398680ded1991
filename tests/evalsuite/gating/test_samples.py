"""K responses an item: sampled with seeds of each checkpoint's own, and never mixed with the greedy answers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import pytest

from evalsuite.gate.policy import KRule, Samples
from evalsuite.score import score
from evalsuite.types import GenerateRequest, Prompt, Sampling
from tests.evalsuite.gating.world import (
    LOOK,
    POLICY,
    Checkpoint,
    N,
    World,
    Wrong,
    every,
    make_world,
    pair,
    pairs,
    world_in,
)

FOUR = replace(POLICY, samples=Samples(when=(KRule(N + 1, 4),)))


def unlucky(one_in: int) -> Wrong:
    """Wrong about one sampled response in so many, by its seed, and about no greedy one."""

    def wrong(request: GenerateRequest) -> bool:
        word = f"{request.prompt.text}\0{request.sampling.seed}".encode()
        drawn = int.from_bytes(blake2b(word, digest_size=4).digest(), "big")
        return request.sampling.temperature > 0 and drawn % one_in == 0

    return wrong


def test_each_item_is_asked_k_times_with_different_seeds(world: World) -> None:
    mine = Checkpoint("new")
    gated = world.gate(mine, Checkpoint("old"), FOUR)
    seeds = defaultdict(list)
    for _, n, seed in mine.asked:
        seeds[n].append(seed)
    assert len(seeds) == LOOK
    assert {len(each) for each in seeds.values()} == {4}
    assert len({seed for each in seeds.values() for seed in each}) == 4 * LOOK
    assert pair(gated).k == 4
    assert (gated.verdict.cost["candidate"], gated.verdict.cost["full_run"]) == (4 * LOOK, N)
    assert gated.verdict.cost["share"] == 1.0  # as many responses as a run that asks each item once


def test_two_checkpoints_are_seeded_independently(world: World) -> None:
    mine, theirs = Checkpoint("new"), Checkpoint("old")
    world.gate(mine, theirs, FOUR)
    assert not {seed for *_, seed in mine.asked} & {seed for *_, seed in theirs.asked}


def test_a_champion_keeps_what_it_answered_as_a_candidate(world: World) -> None:
    first, second = Checkpoint("first"), Checkpoint("second")
    world.gate(first, Checkpoint("zero"), FOUR)
    held = set(first.asked)
    first.asked.clear()
    world.gate(second, first, FOUR, generation=2)
    assert first.asked
    assert not held & set(first.asked)


def test_greedy_answers_and_samples_are_kept_apart(world: World) -> None:
    # Wrong wherever it is sampled, right where it is greedy: were they mixed, the champion would look better.
    mine, theirs = Checkpoint("new", unlucky(1)), Checkpoint("old", unlucky(1))
    card = score(world.job(mine))
    gated = world.gate(mine, theirs, FOUR)
    assert card.results[0].value == 1.0
    assert (pair(gated).now, pair(gated).was) == (0.0, 0.0)
    assert score(world.job(mine)).results[0].value == 1.0
    assert set(world.answers().values()) == {1}


def test_the_score_of_an_item_is_the_mean_of_its_samples(world: World) -> None:
    mine, theirs = Checkpoint("new", unlucky(5)), Checkpoint("old", unlucky(6))
    gated = world.gate(mine, theirs, FOUR)
    found = pair(gated)
    right = [not mine.wrong(sampled(n, seed)) for _, n, seed in mine.asked]
    assert len(right) == 4 * found.n == 4 * len(set(mine.numbers()))
    assert found.now == pytest.approx(sum(right) / len(right))


def sampled(n: int, seed: int) -> GenerateRequest:
    return GenerateRequest(Prompt(f"toy: what is {n} + {n}?"), Sampling(16, temperature=0.7, seed=seed))


def test_log_likelihoods_are_asked_once_whatever_k_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with world_in(tmp_path, monkeypatch, names=("toy", "choose")) as world:
        gated = world.gate(Checkpoint("new"), Checkpoint("old"), FOUR)
        assert {name: f.k for (name, _), f in pairs(gated).items()} == {"toy": 4, "choose": 1}


def test_another_temperature_is_another_sample_and_another_gate(world: World) -> None:
    mine, theirs = Checkpoint("new"), Checkpoint("old")
    first = world.gate(mine, theirs, FOUR)
    mine.asked.clear()
    hotter = replace(FOUR, samples=replace(FOUR.samples, temperature=1.0))
    second = world.gate(mine, theirs, hotter)
    assert first.verdict.gate_id != second.verdict.gate_id
    assert len(mine.asked) == 4 * LOOK


def test_the_same_inputs_in_another_folder_give_the_same_seeds_and_bytes(world: World) -> None:
    mine, theirs = Checkpoint("new", unlucky(5)), Checkpoint("old", unlucky(5))
    world.gate(mine, theirs, FOUR)
    again = [Checkpoint("new", unlucky(5)), Checkpoint("old", unlucky(5))]
    other = make_world(world.root / "other")
    other.gate(again[0], again[1], FOUR)
    assert set(again[0].asked) == set(mine.asked)
    assert other.written() == world.written()


def test_greedy_gates_and_the_score_share_their_answers(world: World) -> None:
    mine = Checkpoint("new", every(9))
    score(world.job(mine))
    mine.asked.clear()
    gated = world.gate(mine, Checkpoint("old", every(9)))
    assert mine.asked == []
    assert gated.n_asked["candidate"] == 0
