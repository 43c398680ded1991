"""Whether new weights reached a generator: one fixed prompt, answered greedily, valued by both sides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from evalsuite.errors import TrainerFailed
from train_plugins.rlvr.rollouts import Generator, Response

ATOL = {"float32": 1e-3, "bfloat16": 5e-2}
"""How far log-probabilities of the same weights may be apart, by the generator's dtype."""


class WeightsLost(TrainerFailed):
    """The generator computes with other weights than the learner published: a bug, and everything after it is void."""

    exit_code = 70


def check_canary(
    generator: Generator,
    expected_logprobs: Callable[[Sequence[int], Sequence[int]], Sequence[float]],
    prompt: Sequence[int],
    n: int,
    atol: float,
) -> float:
    """The largest difference between generator and learner over `n` greedy tokens, in nats.

    `expected_logprobs(prompt, response)` are the learner's log-probabilities of the response's tokens at temperature
    1. Raises WeightsLost beyond `atol`. A tensor that this prompt does not touch (the embedding of another token) is
    not seen.
    """
    response = generator.greedy(prompt, n)
    return compare(response, expected_logprobs(prompt, response.ids), atol)


def compare(response: Response, expected: Sequence[float], atol: float) -> float:
    """The largest difference of log-probabilities, in nats; raises WeightsLost beyond `atol` (see `check_canary`)."""
    pairs = list(zip(response.logprobs, expected, strict=True))
    worst, at = max((_apart(*pair), index) for index, pair in enumerate(pairs))
    if worst > atol:
        said, wanted = pairs[at]
        raise WeightsLost(
            f"weights did not arrive: token {at + 1} of the canary has log-probability {said:.4f} in the generator and "
            f"{wanted:.4f} in the learner, more than {atol:g} apart; try weight_transfer: shared_memory, or generator: "
            "hf"
        )
    return worst


def _apart(a: float, b: float) -> float:
    return abs(a - b) if math.isfinite(a) and math.isfinite(b) else math.inf
