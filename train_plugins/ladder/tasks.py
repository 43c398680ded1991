"""Rows for training on the tasks of the demo ladder, drawn from a seed. Light: no torch.

The benchmarks draw their test rows with the same functions, but a question whose hash holds it out never comes here,
so training shares no question with any test set, whatever the seed. Of `format` nothing is drawn that `ladder_unseen`
asks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any

from evalsuite.benchmark import find_benchmark
from evalsuite.verify.drawn import Row, held_out

# Share of each benchmark among the rows. The longer answers of the last two take a model longer to learn.
SHARES = {"ladder_reverse": 1, "ladder_sort": 1, "ladder_copy": 2, "ladder_format": 2}
TASKS = tuple(SHARES)


def sft_rows(n: int, seed: int, tasks: Sequence[str] = TASKS) -> list[dict[str, Any]]:
    """`n` canonical rows, each a question and its right answer, tasks mixed by their shares.

    A short question may come more than once. The first rows of a longer draw are the same.
    """
    return [
        {"id": id, "source": task, "messages": [_said("user", row["question"]), _said("assistant", row["answer"])]}
        for id, task, row in islice(_draws("sft", seed, tasks), n)
    ]


def rlvr_rows(n: int, seed: int, tasks: Sequence[str] = TASKS) -> list[dict[str, Any]]:
    """`n` canonical rows, each a question, the right answer as `ground_truth`, and the benchmark that verifies
    responses as `dataset`. They are drawn apart from the rows of `sft_rows` with the same seed."""
    return [
        {"id": id, "source": task, "messages": [_said("user", row["question"])], "ground_truth": row["answer"],
         "dataset": task}
        for id, task, row in islice(_draws("rlvr", seed, tasks), n)
    ]  # fmt: skip


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _draws(purpose: str, seed: int, tasks: Sequence[str]) -> Iterator[tuple[str, str, Row]]:
    """Endless (id, benchmark, row); no question is held out. Raises KeyError for a task that is not trained."""
    rng = random.Random(f"{purpose}:{seed}")
    shares = [SHARES[task] for task in tasks]
    number = 0
    while True:
        task = rng.choices(tasks, shares)[0]
        row = _module(task).draw(rng)
        if not held_out(row["question"]):
            yield f"{purpose}-{seed}-{number}", task, row
            number += 1


@cache
def _module(task: str) -> Any:
    return find_benchmark(task).module
