"""Shared computation against the plain one: the same numbers for every tree, family, batch and resume point."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.models.hf import cache as hf_cache
from evalsuite.models.hf.cache import TreeMasks
from evalsuite.models.hf.head import Head
from evalsuite.models.hf.plan import Batch, Limits, Segment, make_plan
from evalsuite.models.hf.probe import choose_level, level_limits
from evalsuite.models.hf.tree import KeptStore, TreeForward, TreeScorer
from tests.evalsuite.models.hf.families import EAGER_ONLY, TREE, VOCABULARY, make_family
from tests.evalsuite.models.hf.trees import lines_of, oracle, random_docs, random_limits, scored, worst

FLOAT32 = 1e-4  # of one token; logits are of ±10 here, and plain float32 itself is 3e-5 from float64

seeds = st.integers(0, 10**6)


def tree_scorer(model: Any, budget: int = 1 << 30) -> TreeScorer:
    return TreeScorer(TreeForward(Head(model), TreeMasks.of(model)), KeptStore(budget))


LLAMA = make_family("llama")


@settings(max_examples=400, deadline=None)
@given(seeds, seeds)
def test_any_tree_under_any_limits_equals_plain(tree: int, limit: int) -> None:
    lines = lines_of(random_docs(tree, VOCABULARY))
    budget = (1 << 30) * (limit % 2)  # with 0 every stretch is dropped as soon as its path is left
    ours, plain = scored(tree_scorer(LLAMA, budget), lines, random_limits(limit)), oracle(LLAMA, lines)
    assert worst(ours, plain) <= FLOAT32
    assert [ours[key][1] for key in plain] == [greedy for _, greedy in plain.values()]


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_the_order_of_documents_changes_nothing(tree: int) -> None:
    docs = random_docs(tree, VOCABULARY)
    order = random.Random(tree).sample(range(len(docs)), len(docs))
    one = scored(tree_scorer(LLAMA), lines_of(docs), Limits())
    two = scored(tree_scorer(LLAMA), lines_of([docs[i] for i in order]), Limits())
    assert worst({(order[doc], slot): number for (doc, slot), number in two.items()}, one) <= 1e-5


@settings(max_examples=40, deadline=None)
@given(seeds, seeds)
def test_what_is_left_after_an_interruption_comes_out_bit_for_bit(tree: int, limit: int) -> None:
    lines, limits = lines_of(random_docs(tree, VOCABULARY)), random_limits(limit)
    whole = scored(tree_scorer(LLAMA), lines, limits)
    docs = sorted({line.doc for line in lines})
    wanted = set(random.Random(limit).sample(docs, random.Random(tree).randint(1, len(docs))))
    rest = scored(tree_scorer(LLAMA), lines, limits, wanted)
    assert rest == {key: number for key, number in whole.items() if key[0] in wanted}


@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_five_waves_cost_one_computation_of_each_prefix_more_at_most(budget: int) -> None:
    draw = random.Random(1)
    prefix = tuple(draw.randrange(3, VOCABULARY) for _ in range(200))
    docs = [prefix + tuple(draw.randrange(3, VOCABULARY) for _ in range(30)) for _ in range(60)]
    lines = lines_of([type(d)(c, ((5, 6), (7, 8, 9))) for c in docs for d in random_docs(0, 9)[:1]])
    plan = make_plan(lines, Limits(batch_tokens=256))
    scorer = tree_scorer(LLAMA, budget)
    once = {found.doc: found.values for found in scorer.score(plan, range(60))}
    n_once, scorer.n_forwarded = scorer.n_forwarded, 0
    scorer.store.clear()
    order = draw.sample(range(60), 60)
    waves = [{found.doc: found.values for found in scorer.score(plan, order[i::5])} for i in range(5)]
    assert {doc: values for wave in waves for doc, values in wave.items()} == once
    n_prefix = 200 if budget else 5 * 200
    n_batches = sum(isinstance(step, Batch) for step in plan.root.below())
    assert scorer.n_forwarded <= n_prefix + 5 * (n_once - 200)
    assert n_batches > 5


def test_a_wave_recomputes_only_batches_that_hold_one_of_its_documents() -> None:
    lines = lines_of(random_docs(11, VOCABULARY))
    plan = make_plan(lines, Limits(batch_tokens=1))
    scorer = tree_scorer(LLAMA)
    assert [found.doc for found in scorer.score(plan, {0})] == [0]
    assert 0 < scorer.n_forwarded < plan.n_tokens


def test_a_mask_with_one_wrong_bit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_of(random_docs(7, VOCABULARY))
    plain = oracle(LLAMA, lines)
    limits = Limits(min_saving=16)
    plan = make_plan(lines, limits)
    assert worst(scored(tree_scorer(LLAMA), lines, limits), plain) <= FLOAT32
    batch = next(s for s in plan.root.below() if isinstance(s, Batch) and s.prefix and not s.is_causal)
    build = TreeMasks.build
    row, read = max(batch.reads(), key=lambda found: found[1].at)

    def mutated(self: TreeMasks, ends: torch.Tensor, positions: torch.Tensor, n_prefix: int) -> Any:
        mask = build(self, ends, positions, n_prefix)
        assert isinstance(mask, torch.Tensor)
        if mask.shape[0] == len(batch.rows) and mask.shape[2] == batch.width and n_prefix == batch.prefix:
            seen = mask[row, 0, read.at, :-1].nonzero()[-1].item()
            mask[row, 0, read.at, seen] = False
        return mask

    monkeypatch.setattr(TreeMasks, "build", mutated)
    assert worst(scored(tree_scorer(LLAMA), lines, limits), plain) > 20 * FLOAT32


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_window_is_measured_in_tree_positions(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_family("mistral", attention)  # window 16
    lines = [line for seed in (2, 3, 5) for line in lines_of(random_docs(seed, VOCABULARY))]
    lines = [type(line)(i, 0, line.fed, line.targets) for i, line in enumerate(lines)]
    plain = oracle(model, lines)
    assert worst(scored(tree_scorer(model), lines, Limits(min_saving=16)), plain) <= FLOAT32
    near = hf_cache.near
    monkeypatch.setattr(
        hf_cache,
        "near",
        lambda kind, q, k: near(kind, torch.arange(q.shape[1]).expand_as(q) + k.shape[1] - q.shape[1], k),
    )
    assert worst(scored(tree_scorer(model), lines, Limits(min_saving=16)), plain) > 20 * FLOAT32


def test_a_boolean_mask_under_eager_would_be_wrong_and_the_probe_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_family("llama", "eager")
    assert choose_level(model).level == "tree"
    monkeypatch.setattr(TreeMasks, "_finish", lambda self, mask: mask[:, None])
    assert choose_level(model).level != "tree"


def _family_case(name: str, attention: str) -> None:
    model = make_family(name, attention)
    choice = choose_level(model)
    assert choice.level == "tree", choice.why_not
    assert choice.forward is not None
    for seed in range(3):
        lines = lines_of(random_docs(seed, VOCABULARY))
        for limits in (Limits(min_saving=16), random_limits(seed)):
            scorer = TreeScorer(choice.forward, KeptStore(1 << 20))
            assert worst(scored(scorer, lines, limits), oracle(model, lines)) <= FLOAT32, (name, attention, seed)


@pytest.mark.parametrize("name", ["mistral", "qwen3", "olmo3", "gemma2"])
def test_a_family_with_windows_or_a_scaled_head_equals_plain(name: str) -> None:
    _family_case(name, "sdpa")


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", sorted(TREE))
def test_every_family_of_the_list_equals_plain(name: str, attention: str) -> None:
    if name in EAGER_ONLY and attention == "sdpa":
        pytest.skip(f"{name} has no sdpa in transformers")
    _family_case(name, attention)


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("bloom", "prefix-copy"),
        ("mpt", "prefix-copy"),
        ("falcon_h1", "prefix-copy"),
        ("mamba", "plain"),
        ("jamba", "plain"),
    ],
)
def test_models_that_cannot_hold_a_tree_land_on_another_level_and_stay_equal(name: str, level: str) -> None:
    model = make_family(name, "eager" if name in EAGER_ONLY else "sdpa")
    choice = choose_level(model)
    assert choice.level == level, choice.why_not
    assert "tree" in choice.why_not
    if choice.forward is not None:
        lines = lines_of(random_docs(3, VOCABULARY))
        limits = level_limits(Limits(), choice.level)
        plan = make_plan(lines, limits)
        assert any(isinstance(step, Segment) and len(step.tokens) for step in plan.root.below())
        ours = scored(TreeScorer(choice.forward, KeptStore(1 << 30)), lines, limits)
        assert worst(ours, oracle(model, lines)) <= 5 * FLOAT32


def test_logits_that_only_the_model_itself_can_finish_are_read_through_a_hook() -> None:
    model = make_family("gemma2")
    model.config.final_logit_softcapping = 3.0
    direct = Head(model)
    assert direct.mode == "direct"
    hooked = Head(model)
    hooked.mode = "hooked"
    lines = lines_of(random_docs(3, VOCABULARY))
    masks = TreeMasks.of(model)
    ours = scored(TreeScorer(TreeForward(hooked, masks), KeptStore(0)), lines, Limits())
    assert worst(ours, scored(TreeScorer(TreeForward(direct, masks), KeptStore(0)), lines, Limits())) <= 1e-6
    model.forward = _shifted(model.forward)  # a head with a bias that no config names
    assert Head(model).mode == "hooked"
    assert worst(scored(tree_scorer(model), lines, Limits()), oracle(model, lines)) <= FLOAT32


def _shifted(forward: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits + torch.arange(out.logits.shape[-1]) / 50
        return out

    return run


def test_running_out_of_memory_halves_the_batch_and_the_numbers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_of(random_docs(5, VOCABULARY))
    scorer = tree_scorer(LLAMA)
    forward = scorer.forward.batch

    def small(batch: Batch, path: Any) -> Any:
        if len(batch.rows) > 1:
            raise torch.OutOfMemoryError("no room")
        return forward(batch, path)

    monkeypatch.setattr(scorer.forward, "batch", small)
    plan = make_plan(lines, Limits(fill_to=(1,)))
    assert max(len(step.rows) for step in plan.root.below() if isinstance(step, Batch)) >= 4
    assert worst(scored(scorer, lines, Limits(fill_to=(1,))), oracle(LLAMA, lines)) <= FLOAT32
