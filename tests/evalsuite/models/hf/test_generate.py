"""The refilled batch writes what each prompt would get on its own, bit for bit, whatever else is being written."""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.models.encoding import Encoder
from evalsuite.models.hf import refill as hf_refill
from evalsuite.models.hf.cache import TreeMasks
from evalsuite.models.hf.decode import row_step
from evalsuite.models.hf.generate import Generator
from evalsuite.models.hf.prefix import generation_order, plan_prefixes
from evalsuite.models.hf.sample import sample, uniform
from evalsuite.models.hf.slots import Slots
from evalsuite.models.hf.together import LEAST_TOKENS, MOST_TOKENS, Together
from evalsuite.models.stops import Thinking
from evalsuite.types import GenerateRequest, Prompt, Response, Sampling
from tests.tiny import SMALL, make_model, words

BASE = {"vocab_size": SMALL.vocab, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**BASE, "intermediate_size": 96, "num_key_value_heads": 2, "max_position_embeddings": 256}


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> Encoder:
    return Encoder.from_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def llama() -> Any:
    return make_model(SMALL)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def texts(n: int, seed: int = 7, most: int = 30, shots: int = 0) -> list[str]:
    """Prompts of different lengths; with `shots` they share that many words, and halves of them as many again."""
    rng, bag = words(seed)
    start = " ".join(rng.choice(bag) for _ in range(shots))
    halves = [" ".join(rng.choice(bag) for _ in range(shots)) for _ in range(2)]
    return [
        f"{start}{halves[i % 2]}" + " ".join(rng.choice(bag) for _ in range(rng.randint(1, most))) for i in range(n)
    ]


def requests(prompts: list[str], seed: int = 3, want_tokens: bool = True) -> list[GenerateRequest]:
    """Skewed lengths, one in three sampled, some with stop strings; the sampling seed names the request."""
    rng = random.Random(seed)
    made = []
    for i, prompt in enumerate(prompts):
        sampling = Sampling(rng.choice([1, 2, 4, 9, 30]), seed=i)
        if i % 3 == 1:
            sampling = replace(sampling, temperature=0.8, top_p=rng.choice([1.0, 0.9]), top_k=rng.choice([0, 50]))
        if i % 4 == 2:
            sampling = replace(sampling, stop=("e", "\n"))
        made.append(GenerateRequest(Prompt(prompt), sampling, want_tokens))
    return made


def answers(generator: Generator, asked: list[GenerateRequest], wanted: Any = None) -> dict[int, Response]:
    found: dict[int, Response] = {}
    for i, response in generator.generate(asked, wanted):
        assert i not in found
        found[i] = response
    return found


def plain_greedy(model: Any, ids: list[int], n: int) -> list[int]:
    """transformers' own `generate`, one prompt at a time, without an end."""
    out = model.generate(
        torch.tensor([ids]), max_new_tokens=n, do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True
    )
    return list(out[0, len(ids) :].tolist())


