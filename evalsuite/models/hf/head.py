"""From hidden states to log-probabilities, only at the rows that are asked for and in float32."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

CHUNK_ROWS = 512  # rows whose logits exist at one time

Finish = Callable[[Tensor], Tensor]


class Head:
    """Runs a model on a batch and returns log-probabilities of chosen tokens at chosen rows.

    `mode` "direct" applies the output layer to the wanted hidden states itself (with the family's scaling, if the
    config names one); "hooked" runs the whole model and lets a hook pick the wanted rows in front of the output
    layer, which is right for every family whose post-processing works row by row.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.body = model.base_model
        self.out = model.get_output_embeddings()
        self.finish = _finish_of(model.config.get_text_config(decoder=True))
        self.takes = frozenset(inspect.signature(self.body.forward).parameters)
        self.mode = "direct" if self.out is not None and self._is_direct() else "hooked"

    def run(self, inputs: Mapping[str, Any]) -> None:
        """The forward for its effect on the cache; no logits."""
        self.body(**inputs)

    def logits(self, inputs: Mapping[str, Any], rows: Sequence[int], columns: Sequence[int]) -> Iterator[Tensor]:
        """Float32 logits (≤ 512, V) of the wanted places, chunk by chunk."""
        b = torch.tensor(rows, device=self.model.device)
        t = torch.tensor(columns, device=self.model.device)
        if self.mode == "direct":
            hidden = self.body(**inputs).last_hidden_state[b, t]
            for chunk in torch.split(hidden, CHUNK_ROWS):
                yield self.finish(self.out(chunk)).float()
            return
        for chunk in torch.split(self._hooked(inputs, b, t), CHUNK_ROWS):
            yield chunk.float()

    def _hooked(self, inputs: Mapping[str, Any], b: Tensor, t: Tensor) -> Tensor:
        def pick(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (args[0][b, t][None], *args[1:])

        handle = self.out.register_forward_pre_hook(pick)
        try:
            return self.model(**inputs).logits[0]  # type: ignore[no-any-return]
        finally:
            handle.remove()

    @torch.inference_mode()
    def _is_direct(self) -> bool:
        """Whether output layer and known scaling reproduce the model's own logits on 32 tokens, bit for bit."""
        n = int(self.model.get_input_embeddings().weight.shape[0])
        ids = torch.arange(32, device=self.model.device)[None] * 7919 % n
        try:
            whole = self.model(input_ids=ids, use_cache=False).logits[0].float()
            mine = self.finish(self.out(self.body(input_ids=ids, use_cache=False).last_hidden_state[0])).float()
        except (TypeError, AttributeError, RuntimeError, ValueError):
            return False
        return mine.shape == whole.shape and bool(torch.allclose(mine, whole, rtol=0, atol=1e-6))


def token_values(
    chunks: Iterator[Tensor], places: Sequence[int], tokens: Sequence[int]
) -> tuple[list[float], list[bool]]:
    """Log-probability of `tokens[i]` at place `places[i]` and whether it is the most likely one; places ascend."""
    values: list[float] = []
    greedy: list[bool] = []
    start = 0
    done = 0
    for logits in chunks:
        stop = start + len(logits)
        last = done
        while last < len(places) and places[last] < stop:
            last += 1
        place = torch.tensor(places[done:last], device=logits.device) - start
        token = torch.tensor(tokens[done:last], device=logits.device)
        chosen = logits[place, token] - logits.logsumexp(-1)[place]
        values += chosen.tolist()
        greedy += (logits.argmax(-1)[place] == token).tolist()
        start, done = stop, last
    return values, greedy


def _finish_of(config: Any) -> Finish:
    """What a family does to its logits after the output layer, as far as its config names it."""
    cap = getattr(config, "final_logit_softcapping", None)
    scale = getattr(config, "logit_scale", None)
    divisor = getattr(config, "logits_scaling", None)

    def finish(logits: Tensor) -> Tensor:
        if scale is not None:
            logits = logits * scale
        if divisor is not None:
            logits = logits / divisor
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits

    return finish
