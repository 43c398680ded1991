"""What runs inside a trainer's subprocess: the job in, events and checkpoints out. For the worker process.

A worker is started again after every kill and goes on from the last state that it finds (see `train_plugins.saving`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from evalsuite.errors import DataError, EvalsuiteError
from evalsuite.provenance import git_commit
from evalsuite.trainers import DataRef, TrainJob, append_event, parse, read_events, read_job
from evalsuite.trainers.events import Event, cut_torn_line
from evalsuite.trainers.files import load_json
from evalsuite.trainers.runner import EVENTS
from train_plugins.machine import check_machine, device_names, library_versions
from train_plugins.pinning import remove_leftovers
from train_plugins.ranks import Ranks, rank_of_environment
from train_plugins.saving import Point, fault, read_counters, resume_point

WAIVED = "waived:"


class Run:
    """One start of the worker, on one of its processes. Process 0 alone writes events.

    `tokens`, `attempt`, `shuffles`, `metrics` and `extra` (what a trainer counts besides) are those of the step the run
    is at; a state keeps them.
    """

    def __init__(self, job: TrainJob, options: Any, digest: str = "") -> None:
        self.job, self.options, self.out, self.digest = job, options, job.out, digest
        self.ranks = Ranks()
        self.rank, self.processes = self.ranks.rank, self.ranks.processes
        self.commit = git_commit()
        self.versions = library_versions()
        self._warned: set[tuple[str, str]] = set()
        if self.ranks.is_main:
            cut_torn_line(self.out / EVENTS)
            for name in ("state", "checkpoints"):
                remove_leftovers(self.out / name)
        self.ranks.barrier()
        self.events: list[Event] = list(read_events(self.out / EVENTS))
        self.point = resume_point(self.out, self.events)
        self.total_steps = self.steps_per_epoch = 0
        self.take_up(self.point)

    @property
    def is_main(self) -> bool:
        return self.ranks.is_main

    def take_up(self, point: Point | None) -> None:
        """Counts on from a state, or from nothing. After a rollback, its adjustments count too."""
        counted: Mapping[str, Any] = {} if point is None else read_counters(point)
        self.point = point
        self.step_now = int(counted.get("step", 0))
        self.tokens = int(counted.get("tokens", 0))
        self.attempt = point.attempt if point else 0
        self.lr_scale = float(counted.get("lr_scale", 1.0))
        self.shuffles = [(int(step), int(seed)) for step, seed in counted.get("shuffles", [(0, self.job.seed)])]
        self.metrics: dict[str, Any] = dict(counted.get("metrics", {}))
        self.extra: dict[str, Any] = dict(counted.get("extra", {}))
        self._wall_s, self._cpu_s = float(counted.get("wall_s", 0.0)), float(counted.get("cpu_s", 0.0))
        adjust = (point.rollback or {}).get("adjust") or {} if point else {}
        if "seed" in adjust:
            self.shuffles.append((self.step_now, int(adjust["seed"])))
        self.lr_scale *= float(adjust.get("lr_scale", 1.0))
        self.restart_clock()

    def counters(self) -> dict[str, Any]:
        """What `take_up` reads again."""
        wall_s, cpu_s = self.times()
        return {
            "schema": 1, "step": self.step_now, "attempt": self.attempt, "tokens": self.tokens,
            "shuffles": self.shuffles, "lr_scale": self.lr_scale, "metrics": self.metrics, "extra": self.extra,
            "wall_s": wall_s, "cpu_s": cpu_s, "processes": self.processes,
        }  # fmt: skip

    def restart_clock(self) -> None:
        """Training time counts from now on."""
        self._clock, self._cpu_clock = time.monotonic(), time.process_time()
        self._began, self._began_at = self._clock, (self.step_now, self.tokens)

    def pause_clock(self, seconds: float) -> None:
        """Takes time that was spent waiting out of the training time."""
        self._clock += seconds
        self._began += seconds

    def times(self) -> tuple[float, float]:
        """Wall and CPU seconds of training up to now, those of earlier starts on the way here included."""
        wall_s = self._wall_s + time.monotonic() - self._clock
        return round(wall_s, 3), round(self._cpu_s + time.process_time() - self._cpu_clock, 3)

    # -- events --

    def add(self, kind: str, /, **fields: Any) -> None:
        """Appends an event, on process 0; remembers it on all of them."""
        event: Event = {"kind": kind, **fields}
        if self.is_main:
            event = append_event(self.out / EVENTS, kind, **fields)
        self.events.append(event)

    def begin(self) -> None:
        """Writes the `start` event."""
        self.add(
            "start", job=self.digest, processes=self.processes, devices=device_names(), versions=self.versions,
            commit=self.commit, pid=os.getpid(), resumed_from=self.point.name if self.point else None,
            attempt=self.attempt,
        )  # fmt: skip

    def step(self, metrics: Mapping[str, Any]) -> None:
        """Writes a `step` event: what the trainer measured, and tokens, times and progress."""
        wall_s, cpu_s = self.times()
        seconds = max(time.monotonic() - self._began, 1e-9)
        done, tokens = self.step_now - self._began_at[0], self.tokens - self._began_at[1]
        left_s = seconds / max(done, 1) * (self.total_steps - self.step_now)
        self.metrics = dict(metrics)
        self.add(
            "step", step=self.step_now, **metrics, tokens=self.tokens, tokens_per_s=round(tokens / seconds, 1),
            steps=self.total_steps, eta_s=round(left_s, 1), wall_s=wall_s, cpu_s=cpu_s,
        )  # fmt: skip
        fault("step-logged")

    def warn(self, code: str, text: str) -> None:
        """Writes a `warning` event, once for each code and text of this start."""
        if (code, text) not in self._warned:
            self._warned.add((code, text))
            self.add("warning", code=code, text=text)

    def end(self, reason: Literal["finished", "stopped"]) -> None:
        self.add("end", reason=reason, step=self.step_now)

    # -- checkpoints --

    def facts(self) -> dict[str, Any]:
        """What evalsuite.json says of a checkpoint, its digest left out."""
        job = self.job
        start = job.start.digest if job.start else None
        return {
            "schema": 1, "trainer": job.stage, "stage": job.stage, "step": self.step_now, "steps": self.total_steps,
            "attempt": self.attempt, "start": start, "parent": start, "data": [_told(ref) for ref in job.data],
            "decontamination_waived": "; ".join(dict.fromkeys(filter(None, map(_waiver, job.data)))) or None,
            "tokens": self.tokens, "seed": job.seed, "job": self.digest, "commit": self.commit,
            "versions": self.versions, "processes": self.processes, "metrics": self.metrics,
        }  # fmt: skip


def main(config: type[Any], work: Callable[[Run], None], arguments: list[str] | None = None) -> int:
    """`python -m … --job FILE`: calls `work` with the run. Returns 0, or the error's exit code with one line on stderr;
    bugs raise."""
    # TRL reports every trainer that is made to its makers unless told not to.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    parser = argparse.ArgumentParser(description="Trains one stage; started by evalsuite loop and evalsuite train.")
    parser.add_argument("--job", type=Path, required=True, help="<out>/job.json")
    file: Path = parser.parse_args(arguments).job
    try:
        job = read_job(file)
        options = parse(config, job.options, "options")
        check_machine(options, job)
        if options.threads is not None:
            import torch

            torch.set_num_threads(options.threads)
        run = Run(job, options, str((load_json(file) or {}).get("digest", "")))
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(run.out / "tensorboard"))  # read when a trainer is made
        run.begin()
        work(run)
    except EvalsuiteError as error:
        _note_failure(file.parent, why=str(error), exit_code=error.exit_code)
        print(" ".join(str(error).split()) if "\n" not in str(error) else error, file=sys.stderr)
        return error.exit_code
    except Exception as error:
        _note_failure(file.parent, error=f"{type(error).__name__}: {error}")
        raise
    return 0


def load_rows(run: Run, kind: Literal["sft", "preference", "rlvr"], *, labels: bool = True) -> list[dict[str, Any]]:
    """The canonical rows of all data of the job, in order. Raises DataError for a file that is not the job's.

    `labels` False: the caller checks which verifiers rows name, and their labels.
    """
    from train_plugins.data.rows import read_meta, read_rows, rules_of

    rows: list[dict[str, Any]] = []
    for ref in run.job.data:
        path = Path(ref.location or ref.path)
        check_data(ref, path)
        rows += read_rows(path, kind, replace(rules_of(read_meta(path)), labels=labels))
    if not rows:
        raise DataError(f"the job names no training data; give the stage data: with {kind} rows")
    return rows


def check_data(ref: DataRef, path: Path) -> None:
    """Raises DataError unless the file is there and is what the job was made for."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: training data cannot be read ({error.strerror}); put it back") from error
    if ref.digest and digest != ref.digest:
        raise DataError(
            f"{path}: its content is {digest[:12]}, the job was made for {ref.digest[:12]}; put the file back, or use "
            "another --out"
        )


def _told(ref: DataRef) -> dict[str, Any]:
    told = {"path": ref.path, "digest": ref.digest, "rows": ref.rows, "licence": ref.licence}
    return {**told, "decontamination": ref.decontamination}


def _waiver(ref: DataRef) -> str:
    """Why a data set was not decontaminated; empty where it was not waived."""
    if not ref.decontamination.startswith(WAIVED):
        return ""
    return ref.decontamination.removeprefix(WAIVED).strip() or "no reason given"


def _note_failure(out: Path, **what: str | int) -> None:
    """An `end` event: `why` and `exit_code` for what a user can fix, since a launcher of several processes hides the
    latter, `error` for a bug."""
    if rank_of_environment() == 0 and out.is_dir():
        cut_torn_line(out / EVENTS)
        append_event(out / EVENTS, "end", reason="failed", **what)
