"""Runs a trainer's subprocess and yields the checkpoints that it reports in <out>/events.jsonl."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evalsuite.errors import TrainerFailed
from evalsuite.trainers import process
from evalsuite.trainers.control import Control, read_control, write_control
from evalsuite.trainers.events import Event, EventReader, cut_torn_line, read_events
from evalsuite.trainers.job import write_job
from evalsuite.trainers.recipes import find_launch
from evalsuite.trainers.types import TrainJob

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint

EVENTS = "events.jsonl"


def worker_command(module: str, job: TrainJob) -> list[str]:
    """`python -m module --job …`, below torchrun for several processes, below `accelerate launch` with a config.

    Without a config `accelerate launch` would take the user's own, and on a CPU start one process whatever is asked.
    """
    worker = ["-m", module, "--job", str(job.out / "job.json")]
    if job.launch.config is None and job.launch.processes == 1:
        return [sys.executable, *worker]
    if job.launch.config is None:
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(job.launch.processes)]
    else:
        config = str(find_launch(job.launch.config))
        launcher = ["accelerate.commands.launch", "--config_file", config, "--num_processes", str(job.launch.processes)]
    return [sys.executable, "-m", *launcher, *worker]


def run_worker(
    job: TrainJob,
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    grace_s: float = 60.0,
    poll_s: float = 0.2,
) -> Iterator[Checkpoint]:
    """Every checkpoint of the run in the order of its events, those of earlier starts first.

    A worker that a killed loop left running is followed, one that has finished is not started again, any other is
    started (and resumes by itself). Raises TrainerFailed when it ends without an `end` event or with an error. Closing
    the iterator writes `stop` to the control file, waits `grace_s`, then ends the worker's process group.
    """
    write_job(job)
    events = job.out / EVENTS
    running, n_before = process.find(job.out), 0
    if running is None:
        cut_torn_line(events)
        n_before = len(read_events(events))
        if _has_finished(job.out):
            yield from _published(read_events(events), job.out)
            return
        _forget_stop(job.out)
        rule = process.StopRule("TERM", 10.0)
        variables = {**job.launch.environment, **(environment or {})}
        running = process.start(job.out, command, environment=variables, stop=rule)
    try:
        yield from _follow(running, EventReader(events), job.out, poll_s)
    finally:
        if running.poll() is None:
            _stop(running, job.out, grace_s)
    ended = running.poll()
    if ended is None or ended.code != 0:
        _raise_what_it_said(read_events(events)[n_before:], job.out / process.LOG)
        raise process.failure(job.out, ended or process.Exit(None))
    if not _has_ended(job.out):
        raise TrainerFailed(f"{job.out}: the trainer exited without an 'end' event, so it crashed; see {process.LOG}")


def _follow(running: process.Process, reader: EventReader, out: Path, poll_s: float) -> Iterator[Checkpoint]:
    while True:
        ended = running.poll()  # before reading, so that the last events are read after the end
        yield from _published(reader.new(), out)
        if ended is not None:
            return
        time.sleep(poll_s)


def _published(events: Sequence[Event], out: Path) -> Iterator[Checkpoint]:
    """The checkpoints of these events that are still there; retention may have removed judged ones."""
    from evalsuite.checkpoint import open_checkpoint

    for event in events:
        if event["kind"] != "checkpoint":
            continue
        folder = out / event["path"]
        if not folder.is_dir():
            continue
        checkpoint = open_checkpoint(folder)
        if event.get("digest", checkpoint.digest) != checkpoint.digest:
            raise TrainerFailed(
                f"{folder}: its content changed after the trainer published it; train into another --out"
            )
        yield checkpoint


def _last_run(out: Path) -> Sequence[Event]:
    """The events since the last `start`."""
    events = read_events(out / EVENTS)
    starts = [i for i, event in enumerate(events) if event["kind"] == "start"]
    return events[starts[-1] :] if starts else events


def _has_finished(out: Path) -> bool:
    return any(e["kind"] == "end" and e.get("reason") == "finished" for e in _last_run(out))


def _has_ended(out: Path) -> bool:
    return any(e["kind"] == "end" and e.get("reason") in ("finished", "stopped") for e in _last_run(out))


def _raise_what_it_said(events: Sequence[Event], log: Path) -> None:
    """Raises the worker's own words, if it ended with some; a launcher of several processes hides its exit code."""
    last: Event = events[-1] if events else {}
    if last.get("kind") == "end" and last.get("reason") == "failed" and last.get("why"):
        code = last.get("exit_code")
        raise TrainerFailed(f"{last['why']} (full log: {log})", code if isinstance(code, int) else None)


def _forget_stop(out: Path) -> None:
    """A stop that was obeyed must not stop the run that goes on from there."""
    last = read_control(out)
    if last is not None and last.decision == "stop":
        write_control(out, Control(last.seq + 1, last.about, "continue", why="started again"))


def _stop(running: process.Process, out: Path, grace_s: float) -> None:
    last = read_control(out)
    if last is None or last.decision != "stop":
        seq, about = (last.seq, last.about) if last else (0, "")
        write_control(out, Control(seq + 1, about, "stop", why="the loop was stopped"))
    if not running.wait(grace_s):
        running.stop()
