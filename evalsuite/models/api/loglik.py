"""Log-likelihoods of options over `/completions`: next-token log-probabilities where the server has them, else echo."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from evalsuite.models.api.health import ApiError
from evalsuite.models.api.probe import Body, next_tokens
from evalsuite.models.encoding import EncodedDoc
from evalsuite.models.vllm.loglik import Ask, Ids, plan
from evalsuite.types import Failed, Likelihoods, LogLikelihood, LoglikRequest

Send = Callable[[Body], Awaitable[Body]]
Known = dict[Ids, tuple[float, bool]]


async def score_tokens(doc: EncodedDoc, send: Send, *, two_phases: bool) -> Likelihoods:
    """Log-likelihoods of an encoded document; `send` adds the model to a body and returns the first choice.

    In two phases the requests are those of the vllm engine (`vllm.loglik.plan`); the server reads its prefix cache for
    the first of them. Raises ApiError.
    """
    known: Known = {}

    async def one(ask: Ask) -> None:
        prompt = list(doc.context_ids + ask.stem)
        if two_phases:
            _read_next(await send(_next_body(prompt, ask)), ask, len(doc.context_ids), known)
        else:
            choice = await send({"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 0})
            _read_echo(choice, ask.stem, len(prompt), known)

    first, later = plan(doc, two_phases)
    for asks in (first, later):
        await asyncio.gather(*(one(ask) for ask in asks))
    return _likelihoods(doc.option_ids, known)


async def score_text(request: LoglikRequest, send: Send) -> tuple[Likelihoods, bool]:
    """Log-likelihoods without a tokenizer, and whether a token straddled the boundary (it counts to the option).

    White space at the end of the context belongs to the options, as everywhere. Raises ApiError.
    """
    context = request.context.text.rstrip()

    async def one(option: str) -> tuple[LogLikelihood, bool]:
        whole = request.context.text + option
        choice = await send({"prompt": whole, "echo": True, "logprobs": 1, "max_tokens": 0})
        values, greedy, straddles = _after(choice, whole, len(context))
        if not values:
            raise ApiError(f"option {option[:80]!r} has no tokens of its own")
        _finite(values, option)
        return LogLikelihood(_total(values), all(greedy), len(values)), straddles

    found = await asyncio.gather(*(one(option) for option in request.options))
    return tuple(likelihood for likelihood, _ in found), any(straddles for _, straddles in found)


def _next_body(prompt: Sequence[int], ask: Ask) -> Body:
    body = {"prompt": list(prompt), **next_tokens(list(ask.tokens))}
    if ask.first >= len(ask.stem):
        del body["prompt_logprobs"]  # with it, vLLM would compute the whole prompt again
    return body


def _read_next(choice: Body, ask: Ask, start: int, known: Known) -> None:
    try:
        following, sampled = choice["logprobs"]["top_logprobs"][0], choice["logprobs"]["tokens"][0]
        for token in ask.tokens:
            name = f"token_id:{token}"
            known[(*ask.stem, token)] = (float(following[name]), sampled == name)
        for position in range(ask.first, len(ask.stem)):
            row = choice["prompt_logprobs"][start + position][str(ask.stem[position])]
            known[ask.stem[: position + 1]] = (float(row["logprob"]), row["rank"] == 1)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ApiError(f"the answer lacks a log-probability that was asked for ({error!r})") from None


def _read_echo(choice: Body, option: Ids, n_prompt: int, known: Known) -> None:
    rows = _rows(choice)
    if len(rows) < n_prompt:
        raise ApiError(f"the echo has {len(rows)} tokens, the prompt {n_prompt}")
    for i, (_, value, greedy) in enumerate(rows[n_prompt - len(option) : n_prompt]):
        known[option[: i + 1]] = (value, greedy)


def _after(choice: Body, whole: str, boundary: int) -> tuple[list[float], list[bool], bool]:
    """Values of the tokens that reach past the boundary (in characters), and whether one of them begins before it."""
    rows, offsets = _rows(choice), choice["logprobs"].get("text_offset")
    if not isinstance(offsets, list) or len(offsets) != len(rows):
        raise ApiError("the echo has no text_offset for its tokens; give --tokenizer DIR")
    # A BOS that the server added stands in the echoed text too.
    shift = max(0, str(choice.get("text", "")).find(whole))
    values, greedy, straddles = [], [], False
    for i, (_, value, is_greedy) in enumerate(rows):
        begin = offsets[i] - shift
        end = offsets[i + 1] - shift if i + 1 < len(rows) else len(whole)
        if end > boundary and begin < len(whole):
            values.append(value)
            greedy.append(is_greedy)
            straddles |= begin < boundary
    return values, greedy, straddles


def _rows(choice: Body) -> list[tuple[str, float, bool]]:
    """(token, log-probability, greedy) of every echoed token; the first has no log-probability and gets NaN."""
    try:
        found = choice["logprobs"]
        rows = []
        for i, (token, value) in enumerate(zip(found["tokens"], found["token_logprobs"], strict=True)):
            best: dict[str, Any] = (found["top_logprobs"][i] if value is not None else None) or {}
            greedy = value is not None and value >= max(best.values(), default=math.inf)
            rows.append((token, math.nan if value is None else float(value), greedy))
        return rows
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ApiError(f"the answer has no usable log-probabilities ({error!r})") from None


def _likelihoods(options: Sequence[Ids], known: Known) -> Likelihoods:
    found = []
    for number, option in enumerate(options, 1):
        values, greedy = zip(*(known[option[: i + 1]] for i in range(len(option))), strict=True)
        if not all(map(math.isfinite, values)):
            return Failed(f"the log-probability of option {number} of {len(options)} is not a number")
        found.append(LogLikelihood(_total(values), all(greedy), len(option)))
    return tuple(found)


def _finite(values: Sequence[float], option: str) -> None:
    if not all(map(math.isfinite, values)):
        raise ApiError(f"the log-probability of option {option[:80]!r} is not a number")


def _total(values: Sequence[float]) -> float:
    return float(array("f", [math.fsum(values)])[0])
