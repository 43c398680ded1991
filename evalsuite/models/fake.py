"""Answers from a function or a table, without a model: for tests of everything around an engine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from evalsuite.types import Failed, Finish, GenerateRequest, Likelihoods, LogLikelihood, LoglikRequest, Response

Answers = Mapping[str, str] | Callable[[GenerateRequest], str]


class FakeModel:
    """Deterministic answers in a seeded random completion order.

    `answers` maps a prompt's text to a response (or computes it from the request); without it every response is
    "fake". Options get log-probabilities derived from their text, or computed by `totals`; `top` computes the likeliest
    first tokens of a response that asks for them. `latency_s` is spent on each answer, `fail_every` makes every n-th
    request of the full set fail, `crash_after` raises after so many answers.
    """

    name = "fake"

    def __init__(
        self,
        checkpoint: Path | None = None,
        *,
        answers: Answers | None = None,
        totals: Callable[[LoglikRequest], Sequence[float]] | None = None,
        top: Callable[[GenerateRequest], Sequence[tuple[str, float]]] | None = None,
        latency_s: float = 0.0,
        fail_every: int = 0,
        crash_after: int = 0,
        seed: int = 0,
        max_length: int = 4096,
        in_flight: int = 16,
    ) -> None:
        self.checkpoint = checkpoint
        self.max_length = max_length
        self.n_answered = 0
        self.closed = False
        self._answers = answers
        self._totals, self._top = totals, top
        self._latency_s = latency_s
        self._fail_every = fail_every
        self._crash_after = crash_after
        self._seed = seed
        self._in_flight = in_flight

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        text = "".join(f"<|{m['role']}|>\n{m['content']}\n" for m in messages)
        return text + ("<|assistant|>\n" if add_generation_prompt else "")

    def encode(self, text: str, *, chat: bool) -> list[int]:
        return list(text.encode("utf-8", "replace"))

    def generate(
        self, requests: Sequence[GenerateRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Response]]:
        for i in self._order(len(requests), wanted):
            if self._fails(i):
                yield i, Response("", "error", why="the fake engine fails every so often")
                continue
            text = self._text(requests[i])
            words = text.split()
            limit = requests[i].sampling.max_tokens
            cut = len(words) > limit
            top = tuple(self._top(requests[i])) if self._top and requests[i].top_logprobs else ()
            finish: Finish = "length" if cut else "stop"
            yield i, Response(" ".join(words[:limit]) if cut else text, finish, min(len(words), limit), top=top)

    def loglikelihood(
        self, requests: Sequence[LoglikRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Likelihoods]]:
        for i in self._order(len(requests), wanted):
            if self._fails(i):
                yield i, Failed("the fake engine fails every so often")
                continue
            totals = self._totals(requests[i]) if self._totals else [*map(_likely(requests[i]), requests[i].options)]
            best = max(totals)
            yield i, tuple(LogLikelihood(t, t == best, 1) for t in totals)

    def fingerprint(self) -> Mapping[str, str]:
        return {"engine": self.name, "dtype": "none"}

    def close(self) -> None:
        self.closed = True

    def _text(self, request: GenerateRequest) -> str:
        if self._answers is None:
            return "fake"
        return self._answers(request) if callable(self._answers) else self._answers[request.prompt.text]

    def _fails(self, index: int) -> bool:
        return bool(self._fail_every) and index % self._fail_every == self._fail_every - 1

    def _order(self, n: int, wanted: Collection[int] | None) -> Iterator[int]:
        """Indices in completion order: shuffled within every window of requests in flight."""
        todo = [i for i in range(n) if wanted is None or i in wanted]
        for start in range(0, len(todo), self._in_flight):
            window = todo[start : start + self._in_flight]
            random.Random(f"{self._seed}:{window[0]}").shuffle(window)
            for i in window:
                if self._latency_s:
                    time.sleep(self._latency_s / self._in_flight)
                if self._crash_after and self.n_answered >= self._crash_after:
                    raise RuntimeError("the fake engine crashed as it was told to")
                self.n_answered += 1
                yield i


def _likely(request: LoglikRequest) -> Callable[[str], float]:
    return lambda option: -_unit(request.context.text + option) * 10


def _unit(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big") / 2**32
