"""The nouns that pass between a benchmark, an engine and a scorecard. Standard library only; all data is frozen."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

Doc = Mapping[str, Any]
"""One dataset row as lm-eval hands it over."""

Finish = Literal["stop", "length", "error"]
Split = Literal["development", "unseen", "safety"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, as a chat template or a chat endpoint takes it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. `temperature` 0 is greedy, `max_tokens` counts new tokens, a stop string ends the text."""

    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """The exact string that a local engine tokenises, and the conversation that a chat endpoint is sent instead.

    `chat` text was rendered by a chat template, so no special tokens are added when it is encoded. `prefill` is the
    beginning of the answer; it already stands at the end of `text`.
    """

    text: str
    chat: bool = False
    messages: tuple[Message, ...] | None = None
    prefill: str = ""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One response to be written. `want_tokens` asks for token ids and their log-probabilities too.

    `top_logprobs` asks for so many of the likeliest first tokens (engine `api`; for judges that are read that way).
    `json_schema` is the JSON text of a schema that a chat endpoint is asked to keep to; other engines, and endpoints
    that cannot, leave it to the prompt.
    """

    prompt: Prompt
    sampling: Sampling
    want_tokens: bool = False
    top_logprobs: int = 0
    json_schema: str = ""


@dataclass(frozen=True, slots=True)
class LoglikRequest:
    """One document with all its options. Only because they come together can an engine share their context."""

    context: Prompt
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Response:
    """What a model wrote after one prompt.

    `finish` "length" means that it was cut by the token limit (the model's fault: it is scored as it stands), "error"
    that it could not be produced (ours: the sample is failed, `why` says what happened in one line). `shrunk` is true
    when fewer than the asked-for tokens fitted into the model's window. `top` are the likeliest first tokens as text
    with their log-probabilities, empty when they were not asked for or the server has none.
    """

    text: str
    finish: Finish = "stop"
    n_tokens: int = 0
    tokens: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    thinking: str = ""
    why: str = ""
    shrunk: bool = False
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """How likely one option is: summed natural-log probability of its tokens (float32); whether each is the argmax."""

    total: float
    greedy: bool
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Stands for the log-likelihoods of a document that could not be scored."""

    why: str


Likelihoods = tuple[LogLikelihood, ...] | Failed


class Ratio(NamedTuple):
    """A part of a score that counts several things: `hits` out of `of`. Averaged over the things, not the documents."""

    hits: float
    of: float


@dataclass(frozen=True, slots=True)
class Score:
    """What a verifier says of one response.

    `value` is 0 to 1. `parts` are the other metrics of the benchmark by name. `extracted` is the answer as it was read
    from the response, `why` a few words for the reader of a report, and `format_ok` whether the answer phrase that the
    prompt asks for was there (None when the prompt asks for none).
    """

    value: float
    parts: Mapping[str, float | Ratio] = field(default_factory=dict)
    extracted: str | None = None
    why: str = ""
    format_ok: bool | None = None


class Verifier(Protocol):
    """Pure: no network, clock or global randomness. The same object scores a benchmark and rewards a rollout."""

    def __call__(self, response: str, doc: Doc, /) -> Score: ...


class ChoiceVerifier(Protocol):
    """The verifier of a log-likelihood benchmark: `totals[i]` is the summed log-probability of option i."""

    def __call__(self, totals: Sequence[float], doc: Doc, /) -> Score: ...


class Model(Protocol):
    """An engine with a checkpoint in it.

    Results stream in completion order with the index of their request; each wanted request yields exactly once, as
    `finish="error"` or `Failed` when it could not be answered. Nothing is computed before the first `next()`, and
    closing the iterator cancels the rest. `requests` is always the full set of a benchmark; `wanted` (None: all) names
    the indices that are still to be answered. An engine derives its batches from the full set, so that a resumed run
    repeats the arithmetic of an uninterrupted one.
    """

    name: str
    max_length: int

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str: ...

    def encode(self, text: str, *, chat: bool) -> list[int]: ...

    def generate(
        self, requests: Sequence[GenerateRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Response]]: ...

    def loglikelihood(
        self, requests: Sequence[LoglikRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Likelihoods]]: ...

    def fingerprint(self) -> Mapping[str, str]:
        """What numbers depend on besides the weights (engine, dtype, quantisation, template digest, …)."""
        ...

    def close(self) -> None:
        """Idempotent; returns only when the device memory is free."""
        ...
