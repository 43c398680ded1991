"""Prompts, requests and tiny models of many families for the tests that write text."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evalsuite.models.encoding import Encoder
from evalsuite.models.hf import refill as hf_refill
from evalsuite.models.hf.generate import Generator
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


def model_of(name: str, **options: Any) -> Any:
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


class Endless(Encoder):
    """An encoder whose model never ends by itself, so that lengths are those asked for."""

    def __init__(self, encoder: Encoder) -> None:
        self.__dict__.update(encoder.__dict__)
        self.eos_ids, self.eos_text = frozenset(), ""


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
