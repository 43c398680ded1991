"""Log-likelihoods with vLLM's prefix cache on, in two phases, with a guard at the boundary of what was cached.

vLLM does not read its prefix cache for a request that asks for prompt log-probabilities, so asking for every option in
the plain way computes every few-shot prompt anew. Here the distinct first tokens of all options come from one request
per context that asks for the log-probabilities of given *next* tokens (`logprob_token_ids`) and reads the cache as any
generation does. Longer options follow: stem = option without its last token; the last token is again a next token, and
the tokens between are prompt log-probabilities with cache reads switched on.

The trap: rows of cached tokens are uninitialised memory in a list of full length. The row of the token at position p
was computed only if at most p - 1 tokens came from the cache; otherwise that request is repeated without the cache.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalsuite.errors import EngineCrash
from evalsuite.models.encoding import EncodedDoc
from evalsuite.models.vllm.engine import Engine
from evalsuite.types import Failed, Likelihoods, LogLikelihood

MAX_TOKEN_IDS = 128  # vLLM's MAX_LOGPROB_TOKEN_IDS
IN_FLIGHT_TOKENS = 1 << 17
BAD_IN_A_ROW = 3

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: after context + `stem`, how likely is each of `tokens`, and each of the stem's from `first` on."""

    stem: Ids
    tokens: Ids
    first: int


@dataclass(slots=True)
class Doc:
    """A document in work. `known`: the beginning of an option -> log-probability of its last token, and if greedy."""

    index: int
    encoded: EncodedDoc
    later: list[Ask]
    n_open: int = 0
    known: dict[Ids, tuple[float, bool]] = field(default_factory=dict)


