"""Sampling in process: what is drawn and how likely it was, what ends a response, and that training is left alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from evalsuite.errors import CheckpointError, DataError, TrainerFailed, UsageError
from train_plugins.rlvr.forks import Forks, Grid
from train_plugins.rlvr.rollouts import Request, Response, Sampling, sample_seed
from train_plugins.rlvr.sampling import HFGenerator, draw, uniforms
from train_plugins.tiny import write_tiny

PAD, EOS, V = 0, 2, 40
SIZES: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
FEW = ((7, 8, 9), (5, 6, 7, 8, 9, 10, 11), (11, 3, 11))  # of the models with 12 tokens
PROMPTS = ((7, 8, 9), (5, 6, 7, 8, 9, 10, 11, 12), (30,), (9, 8, 7, 6, 5), (11, 3, 11, 3, 11, 3))


def small(family: Any = LlamaForCausalLM, config: Any = LlamaConfig, seed: int = 0, **more: Any) -> Any:
    """A random model whose next tokens are far from equally likely."""
    torch.manual_seed(seed)
    model = family(config(**{**SIZES, **more})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model


def request(prompts: Sequence[Sequence[int]] = PROMPTS, samples: int = 4, seed: int = 0, iteration: int = 1) -> Request:
    rows = tuple(tuple(prompt) for prompt in prompts)
    return Request(seed, iteration, tuple(range(len(rows))), rows, samples)


def learned(model: Any, prompt: Sequence[int], response: Response, temperature: float) -> list[float]:
    """Log-probabilities of the response's tokens by one forward over the whole row."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *response.ids]]), use_cache=False).logits[0]
    logprobs = (logits[len(prompt) - 1 : -1].float() / temperature).log_softmax(-1)
    return [float(row[token]) for row, token in zip(logprobs, response.ids, strict=True)]


def assert_learned(model: Any, asked: Request, responses: Sequence[Response], temperature: float = 1.0) -> None:
    prompts = [prompt for prompt in asked.prompts for _ in range(asked.samples)]
    for prompt, response in zip(prompts, responses, strict=True):
        assert response.logprobs == pytest.approx(learned(model, prompt, response, temperature), abs=1e-4)


FAMILIES = [
    pytest.param(LlamaForCausalLM, LlamaConfig, {}, id="llama"),
    pytest.param(LlamaForCausalLM, LlamaConfig, {"attn_implementation": "eager"}, id="llama-eager"),
    pytest.param(Qwen2ForCausalLM, Qwen2Config, {}, id="qwen2"),
    pytest.param(GemmaForCausalLM, GemmaConfig, {}, id="gemma"),
    pytest.param(MistralForCausalLM, MistralConfig, {"sliding_window": 6}, id="window-of-6"),
    pytest.param(
        Gemma2ForCausalLM, Gemma2Config, {"sliding_window": 6, "attn_implementation": "eager"}, id="every-second-layer"
    ),
]


@pytest.mark.parametrize(("family", "config", "more"), FAMILIES)
def test_logprobs_are_those_of_a_learners_forward_for_prompts_of_unequal_length(
    family: Any, config: Any, more: dict[str, Any]
) -> None:
    model = small(family, config, **more)
    generator = HFGenerator(model, Sampling(12, EOS, temperature=0.8), PAD)
    responses = generator.generate(request())
    assert len(responses) == 20
    assert len({response.ids for response in responses}) > 10
    assert_learned(model, request(), responses, temperature=0.8)


def test_a_bfloat16_model_is_as_far_from_the_learner_as_its_rounding() -> None:
    model = small().to(torch.bfloat16)
    apart = [
        abs(one - other)
        for prompt, response in zip(
            PROMPTS, HFGenerator(model, Sampling(12, EOS), PAD).generate(request(samples=1)), strict=True
        )
        for one, other in zip(response.logprobs, learned(model, prompt, response, 1.0), strict=True)
    ]
    # Logits of size 4 to 8 are 1/32 apart in bfloat16.
    assert 0 < sum(apart) / len(apart) < 1 / 16


