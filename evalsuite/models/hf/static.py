"""Static batches through `model.generate`, for models whose state cannot live in slots: recurrent, hybrid, ALiBi."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from evalsuite.models.hf.prefix import Ids
from evalsuite.models.hf.response import Writing
from evalsuite.models.hf.sample import choose


def static_batches(
    model: Any,
    prompts: Sequence[Ids],
    writings: Sequence[Writing],
    asked: Collection[int],
    n_rows: int,
) -> Iterator[Writing]:
    """Finished responses, batch by batch. Only prompts of equal length stand in one batch: nothing is padded.

    Batches are made of all `writings`, and one with an `asked` member is computed whole, so that a resumed run
    repeats the arithmetic of an uninterrupted one.
    """
    by_length: dict[int, list[Writing]] = {}
    for writing in writings:
        by_length.setdefault(writing.n_prompt, []).append(writing)
    for _, same in sorted(by_length.items()):
        for start in range(0, len(same), n_rows):
            batch = same[start : start + n_rows]
            if any(w.index in asked for w in batch):
                _generate(model, [prompts[w.index] for w in batch], batch)
                yield from (w for w in batch if w.index in asked)


def _generate(model: Any, prompts: Sequence[Ids], batch: Sequence[Writing]) -> None:
    writer = _Writer(batch)
    ids = torch.tensor([list(prompt) for prompt in prompts], device=model.device)
    config = GenerationConfig(do_sample=False, max_new_tokens=max(w.limit for w in batch), pad_token_id=0)
    # Whatever the config given here leaves open, `generate` takes from the checkpoint's own (penalties, temperature).
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            logits_processor=LogitsProcessorList([writer]),
            stopping_criteria=StoppingCriteriaList([_Done(writer)]),
        )
    finally:
        model.generation_config = own


class _Writer(LogitsProcessor):  # type: ignore[misc]
    """Chooses the tokens as the refilled batch does, and leaves `generate` nothing else to choose."""

    def __init__(self, batch: Sequence[Writing]) -> None:
        self.batch = batch
        self.done = [False] * len(batch)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens, logprobs = choose(scores, [w.draw() for w in self.batch])
        only = torch.full_like(scores, -torch.inf)
        for i, writing in enumerate(self.batch):
            if not self.done[i]:
                self.done[i] = writing.push(tokens[i], logprobs[i])
            only[i, tokens[i]] = 0
        return only


class _Done(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, writer: _Writer) -> None:
        self.writer = writer

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.tensor(self.writer.done, device=input_ids.device)
