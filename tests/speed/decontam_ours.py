"""Our side of the decontamination bench: the command line over a workload, its cost, and what it wrote."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.speed.decontam_peers import ROOT, Cost, spend
from tests.speed.decontam_workload import Variant, Workload, make

DECONTAM = [sys.executable, "-m", "decontam"]


@dataclass(frozen=True, slots=True)
class Bench:
    """Where workloads, indexes and reports of one run of the bench lie."""

    folder: Path
    scratch: Path

    def workload(self, rows: int, evals: int = 20_000, seed: int = 7, variant: Variant = "plain") -> Workload:
        return make(self.folder / f"{variant}-{seed}-{rows}-{evals}", rows, evals, seed, variant)

    def scan(self, workload: Workload, *options: str, train: Path | None = None, name: str = "out") -> Cost:
        """One scan from the command line, end to end; its reports are in `reports(name)`."""
        out = self.scratch / name
        command = [*DECONTAM, "scan", str(train or workload.train), "--evals", str(workload.suites[0].parent)]
        command += ["--out", str(out), "--cache", str(self.scratch / "cache"), "--fresh", "--quiet", *options]
        return spend(command, allowed=(0, 1))

    def repeated(self, rounds: int, workload: Workload, *, scan_all: bool = False, workers: int = 1) -> Repeated:
        """`rounds` scans from opening the files to closing the reports, after one that warms up, in one process.

        Index, imports and compilation are left out, as they are of the peers.
        """
        told = {
            "train": str(workload.train),
            "evals": str(workload.suites[0].parent),
            "cache": str(self.scratch / "cache"),
            "out": str(self.scratch / "repeated"),
            "scan_all": scan_all,
            "workers": workers,
            "rounds": rounds,
        }
        command = [sys.executable, "-c", f"from tests.speed.decontam_ours import rounds; rounds({json.dumps(told)!r})"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return Repeated(tuple(Cost(**cost) for cost in json.loads(done.stdout)))

    def lines(self, file: str, name: str = "out") -> Iterator[dict[str, Any]]:
        """The records of a JSONL report."""
        with (self.scratch / name / file).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


@dataclass(frozen=True, slots=True)
class Repeated:
    """What the same command cost, time after time."""

    costs: Sequence[Cost]

    @property
    def cpu_s(self) -> float:
        return median(cost.cpu_s for cost in self.costs)

    @property
    def best_cpu_s(self) -> float:
        return min(cost.cpu_s for cost in self.costs)

    @property
    def wall_s(self) -> float:
        return median(cost.wall_s for cost in self.costs)

    @property
    def rss_mb(self) -> float:
        return max(cost.rss_mb for cost in self.costs)


def rounds(told: str) -> None:
    """Prints the cost of each round as JSON; what `Bench.repeated` runs in a process of its own."""
    from decontam.evals import load_evals
    from decontam.job import in_threads, prepare, run
    from decontam.job.progress import Silent

    wanted = json.loads(told)
    evals = load_evals(wanted["evals"])
    cache = Path(wanted["cache"])
    job = prepare([wanted["train"]], evals, scan_all=wanted["scan_all"], cache=cache, say=lambda _: None)
    costs = []
    for _ in range(1 + wanted["rounds"]):
        cpu, wall = time.process_time(), time.perf_counter()
        run(job, Path(wanted["out"]), in_threads(wanted["workers"]), Silent(), fresh=True)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        costs.append({"cpu_s": cpu, "wall_s": wall, "rss_mb": rss})
    print(json.dumps(costs[1:]))


def workloads_folder() -> Path:
    """Workloads are made once: in DECONTAM_WORKLOADS, else in the folder for temporary files."""
    return Path(os.environ.get("DECONTAM_WORKLOADS") or Path(tempfile.gettempdir()) / "decontam-workloads")
