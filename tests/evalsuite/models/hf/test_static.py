"""Models that cannot live in slots, or whose slots give other numbers, take static batches with the same rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from evalsuite.models.encoding import Encoder
from evalsuite.models.hf.cache import TreeMasks
from evalsuite.models.hf.generate import Generator
from evalsuite.types import GenerateRequest, Prompt, Sampling
from tests.evalsuite.models.hf import generating
from tests.evalsuite.models.hf.generating import (
    BASE,
    GROUPED,
    Endless,
    answers,
    model_of,
    plain_greedy,
    requests,
    texts,
)
from tests.tiny import SMALL, make_model

encoder = generating.encoder
one_thread = generating.one_thread


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
    model = model_of(name, **options)
    prompts = ["a b", "c d", "e f g h", "i j", "k"]
    asked = [
        GenerateRequest(Prompt(p), Sampling(n, temperature=t, seed=i), True)
        for i, (p, n, t) in enumerate(zip(prompts, [5, 9, 4, 2, 6], [0, 0, 0, 0.7, 0], strict=True))
    ]
    generator = Generator(model, Endless(encoder), max_length=128, slots=2)
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
    model = model_of(*STATIC["mamba"][:1], **STATIC["mamba"][1])
    asked = [GenerateRequest(Prompt("a b c"), Sampling(8), True)]
    before = answers(Generator(model, Endless(encoder), max_length=128), asked)
    model.generation_config.repetition_penalty = 1.9
    assert answers(Generator(model, Endless(encoder), max_length=128), asked) == before
    assert model.generation_config.repetition_penalty == 1.9


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
