"""Pages of rollouts: what a model says of them is what it says of every prompt + response alone, in any layout."""

from __future__ import annotations

import random
from copy import deepcopy
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from accelerate import Accelerator  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    Qwen2Config,
)

from train_plugins.rlvr import losses  # noqa: E402
from train_plugins.rlvr.learner import Learner  # noqa: E402
from train_plugins.rlvr.objective import value_places  # noqa: E402
from train_plugins.rlvr.pages import Group, Layout, Page, build_page  # noqa: E402
from train_plugins.rlvr.value import ValueNetwork  # noqa: E402

LAYOUTS: tuple[Layout, ...] = ("shared_prompt", "packed")
TEMPERATURE = 0.7
SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "eos_token_id": 2,
    "bos_token_id": None, "initializer_range": 0.2,
}  # fmt: skip
# Name: configuration, attention. Gemma 2 caps scores, which eager attention alone does.
FAMILIES: dict[str, tuple[Any, str]] = {
    "llama": (LlamaConfig(**SIZES), "sdpa"),
    "llama, untied": (LlamaConfig(**SIZES, tie_word_embeddings=False), "eager"),
    "qwen2": (Qwen2Config(**SIZES, tie_word_embeddings=True), "sdpa"),
    "gemma": (GemmaConfig(**SIZES, head_dim=8), "sdpa"),
    "gemma 2": (Gemma2Config(**SIZES, head_dim=8, sliding_window=64), "eager"),
}


@cache
def causal(family: str) -> Any:
    torch.set_num_threads(1)
    config, attention = FAMILIES[family]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@cache
def value_network(family: str) -> ValueNetwork:
    config, attention = deepcopy(FAMILIES[family])
    config.num_labels = 1
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    network = ValueNetwork(model, learns_bias=True).eval()
    network.bias.data.fill_(0.25)
    return network


@cache
def learner() -> Any:
    """What the forward passes read of a learner."""
    return SimpleNamespace(accelerator=Accelerator(cpu=True), options=SimpleNamespace(temperature=TEMPERATURE))


def groups(seed: int = 0) -> list[Group]:
    """1, 4, 2 and 3 responses of 1 to 8 tokens to prompts of 1 to 12; their rollouts are numbered out of order."""
    rng = random.Random(seed)

    def ids(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 64) for _ in range(rng.randint(least, most)))

    numbers = rng.sample(range(10), 10)
    made = []
    for n in (1, 4, 2, 3):
        responses = tuple(ids(1, 8) for _ in range(n))
        made.append(Group(ids(1, 12), responses, tuple(numbers.pop() for _ in range(n))))
    return made


def by_rollout(made: list[Group]) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    return {
        number: (group.prompt, response)
        for group in made
        for response, number in zip(group.responses, group.rollouts, strict=True)
    }


def alone(model: Any, prompt: tuple[int, ...], response: tuple[int, ...]) -> list[float]:
    with torch.no_grad():
        logits_TV = model(torch.tensor([[*prompt, *response]]), use_cache=False).logits[0].float() / TEMPERATURE
    told = logits_TV.log_softmax(-1)
    return [float(told[len(prompt) - 1 + t, token]) for t, token in enumerate(response)]


def value_alone(network: ValueNetwork, prompt: tuple[int, ...], response: tuple[int, ...]) -> list[float]:
    """The value before each token, and the one after the last."""
    trunk = getattr(network.model, network.model.base_model_prefix)
    with torch.no_grad():
        hidden = trunk(torch.tensor([[*prompt, *response]]), use_cache=False).last_hidden_state[0]
        values = network.model.score(hidden)[:, 0] + network.bias
    return [float(v) for v in values[len(prompt) - 1 :]]


def per_rollout(page: Page, values: Any, lengths: Any) -> dict[int, list[float]]:
    parts = values.split(lengths.tolist())
    return {int(number): part.tolist() for number, part in zip(page.rollouts, parts, strict=True)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_each_pair_alone(family: str, layout: Layout) -> None:
    made = groups()
    page = build_page(made, layout, pad_id=0)
    with torch.no_grad():
        found = per_rollout(page, Learner.logprobs(learner(), causal(family), page), page.lengths)
    assert sorted(found) == list(range(10))
    for number, (prompt, response) in by_rollout(made).items():
        assert found[number] == pytest.approx(alone(causal(family), prompt, response), abs=1e-5), number


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_those_of_each_pair_alone(family: str, layout: Layout) -> None:
    """8 positions: a response of 8 tokens has no value after its end, all others have."""
    made = groups()
    network = value_network(family)
    page = build_page(made, layout, pad_id=0)
    assert 8 in page.lengths
    mask = losses.value_mask(page.lengths - 1, 8)
    with torch.no_grad():
        values = Learner.values(learner(), network, page, value_places(page, mask))
    found = per_rollout(page, values, mask.sum(1))
    for number, (prompt, response) in by_rollout(made).items():
        assert found[number] == pytest.approx(value_alone(network, prompt, response)[:8], abs=1e-5), number


def test_one_row_says_the_same_and_has_no_other_rows() -> None:
    made = groups(1)
    pages = [build_page(made, "packed", 0, one_row=one_row) for one_row in (False, True)]
    assert [page.inputs["input_ids"].shape[0] > 1 for page in pages] == [True, False]
    assert pages[1].inputs["input_ids"].shape[1] == sum(group.n_tokens_as("packed") for group in made)
    with torch.no_grad():
        found = [per_rollout(p, Learner.logprobs(learner(), causal("llama"), p), p.lengths) for p in pages]
    for number in range(10):
        assert found[1][number] == pytest.approx(found[0][number], abs=1e-5)


def test_a_page_by_hand() -> None:
    """Prompt 10 11 with responses 20 21 22 and 30; prompt 12 with response 40 2. Rows are 6 wide: 6 | 3 + 3 padding."""
    made = [Group((10, 11), ((20, 21, 22), (30,)), (2, 0)), Group((12,), ((40, 2),), (1,))]
    page = build_page(made, "shared_prompt", pad_id=0)
    assert page.inputs["input_ids"].tolist() == [[10, 11, 20, 21, 22, 30], [12, 40, 2, 0, 0, 0]]
    assert page.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 2], [0, 1, 2, 0, 1, 2]]
    # 20 and 30 are both told by 11, the prompt's last token, in place 1.
    assert page.at.tolist() == [1, 2, 3, 1, 6, 7]
    assert page.targets.tolist() == [20, 21, 22, 30, 40, 2]
    assert page.end_at.tolist() == [4, 5, 8]
    assert (page.rollouts.tolist(), page.lengths.tolist()) == ([2, 0, 1], [3, 1, 2])


def test_packed_prompts_count_with_every_response() -> None:
    group = Group((1,) * 10, ((5, 6), (7,), (8,)), (0, 1, 2))
    assert (group.n_tokens, group.n_tokens_as("shared_prompt"), group.n_tokens_as("packed")) == (14, 14, 34)
