"""Short prompts are computed together only where that leaves the bits they have alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from evalsuite.models.encoding import Encoder
from evalsuite.models.hf.generate import Generator
from evalsuite.models.hf.slots import Slots
from evalsuite.models.hf.together import LEAST_TOKENS, MOST_TOKENS, Together
from evalsuite.types import GenerateRequest, Prompt, Sampling
from tests.evalsuite.models.hf import generating
from tests.evalsuite.models.hf.generating import FAMILIES, Bits, Endless, answers, model_of, requests, texts
from tests.tiny import SMALL, make_model

encoder = generating.encoder
llama = generating.llama
one_thread = generating.one_thread


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
    model = model_of(name, **options)
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
    generator = Generator(llama, Endless(encoder), max_length=256, slots=8, share_prefixes=False)
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
    assert Together.of(model_of(name, **options)) is None
    assert Together.of(make_model(SMALL).bfloat16()) is None
