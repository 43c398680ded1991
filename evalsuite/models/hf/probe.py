"""Chooses how much a model's forwards may share, by trying each level against the plain computation on a small tree."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from evalsuite.models.hf.cache import TreeMasks, Unsupported
from evalsuite.models.hf.head import Head
from evalsuite.models.hf.plain import plain_values
from evalsuite.models.hf.plan import Limits, make_plan
from evalsuite.models.hf.tree import CopyForward, Forward, KeptStore, TreeForward, TreeScorer
from evalsuite.models.hf.trie import Line, pack

Level = Literal["tree", "prefix-copy", "plain"]

SHARING: tuple[Level, ...] = ("tree", "prefix-copy")
TOLERANCE = 1e-4  # of one token's log-probability, float32
TOLERANCE_HALF = 0.05  # bfloat16 and float16
CROSSED_WINDOW = 256  # windows up to this size are crossed by the probe; longer ones are the sentinel's


@dataclass(frozen=True, slots=True)
class Choice:
    """The level that passed, what runs it (None: plain), and for each level above why it did not pass."""

    level: Level
    forward: Forward | None
    why_not: dict[str, str]


def choose_level(model: Any) -> Choice:
    """The first of tree and prefix-copy that agrees with plain on three documents of three options behind a prefix."""
    why_not: dict[str, str] = {}
    for level in SHARING:
        try:
            forward = _forward(level, model)
            difference = _difference(forward, level)
        except Unsupported as error:
            why_not[level] = str(error)
            continue
        except Exception as error:  # a family that cannot be called this way fails in its own way
            why_not[level] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        if agrees(model, difference):
            return Choice(level, forward, why_not)
        why_not[level] = f"differs from plain by {difference:.2g} per token"
    return Choice("plain", None, why_not)


def level_limits(limits: Limits, level: Level) -> Limits:
    """The limits as a level needs them."""
    if level == "tree":
        return limits
    # The convolutions of recurrent layers lose their past when they go on with fewer tokens than their kernel is long.
    return replace(limits, branching=False, min_stretch=max(16, limits.min_stretch))


def agrees(model: Any, difference: float, noise: float = 0.0) -> bool:
    """Whether a per-token difference is rounding. `noise` is how far two plain computations differ among themselves."""
    bound = TOLERANCE if model.dtype in (torch.float32, torch.float64) else TOLERANCE_HALF
    return difference <= max(bound, 3 * noise)  # false for NaN


def plain_noise(model: Any, lines: Sequence[Line]) -> float:
    """How far the plain computation moves when its batch has another shape (0 in float32, where it hardly does)."""
    if model.dtype in (torch.float32, torch.float64):
        return 0.0
    longer = [replace(line, doc=-1, fed=line.fed + pack([0])) for line in lines]
    together = dict(_flat(plain_values(model, [*lines, *longer])))
    alone = {key: value for line in lines for key, value in _flat(plain_values(model, [line]))}
    return max(abs(alone[key] - together[key]) for key in alone)


def most_different(plain: dict[tuple[int, int], float], ours: dict[tuple[int, int], float]) -> float:
    """The largest difference over the plain values, by (document, slot). Two NaN in one place are no difference."""
    differences = [0.0 if a != a and ours[key] != ours[key] else abs(a - ours[key]) for key, a in plain.items()]
    return max(differences) if all(d == d for d in differences) else float("nan")


def probe_lines(model: Any) -> list[Line]:
    """Three documents of three options of 1 to 4 tokens behind a common prefix; drawn once and for all."""
    config = model.config.get_text_config(decoder=True)
    n_vocabulary = int(model.get_input_embeddings().weight.shape[0])
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None) or 0
    n_prefix = window + 8 if 16 < window <= CROSSED_WINDOW else 24
    draw = random.Random(5)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(n_vocabulary // 8, n_vocabulary) for _ in range(n))

    prefix = tokens(n_prefix)
    lines = []
    for doc, lengths in enumerate(((1, 3, 4), (2, 2, 4), (1, 1, 3))):
        context, first, slot = prefix + tokens(5 + 2 * doc), tokens(1), 0
        for length in lengths:
            option = first + tokens(length - 1) if length > 1 else tokens(1)
            lines.append(Line(doc, slot, pack(context + option[:-1]), option))
            slot += length
    return lines


def _forward(level: Level, model: Any) -> Forward:
    head = Head(model)
    return TreeForward(head, TreeMasks.of(model)) if level == "tree" else CopyForward(head)


def _difference(forward: Forward, level: Level) -> float:
    """How far a level is from plain on the probe, with every document in one row and with one per row."""
    model = forward.head.model
    lines = probe_lines(model)
    plain = dict(_flat(plain_values(model, lines)))
    worst = 0.0
    for fill_to in (256, 1):
        limits = level_limits(Limits(min_saving=1, fill_to=(fill_to,)), level)
        scorer = TreeScorer(forward, KeptStore(0))
        ours = {
            (found.doc, slot): value
            for found in scorer.score(make_plan(lines, limits), range(3))
            for slot, value in enumerate(found.values)
        }
        worst = max(worst, most_different(plain, ours))
    return worst


def _flat(values: Iterator[tuple[Line, list[float], list[bool]]]) -> Iterator[tuple[tuple[int, int], float]]:
    for line, numbers, _ in values:
        for offset, number in enumerate(numbers):
            yield (line.doc, line.slot + offset), number
