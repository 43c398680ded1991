"""What prompts begin with in common is planned in no time and computed once."""

from __future__ import annotations

import random
from array import array
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.models.encoding import Encoder
from evalsuite.models.hf.generate import Generator
from evalsuite.models.hf.prefix import generation_order, plan_prefixes
from evalsuite.types import GenerateRequest, Prompt, Sampling
from tests.evalsuite.models.hf import generating
from tests.evalsuite.models.hf.generating import answers, texts

encoder = generating.encoder
llama = generating.llama


@settings(max_examples=200, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12),
    saving=st.integers(1, 12),
)
def test_paths_cover_shared_beginnings_and_leave_every_prompt_a_token(prompts: list[list[int]], saving: int) -> None:
    arrays = [array("i", prompt) for prompt in prompts]
    plan = plan_prefixes(arrays, saving)
    users: dict[int, list[int]] = {}
    for i, path in enumerate(plan.paths):
        ends = [0, *(plan.stretches[n].end for n in path)]
        assert [plan.stretches[n].start for n in path] == ends[:-1]
        assert plan.n_shared(i) == ends[-1] < len(prompts[i])
        for n in path:
            stretch = plan.stretches[n]
            assert arrays[stretch.prompt][: stretch.end] == arrays[i][: stretch.end]
            users.setdefault(n, []).append(i)
    for n, stretch in enumerate(plan.stretches):
        assert (len(users[n]) - 1) * (stretch.end - stretch.start) >= saving
    alone = sum(map(len, prompts))
    planned = sum(s.end - s.start for s in plan.stretches) + sum(
        len(p) - plan.n_shared(i) for i, p in enumerate(prompts)
    )
    assert planned <= alone
    order = generation_order(plan, arrays)
    assert sorted(order) == list(range(len(prompts)))
    changes = [n for a, b in pairwise(order) for n in plan.paths[a] if n not in plan.paths[b]]
    assert len(changes) == len(set(changes))  # a stretch that was left is never needed again


def test_a_benchmark_of_thousands_with_one_prefix_is_planned_in_no_time() -> None:
    import time

    rng = random.Random(0)
    prefix = [rng.randrange(1000) for _ in range(800)]
    prompts = [array("i", prefix + [rng.randrange(1000) for _ in range(100)]) for _ in range(5_000)]
    before = time.process_time()
    plan = plan_prefixes(prompts)
    generation_order(plan, prompts)
    assert time.process_time() - before < 2
    assert all(plan.stretches[path[0]].end == 800 for path in plan.paths)


def test_a_prefix_is_computed_once_and_whether_it_is_does_not_depend_on_what_is_wanted(
    llama: Any, encoder: Encoder
) -> None:
    prompts = texts(12, shots=60, most=5)
    asked = [GenerateRequest(Prompt(p), Sampling(1)) for p in prompts]
    lengths = [len(encoder.encode(p, chat=False)) for p in prompts]
    shared, whole = (
        Generator(llama, encoder, max_length=1024, slots=4, share_prefixes=share) for share in (True, False)
    )
    assert {i: r.text for i, r in answers(shared, asked).items()} == {
        i: r.text for i, r in answers(whole, asked).items()
    }
    assert whole.n_forwarded == sum(lengths)
    assert shared.n_forwarded < sum(lengths) / 4
    one = Generator(llama, encoder, max_length=1024, slots=4)
    answers(one, asked, {5})
    assert one.n_forwarded == lengths[5]  # every piece of its path once


def test_repeats_of_one_prompt_feed_one_token_each(llama: Any, encoder: Encoder) -> None:
    prompt = texts(1, shots=60)[0]
    asked = [GenerateRequest(Prompt(prompt), Sampling(1, temperature=1.0, seed=k), True) for k in range(20)]
    generator = Generator(llama, encoder, max_length=1024, slots=4)
    found = answers(generator, asked)
    assert generator.n_forwarded == len(encoder.encode(prompt, chat=False)) - 1 + 20
    assert len({response.tokens for response in found.values()}) > 10
