"""Random benchmarks as token ids: nested prefixes, equal contexts, options that equal or extend each other."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from evalsuite.models.encoding import EncodedDoc
from evalsuite.models.hf.plain import plain_values
from evalsuite.models.hf.plan import Limits, make_plan
from evalsuite.models.hf.trie import Line, pack

Numbers = dict[tuple[int, int], tuple[float, bool]]
"""Log-probability and greedy flag by (document, place)."""


def random_docs(seed: int, vocabulary: int, longest: int = 40) -> list[EncodedDoc]:
    """1 to 12 documents below a prefix tree of depth at most 4, with 1 to 6 options of 1 to 9 tokens each."""
    draw = random.Random(seed)

    def tokens(most: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, vocabulary) for _ in range(draw.randint(1, most)))

    stems: list[tuple[int, ...]] = [()]
    for _ in range(draw.randint(0, 3)):
        stems.append(draw.choice(stems) + tokens(longest))
    docs: list[EncodedDoc] = []
    for _ in range(draw.randint(1, 12)):
        context = docs[-1].context_ids if docs and draw.random() < 0.15 else draw.choice(stems) + tokens(12)
        common = tokens(2) if draw.random() < 0.3 else ()
        options = [common + tokens(9 - len(common))]
        for _ in range(draw.randint(0, 5)):
            kind = draw.random()
            if kind < 0.15:
                options.append(draw.choice(options))
            elif kind < 0.3:
                options.append((draw.choice(options) + tokens(3))[:9])
            elif kind < 0.6:
                options.append(common + tokens(1))
            else:
                options.append(common + tokens(9 - len(common)))
        docs.append(EncodedDoc(context, tuple(options)))
    return docs


def lines_of(docs: Sequence[EncodedDoc]) -> list[Line]:
    lines = []
    for index, doc in enumerate(docs):
        slot = 0
        for option in doc.option_ids:
            lines.append(Line(index, slot, pack(doc.context_ids + option[:-1]), option))
            slot += len(option)
    return lines


def random_limits(seed: int) -> Limits:
    """Batches of one row to all rows, packed and not, with room for every stretch or for none."""
    draw = random.Random(seed)
    return Limits(
        batch_tokens=draw.choice([1, 64, 200, 1024]),
        max_rows=draw.choice([1, 3, 32]),
        row_tokens=draw.choice([8, 30, 1024]),
        fill_to=draw.choice([(1,), (40,), (16, 64, 256)]),
        min_saving=draw.choice([1, 16, 64, 10**9]),
        path_tokens=draw.choice([0, 25, 10**9]),
    )


def oracle(model: Any, lines: Sequence[Line]) -> Numbers:
    """Every line computed plainly."""
    return {
        (line.doc, line.slot + offset): number
        for line, values, greedy in plain_values(model, lines, None, 4096)
        for offset, number in enumerate(zip(values, greedy, strict=True))
    }


def scored(scorer: Any, lines: Sequence[Line], limits: Limits, wanted: Any = None) -> Numbers:
    """The same by a scorer's plan."""
    plan = make_plan(lines, limits)
    found = scorer.score(plan, {line.doc for line in lines} if wanted is None else wanted)
    return {
        (doc.doc, slot): number for doc in found for slot, number in enumerate(zip(doc.values, doc.greedy, strict=True))
    }


def worst(
    ours: Mapping[tuple[int, int], tuple[float, bool]], theirs: Mapping[tuple[int, int], tuple[float, bool]]
) -> float:
    """The largest difference of a log-probability; the same places must be there."""
    assert ours.keys() == theirs.keys()
    return max(abs(ours[key][0] - theirs[key][0]) for key in theirs)
