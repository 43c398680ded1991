"""Static batches through `model.generate`, for models whose state cannot live in slots: recurrent, hybrid, ALiBi."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from evalsuite.models.encoding import Encoder
from evalsuite.models.hf_prefix import Ids
from evalsuite.models.hf_response import Writing
from evalsuite.models.hf_sample import choose


def static_batches(
    model: Any,
    encoder: Encoder,
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


class _Writer(LogitsProcessor, StoppingCriteria):  # type: ignore[misc]
    """Chooses the tokens itself and tells `generate` about it: the same draws and stops as in the refilled batch."""

    def __init__(self, writings: Sequence[Writing]) -> None:
        self.writings = writings
        self.done = [False] * len(writings)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        if isinstance(scores, Tensor) and scores.shape[0] == len(self.writings) and "is_criterion" not in kwargs:
            pass
        raise NotImplementedError
