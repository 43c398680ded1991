"""Our side of the decontamination bench: the command line over a workload, its cost, and what it wrote."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.speed.decontam_peers import Cost, spend
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

    def repeated(self, rounds: int, workload: Workload, *options: str) -> Repeated:
        """`rounds` scans after one that builds the index, compiles and brings the files into the page cache."""
        self.scan(workload, *options)
        return Repeated(tuple(self.scan(workload, *options) for _ in range(rounds)))

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


def workloads_folder() -> Path:
    """Workloads are made once: in DECONTAM_WORKLOADS, else in the folder for temporary files."""
    return Path(os.environ.get("DECONTAM_WORKLOADS") or Path(tempfile.gettempdir()) / "decontam-workloads")
