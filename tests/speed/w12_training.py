"""W12: training on one thread: packed fine-tuning and shared-prompt DPO against TRL's padding, DPO with a warm cache.

Both sides train the tiny model of 866,176 parameters on the same rows in the same order for as many steps; the note of
a row says how far their losses lie apart. Ours runs with its defaults: passes of 8 pairs of like length, rows of 256
tokens. Sides take turns; the median and the range of the repeats are given.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.speed.idle import idle
from tests.speed.training_sides import Measured, ours, trl_dpo, trl_sft, write_rows
from train_plugins.settings import DPOOptions, SFTOptions
from train_plugins.tiny import write_tiny

REPEATS = 5
LETTERS, DIGITS = "abcdef ", "0123456789"

PEER = "TRL 1.16, padded rows, whole batch in one pass"

Side = Callable[[Path], Measured]  # a run in a new folder
Sides = tuple[list[Measured], list[Measured]]


def run(scale: float = 1.0) -> list[dict[str, Any]]:
    """The rows of results/SPEED.md. Raises RuntimeError when the machine is too busy for a full measurement."""
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["EVALSUITE_REF_LOGPROBS"] = str(root / "references")
        start = write_tiny(root / "model")
        return [_sft(root, start, scale), *_cache(root, start, scale), *_shared(root, start, scale)]


def _sft(root: Path, start: Path, scale: float) -> dict[str, Any]:
    rows = chats(max(32, round(256 * scale)))
    data = write_rows(root / "chats.jsonl", rows)
    options = SFTOptions(lr=1e-3, epochs=1, batch=16, max_length=256, weight_decay=0.0, dtype="float32")
    mine, theirs = partial(ours, "sft", start, data, options), partial(trl_sft, start, rows, options)
    sides = _alternate(root / "sft", scale, mine, theirs)
    tokens = sides[0][0].tokens
    rates = [f"{tokens / statistics.median(m.cpu_s for m in side):,.0f}" for side in sides]
    note = f"{len(rows)} chats, {tokens:,} tokens, {rates[0]} against {rates[1]} real tokens per CPU-second"
    return _row("W12a fine-tuning, exact packing", PEER, 1.4, sides, note)


def _cache(root: Path, start: Path, scale: float) -> list[dict[str, Any]]:
    """Our padded layout with reference log-probabilities from the cache, against itself and TRL computing them."""
    rows = pairs(max(32, round(160 * scale)), 20, 60)
    data = write_rows(root / "cache.jsonl", rows)
    warm, plain = (
        partial(ours, "dpo", start, data, _dpo(layout="padded", reference_cache=cached)) for cached in (True, False)
    )
    sides = _alternate(root / "cache", scale, warm, plain)  # the run that is not counted fills the cache
    asked = partial(trl_dpo, start, rows, _dpo(), known=False)
    against_trl = _alternate(root / "asked", scale, warm, asked)
    name = "W12b DPO with a warm reference cache"
    return [
        _row(name, "the same without a cache", 1.35, sides, "2 epochs"),
        _row(f"{name}, padded", "TRL 1.16, padded, reference computed as it goes", 1.35, against_trl, "2 epochs"),
    ]


def _shared(root: Path, start: Path, scale: float) -> list[dict[str, Any]]:
    found = []
    for name, (least, most), goal in (("short", (20, 60), 1.4), ("long", (150, 250), 1.6)):
        rows = pairs(max(32, round(160 * scale)), least, most)
        data, options = write_rows(root / f"{name}.jsonl", rows), _dpo()
        mine, theirs = partial(ours, "dpo", start, data, options), partial(trl_dpo, start, rows, options)
        sides = _alternate(root / name, scale, mine, theirs)
        note = f"{len(rows)} pairs, prompts of {least}-{most} characters, 2 epochs, reference known on both sides"
        found.append(_row(f"W12{'cd'[len(found)]} DPO, shared prompt, {name}", PEER, goal, sides, note))
    return found


def _dpo(**more: Any) -> DPOOptions:
    return DPOOptions(
        lr=1e-4, epochs=2, batch=16, max_length=512, weight_decay=0.0, dtype="float32", beta=5.0, **more
    )  # fmt: skip


def chats(n: int) -> list[dict[str, Any]]:
    """Questions of letters and answers of digits whose lengths are log-normal (spec/training.md, section 14)."""
    draw = random.Random(0)
    rows = []
    for i in range(n):
        size = min(max(int(draw.lognormvariate(3.4, 0.8)), 4), 240)
        asked = _word(draw, max(2, size // 3), LETTERS)
        rows.append({"id": f"{i}", "source": "w12", "messages": _turns(asked, _word(draw, size, DIGITS + " "))})
    return rows


def pairs(n: int, least: int, most: int) -> list[dict[str, Any]]:
    """Prompts of `least` to `most` characters with two different answers of 20 to 80 digits."""
    draw = random.Random(0)
    rows = []
    for i in range(n):
        asked = _word(draw, draw.randint(least, most), LETTERS)
        one, other = (_word(draw, draw.randint(20, 80), DIGITS) for _ in range(2))
        rows.append({"id": f"{i}", "source": "w12", "chosen": _turns(asked, one), "rejected": _turns(asked, other)})
    return rows


def _turns(asked: str, said: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]


def _word(draw: random.Random, size: int, alphabet: str) -> str:
    """Characters that do not begin or end with a space and are not blank, which data checks refuse."""
    text = "".join(draw.choices(alphabet, k=size)).strip()
    return text.ljust(size, alphabet[0])


def _alternate(root: Path, scale: float, mine: Side, theirs: Side) -> Sides:
    """What both sides measured, in turns, after one run of each that is not counted (allocator, caches, imports)."""
    sides: Sides = ([], [])
    for repeat in range(-1, max(1, round(REPEATS * scale))):
        for side, (name, call) in enumerate((("ours", mine), ("theirs", theirs))):
            with idle(strict=scale >= 1):
                measured = call(root / f"{name}-{repeat}")
            if repeat >= 0:
                sides[side].append(measured)
    return sides


def _row(name: str, peer: str, goal: float, sides: Sides, note: str) -> dict[str, Any]:
    mine, theirs = ([m.cpu_s for m in side] for side in sides)
    far = max(abs(a - b) for a, b in zip(sides[0][0].losses, sides[1][0].losses, strict=True))
    spans = [f"{min(side):.2f}-{max(side):.2f}" for side in (mine, theirs)]
    return {
        "name": name, "peer": peer, "unit": "CPU-seconds", "goal": goal, "command": "make bench",
        "ours": round(statistics.median(mine), 2), "theirs": round(statistics.median(theirs), 2),
        "ratio": round(statistics.median(theirs) / statistics.median(mine), 2),
        "note": f"{note}; {len(mine)} repeats, {spans[0]} against {spans[1]}",
        "equality": f"losses of {len(sides[0][0].losses)} steps apart by at most {far:.1g}",
    }  # fmt: skip
