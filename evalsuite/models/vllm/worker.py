"""What the engine `vllm` is inside its child process: a Model on vLLM's offline engine (see `model`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from evalsuite.models.encoding import Encoder, encode_documents
from evalsuite.models.stops import Thinking, finish_tokens, needles
from evalsuite.models.vllm.engine import Engine
from evalsuite.models.vllm.loglik import Ids, TokenScorer, chunks, touched
from evalsuite.types import GenerateRequest, Likelihoods, LoglikRequest, Response

DOCUMENTS = 128
"""Documents that are scored together from an empty cache: a shared prefix is computed once for that many."""
REQUESTS = 1024
ENCODED = 256
"""Prompts per call of the tokenizer when generating; in deterministic mode, responses written together."""
SEED_MASK = (1 << 63) - 1  # vLLM takes signed 64-bit seeds


class VLLMWorker:
    """One checkpoint in one vLLM engine.

    `arguments` go to `vllm.LLM` as they are. At most `in_flight` responses are written at a time. `deterministic`
    writes responses in fixed groups from an empty cache, so that every bit is the same after a resume.
    """

    name = "vllm"

    def __init__(
        self,
        checkpoint: Path,
        *,
        arguments: Mapping[str, Any],
        max_length: int,
        in_flight: int = REQUESTS,
        long_prompts: str = "fail",
        deterministic: bool = False,
        thinking: Sequence[str] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.max_length, self.in_flight = max_length, in_flight
        self.long_prompts, self.deterministic = long_prompts, deterministic
        self.thinking = Thinking(*thinking) if thinking else None
        self.heartbeat: Callable[[], None] = lambda: None
        self.encoder = Encoder.from_checkpoint(checkpoint, trust_remote_code=trust_remote_code)
        self.engine = Engine.load(checkpoint, arguments)
        self.scorer = TokenScorer(self.engine, max_length, lambda: self.heartbeat())

    def generate(
        self, requests: Sequence[GenerateRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Response]]:
        """Responses in completion order. Prompts that begin alike follow each other, so that the cache helps."""
        asked = frozenset(range(len(requests)) if wanted is None else wanted)
        order = sorted(range(len(requests)), key=lambda i: (requests[i].prompt.text, i))
        if self.deterministic:
            groups = [tuple(order[start : start + ENCODED]) for start in range(0, len(order), ENCODED)]
            for group in touched(groups, asked):
                self.engine.reset_cache()
                for index, response in self._write(requests, group):
                    if index in asked:
                        yield index, response
        else:
            yield from self._write(requests, tuple(index for index in order if index in asked))

    def loglikelihood(
        self, requests: Sequence[LoglikRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Likelihoods]]:
        """Log-likelihoods, document by document as they complete; bit-identical for any `wanted`.

        The full set is cut into groups, and a group with a wanted document is computed whole, from an empty cache.
        The next group is encoded while one is computed.
        """
        asked = frozenset(range(len(requests)) if wanted is None else wanted)
        sizes = [((r.context.text, r.context.chat), 1 + len(r.options)) for r in requests]
        groups = touched(chunks(sizes, DOCUMENTS, REQUESTS), asked)
        with ThreadPoolExecutor(1, "encode") as encoder:
            coming = [encoder.submit(self._encode, requests, group) for group in groups[:1]]
            for number, group in enumerate(groups):
                encoded = coming.pop().result()
                coming = [encoder.submit(self._encode, requests, after) for after in groups[number + 1 : number + 2]]
                for index, result in self.scorer.score(list(zip(group, encoded, strict=True))):
                    if index in asked:
                        yield index, result

    def fingerprint(self) -> Mapping[str, str]:
        return {}  # the adapter in the caller's process knows it without the engine

    def environment(self) -> Mapping[str, str]:
        import torch
        import vllm

        return {
            "vllm": vllm.__version__,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "threads": str(torch.get_num_threads()),
            "block_size": str(self.engine.block_size),
            "scoring": self.scorer.level,
        }

    def counts(self) -> Mapping[str, int]:
        return {"guard_repeats": self.scorer.n_guarded, "kv_tokens": self.engine.kv_tokens}

    def close(self) -> None:
        self.engine.close()

    def _encode(self, requests: Sequence[LoglikRequest], group: Ids) -> list[Any]:
        encoded = encode_documents(self.encoder, [requests[index] for index in group])
        return [self.scorer.cut(doc) for doc in encoded] if self.long_prompts == "left" else encoded

    def _write(self, requests: Sequence[GenerateRequest], order: Ids) -> Iterator[tuple[int, Response]]:
        """Responses to the requests of `order`, which are encoded when their turn comes."""
        prompts = self._prompts(requests, order)
        more = True
        try:
            while more or self.engine.n_waiting:
                while more and self.engine.n_waiting < self.in_flight:
                    index, ids = next(prompts, (-1, []))
                    more = index >= 0
                    if more and (why := self._start(index, ids, requests[index])):
                        yield index, Response("", "error", why=why)
                for (index, limit), output in self.engine.step() if self.engine.n_waiting else ():
                    yield index, self._response(requests[index], output.outputs[0], limit)
                self.heartbeat()
        finally:
            self.engine.cancel()

    def _prompts(self, requests: Sequence[GenerateRequest], order: Ids) -> Iterator[tuple[int, list[int]]]:
        for start in range(0, len(order), ENCODED):
            group = order[start : start + ENCODED]
            rows: dict[int, list[int]] = {}
            for chat in (True, False):
                mine = [index for index in group if requests[index].prompt.chat is chat]
                found = self.encoder.encode_batch([requests[index].prompt.text for index in mine], chat=chat)
                rows |= zip(mine, found, strict=True)
            yield from ((index, rows[index]) for index in group)

    def _start(self, index: int, ids: list[int], request: GenerateRequest) -> str:
        """Queues one prompt; the reason when that is impossible."""
        sampling = request.sampling
        if not ids:
            return "the prompt has no tokens"
        if sampling.max_tokens < 1:
            return f"max_tokens is {sampling.max_tokens}; it must be at least 1"
        if self.long_prompts == "left" and sampling.max_tokens < self.max_length:
            ids = ids[-(self.max_length - sampling.max_tokens) :]
        limit = min(sampling.max_tokens, self.max_length - len(ids))
        if limit < 1:
            return f"the prompt has {len(ids)} tokens, the model's window {self.max_length}: no room for a response"
        stops = () if self.thinking else sampling.stop
        parameters: dict[str, Any] = {
            "max_tokens": limit,
            "stop": list(needles(stops, self.encoder.eos_text)),
            "stop_token_ids": sorted(self.encoder.eos_ids),
            "detokenize": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
        }
        if sampling.temperature > 0:
            parameters |= {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "min_p": sampling.min_p,
                "seed": sampling.seed & SEED_MASK,
            }
        if request.want_tokens:
            parameters["logprobs"] = 0
        try:
            self.engine.add((index, limit), ids, **parameters)
        except ValueError as refused:
            return f"vLLM refuses the prompt: {' '.join(str(refused).split())}"
        return ""

    def _response(self, request: GenerateRequest, output: Any, limit: int) -> Response:
        """The answer by our own rules about stops and special tokens; vLLM's text is not used."""
        ids = tuple(output.token_ids)
        if output.finish_reason not in ("stop", "length"):
            return Response("", "error", len(ids), why=f"vLLM ended the response with {output.finish_reason!r}")
        opened = self.thinking is not None and request.prompt.text.rstrip().endswith(self.thinking.open)
        ending = finish_tokens(self.encoder, ids, request.sampling.stop, self.thinking, opened=opened)
        logprobs = None
        if request.want_tokens:
            logprobs = tuple(row[token].logprob for row, token in zip(output.logprobs, ids, strict=True))
        return Response(
            text=ending.text,
            finish=ending.finish,
            n_tokens=len(ids),
            tokens=ids if request.want_tokens else None,
            logprobs=logprobs,
            thinking=ending.thinking,
            shrunk=limit < request.sampling.max_tokens,
        )
