"""Every rollout of a run, a line each, for people and for what comes after: `<out>/rollouts.jsonl`.

The line of a prompt's first sample carries the prompt (`messages`) and its `ground_truth`. `advantage` is what the loss
weighed a response's tokens by, their mean.

A state remembers how long the file was: a run that goes on from it cuts off what a kill left behind, and writes the
same rollouts again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from evalsuite.trainers.events import cut_torn_line
from train_plugins.rlvr.rollouts import Batch, Rollout

NAME = "rollouts.jsonl"
N_SAMPLES = 8


class RolloutJournal:
    """The file of a run, on its main process. `samples` keeps the first rollouts of each iteration only."""

    def __init__(self, out: Path, keep: Literal["all", "samples", "off"], length: int | None, attempt: int) -> None:
        """Goes on after `length` bytes; None, after a rollback: after the last line of an earlier attempt.

        `lost` is how many bytes somebody else took away since; a line that they left torn is cut off.
        """
        self.path, self.keep = out / NAME, keep
        self._file: Any = None
        self.lost = 0
        if keep == "off":
            return
        self._file = self.path.open("ab")
        if length is None:
            length = _length_before(self.path, attempt)
        if length < self._file.tell():
            self._file.truncate(length)
            self._file.seek(0, os.SEEK_END)
        elif self._file.tell() < length:
            self.lost = length - self._file.tell()
            cut_torn_line(self.path)
            self._file.seek(0, os.SEEK_END)

    def add(self, batch: Batch, attempt: int, advantages: Sequence[float]) -> None:
        """`advantages` of the rollouts in their order."""
        if self._file is None:
            return
        kept = list(zip(batch.rollouts, advantages, strict=True))[: None if self.keep == "all" else N_SAMPLES]
        lines = [_line(batch, rollout, attempt, advantage) for rollout, advantage in kept]
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
            if not line.endswith(b"\n") or _attempt_of(line) >= attempt:
                break
            length += len(line)
    return length


def _attempt_of(line: bytes) -> int:
    """-1 for a line that somebody else damaged: it stays where it is."""
    try:
        return int(json.loads(line)["attempt"])
    except (ValueError, TypeError, KeyError):
        return -1


def _line(batch: Batch, rollout: Rollout, attempt: int, advantage: float) -> str:
    prompt, response = rollout.prompt, rollout.response
    told = {
        "iteration": batch.iteration, "version": batch.version, "attempt": attempt, "id": prompt.id,
        "dataset": prompt.dataset, "sample": rollout.sample, "text": rollout.text, "finished": response.finished,
        "n_tokens": len(response.ids), "score": rollout.score, "verified": dict(rollout.reward.values),
        "advantage": float(f"{advantage:.6g}"),
    }  # fmt: skip
    if rollout.reward.why:
        told["why"] = rollout.reward.why
    if rollout.sample == 0:  # once, as labels of code are long and there are many samples
        told |= {"messages": prompt.row.get("messages"), "ground_truth": prompt.label}
    return json.dumps(told, ensure_ascii=False) + "\n"
