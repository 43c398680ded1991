"""The refilled batch writes what each prompt would get on its own, bit for bit, whatever else is being written."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import torch

from evalsuite.models.encoding import Encoder
from evalsuite.models.hf.decode import row_step
from evalsuite.models.hf.generate import Generator
from evalsuite.models.hf.slots import Slots
from evalsuite.models.stops import Thinking
from evalsuite.types import GenerateRequest, Prompt, Sampling
from tests.evalsuite.models.hf import generating
from tests.evalsuite.models.hf.generating import (
    FAMILIES,
    Bits,
    Endless,
    answers,
    model_of,
    plain_greedy,
    requests,
    texts,
)
from tests.tiny import SMALL, make_model

encoder = generating.encoder
llama = generating.llama
one_thread = generating.one_thread


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_transformers_one_by_one(family: str, encoder: Encoder, one_thread: None) -> None:
    name, options = FAMILIES[family]
    model = model_of(name, **options)
    prompts = texts(6, shots=14, most=12)  # the shared start alone is longer than the windows
    limits = [3, 24, 9, 24, 1, 14]
    asked = [GenerateRequest(Prompt(p), Sampling(n), True) for p, n in zip(prompts, limits, strict=True)]
    endless = Endless(encoder)
    generator = Generator(model, endless, max_length=256, slots=3)
    found = answers(generator, asked)
    assert generator.level == "slots"
    for i, prompt in enumerate(prompts):
        assert list(found[i].tokens or ()) == plain_greedy(model, encoder.encode(prompt, chat=False), limits[i]), i
        assert found[i].finish == "length"
    assert generator.n_forwarded < sum(
        len(encoder.encode(p, chat=False)) + n for p, n in zip(prompts, limits, strict=True)
    )


@pytest.mark.parametrize(
    ("family", "threads"),
    [
        ("llama", 1),
        ("llama", 2),
        ("llama, a head for each query", 1),
        ("gemma3, window 16", 1),
        ("gpt2", 1),
        ("olmo2", 1),
    ],
)
def test_logits_are_the_same_bits_in_every_composition_of_the_batch(
    family: str, threads: int, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """What a run that was killed and goes on relies on: other neighbours, other rows, other numbers of slots."""
    torch.set_num_threads(threads)
    name, options = FAMILIES[family]
    model = model_of(name, **options)
    n = 16 if threads == 1 else 7  # threads that wait for a busy core turn in circles
    asked = requests(texts(n, shots=20))
    bits = Bits(monkeypatch)
    whole, expected = bits.of(lambda: answers(Generator(model, encoder, max_length=256, slots=8), asked))
    rng = random.Random(1)
    for slots in (1, 3, 6, 13):
        generator = Generator(model, encoder, max_length=256, slots=slots)
        for part in (rng.sample(range(n), rng.randint(1, n)), rng.sample(range(n), n // 2)):
            found, seen = bits.of(lambda g=generator, p=part: answers(g, asked, p))  # type: ignore[misc]
            assert found == {i: whole[i] for i in part}
            assert seen == {key: value for key, value in expected.items() if key[0] in set(part)}


def test_a_run_that_stops_anywhere_and_goes_on_writes_the_same(llama: Any, encoder: Encoder) -> None:
    asked = requests(texts(40, shots=20))
    whole = answers(Generator(llama, encoder, max_length=256, slots=6), asked)
    assert len({response.text for response in whole.values()}) > 20
    for kept in (1, 7, 25, 39):
        stream = Generator(llama, encoder, max_length=256, slots=6).generate(asked)
        journal = dict(next(stream) for _ in range(kept))
        stream.close()
        rest = answers(Generator(llama, encoder, max_length=256, slots=6), asked, set(range(40)) - set(journal))
        assert journal | rest == whole


def test_the_order_of_requests_changes_nothing(llama: Any, encoder: Encoder) -> None:
    asked = requests(texts(20))
    whole = answers(Generator(llama, encoder, max_length=256, slots=5), asked)
    order = random.Random(4).sample(range(20), 20)
    moved = answers(Generator(llama, encoder, max_length=256, slots=5), [asked[i] for i in order])
    assert [moved[k].tokens for k in range(20)] == [whole[i].tokens for i in order]


def test_nothing_is_computed_before_the_first_result_is_asked_for_or_after_the_iterator_is_closed(
    llama: Any, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_steps = 0
    step = Slots.step

    def counting(self: Slots, *args: Any) -> Any:
        nonlocal n_steps
        n_steps += 1
        return step(self, *args)

    monkeypatch.setattr(Slots, "step", counting)
    threads = threading.active_count()
    asked = [GenerateRequest(Prompt(p), Sampling(50)) for p in texts(20)]
    generator = Generator(llama, Endless(encoder), max_length=256, slots=4)
    stream = generator.generate(asked)
    assert (generator.n_forwarded, generator.level) == (0, "")
    next(stream)
    stream.close()
    assert n_steps - 2 == 49  # two belong to the look at the model, one token comes from the prefill
    assert threading.active_count() == threads
    assert list(generator.generate(asked, wanted=())) == []


def test_max_tokens_shrink_to_the_window_and_a_prompt_without_room_fails_with_both_lengths(
    llama: Any, encoder: Encoder
) -> None:
    ids = encoder.encode("one two three four five six", chat=False)
    n = len(ids)
    asked = [GenerateRequest(Prompt("one two three four five six"), Sampling(m)) for m in (2, 3, 50, 0)]
    found = answers(Generator(llama, Endless(encoder), max_length=n + 3), asked)
    assert [(found[i].n_tokens, found[i].shrunk, found[i].finish) for i in range(3)] == [
        (2, False, "length"),
        (3, False, "length"),
        (3, True, "length"),
    ]
    assert (found[3].finish, "max_tokens is 0" in found[3].why) == ("error", True)
    found = answers(Generator(llama, encoder, max_length=n), [*asked[:1], GenerateRequest(Prompt("one"), Sampling(1))])
    assert found[0].finish == "error"
    assert f"{n} tokens" in found[0].why
    assert f"window {n}" in found[0].why
    assert found[1].n_tokens == 1


def test_long_prompts_left_keeps_the_end_of_the_prompt_and_all_of_max_tokens(llama: Any, encoder: Encoder) -> None:
    text = texts(1, seed=5, most=40)[0] + " and the end of it"
    ids = encoder.encode(text, chat=False)
    window = len(ids)  # no room for a response
    asked = [GenerateRequest(Prompt(text), Sampling(n), True) for n in (5, window)]
    found = answers(Generator(llama, Endless(encoder), max_length=window, long_prompts="left"), asked)
    assert list(found[0].tokens or ()) == plain_greedy(llama, ids[5:], 5)
    assert (found[0].shrunk, found[1].finish) == (False, "error")  # lm-eval stops on an assertion at the second


def test_logits_that_are_no_numbers_fail_the_sample_and_not_the_run(encoder: Encoder) -> None:
    model = make_model(SMALL)
    prompts = ["one two", "three four five six seven eight"]
    healthy = encoder.encode(prompts[0], chat=False)
    poison = next(i for i in encoder.encode(prompts[1], chat=False) if i not in healthy)
    with torch.no_grad():
        model.model.embed_tokens.weight[poison] = float("nan")
    asked = [GenerateRequest(Prompt(p), Sampling(3, temperature=t), True) for p in prompts for t in (0.0, 1.0)]
    alone = answers(Generator(model, encoder, max_length=64), asked[:2])
    for slots in (1, 4):  # with one, the broken ones come first and leave their slot to the others
        found = answers(Generator(model, encoder, max_length=64, slots=slots), asked)
        assert [found[i].finish == "error" for i in range(4)] == [False, False, True, True]
        assert found[2].why == "the model's logits are not finite after 0 new tokens"
        assert {i: found[i] for i in (0, 1)} == alone


def test_a_response_ends_at_every_end_of_sequence_id_and_the_text_does_not_hold_it(
    llama: Any, encoder: Encoder
) -> None:
    ids = encoder.encode("one two", chat=False)
    tokens = plain_greedy(llama, ids, 12)
    end = tokens[7]
    ending = Endless(encoder)
    ending.eos_ids = frozenset({2, end})
    first = tokens.index(end)
    for limit in (first + 1, 50):  # also on the last allowed token it is "stop"
        (response,) = answers(
            Generator(llama, ending, max_length=256), [GenerateRequest(Prompt("one two"), Sampling(limit), True)]
        ).values()
        assert response.tokens == tuple(tokens[: first + 1])
        assert response.finish == "stop"
        assert response.text == encoder.decode(tokens[:first], skip_special=True)


def test_wanted_tokens_come_with_the_models_own_log_probabilities(llama: Any, encoder: Encoder) -> None:
    asked = requests(texts(6))
    found = answers(Generator(llama, encoder, max_length=256, slots=3), asked)
    for i, request in enumerate(asked):
        ids = encoder.encode(request.prompt.text, chat=False)
        tokens = list(found[i].tokens or ())
        with torch.no_grad():
            logits = llama(input_ids=torch.tensor([ids + tokens])).logits[0, len(ids) - 1 : -1]
        expected = logits.log_softmax(-1)[torch.arange(len(tokens)), tokens]
        assert found[i].n_tokens == len(tokens) == len(found[i].logprobs or ())
        assert torch.allclose(torch.tensor(found[i].logprobs), expected, atol=1e-4)
    silent = answers(Generator(llama, encoder, max_length=256, slots=3), requests(texts(6), want_tokens=False))
    assert all(response.tokens is None and response.logprobs is None for response in silent.values())
    assert [silent[i].text for i in range(6)] == [found[i].text for i in range(6)]


def test_thinking_goes_to_its_own_field_and_an_unfinished_one_leaves_no_answer(llama: Any, encoder: Encoder) -> None:
    asked = [GenerateRequest(Prompt("one two"), Sampling(12))]
    (plain,) = answers(Generator(llama, Endless(encoder), max_length=256), asked).values()
    close = plain.text[len(plain.text) // 2 :][:3]
    thinking = Thinking("<think>", close)
    (found,) = answers(Generator(llama, Endless(encoder), max_length=256, thinking=thinking), asked).values()
    assert found.text == plain.text.rpartition(close)[2].lstrip()
    assert found.thinking
    never = Thinking("<think>", "never written")
    (found,) = answers(Generator(llama, Endless(encoder), max_length=256, thinking=never), asked).values()
    assert (found.text, found.finish) == ("", "length")


def test_slots_grow_while_responses_are_written(llama: Any, encoder: Encoder) -> None:
    asked = [GenerateRequest(Prompt(p), Sampling(n), True) for p, n in zip(texts(5), (3, 200, 2, 90, 1), strict=True)]
    endless = Endless(encoder)
    found = answers(Generator(llama, endless, max_length=512, slots=3), asked)
    for i, request in enumerate(asked):
        ids = encoder.encode(request.prompt.text, chat=False)
        assert list(found[i].tokens or ()) == plain_greedy(llama, ids, request.sampling.max_tokens)


def test_a_grouped_prefill_writes_the_same_tokens(llama: Any, encoder: Encoder) -> None:
    """As on a GPU: several prompts, padded on the right, in one forward."""
    asked = requests(texts(17, shots=20))
    alone = answers(Generator(llama, encoder, max_length=256, slots=8), asked)
    generator = Generator(llama, encoder, max_length=256, slots=8)
    generator.grouped = True
    found = answers(generator, asked)
    assert {i: r.tokens for i, r in found.items()} == {i: r.tokens for i, r in alone.items()}


def test_rows_are_padded_to_a_number_that_keeps_their_bits(llama: Any) -> None:
    step = row_step(llama, 32)
    layer = llama.model.layers[0].mlp.up_proj
    rows = torch.randn((32, 1, layer.in_features), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert all(torch.equal(layer(rows[:n]), layer(rows)[:n]) for n in range(step, 33, step))