def _family(name: str, **options: Any) -> Any:
    import transformers

    config = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(name, f"{name}Config"))(
        **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.1, **options}
    )
    torch.manual_seed(0)
    model = getattr(transformers, {"GPT2": "GPT2LMHeadModel"}.get(name, f"{name}ForCausalLM"))
    if options.get("attn_implementation"):
        config._attn_implementation = options["attn_implementation"]
    return model(config).eval().float()


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", GROUPED),
    "llama eager": ("Llama", {**GROUPED, "attn_implementation": "eager"}),
    "llama, a head for each query": ("Llama", {**GROUPED, "num_key_value_heads": 4, "head_dim": 20}),
    "mistral, window 16": ("Mistral", {**GROUPED, "sliding_window": 16}),
    "mistral, window 16, eager": ("Mistral", {**GROUPED, "sliding_window": 16, "attn_implementation": "eager"}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen2, windows in some layers": (
        "Qwen2",
        {**GROUPED, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 16}),
    "qwen3 mixture": (
        "Qwen3Moe",
        {**GROUPED, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "mixtral": ("Mixtral", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "gemma2, window 16": ("Gemma2", {**GROUPED, "head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16}),
    "gemma2, window 16, eager": (
        "Gemma2",
        {
            **GROUPED,
            "head_dim": 16,
            "sliding_window": 16,
            "query_pre_attn_scalar": 16,
            "attn_implementation": "eager",
        },
    ),
    "gemma3, window 16": (
        "Gemma3",
        {**GROUPED, "num_hidden_layers": 3, "head_dim": 16, "sliding_window": 16, "sliding_window_pattern": 2},
    ),
    "olmo2": ("Olmo2", GROUPED),
    "olmo3, window 16": ("Olmo3", {**GROUPED, "num_hidden_layers": 4, "sliding_window": 16}),
    "cohere": ("Cohere", GROUPED),
    "granite": ("Granite", {**GROUPED, "logits_scaling": 3.0, "embedding_multiplier": 2.0}),
    "phi3, window 16": ("Phi3", {**GROUPED, "sliding_window": 16}),
    "smollm3": ("SmolLM3", {**GROUPED, "num_hidden_layers": 4}),
    "starcoder2": ("Starcoder2", {**GROUPED, "sliding_window": 16}),
    "stablelm": ("StableLm", GROUPED),
    "gpt2": ("GPT2", {"vocab_size": SMALL.vocab, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "gpt-neox": ("GPTNeoX", {**BASE, "intermediate_size": 96, "max_position_embeddings": 256}),
    "opt": ("OPT", {**BASE, "ffn_dim": 96, "word_embed_proj_dim": 64, "max_position_embeddings": 256}),
    "falcon": ("Falcon", {**BASE, "new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False}),
    "gpt-j": (
        "GPTJ",
        {"vocab_size": SMALL.vocab, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "rotary_dim": 8},
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_transformers_one_by_one(family: str, encoder: Encoder, one_thread: None) -> None:
    name, options = FAMILIES[family]
    model = _family(name, **options)
    prompts = texts(6, shots=14, most=12)  # the shared start alone is longer than the windows
    limits = [3, 24, 9, 24, 1, 14]
    asked = [GenerateRequest(Prompt(p), Sampling(n), True) for p, n in zip(prompts, limits, strict=True)]
    endless = _Endless(encoder)
    generator = Generator(model, endless, max_length=256, slots=3)
    found = answers(generator, asked)
    assert generator.level == "slots"
    for i, prompt in enumerate(prompts):
        assert list(found[i].tokens or ()) == plain_greedy(model, encoder.encode(prompt, chat=False), limits[i]), i
        assert found[i].finish == "length"
    assert generator.n_forwarded < sum(
        len(encoder.encode(p, chat=False)) + n for p, n in zip(prompts, limits, strict=True)
    )


class _Endless(Encoder):
    """An encoder whose model never ends by itself, so that lengths are those asked for."""

    def __init__(self, encoder: Encoder) -> None:
        self.__dict__.update(encoder.__dict__)
        self.eos_ids, self.eos_text = frozenset(), ""


STATIC = {
    "mamba": ("Mamba", {"vocab_size": SMALL.vocab, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "bloom (ALiBi)": ("Bloom", {"vocab_size": SMALL.vocab, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon with ALiBi": ("Falcon", {**BASE, "alibi": True, "new_decoder_architecture": False, "multi_query": True}),
    "falcon-h1 (hybrid)": (
        "FalconH1",
        {**GROUPED, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1},
    ),
}


@pytest.mark.parametrize("family", STATIC)
def test_models_that_cannot_live_in_slots_take_static_batches_with_the_same_rules(
    family: str, encoder: Encoder, one_thread: None
) -> None:
    name, options = STATIC[family]
    model = _family(name, **options)
    prompts = ["a b", "c d", "e f g h", "i j", "k"]
    asked = [
        GenerateRequest(Prompt(p), Sampling(n, temperature=t, seed=i), True)
        for i, (p, n, t) in enumerate(zip(prompts, [5, 9, 4, 2, 6], [0, 0, 0, 0.7, 0], strict=True))
    ]
    generator = Generator(model, _Endless(encoder), max_length=128, slots=2)
    found = answers(generator, asked)
    assert generator.level.startswith("static: ")
    for i, request in enumerate(asked):
        assert found[i].n_tokens == request.sampling.max_tokens
        if not request.sampling.temperature:
            ids = encoder.encode(prompts[i], chat=False)
            assert list(found[i].tokens or ()) == plain_greedy(model, ids, request.sampling.max_tokens)
    assert answers(generator, asked, {1, 3}) == {i: found[i] for i in (1, 3)}  # resumed
    token = encoder.decode([found[1].tokens[3]], skip_special=False)  # type: ignore[index]
    stopped = replace(asked[1], sampling=Sampling(9, stop=(token,)))
    (response,) = answers(generator, [stopped]).values()
    assert response.finish == "stop"
    assert response.n_tokens <= 4


def test_the_checkpoints_own_generation_settings_change_nothing(encoder: Encoder) -> None:
    model = _family(*STATIC["mamba"][:1], **STATIC["mamba"][1])
    asked = [GenerateRequest(Prompt("a b c"), Sampling(8), True)]
    before = answers(Generator(model, _Endless(encoder), max_length=128), asked)
    model.generation_config.repetition_penalty = 1.9
    assert answers(Generator(model, _Endless(encoder), max_length=128), asked) == before
    assert model.generation_config.repetition_penalty == 1.9


class Bits:
    """Records the bits of the logits of every request and step; requests are told by their seed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: dict[tuple[int, int], bytes] = {}
        choose = hf_refill.choose

        def record(logits: torch.Tensor, draws: Any) -> Any:
            for row, draw in zip(logits, draws, strict=True):
                self.seen[draw.sampling.seed, draw.step] = row.numpy().tobytes()
            return choose(logits, draws)

        monkeypatch.setattr(hf_refill, "choose", record)

    def of(self, run: Callable[[], Any]) -> tuple[Any, dict[tuple[int, int], bytes]]:
        self.seen = {}
        result = run()
        return result, self.seen


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
    model = _family(name, **options)
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
    generator = Generator(llama, _Endless(encoder), max_length=256, slots=4)
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
    found = answers(Generator(llama, _Endless(encoder), max_length=n + 3), asked)
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
    found = answers(Generator(llama, _Endless(encoder), max_length=window, long_prompts="left"), asked)
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
    ending = _Endless(encoder)
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
    (plain,) = answers(Generator(llama, _Endless(encoder), max_length=256), asked).values()
    close = plain.text[len(plain.text) // 2 :][:3]
    thinking = Thinking("<think>", close)
    (found,) = answers(Generator(llama, _Endless(encoder), max_length=256, thinking=thinking), asked).values()
    assert found.text == plain.text.rpartition(close)[2].lstrip()
    assert found.thinking
    never = Thinking("<think>", "never written")
    (found,) = answers(Generator(llama, _Endless(encoder), max_length=256, thinking=never), asked).values()
    assert (found.text, found.finish) == ("", "length")


def test_slots_grow_while_responses_are_written(llama: Any, encoder: Encoder) -> None:
    asked = [GenerateRequest(Prompt(p), Sampling(n), True) for p, n in zip(texts(5), (3, 200, 2, 90, 1), strict=True)]
    endless = _Endless(encoder)
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


class Fills:
    """Records how many prompts each prefill computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        fill = Slots.fill

        def record(slots: Slots, first: int, prompts: Any, *args: Any) -> torch.Tensor:
            self.rows.append(len(prompts))
            return fill(slots, first, prompts, *args)

        monkeypatch.setattr(Slots, "fill", record)


def short_requests(encoder: Encoder, n: int, seed: int = 5) -> list[GenerateRequest]:
    """Like `requests`; the prompts are cut to 2–20 tokens, many of the same number and some repeated."""
    rng = random.Random(seed)
    short = []
    for text in texts(n, seed, most=40):
        ids = encoder.encode(text, chat=False)[: rng.choice([2, 8, 8, 9, 12, 12, 20])]
        short.append(encoder.decode(ids, skip_special=False))
    return requests([*short, *short[: n // 4]])


@pytest.mark.parametrize(
    ("family", "threads"),
    [("llama", 1), ("llama", 2), ("llama eager", 1), ("gemma3, window 16", 1), ("gpt2", 1), ("olmo2", 1)],
)
def test_short_prompts_computed_together_have_the_bits_they_have_alone(
    family: str, threads: int, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    torch.set_num_threads(threads)
    name, options = FAMILIES[family]
    model = _family(name, **options)
    asked = short_requests(encoder, 40 if threads == 1 else 12)
    bits = Bits(monkeypatch)
    generator = Generator(model, encoder, max_length=256, slots=16)
    generator.together = None
    alone, expected = bits.of(lambda: answers(generator, asked))
    fills = Fills(monkeypatch)
    # The first token of a response comes from the prefill. What follows is `decode`'s, which promises it for "sdpa".
    last = 0 if family in ("llama eager", "gpt2") else 30
    for slots in (16, 5) if threads == 1 else (16,):
        generator = Generator(model, encoder, max_length=256, slots=slots)
        for part in (range(len(asked)), random.Random(slots).sample(range(len(asked)), 12)):
            found, seen = bits.of(lambda g=generator, p=part: answers(g, asked, p))  # type: ignore[misc]
            assert {key: value for key, value in seen.items() if key[1] <= last} == {
                key: value for key, value in expected.items() if key[0] in set(part) and key[1] <= last
            }
            assert {i: r.tokens for i, r in found.items()} == {i: alone[i].tokens for i in part}
    assert max(fills.rows) > 1


def test_a_shape_whose_bits_differ_together_is_computed_one_by_one_from_then_on(
    llama: Any, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    asked = [GenerateRequest(Prompt(text), Sampling(2), True) for text in _of_length(encoder, 10, 12)]
    generator = Generator(llama, encoder, max_length=256, slots=12)
    expected = answers(generator, asked)
    monkeypatch.setattr(f"{Together.__module__}._TRIED", {})
    fill = Slots.fill

    def noisy(slots: Slots, first: int, prompts: Any, *args: Any) -> torch.Tensor:
        logits = fill(slots, first, prompts, *args)
        return logits if len(prompts) == 1 else logits + torch.randn_like(logits)

    monkeypatch.setattr(Slots, "fill", noisy)
    fills = Fills(monkeypatch)
    assert answers(Generator(llama, encoder, max_length=256, slots=12), asked) == expected
    assert fills.rows[2:] == [8] + [1] * 12  # the look at the model; the try, its eight prompts, the four behind them


def test_a_shape_is_tried_once_and_then_costs_one_forward_a_group(
    llama: Any, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    asked = [GenerateRequest(Prompt(text), Sampling(1), True) for text in _of_length(encoder, 10, 24)]
    monkeypatch.setattr(f"{Together.__module__}._TRIED", {})
    fills = Fills(monkeypatch)
    generator = Generator(llama, encoder, max_length=256, slots=8, share_prefixes=False)
    answers(generator, asked)
    assert fills.rows[2:] == [8] + [1] * 8 + [8, 8]  # behind the two of the look at the model
    answers(generator, asked)
    assert fills.rows[13:] == [8, 8, 8]
    answers(Generator(llama, encoder, max_length=256, slots=8, share_prefixes=False), asked)
    assert fills.rows[18:] == [8, 8, 8]  # behind the two of its own look


def _of_length(encoder: Encoder, n_tokens: int, n: int) -> list[str]:
    """Texts that are encoded as exactly so many tokens."""
    found: list[str] = []
    for text in texts(40 * n, seed=9, most=40):
        cut = encoder.decode(encoder.encode(text, chat=False)[:n_tokens], skip_special=False)
        if len(encoder.encode(cut, chat=False)) == n_tokens:
            found.append(cut)
    assert len(found) >= n
    return found[:n]


def test_one_free_slot_does_not_wait_for_a_group_longer_than_a_step_is_worth(
    llama: Any, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """Eight slots, a group would be two; seven responses are long: the free slot is filled after eight steps."""
    limits = [1] + [60] * 7 + [1] * 4
    prompts = _of_length(encoder, 10, 12)
    asked = [GenerateRequest(Prompt(p), Sampling(n), True) for p, n in zip(prompts, limits, strict=True)]
    generator = Generator(llama, _Endless(encoder), max_length=256, slots=8, share_prefixes=False)
    finished = [i for i, _ in generator.generate(asked)]
    assert finished[:5] == [0, 8, 9, 10, 11]  # none of the last waits for a long one


@pytest.mark.parametrize(
    ("n_new", "rows"), [(LEAST_TOKENS - 1, 1), (LEAST_TOKENS, 16), (MOST_TOKENS, 16), (MOST_TOKENS + 1, 1)]
)
def test_groups_are_made_of_short_prompts(llama: Any, n_new: int, rows: int) -> None:
    together = Together.of(llama)
    assert together is not None
    assert together.most_rows(n_new, 0) == rows


def test_experts_and_other_types_than_float32_are_never_computed_together(llama: Any) -> None:
    name, options = FAMILIES["mixtral"]
    assert Together.of(_family(name, **options)) is None
    assert Together.of(make_model(SMALL).bfloat16()) is None


def test_a_mask_that_lets_one_future_key_through_is_noticed_when_the_model_is_looked_at(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = TreeMasks.build

    def broken(self: TreeMasks, *args: Any) -> Any:
        mask = build(self, *args)
        assert isinstance(mask, torch.Tensor)
        mask[..., 0, -1] = True
        return mask

    monkeypatch.setattr(TreeMasks, "build", broken)
    generator = Generator(make_model(SMALL), encoder, max_length=256)
    answers(generator, requests(texts(2)))
    assert generator.level.startswith("static: slots are off by")


def test_rows_are_padded_to_a_number_that_keeps_their_bits(llama: Any) -> None:
    step = row_step(llama, 32)
    layer = llama.model.layers[0].mlp.up_proj
    rows = torch.randn((32, 1, layer.in_features), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert all(torch.equal(layer(rows[:n]), layer(rows)[:n]) for n in range(step, 33, step))


# --- sampling


def test_the_random_number_depends_on_seed_and_step_alone_and_is_uniform() -> None:
    draws = [uniform(seed, step) for seed in range(40) for step in range(50)]
    assert uniform(3, 7) == uniform(3, 7) == draws[3 * 50 + 7]
    assert uniform(2**64 - 1, 0) == uniform(-1, 0)  # any 64-bit seed
    counts = torch.histc(torch.tensor(draws, dtype=torch.float64), 10, 0, 1)
    assert float(((counts - 200) ** 2 / 200).sum()) < 27.9  # chi-square, 9 degrees of freedom, p = 0.001
    assert len(set(draws)) == len(draws)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [  # probabilities 0.4, 0.3, 0.2, 0.1 of tokens 2, 0, 3, 1
        (Sampling(1, temperature=1.0), {0: 0.3, 1: 0.1, 2: 0.4, 3: 0.2}),
        (Sampling(1, temperature=1.0, top_k=2), {2: 4 / 7, 0: 3 / 7}),
        (Sampling(1, temperature=1.0, top_p=0.5), {2: 4 / 7, 0: 3 / 7}),
        (Sampling(1, temperature=1.0, top_p=0.01), {2: 1.0}),
        (Sampling(1, temperature=1.0, min_p=0.45), {2: 4 / 9, 0: 3 / 9, 3: 2 / 9}),
        (Sampling(1, temperature=1.0, top_k=3, top_p=0.5), {2: 4 / 7, 0: 3 / 7}),  # 0.4 / 0.9 < 0.5
        (Sampling(1, temperature=1.0, top_k=3, min_p=0.7), {2: 4 / 7, 0: 3 / 7}),
        (Sampling(1, temperature=0.5), {0: 9 / 30, 1: 1 / 30, 2: 16 / 30, 3: 4 / 30}),  # squares
    ],
)
def test_cuts_keep_the_right_tokens_with_the_right_probabilities(sampling: Sampling, kept: dict[int, float]) -> None:
    logits = torch.tensor([0.3, 0.1, 0.4, 0.2]).log()
    n = 4000
    drawn = [sample(logits, sampling, (k + 0.5) / n) for k in range(n)]  # a grid instead of random numbers
    assert {token: drawn.count(token) / n for token in set(drawn)} == pytest.approx(kept, abs=1e-3)


def test_a_low_temperature_is_greedy_and_equal_logits_do_not_disturb() -> None:
    logits = torch.tensor([1.0, 5.0, 5.0 - 1e-3, 2.0])
    assert {sample(logits, Sampling(1, temperature=1e-5), u / 50) for u in range(50)} == {1}
    same = torch.zeros(8)
    assert {sample(same, Sampling(1, temperature=1.0, top_k=3), u / 50) for u in range(50)} == {0, 1, 2}


# --- prefixes


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
