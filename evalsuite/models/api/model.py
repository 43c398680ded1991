"""The engine `api`: any OpenAI-compatible server, asked over HTTP. What it can do is probed before anything is spent.

`client` sends and retries, `probe` finds the features, `answers` and `loglik` make requests and read
answers, `budget` counts. With a local tokenizer (`tokenizer`) prompts go as token ids, so that prefill, BOS, chat
template and stops are those of a local engine; without one the server's own template is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

from evalsuite.errors import EngineError
from evalsuite.models.api.access import key_for
from evalsuite.models.api.answers import CHAT, COMPLETIONS, Speaker, first_choice, in_form, usage
from evalsuite.models.api.budget import Budget, Price, read_price
from evalsuite.models.api.client import Client, Limits
from evalsuite.models.api.health import ApiError
from evalsuite.models.api.loglik import score_text, score_tokens
from evalsuite.models.api.probe import Body, Features, model_card, probe
from evalsuite.models.chat import TEMPLATE_DATE, ChatTemplate, Rendered
from evalsuite.models.encoding import EncodedDoc, Encoder, encode_documents, model_window
from evalsuite.models.stops import Thinking
from evalsuite.types import Failed, GenerateRequest, Likelihoods, LoglikRequest, Message, Prompt, Response, Sampling

UNKNOWN_WINDOW = 1 << 30
REFUSALS = (400, 404, 422)  # what a server may say to a field that it does not know
ENCODED = 64
CANARY = ("The capital of France is", "1, 2, 3, 4,", "def main():")
CANARY_TOKENS = 16

Job = tuple[int, Callable[[], Awaitable[Response]]]


class APIModel:
    """One model behind a base URL (up to /v1), under the name by which the server knows it.

    The key comes from the environment variable `api_key_env` and is never shown. Without a name none is sent, save
    OPENAI_API_KEY to api.openai.com; a server on the loopback interface needs none. `tokenizer` is a folder with the
    model's tokenizer and chat template. `max_tokens_total` and `max_cost_usd` (with `prices`, a YAML file) end the run
    with Incomplete before they are crossed. `thinking` are the tags of a reasoning model whose server does not separate
    what it thinks. `revision` is the user's own name for the state of the model. Raises EngineError for a missing key,
    UsageError for a URL with secrets in it or a key that would leave this machine over plain http.
    """

    name = "api"

    def __init__(
        self,
        base_url: str,
        *,
        served_model: str,
        api_key_env: str | None = None,
        tokenizer: Path | None = None,
        chat_template: str | None = None,
        concurrency: int = 32,
        timeout_s: float = 600.0,
        max_retries: int = 6,
        backoff_s: tuple[float, float] = (1.0, 60.0),
        max_length: int | None = None,
        max_tokens_total: int | None = None,
        max_cost_usd: float | None = None,
        prices: Path | None = None,
        thinking: tuple[str, str] | None = None,
        revision: str = "",
    ) -> None:
        limits = Limits(concurrency, timeout_s, max_retries, backoff_s)
        self.client = Client(str(base_url), key_for(str(base_url), api_key_env), limits)
        self.served_model, self.revision = served_model, revision
        self.tokenizer = Path(tokenizer) if tokenizer is not None else None
        self.thinking = Thinking(*thinking) if thinking else None
        self.n_straddled = 0
        self.deviation = ""
        price = read_price(Path(prices), served_model) if prices else Price()
        self.budget = Budget(max_tokens_total, max_cost_usd, price)
        self._takes_schemas: bool | None = None  # not known before the first request that has one
        self._chat_template, self._max_length = chat_template, max_length

    @cached_property
    def features(self) -> Features:
        """What the server can do; asked once, at the first use."""
        return probe(self.client, self.served_model, self.encoder)

    @cached_property
    def encoder(self) -> Encoder | None:
        return Encoder.from_checkpoint(self.tokenizer) if self.tokenizer else None

    @cached_property
    def template(self) -> ChatTemplate | None:
        if self.tokenizer is None:
            return None
        return ChatTemplate.from_checkpoint(self.tokenizer, self._chat_template, now=TEMPLATE_DATE)

    @cached_property
    def speaker(self) -> Speaker:
        return Speaker(self.served_model, self.features, self.encoder, self.thinking)

    @property
    def max_length(self) -> int:
        """As given, else the server's limit, else the window in `tokenizer`, else as good as none."""
        if self._max_length is not None:
            return self._max_length
        if self.features.max_model_len is not None:
            return self.features.max_model_len
        has_config = self.tokenizer is not None and (self.tokenizer / "config.json").is_file()
        return model_window(self.tokenizer) if has_config and self.tokenizer else UNKNOWN_WINDOW

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The exact text with a local template; else a plain transcript that carries the conversation along."""
        if self.template is not None:
            return self.template.render(messages, add_generation_prompt)
        turns = [Message(m["role"], m["content"]) for m in messages]
        prefill = turns.pop().content if not add_generation_prompt and turns and turns[-1].role == "assistant" else ""
        text = "".join(f"{turn.role}:\n{turn.content}\n\n" for turn in turns)
        return Rendered(f"{text}assistant:\n{prefill}", turns, prefill)

    def encode(self, text: str, *, chat: bool) -> list[int]:
        if self.encoder is None:
            raise EngineError(
                "the tokens of a text on a server are not known here; give the tokenizer: --tokenizer DIR"
            )
        return self.encoder.encode(text, chat=chat)

    def generate(
        self, requests: Sequence[GenerateRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Response]]:
        """Responses in completion order (`Model.generate`).

        Raises EngineError, before anything is asked, when the server lacks what a request needs.
        """
        order = _order([r.prompt.text for r in requests], wanted)
        if missing := next(filter(None, (self.speaker.missing(requests[index]) for index in order)), ""):
            raise self._refusal(missing)
        # Told of the full set: a resumed run says the same.
        self.deviation = "prefill dropped" if any(map(self._drops_prefill, requests)) else "none"
        yield from self.client.stream(self._generate_jobs(requests, order))

    def loglikelihood(
        self, requests: Sequence[LoglikRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Likelihoods]]:
        """Log-likelihoods in completion order (`Model.loglikelihood`). Raises EngineError as `generate` does."""
        order = _order([r.context.text for r in requests], wanted)
        if order and (missing := self._missing_for_options([requests[index] for index in order])):
            raise self._refusal(missing)
        if self.speaker.takes_tokens:
            yield from self.client.stream(self._token_jobs(requests, order))
        else:
            jobs = ((index, partial(self._score_text, requests[index])) for index in order)
            yield from self.client.stream(jobs)

    def identity(self) -> Mapping[str, str]:
        """What stands for the weights that cannot be seen; `digest` is a sha256 of the rest."""
        card = model_card(self.client, self.served_model)
        found = {
            "base_url": self.client.base_url,
            "served_model": self.served_model,
            "root": str(card.get("root", "")),
            "revision": self.revision or str(card.get("revision", "")),
        }
        return found | {"digest": hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()}

    def canary(self) -> tuple[str, ...]:
        """Greedy answers to three fixed prompts of 16 tokens: another answer tomorrow means another model."""
        turns = [(Message("user", text),) for text in CANARY]
        chat = not self.features.completions
        requests = [
            GenerateRequest(Prompt(text, chat, turn if chat else None), Sampling(CANARY_TOKENS))
            for text, turn in zip(CANARY, turns, strict=True)
        ]
        found = dict(self.generate(requests))
        return tuple(found[i].text or found[i].why for i in range(len(CANARY)))

    def fingerprint(self) -> Mapping[str, str]:
        """Known without asking the server."""
        return {
            "engine": self.name,
            "dtype": "server",
            "quantization": "server",
            "deterministic": "false",
            "prompts": "tokens" if self.tokenizer else "server",
            "chat_template": self.template.digest if self.template else "server",
            **({"thinking": f"{self.thinking.open}…{self.thinking.close}"} if self.thinking else {}),
        }

    def environment(self) -> Mapping[str, str]:
        """What a scorecard records beside the numbers; no part of it is secret or changes during a benchmark."""
        return {
            "base_url": self.client.base_url,
            "served_model": self.served_model,
            "features": self.features.names(),
            "generation_deviation": self.deviation,
        }

    def counts(self) -> Mapping[str, float]:
        """What was sent and used so far; `straddled` documents had a token across the boundary of their context."""
        return {
            "tries": self.client.n_tries,
            "tokens_prompt": self.budget.n_prompt,
            "tokens_new": self.budget.n_new,
            "cost_usd": self.budget.cost_usd,
            "straddled": self.n_straddled,
        }

    def close(self) -> None:
        self.client.close()

    def _generate_jobs(self, requests: Sequence[GenerateRequest], order: Sequence[int]) -> Iterator[Job]:
        for start in range(0, len(order), ENCODED):
            group = order[start : start + ENCODED]
            prompts = {index: self._ids(requests[index].prompt) for index in group}
            yield from ((index, partial(self._write, requests[index], prompts[index])) for index in group)

    def _ids(self, prompt: Prompt) -> list[int] | None:
        if not self.speaker.takes_tokens or self.encoder is None:
            return None
        return self.encoder.encode(prompt.text, chat=prompt.chat)

    async def _write(self, request: GenerateRequest, ids: list[int] | None) -> Response:
        limit = request.sampling.max_tokens
        if ids is not None:
            limit = min(limit, self.max_length - len(ids))
            if limit < 1:
                why = f"the prompt has {len(ids)} tokens, the model's window {self.max_length}: no room for a response"
                return Response("", "error", why=why)
        body = self.speaker.body(request, ids, limit)
        n_prompt = len(ids) if ids is not None else _most_tokens(request.prompt.text)
        path = self.speaker.path(request)
        try:
            return self.speaker.response(request, await self._ask_in_form(request, path, body, n_prompt), limit)
        except ApiError as error:
            return Response("", "error", why=self._said(error))

    async def _ask_in_form(self, request: GenerateRequest, path: str, body: Body, n_prompt: int) -> Body:
        """The answer, by the request's schema where the server knows what that is."""
        if not request.json_schema or path != CHAT or self._takes_schemas is False:
            return await self._ask(path, body, n_prompt)
        try:
            formed = body | in_form(request.json_schema)
            answer = await self._ask(path, formed, n_prompt, counts=self._takes_schemas is True)
        except ApiError as error:
            if self._takes_schemas is True or error.status not in REFUSALS:
                raise
            answer = await self._ask(path, body, n_prompt)
            self._takes_schemas = False  # the same question without a schema was not refused
            return answer
        self._takes_schemas = True
        return answer

    def _token_jobs(
        self, requests: Sequence[LoglikRequest], order: Sequence[int]
    ) -> Iterator[tuple[int, Callable[[], Awaitable[Likelihoods]]]]:
        assert self.encoder is not None
        for start in range(0, len(order), ENCODED):
            group = order[start : start + ENCODED]
            encoded = encode_documents(self.encoder, [requests[index] for index in group])
            yield from ((i, partial(self._score_tokens, doc)) for i, doc in zip(group, encoded, strict=True))

    async def _score_tokens(self, doc: EncodedDoc | Failed) -> Likelihoods:
        if isinstance(doc, Failed):
            return doc
        try:
            return await score_tokens(doc, self._send, two_phases=self.features.logprob_token_ids)
        except ApiError as error:
            return Failed(self._said(error))

    async def _score_text(self, request: LoglikRequest) -> Likelihoods:
        try:
            found, straddles = await score_text(request, self._send)
        except ApiError as error:
            return Failed(self._said(error))
        self.n_straddled += straddles
        return found

    async def _send(self, body: Body) -> Body:
        prompt = body["prompt"]
        n_prompt = _most_tokens(prompt) if isinstance(prompt, str) else len(prompt)
        return first_choice(
            await self._ask(COMPLETIONS, {"model": self.served_model, "temperature": 0, **body}, n_prompt)
        )

    async def _ask(self, path: str, body: Body, n_prompt: int, *, counts: bool = True) -> Body:
        """The answer, with its tokens accounted for; a server that does not count is taken to have used it all."""
        n_new = int(body.get("max_tokens") or body.get("max_completion_tokens") or 0)
        await self.budget.reserve(n_prompt, n_new)
        used = (0, 0)
        try:
            answer = await self.client.ask(path, body, counts=counts)
            used = usage(answer)
            used = used if any(used) else (n_prompt, n_new)
            return answer
        finally:
            self.budget.book((n_prompt, n_new), used)

    def _missing_for_options(self, requests: Iterable[LoglikRequest]) -> str:
        features = self.features
        if not features.completions:
            return "/completions (chat completions give no log-likelihoods of given options)"
        if self.speaker.takes_tokens:
            return "" if features.logprob_token_ids or features.echo else "echo with logprobs, or logprob_token_ids"
        if not features.echo:
            return "echo with logprobs"
        if any(request.context.chat for request in requests):
            return "token prompts for options after a chat prompt (give --tokenizer DIR)"
        return ""

    def _drops_prefill(self, request: GenerateRequest) -> bool:
        return bool(request.prompt.prefill) and self.speaker.path(request) == CHAT and not self.features.prefill

    def _refusal(self, missing: str) -> EngineError:
        return EngineError(
            f"{self.client.base_url} cannot answer this benchmark: it lacks {missing}; it has: {self.features.names()}"
        )

    def _said(self, error: ApiError) -> str:
        return self.client.key.hide(" ".join(str(error).split()))


def _order(texts: Sequence[str], wanted: Collection[int] | None) -> list[int]:
    """The wanted indices; prompts that begin alike follow each other, for the server's prefix cache."""
    return sorted(range(len(texts)) if wanted is None else set(wanted), key=lambda index: (texts[index], index))


def _most_tokens(text: str) -> int:
    """A bound that real texts stay under: a token has two bytes and more on average."""
    return len(text.encode("utf-8", "surrogatepass")) // 2 + 8
