"""The next token from logits: greedy, or drawn with a random number that depends on the request and the step alone."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from evalsuite.types import Sampling

BROKEN = -1
"""Stands for a token when the logits of a row are NaN or infinite."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row of logits is turned into a token: the settings of its request, and its how-manieth token it is."""

    sampling: Sampling
    step: int
    want_logprob: bool


def choose(logits_NV: Tensor, draws: Sequence[Draw]) -> tuple[list[int], list[float | None]]:
    """The next token of every row (`BROKEN` where the logits are no numbers), and its log-probability where wanted.

    The log-probability is the model's own, before temperature and cuts, in float32.
    """
    best, greedy = logits_NV.max(-1)  # a NaN is the largest of all
    tokens: list[int] = greedy.where(best.isfinite(), BROKEN).tolist()
    logprobs: list[float | None] = [None] * len(draws)
    for i, draw in enumerate(draws):
        if tokens[i] == BROKEN:
            continue
        if draw.sampling.temperature > 0:
            tokens[i] = sample(logits_NV[i], draw.sampling, uniform(draw.sampling.seed, draw.step))
        if draw.want_logprob:
            row = logits_NV[i].float()
            logprobs[i] = float(row[tokens[i]] - row.logsumexp(-1))
    return tokens, logprobs


def uniform(seed: int, step: int) -> float:
    """A number in [0, 1) that depends on nothing but these two: a resumed run draws what an uninterrupted one did."""
    digest = blake2b(struct.pack("<QQ", seed & (1 << 64) - 1, step), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64 if digest != b"\xff" * 8 else 0.0


def sample(logits_V: Tensor, sampling: Sampling, u: float) -> int:
    """The token at which the cumulated probability passes `u`, after temperature, top-k, top-p and min-p in this order.

    Tokens are cumulated in descending order of probability (ties by id) when one of the cuts needs that order, else by
    id.
    """
    logits = logits_V.float() / sampling.temperature
    ids: Tensor | None = None
    if sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0:
        logits, ids = torch.sort(logits, descending=True, stable=True)
        if sampling.top_k > 0:
            logits, ids = logits[: sampling.top_k], ids[: sampling.top_k]
    # Float64: a cumulated sum over a large vocabulary must not lose its last digits.
    probs = torch.softmax(logits.double(), -1)
    if sampling.top_p < 1:
        keep = int((probs.cumsum(-1) - probs < sampling.top_p).sum())
        probs = probs[: max(keep, 1)]
    if sampling.min_p > 0:
        probs = probs[: max(int((probs >= sampling.min_p * probs[0]).sum()), 1)]
    total = probs.cumsum(-1)
    place = int(torch.searchsorted(total, u * total[-1], right=True).clamp_(max=len(total) - 1))
    return place if ids is None else int(ids[place])
