"""What goes between learner, generator and verifiers: prompts, requests, responses, rollouts. Plain data, no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Prompt:
    """A row of the data, ready to be asked: `number` is its place among the rows, `ids` end with the header of the
    assistant's turn. `label` is the row's ground truth."""

    number: int
    id: str
    ids: tuple[int, ...]
    dataset: str
    label: Any
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a run samples. Responses end at `eos_id` or after `max_tokens`; `eos_id` is not drawn among the first
    `min_tokens`. Log-probabilities are those of logits / temperature."""

    max_tokens: int
    eos_id: int
    temperature: float = 1.0
    min_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """Rollouts to generate: every prompt `samples` times. `numbers` are the prompts' rows: a sample's seed hangs on
    (seed, iteration, row, sample) alone, so neither order nor division among processes changes it."""

    seed: int
    iteration: int
    numbers: tuple[int, ...]
    prompts: tuple[tuple[int, ...], ...]
    samples: int

    def sample_seeds(self) -> list[int]:
        """Seeds of all rollouts, prompt by prompt."""
        return [
            sample_seed(self.seed, self.iteration, number, sample)
            for number in self.numbers
            for sample in range(self.samples)
        ]


@dataclass(frozen=True, slots=True)
class Response:
    """Token ids as they were drawn, the end-of-text among them where the response has one (`finished`), and the
    generator's log-probability of each."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Reward:
    """What the verifiers say of one response: `value` 0 to 1 for each verifier (they add up), and why.

    `failed`: a verifier raised or ran out of time; its value is 0 then and `why` says it.
    """

    values: Mapping[str, float]
    why: str = ""
    failed: bool = False

    @property
    def total(self) -> float:
        return sum(self.values.values())


@dataclass(frozen=True, slots=True)
class Rollout:
    """One response of one iteration, with its score (what is maximised: 10 for right, the penalty for no end)."""

    prompt: Prompt
    sample: int
    response: Response
    text: str
    reward: Reward
    score: float


@dataclass(frozen=True, slots=True)
class Batch:
    """The rollouts of an iteration, prompt by prompt, and the version of the weights that wrote all of them."""

    iteration: int
    version: int
    rollouts: tuple[Rollout, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)


class Generator(Protocol):
    """Writes responses. `load` takes a folder with `model.safetensors` and `config.json` of the whole policy."""

    def load(self, folder: Path, version: int) -> None: ...

    def generate(self, request: Request) -> list[Response]:
        """The responses in the order of `request.sample_seeds()`."""
        ...

    def greedy(self, prompt: Sequence[int], n_tokens: int) -> Response:
        """`n_tokens` most likely tokens after a prompt, with log-probabilities at temperature 1; ends at nothing."""
        ...

    def close(self) -> None: ...


def sample_seed(seed: int, iteration: int, number: int, sample: int) -> int:
    """63 bits that are a function of what is drawn."""
    text = f"{seed}:{iteration}:{number}:{sample}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