def test_a_prompt_alone_gives_the_ids_and_logprobs_it_has_among_others() -> None:
    generator = HFGenerator(small(), Sampling(12, EOS), PAD)
    together = generator.generate(request())
    for i, prompt in enumerate(PROMPTS):
        alone = generator.generate(Request(0, 1, (i,), (prompt,), 4))
        for one, other in zip(alone, together[4 * i : 4 * i + 4], strict=True):
            assert one.ids == other.ids
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_the_same_request_gives_the_same_bits_and_its_order_changes_nothing() -> None:
    generator = HFGenerator(small(), Sampling(12, EOS), PAD)
    first = generator.generate(request())
    assert generator.generate(request()) == first
    order = (3, 0, 4, 2, 1)
    shuffled = generator.generate(Request(0, 1, order, tuple(PROMPTS[i] for i in order), 4))
    assert shuffled == [response for i in order for response in first[4 * i : 4 * i + 4]]


def test_a_request_of_the_tiny_model_split_in_two_or_written_in_slices_gives_the_same_ids(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(write_tiny(tmp_path))
    draws = random.Random(0)
    prompts = [tuple(draws.randrange(6, 102) for _ in range(draws.randint(5, 14))) for _ in range(8)]
    whole = HFGenerator(model, Sampling(16, EOS), PAD).generate(request(prompts))
    parts = [
        HFGenerator(model, Sampling(16, EOS), PAD).generate(Request(0, 1, tuple(at), tuple(prompts[i] for i in at), 4))
        for at in (range(4), range(4, 8))
    ]
    # 30 tokens at most for each of 32 rollouts: 5 rollouts at a time fit into 150.
    sliced = HFGenerator(model, Sampling(16, EOS), PAD, kv_tokens=150).generate(request(prompts))
    assert [r.ids for r in whole] == [r.ids for part in parts for r in part] == [r.ids for r in sliced]
    assert_learned(model, request(prompts), sliced)


def test_frequencies_of_4000_draws_are_the_softmax_of_the_model() -> None:
    model, n = small(vocab_size=12, seed=3), 4000
    found = HFGenerator(model, Sampling(1, EOS, temperature=1.5), PAD).generate(request([(7, 8, 9)], samples=n))
    counts = np.bincount([response.ids[0] for response in found], minlength=12)
    with torch.no_grad():
        expected = (model(input_ids=torch.tensor([[7, 8, 9]])).logits[0, -1] / 1.5).softmax(-1).numpy() * n
    likely = expected > 5
    assert likely.sum() >= 5
    seen = np.append(counts[likely], counts[~likely].sum())
    wanted = np.append(expected[likely], expected[~likely].sum())
    statistic = float(((seen - wanted) ** 2 / wanted.clip(1e-9)).sum())
    assert statistic < chi2.ppf(0.999, len(seen) - 1)


def test_a_uniform_number_picks_the_token_at_which_the_cumulated_probability_passes_it() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log().repeat(5, 1)
    # Cumulated: 0.1, 0.3, 0.6, 1.0.
    tokens, logprobs = draw(logits, 1.0, torch.tensor([0.0, 0.2, 0.5, 0.7, 0.999], dtype=torch.float64), None)
    assert tokens.tolist() == [0, 1, 2, 3, 3]
    assert logprobs.exp().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    # Without token 2 they are 1/7, 3/7 and 1; the log-probability stays that of the whole distribution.
    tokens, logprobs = draw(logits, 1.0, torch.tensor([0.1, 0.2, 0.42, 0.43, 0.9], dtype=torch.float64), banned=2)
    assert tokens.tolist() == [0, 1, 1, 3, 3]
    assert logprobs.exp().tolist() == pytest.approx([0.1, 0.2, 0.2, 0.4, 0.4])


def test_uniform_numbers_are_those_of_numpys_default_generator_for_the_rollouts_seed() -> None:
    seeds = [sample_seed(0, 1, row, 0) for row in range(3)]
    assert uniforms(seeds, Sampling(4, EOS)).tolist() == [np.random.default_rng(s).random(4).tolist() for s in seeds]


def test_responses_end_with_the_first_end_of_text_or_at_the_limit() -> None:
    responses = HFGenerator(small(vocab_size=12, seed=3), Sampling(20, EOS), PAD).generate(request(FEW, samples=30))
    ended = [response for response in responses if response.finished]
    assert 20 < len(ended) < len(responses)
    assert all(r.ids[-1] == EOS and EOS not in r.ids[:-1] for r in ended)
    assert all(len(r.ids) == 20 and EOS not in r.ids for r in responses if not r.finished)
    assert all(len(r.logprobs) == len(r.ids) for r in responses)
    assert {len(r.ids) for r in ended} > {1, 2}


def test_rows_that_end_early_leave_the_others_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(vocab_size=12, seed=3)
    moved: list[bool] = []
    keep = Forks.keep

    def counted(forks: Forks, left: Sequence[int]) -> bool:
        moved.append(keep(forks, left))
        return moved[-1]

    monkeypatch.setattr(Forks, "keep", counted)
    free = HFGenerator(model, Sampling(20, EOS), PAD).generate(request(FEW, samples=30))
    assert_learned(model, request(FEW, samples=30), free)
    assert sum(moved) >= 3  # the one of the first look at the model, and more than one of these
    # No row ends where an id that never occurs is the end: nothing is ever moved there.
    never = HFGenerator(model, Sampling(20, eos_id=V), PAD).generate(request(FEW, samples=30))
    assert all(len(r.ids) == 20 for r in never)
    assert [r.ids for r in free] == [n.ids[: len(f.ids)] for f, n in zip(free, never, strict=True)]


def test_min_tokens_keeps_the_end_away_and_logprobs_whole() -> None:
    model = small(vocab_size=12, seed=3)
    responses = HFGenerator(model, Sampling(8, EOS, min_tokens=5), PAD).generate(request(FEW, samples=30))
    assert min(len(r.ids) for r in responses) == 6  # five that are no end, then perhaps the end
    assert any(r.finished for r in responses)
    assert_learned(model, request(FEW, samples=30), responses)


def test_greedy_is_what_generate_writes_without_sampling() -> None:
    model = small()
    prompt = PROMPTS[1]
    found = HFGenerator(model, Sampling(4, EOS, temperature=0.5), PAD).greedy(prompt, 10)
    expected = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=10, eos_token_id=[V + 1])
    assert list(found.ids) == expected[0, len(prompt) :].tolist()
    assert found.logprobs == pytest.approx(learned(model, prompt, found, 1.0), abs=1e-5)
    assert len(found.ids) == 10
    assert not found.finished


