"""One token from the logits: the random number, the cuts, and their probabilities."""

from __future__ import annotations

import pytest
import torch

from evalsuite.models.hf.sample import sample, uniform
from evalsuite.types import Sampling


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
