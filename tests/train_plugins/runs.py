"""Small real training jobs, and workers as forked children: a fork costs nothing, an import of TRL seven seconds."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalsuite.checkpoint import open_checkpoint
from evalsuite.trainers import (
    Control,
    Coupling,
    DataRef,
    Launch,
    SaveRule,
    TrainJob,
    read_events,
    write_control,
    write_job,
)
from evalsuite.trainers.events import Event
from train_plugins.tiny import write_tiny

OPTIONS: Mapping[str, Any] = {
    "lr": 1e-2, "epochs": 2, "batch": 8, "max_length": 96, "weight_decay": 0.0, "dtype": "float32", "threads": 1,
    "warmup_ratio": 0.2,
}  # fmt: skip
ROWS = 22  # with batch 8: 3 steps an epoch, the last of 6 rows; 6 steps


def make_start(folder: Path, **sizes: Any) -> Path:
    return write_tiny(folder, **{"hidden": 32, "layers": 2, "intermediate": 64, **sizes})


def warm(start: Path) -> Path:
    """Imports here what every worker imports, so that its forks need not."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from train_plugins import worker

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(start)
    AutoModelForSequenceClassification.from_pretrained(start, num_labels=1)
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
    AutoTokenizer.from_pretrained(start)
    worker.git_commit = lambda: "0" * 40  # git takes longer than these trainings
    gc.freeze()  # accelerate collects garbage before it trains: a second for all that was imported
    return start


def sft_rows(n: int = ROWS, seed: int = 0) -> list[dict[str, Any]]:
    """Words of 3 to 20 letters and the same backwards; every fourth row has two turns."""
    rng, rows = random.Random(seed), []
    for i in range(n):
        messages = []
        for _ in range(1 + (i % 4 == 0)):
            word = "".join(rng.choice("abcdef") for _ in range(rng.randint(3, 20)))
            messages += [{"role": "user", "content": word}, {"role": "assistant", "content": word[::-1]}]
        rows.append({"id": str(i), "source": "t", "messages": messages})
    return rows


def pair_rows(n: int = ROWS, seed: int = 0) -> list[dict[str, Any]]:
    """Chosen answers have an x at the end, rejected ones a y."""
    rng, rows = random.Random(seed), []
    for i in range(n):
        word = "".join(rng.choice("abcdef") for _ in range(rng.randint(3, 20)))
        sides = {
            side: [{"role": "user", "content": word}, {"role": "assistant", "content": word[: rng.randint(1, 9)] + end}]
            for side, end in (("chosen", "x"), ("rejected", "y"))
        }
        rows.append({"id": str(i), "source": "t", **sides})
    return rows


def make_job(
    out: Path, start: Path, rows: Sequence[Mapping[str, Any]], *, stage: Any = "sft", save: SaveRule | None = None,
    mode: Any = "off", lag: int = 1, seed: int = 7, processes: int = 1, decontamination: str = "", **options: Any,
) -> TrainJob:  # fmt: skip
    """A job whose data lies beside `out`; job.json is written."""
    out.mkdir(parents=True, exist_ok=True)
    data = out.parent / f"{out.name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    ref = DataRef("rows.jsonl", digest, len(rows), "CC0-1.0", decontamination, str(data))
    job = TrainJob(
        stage, open_checkpoint(start), (ref,), out, seed, save or SaveRule(steps=2), {**OPTIONS, **options},
        launch=Launch(processes=processes), coupling=Coupling(mode, lag),
    )  # fmt: skip
    write_job(job)
    return job


def fork(job: TrainJob, worker: Callable[[list[str]], int], fault: str = "", prepare: Any = None) -> int:
    """Starts the worker of a job in a forked child; returns its pid. Its output goes to <out>/log.txt."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        log = os.open(job.out / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1)  # pytest has put files of its own there
        os.environ["EVALSUITE_TRAIN_FAULT"] = fault
        if prepare is not None:
            prepare()
        code = worker(["--job", str(job.out / "job.json")])
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """The exit code of a child, minus the signal's number where one killed it."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def run(job: TrainJob, worker: Callable[[list[str]], int], fault: str = "", prepare: Any = None) -> int:
    return wait(fork(job, worker, fault, prepare))


def log_of(job: TrainJob) -> str:
    return (job.out / "log.txt").read_text(encoding="utf-8", errors="replace")


def of(job: TrainJob, *kinds: str) -> list[Event]:
    return [event for event in read_events(job.out / "events.jsonl") if event["kind"] in kinds]


def curve(job: TrainJob) -> dict[int, tuple[float, ...]]:
    """What was measured at each step; fails where a step was done twice with another result."""
    found: dict[int, tuple[float, ...]] = {}
    for event in of(job, "step"):
        point = tuple(event[name] for name in ("loss", "grad_norm", "lr", "epoch", "tokens"))
        assert found.setdefault(event["step"], point) == point, f"step {event['step']} differs when done again"
    return found


def digests(job: TrainJob) -> dict[str, str]:
    """Content digest of each published checkpoint, taken from its files."""
    return {path.name: open_checkpoint(path).digest for path in sorted((job.out / "checkpoints").iterdir())}


def judge(job: TrainJob, decisions: Mapping[str, tuple[str, Mapping[str, Any] | None]], timeout_s: float = 60.0) -> Any:
    """A thread that answers each checkpoint as the loop would: name -> (decision, adjust). A rollback goes back to the
    last one that was answered `promote`."""

    def answer() -> None:
        seq, told, good, end = 0, set[str](), "", time.monotonic() + timeout_s
        while time.monotonic() < end and not of(job, "end"):
            for event in of(job, "checkpoint"):
                name = event["path"].rpartition("/")[2]
                if name in told:
                    continue
                told.add(name)
                seq += 1
                decision, adjust = decisions.get(name, ("continue", None))
                if decision == "promote":
                    good, decision, why = event["digest"], "continue", "promoted"
                else:
                    why = decision
                to = good if decision == "rollback" else None
                write_control(job.out, Control(seq, name, decision, to, adjust, why))  # type: ignore[arg-type]
                break
            time.sleep(0.02)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return thread
