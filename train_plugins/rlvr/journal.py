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

    def __init__(self, out: Path, keep: Literal["all", "samples", "off"], length: int | None, attempt: int) -> None:
        """Goes on after `length` bytes; None, after a rollback: after the last line of an earlier attempt."""
        self.path, self.keep = out / NAME, keep
        self._file: Any = None
        if keep == "off":
            return
        self._file = self.path.open("ab")
        if length is None:
            length = _length_before(self.path, attempt)
        if length < self._file.tell():
            self._file.truncate(length)
            self._file.seek(0, os.SEEK_END)

    def add(self, batch: Batch, attempt: int) -> None:
        if self._file is None:
            return
        rollouts = batch.rollouts if self.keep == "all" else batch.rollouts[:N_SAMPLES]
        lines = [_line(batch, rollout, attempt) for rollout in rollouts]
        self._file.write("".join(lines).encode("utf-8", "surrogatepass"))
        self._file.flush()  # what a kill must not take; a power cut may

    def sync(self) -> int:
        """Makes it durable; returns its length in bytes."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return int(self._file.tell())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _length_before(path: Path, attempt: int) -> int:
    """Bytes of the whole lines of earlier attempts: they come first."""
    length = 0
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n") or json.loads(line)["attempt"] >= attempt:
                break
            length += len(line)
    return length


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