def test_nearly_cold_sampling_is_greedy_for_every_prompt() -> None:
    model = small()
    generator = HFGenerator(model, Sampling(6, eos_id=V, temperature=1e-6), PAD)
    for prompt, response in zip(PROMPTS, generator.generate(request(samples=1)), strict=True):
        expected = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=6, eos_token_id=[V + 1])
        assert list(response.ids) == expected[0, len(prompt) :].tolist()


def test_training_finds_mode_settings_and_random_numbers_as_it_left_them() -> None:
    model = small().train()
    model.model.layers[0].eval()  # a part that somebody froze
    modes = [module.training for module in model.modules()]
    config, attention = model.config.to_dict(), model.config._attn_implementation
    states = torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()
    HFGenerator(model, Sampling(6, EOS), PAD).generate(request())
    assert [module.training for module in model.modules()] == modes
    assert model.config.to_dict() == config
    assert model.config._attn_implementation == attention
    assert (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()) == states
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    model(input_ids=torch.tensor([PROMPTS[0]]), labels=torch.tensor([PROMPTS[0]])).loss.backward()


def test_dropout_and_checkpointing_of_a_model_in_training_do_not_reach_the_responses() -> None:
    model = small(attention_dropout=0.5)
    generator = HFGenerator(model, Sampling(6, EOS), PAD)
    quiet = generator.generate(request())
    model.train()
    model.gradient_checkpointing_enable()
    assert generator.generate(request()) == quiet


