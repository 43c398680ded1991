"""One response while it is being written: its tokens so far, when it is finished, and what it becomes."""

from __future__ import annotations

from dataclasses import dataclass, field

from evalsuite.models.hf.sample import BROKEN, Draw
from evalsuite.models.stops import StopWatch
from evalsuite.types import GenerateRequest, Response


@dataclass(slots=True)
class Writing:
    """`limit` is the most new tokens it may have; `index` its request's place in the full set."""

    index: int
    request: GenerateRequest
    watch: StopWatch
    n_prompt: int
    limit: int
    logprobs: list[float] = field(default_factory=list)
    why: str = ""  # it failed

    @property
    def last(self) -> int:
        """The newest token, not yet fed to the model."""
        return self.watch.ids[-1]

    @property
    def position(self) -> int:
        """Where the newest token stands in the sequence, and how many tokens were fed before it."""
        return self.n_prompt + len(self.watch.ids) - 1

    @property
    def most_keys(self) -> int:
        return self.n_prompt + self.limit

    def draw(self) -> Draw:
        return Draw(self.request.sampling, len(self.watch.ids), self.request.want_tokens)

    def push(self, token: int, logprob: float | None) -> bool:
        """Adds a token; True when the response is finished."""
        if token == BROKEN:
            self.why = f"the model's logits are not finite after {len(self.watch.ids)} new tokens"
            return True
        if logprob is not None:
            self.logprobs.append(logprob)
        return self.watch.push(token) or len(self.watch.ids) >= self.limit

    def response(self) -> Response:
        if self.why:
            return Response("", "error", len(self.watch.ids), why=self.why)
        ending, ids, want_tokens = self.watch.ending(), self.watch.ids, self.request.want_tokens
        return Response(
            text=ending.text,
            finish=ending.finish,
            n_tokens=len(ids),
            tokens=tuple(ids) if want_tokens else None,
            logprobs=tuple(self.logprobs) if want_tokens else None,
            thinking=ending.thinking,
            shrunk=self.limit < self.request.sampling.max_tokens,
        )
