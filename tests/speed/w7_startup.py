"""W7: what starting costs: `--help`, listing what there is, and a whole small run, each as a command of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EVALSUITE = [sys.executable, "-m", "evalsuite"]
LM_EVAL = [sys.executable, "-m", "lm_eval"]


def run(scale: float = 1.0) -> list[dict[str, Any]]:
    """Three rows, in CPU-seconds of whole commands."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = _checkpoint(folder)
        demo = "demo_add,demo_reverse,demo_larger"
        theirs = ["run", "--model", "hf", "--model_args", f"pretrained={checkpoint},dtype=float32", "--device", "cpu"]
        theirs += ["--include_path", str(ROOT / "benchmarks"), "--tasks", demo, "--apply_chat_template"]
        theirs += ["--batch_size", "16", "--output_path", str(folder / "out"), "--log_samples"]
        ours = ["score", str(checkpoint), "--suite", "demo", "--model", "hf", "--threads", "1", "--results"]
        return [
            _row("W7 --help", [*EVALSUITE, "--help"], [*LM_EVAL, "--help"], folder, 5, 1.0),
            _row("W7 list what can be scored", [*EVALSUITE, "list"], [*LM_EVAL, "ls", "tasks"], folder, 1, 1.0),
            _row(
                "W7 whole command, 3 demo tasks, hf",
                [*EVALSUITE, *ours, str(folder / "results")],
                [*LM_EVAL, *theirs],
                folder,
                1,
                1.0,
            ),
        ]


def _checkpoint(folder: Path) -> Path:
    from tests.tiny import make_checkpoint

    return make_checkpoint(folder / "checkpoint")


def _row(name: str, ours: list[str], theirs: list[str], folder: Path, rounds: int, goal: float) -> dict[str, Any]:
    a = median(_seconds(ours, folder) for _ in range(rounds))
    b = median(_seconds(theirs, folder) for _ in range(rounds))
    return {
        "name": name,
        "peer": f"lm-eval 0.4.13, `lm-eval {' '.join(theirs[3:5])}`",
        "unit": "CPU-seconds of the command",
        "ours": round(a, 3),
        "theirs": round(b, 3),
        "ratio": round(b / a, 2),
        "goal": goal,
        "command": "make bench",
        "note": f"median of {rounds}" if rounds > 1 else "once",
        "equality": "",
    }


def _seconds(command: list[str], folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