class TokenScorer:
    """Scores encoded documents on one engine. `n_guarded` counts requests repeated because of the guard.

    `heartbeat` is called between steps.
    """

    def __init__(self, engine: Engine, max_length: int, heartbeat: Callable[[], None] = lambda: None) -> None:
        self.engine, self.max_length, self.heartbeat = engine, max_length, heartbeat
        self.two_phases = "logprob_token_ids" in engine.has
        self.cached_reads = "skip_reading_prefix_cache" in engine.has
        self.n_guarded = 0
        self._bad_in_a_row = 0

    @property
    def level(self) -> str:
        """How contexts are shared; older versions of vLLM lack what the faster ways need."""
        if self.two_phases:
            return "two phases"
        return "one phase" if self.cached_reads else "no cached reads: this vLLM has no skip_reading_prefix_cache"

    def cut(self, doc: EncodedDoc | Failed) -> EncodedDoc | Failed:
        """The document with the beginning of its context cut off, as far as its longest option needs it."""
        if isinstance(doc, Failed) or not doc.option_ids:
            return doc
        room = self.max_length + self.two_phases - max(map(len, doc.option_ids))
        return EncodedDoc(doc.context_ids[-room:], doc.option_ids) if room > 0 else doc

    def score(self, documents: Sequence[tuple[int, EncodedDoc | Failed]]) -> Iterator[tuple[int, Likelihoods]]:
        """Every document, in completion order, from an empty cache: the same documents give the same bits.

        Raises EngineCrash after three documents in a row without a number.
        """
        self.engine.reset_cache()
        waiting: deque[Doc] = deque()
        for index, encoded in documents:
            why = encoded.why if isinstance(encoded, Failed) else self._why_not(encoded)
            if why or isinstance(encoded, Failed):
                yield index, Failed(why)
            else:
                waiting.append(Doc(index, encoded, []))
        # Few enough that the blocks of a context are still there when its longer options follow.
        budget = min(IN_FLIGHT_TOKENS, self.engine.kv_tokens // 2)
        in_flight = 0
        try:
            while waiting or self.engine.n_waiting:
                while waiting and (in_flight < budget or not self.engine.n_waiting):
                    in_flight += self._start(waiting.popleft())
                for (doc, ask, _), output in self.engine.step():
                    if not self._read(doc, ask, output):
                        continue
                    doc.n_open -= 1
                    if doc.later:
                        later, doc.later = doc.later, []
                        for more in later:
                            self._ask(doc, more)
                    elif not doc.n_open:
                        in_flight -= _size(doc)
                        yield doc.index, self._likelihoods(doc)
                self.heartbeat()
        finally:
            self.engine.cancel()

    def _start(self, doc: Doc) -> int:
        first, doc.later = plan(doc.encoded, self.two_phases)
        for ask in first:
            self._ask(doc, ask)
        return _size(doc)

    def _ask(self, doc: Doc, ask: Ask, *, cached: bool = True) -> None:
        """Queues one request; `cached` false makes it compute every row."""
        parameters: dict[str, Any] = {"max_tokens": 1}
        if ask.tokens:
            parameters["logprob_token_ids"] = list(ask.tokens)
        if ask.first < len(ask.stem):
            parameters["prompt_logprobs"] = 0
            if self.cached_reads:
                parameters["skip_reading_prefix_cache"] = not cached
        doc.n_open += cached  # a repeated request is open already
        self.engine.add((doc, ask, cached), doc.encoded.context_ids + ask.stem, **parameters)

    def _read(self, doc: Doc, ask: Ask, output: Any) -> bool:
        """Takes the numbers out of an answer; False when the request had to be repeated."""
        start = len(doc.encoded.context_ids)
        if ask.first < len(ask.stem):
            if (output.num_cached_tokens or 0) > start + ask.first - 1:
                self.n_guarded += 1
                self._ask(doc, ask, cached=False)
                return False
            for position in range(ask.first, len(ask.stem)):
                one = output.prompt_logprobs[start + position][ask.stem[position]]
                doc.known[ask.stem[: position + 1]] = (one.logprob, one.rank == 1)
        if ask.tokens:
            answer = output.outputs[0]
            for token in ask.tokens:
                # `rank` is a place in the list here, not in the vocabulary.
                greedy = answer.token_ids[0] == token
                doc.known[(*ask.stem, token)] = (answer.logprobs[0][token].logprob, greedy)
        return True

    def _likelihoods(self, doc: Doc) -> Likelihoods:
        options = []
        for number, option in enumerate(doc.encoded.option_ids, 1):
            values, greedy = zip(*(doc.known[option[: i + 1]] for i in range(len(option))), strict=True)
            if not all(map(math.isfinite, values)):
                why = f"the log-probability of option {number} of {len(doc.encoded.option_ids)} is not a number"
                return self._bad(why)
            # Summed in double and rounded once, as the engine hf does.
            options.append(LogLikelihood(array("f", [math.fsum(values)])[0], all(greedy), len(option)))
        self._bad_in_a_row = 0
        return tuple(options)

    def _bad(self, why: str) -> Failed:
        self._bad_in_a_row += 1
        if self._bad_in_a_row == BAD_IN_A_ROW:
            raise EngineCrash(
                f"{why}, three documents in a row: the weights or the dtype are broken; "
                "look at the checkpoint (evalsuite check) or score it with --dtype float32"
            )
        return Failed(why)

    def _why_not(self, doc: EncodedDoc) -> str:
        """Why a document cannot be scored at all, or the empty string."""
        if not doc.option_ids:
            return "no options"
        most = max(*doc.context_ids, *(token for option in doc.option_ids for token in option))
        if most >= self.engine.vocab_size:
            return f"token {most} is outside the model's vocabulary of {self.engine.vocab_size}"
        longest = max(map(len, doc.option_ids))
        needed = len(doc.context_ids) + longest - self.two_phases
        if needed > self.max_length:
            return (
                f"context of {len(doc.context_ids)} tokens and longest option of {longest} need {needed} positions; "
                f"the model's window is {self.max_length}"
            )
        return ""


def plan(doc: EncodedDoc, two_phases: bool = True) -> tuple[list[Ask], list[Ask]]:
    """(what to ask first, what to ask when that is answered and its blocks are cached).

    Tokens common to all options (the newline after a chat template) belong to the first request, as its stem.
    """
    if not two_phases:
        return [Ask(option, (), 0) for option in dict.fromkeys(doc.option_ids)], []
    common = _common(doc.option_ids)
    tokens: dict[Ids, dict[int, None]] = {common: {}}  # stem -> its next tokens, in order
    for option in doc.option_ids:
        tokens[common][option[len(common)]] = None
    for option in doc.option_ids:
        if len(option) > len(common) + 1:
            tokens.setdefault(option[:-1], {})[option[-1]] = None
    first: list[Ask] = []
    later: list[Ask] = []
    for stem, following in tokens.items():
        known = len(common) + 1 if stem != common else 0
        for ask in _split(stem, tuple(following), min(known, len(stem))):
            (first if stem == common else later).append(ask)
    return first, later


def _split(stem: Ids, tokens: Ids, first: int) -> Iterator[Ask]:
    """One request for every 128 tokens; the stem's own tokens come with the first."""
    for start in range(0, len(tokens), MAX_TOKEN_IDS):
        yield Ask(stem, tokens[start : start + MAX_TOKEN_IDS], first if start == 0 else len(stem))


def _common(options: Sequence[Ids]) -> Ids:
    """The longest beginning that all options share and none consists of."""
    shortest = min(map(len, options)) - 1
    low, high = min(options), max(options)
    n = next((i for i in range(shortest) if low[i] != high[i]), shortest)
    return low[:n]


def _size(doc: Doc) -> int:
    return len(doc.encoded.context_ids) + sum(map(len, doc.encoded.option_ids))


def chunks(sizes: Sequence[tuple[Any, int]], most_documents: int, most_requests: int) -> list[tuple[int, ...]]:
    """Indices in groups that are always computed together; `sizes` are (sort key, number of requests) of the full set.

    Sorting puts shared prefixes side by side. The groups depend on nothing but the full set.
    """
    found: list[list[int]] = []
    n_requests = 0
    for index in sorted(range(len(sizes)), key=lambda i: (sizes[i][0], i)):
        n = sizes[index][1]
        if not found or len(found[-1]) >= most_documents or n_requests + n > most_requests:
            found.append([])
            n_requests = 0
        found[-1].append(index)
        n_requests += n
    return [tuple(group) for group in found]


def touched(groups: Sequence[Ids], wanted: Mapping[int, Any] | frozenset[int]) -> list[Ids]:
    """The groups with at least one wanted member."""
    return [group for group in groups if any(index in wanted for index in group)]