@pytest.mark.parametrize("tied", [True, False])
def test_load_copies_weights_into_the_model_it_has(tmp_path: Path, tied: bool) -> None:
    other, model = (small(seed=seed, tie_word_embeddings=tied) for seed in (1, 2))
    other.save_pretrained(tmp_path)
    generator = HFGenerator(model, Sampling(6, EOS), PAD)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    generator.load(tmp_path, 7)
    assert generator.version == 7
    assert [parameter.data_ptr() for parameter in model.parameters()] == places
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert generator.generate(request()) == HFGenerator(other, Sampling(6, EOS), PAD).generate(request())


@pytest.mark.parametrize(
    ("written", "mine", "message"),
    [
        ({"tie_word_embeddings": True}, {"tie_word_embeddings": False}, "lacks lm_head.weight"),
        ({"num_hidden_layers": 3}, {}, "which the model does not know"),
        ({"vocab_size": 48}, {}, r"has .* as \[48, 32\], the model as \[40, 32\]"),
    ],
)
def test_weights_of_another_model_are_refused_and_nothing_is_copied(
    tmp_path: Path, written: dict[str, Any], mine: dict[str, Any], message: str
) -> None:
    small(seed=1, **written).save_pretrained(tmp_path)
    model = small(seed=2, **mine)
    before = [parameter.clone() for parameter in model.parameters()]
    generator = HFGenerator(model, Sampling(6, EOS), PAD)
    with pytest.raises(CheckpointError, match=message):
        generator.load(tmp_path, 7)
    assert generator.version == 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        HFGenerator(small(), Sampling(6, EOS), PAD).load(tmp_path, 1)


def test_what_cannot_be_sampled_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="temperature 0"):
        HFGenerator(small(), Sampling(4, EOS, temperature=0), PAD)
    with pytest.raises(DataError, match="row 1: its prompt has no tokens"):
        HFGenerator(small(), Sampling(4, EOS), PAD).generate(request([(5,), ()]))
    bloom = BloomForCausalLM(BloomConfig(vocab_size=V, hidden_size=32, n_layer=1, n_head=2))
    with pytest.raises(UsageError, match="cannot sample from a 'bloom' model"):
        HFGenerator(bloom, Sampling(4, EOS), PAD).generate(request())


def test_weights_that_are_no_numbers_stop_the_run() -> None:
    model = small()
    generator = HFGenerator(model, Sampling(4, EOS), PAD)
    generator.generate(request())
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainerFailed, match="logits are no numbers"):
        generator.generate(request())


def test_no_prompts_give_no_responses_and_equal_prompts_of_two_rows_their_own() -> None:
    generator = HFGenerator(small(), Sampling(12, EOS), PAD)
    assert generator.generate(request([])) == []
    twice = generator.generate(request([PROMPTS[0], PROMPTS[0]], samples=3))
    single = generator.generate(replace(request([PROMPTS[0]], samples=3), numbers=(1,)))
    assert [r.ids for r in twice[3:]] == [r.ids for r in single]
    assert [r.ids for r in twice[:3]] != [r.ids for r in twice[3:]]


def test_samples_sit_beside_each_other_in_rows_of_their_prompt() -> None:
    # Prompt 0 has three samples, prompt 1 one: at width 2 rows (0: a b), (0: c -), (1: d -).
    assert Grid.of([0, 0, 0, 1], 2) == Grid(2, (0, 0, 1), (0, 1, 2, 4))
    assert Grid.of([0, 1, 0, 1], 1) == Grid(1, (0, 1, 0, 1), (0, 1, 2, 3))
    assert Grid.of([4, 4, 4], 3) == Grid(3, (4,), (0, 1, 2))
