"""Every rollout of a run, a line each, for people and for what comes after: `<out>/rollouts.jsonl`.

A state remembers how long the file was: a run that goes on from it cuts off what a kill left behind, and writes the
same rollouts again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from train_plugins.rlvr.rollouts import Batch, Rollout

NAME = "rollouts.jsonl"
N_SAMPLES = 8


class RolloutJournal:
    """The file of a run, on its main process. `samples` keeps the first rollouts of each iteration only."""

    def __init__(self, out: Path, keep: Literal["all", "samples", "off"], length: int | None) -> None:
        self.path, self.keep = out / NAME, keep
        self._file: Any = None
        if keep == "off":
            return
        self._file = self.path.open("ab")
        if length is not None and length < self._file.tell():
            self._file.truncate(length)

    def add(self, batch: Batch, attempt: int) -> None:
        if self._file is None:
            return
        rollouts = batch.rollouts if self.keep == "all" else batch.rollouts[:N_SAMPLES]
        lines = [_line(batch, rollout, attempt) for rollout in rollouts]
        self._file.write("".join(lines).encode("utf-8", "surrogatepass"))

    def sync(self) -> int:
        """Makes it durable; returns its length in bytes."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return int(self._file.tell())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _line(batch: Batch, rollout: Rollout, attempt: int) -> str:
    prompt, response = rollout.prompt, rollout.response
    told = {
        "iteration": batch.iteration, "version": batch.version, "attempt": attempt, "id": prompt.id,
        "dataset": prompt.dataset, "sample": rollout.sample, "text": rollout.text, "finished": response.finished,
        "n_tokens": len(response.ids), "score": rollout.score, "verified": dict(rollout.reward.values),
    }  # fmt: skip
    if rollout.reward.why:
        told["why"] = rollout.reward.why
    return json.dumps(told, ensure_ascii=False) + "\n"
