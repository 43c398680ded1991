"""Writes responses with a transformers model: encodes prompts, plans what they share, and runs the refilled batch."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

import torch

from evalsuite.errors import EngineCrash
from evalsuite.models.encoding import Encoder
from evalsuite.models.hf.cache import TreeMasks, Unsupported
from evalsuite.models.hf.decode import row_step
from evalsuite.models.hf.prefix import Ids, PrefixPlan, generation_order, plan_prefixes
from evalsuite.models.hf.refill import Refill
from evalsuite.models.hf.response import Writing
from evalsuite.models.hf.slots import Slots, slots_work
from evalsuite.models.hf.static import static_batches
from evalsuite.models.hf.together import Together
from evalsuite.models.stops import StopWatch, Thinking
from evalsuite.types import GenerateRequest, Response

ENCODE_CHUNK = 2048  # prompts per call of the tokenizer
SLOTS_CPU, SLOTS_GPU = 32, 256
BUDGET_CPU = 2 << 30
BUDGET_GPU = 0.25  # of the memory that is free


class Generator:
    """Generates for one loaded model. Nothing is computed before the first `next()`; closing the iterator ends it.

    `slots` is how many responses are written at a time (None: as many as `kv_budget` bytes hold, at most 32 on a CPU).
    What a response becomes in float32 on a CPU does not depend on the others, bit for bit, so a resumed run writes
    the same texts (`decode` says how far that goes). `share_prefixes` false computes every prompt whole.
    `long_prompts` "left" cuts a prompt at its start until max_tokens fit behind it, as lm-eval does.
    `level` is "slots" or, for models whose state cannot live in slots, "static: …" with the reason, once it is known.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        *,
        max_length: int,
        slots: int | None = None,
        device: Any = None,
        kv_budget: int | None = None,
        thinking: Thinking | None = None,
        share_prefixes: bool = True,
        long_prompts: Literal["fail", "left"] = "fail",
    ) -> None:
        self.model, self.encoder, self.max_length = model, encoder, max_length
        self.device = torch.device(device) if device is not None else model.device
        self.thinking, self.share_prefixes, self.long_prompts = thinking, share_prefixes, long_prompts
        # A GPU is filled by several prompts at a time, a CPU by one that is not short; there only groups that change
        # no bit are made (`together`).
        self.grouped = self.device.type != "cpu"
        self.together = Together.of(model)
        self.level = ""
        self.n_forwarded = 0  # tokens computed in slots so far, padding included
        self._slots, self._kv_budget = slots, kv_budget
        self._masks: TreeMasks | None = None

    def generate(
        self, requests: Sequence[GenerateRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Response]]:
        """Responses in the order they finish. `requests` is the full set; only `wanted` (None: all) are written."""
        chosen = range(len(requests)) if wanted is None else sorted(set(wanted))
        if not chosen:
            return
        prompts = encode_prompts(self.encoder, requests)
        if self.long_prompts == "left":
            prompts = [self._cut(request, prompt) for request, prompt in zip(requests, prompts, strict=True)]
        reasons = [self._why_not(request, prompt) for request, prompt in zip(requests, prompts, strict=True)]
        for i in chosen:
            if reasons[i]:
                yield i, Response("", "error", why=reasons[i])
        possible = [i for i, why in enumerate(reasons) if not why]
        writings = {i: self._writing(i, requests[i], prompts[i]) for i in possible}
        asked = frozenset(chosen).intersection(possible)
        if asked:
            self._look_at_model()
            yield from (
                self._slotted(prompts, writings, asked) if self._masks else self._static(prompts, writings, asked)
            )

    def _cut(self, request: GenerateRequest, prompt: Ids) -> Ids:
        """The prompt's end that leaves room for max_tokens; whole where no end would."""
        room = self.max_length - request.sampling.max_tokens
        return prompt[-room:] if 0 < room < len(prompt) else prompt

    def _why_not(self, request: GenerateRequest, prompt: Ids) -> str:
        if not prompt:
            return "the prompt has no tokens"
        if request.sampling.max_tokens < 1:
            return f"max_tokens is {request.sampling.max_tokens}; it must be at least 1"
        if len(prompt) >= self.max_length:
            return f"the prompt has {len(prompt)} tokens, the model's window {self.max_length}: no room for a response"
        return ""

    def _writing(self, index: int, request: GenerateRequest, prompt: Ids) -> Writing:
        opened = self.thinking is not None and request.prompt.text.rstrip().endswith(self.thinking.open)
        watch = StopWatch(self.encoder, request.sampling.stop, self.thinking, opened=opened)
        limit = min(request.sampling.max_tokens, self.max_length - len(prompt))
        return Writing(index, request, watch, len(prompt), limit)

    def _look_at_model(self) -> None:
        if self.level:
            return
        try:
            masks = TreeMasks.of(self.model)
            slots_work(self.model, masks)
            self._masks, self.level = masks, "slots"
        except Unsupported as why:
            self.level = f"static: {why}"

    def _slotted(
        self, prompts: Sequence[Ids], writings: dict[int, Writing], asked: frozenset[int]
    ) -> Iterator[tuple[int, Response]]:
        assert self._masks is not None
        # A prompt that cannot be answered shares nothing: its forward would not fit the window either.
        shared = [prompt if i in writings else array("i") for i, prompt in enumerate(prompts)]
        plan = plan_prefixes(shared) if self.share_prefixes else PrefixPlan((), ((),) * len(prompts))
        n_slots = min(self._slots or self._n_slots(list(writings.values())), len(writings))
        slots = Slots(self.model, n_slots, self._masks, row_step(self.model, n_slots))
        refill = Refill(slots, n_slots, plan, prompts, grouped=self.grouped, together=self.together)
        order = [i for i in generation_order(plan, shared) if i in asked]
        try:
            for writing in refill.run([writings[i] for i in order]):
                yield writing.index, writing.response()
        except torch.OutOfMemoryError as error:
            raise EngineCrash(
                f"out of memory while writing {len(refill.open)} responses at a time (at most {n_slots}); "
                "go on with fewer slots, a smaller --kv-budget or dtype, or a device with more memory"
            ) from error
        finally:
            self.n_forwarded += slots.n_forwarded

    def _static(
        self, prompts: Sequence[Ids], writings: dict[int, Writing], asked: frozenset[int]
    ) -> Iterator[tuple[int, Response]]:
        n_rows = self._slots or SLOTS_CPU
        for writing in static_batches(self.model, prompts, list(writings.values()), asked, n_rows):
            yield writing.index, writing.response()

    def _n_slots(self, writings: Sequence[Writing]) -> int:
        """As many as the budget holds when every response is half as long as it may be; all full take twice that."""
        on_cpu = self.device.type == "cpu"
        budget = self._kv_budget or (BUDGET_CPU if on_cpu else int(torch.cuda.mem_get_info()[0] * BUDGET_GPU))
        expected = max(w.n_prompt + w.limit // 2 for w in writings)
        n = budget // max(1, bytes_per_token(self.model) * expected)
        return max(1, min(n, SLOTS_CPU if on_cpu else SLOTS_GPU))


def encode_prompts(encoder: Encoder, requests: Sequence[GenerateRequest]) -> list[Ids]:
    """Token ids of every prompt: chat text without special tokens, plain text as the tokenizer adds them."""
    prompts: list[Ids] = [array("i")] * len(requests)
    for chat in (True, False):
        mine = [i for i, request in enumerate(requests) if request.prompt.chat is chat]
        for start in range(0, len(mine), ENCODE_CHUNK):
            chunk = mine[start : start + ENCODE_CHUNK]
            rows = encoder.encode_batch([requests[i].prompt.text for i in chunk], chat=chat)
            for i, ids in zip(chunk, rows, strict=True):
                prompts[i] = array("i", ids)
    return prompts


def bytes_per_token(model: Any) -> int:
    """Keys and values of one token in all layers."""
    config = model.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kept * size * torch.finfo(model.dtype).bits // 8)
