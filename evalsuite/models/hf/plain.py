"""Log-likelihoods the plain way, every sequence on its own: the oracle, the sentinel and the fallback of sharing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch

from evalsuite.models.hf.trie import Line, unpack

Values = tuple[Line, list[float], list[bool]]


@torch.inference_mode()
def plain_values(
    model: Any, lines: Sequence[Line], wanted: Collection[int] | None = None, batch_tokens: int = 1024
) -> Iterator[Values]:
    """Each line with the log-probability of every target (float32) and whether it is the model's first choice.

    Lines that feed the same tokens share one row (one-token options of one context). Rows are right-padded without a
    mask, which causal and recurrent models do not notice. A batch is computed whole when it holds a wanted document.
    """
    rows: dict[bytes, list[Line]] = {}
    for line in lines:
        rows.setdefault(line.fed, []).append(line)
    for batch in _batches(sorted(rows, key=len, reverse=True), batch_tokens):
        members = [rows[fed] for fed in batch]
        if wanted is not None and all(line.doc not in wanted for row in members for line in row):
            continue
        ids = torch.zeros((len(batch), len(batch[0]) // 4), dtype=torch.long)
        for b, fed in enumerate(batch):
            ids[b, : len(fed) // 4] = torch.from_numpy(unpack(fed))
        logits = model(input_ids=ids.to(model.device), use_cache=False).logits
        for b, row in enumerate(members):
            for line in row:
                # The logits of a row predict the next token.
                last = logits[b, line.first : line.n_fed].float()
                targets = torch.tensor(line.targets, device=last.device)
                chosen = last.log_softmax(-1).gather(1, targets[:, None])[:, 0]
                yield line, chosen.tolist(), (last.argmax(-1) == targets).tolist()


def _batches(ordered: Sequence[bytes], batch_tokens: int) -> Iterator[Sequence[bytes]]:
    """Sequences, longest first, in groups of at most 32 rows and `batch_tokens` padded tokens."""
    start = 0
    while start < len(ordered):
        stop = start + max(1, min(32, 4 * batch_tokens // len(ordered[start])))
        yield ordered[start:stop]
        start = stop
