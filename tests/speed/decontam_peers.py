"""The tools that decontamination is measured against: what they need, and what a run of each costs.

`python -m tests.speed.decontam_peers install FOLDER` makes the throw-away environment of those that are not among the
project's dependencies; DECONTAM_PEERS=FOLDER tells the bench where it is. Without it their rows say "not installed".
`python -m tests.speed.decontam_peers FOLDER_OF_A_WORKLOAD` measures all of them once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.speed.decontam_workload import Workload

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("datatrove", "spacy", "nltk", "xxhash<4", "orjson", "regex", "pybind11")
JANITOR = "janitor_util.cpp"
JANITOR_FROM = "scripts/clean_training_data/janitor_util.cpp of EleutherAI/lm-evaluation-harness"


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool, the text it reads, how many rows it can be given in reasonable time, and where it runs."""

    name: str
    about: str
    reads: str  # user | all turns | text (all turns in one)
    rows: int
    needs: str = ""  # "" the project's environment | "janitor" the compiled extension | "datatrove" its environment


PEERS = (
    Peer("tuples-user", "set-of-tuples script, Tülu coverage", "user turns", 20_000),
    Peer("tuples-all", "set-of-tuples script, Tülu coverage", "all turns", 20_000),
    Peer("any-8", "open-r1's logic, any 8 words", "user turns", 20_000),
    Peer("janitor-python", "lm-eval's janitor, Python path", "text", 20_000),
    Peer("janitor-cpp", "lm-eval's janitor, C++ n-grams with the missing membership test", "text", 20_000, "janitor"),
    Peer("datatrove-spacy", "datatrove's 12-gram filter, spaCy words", "text", 4_000, "datatrove"),
    Peer("datatrove-white-space", "datatrove's 12-gram filter, white-space words", "text", 20_000, "datatrove"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process and all of its children took."""

    cpu_s: float
    wall_s: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Run:
    """A peer over the first rows of a workload; its scan leaves out the index, imports and the end of the process."""

    peer: Peer
    megabytes: float
    index_cpu_s: float
    scan_cpu_s: float
    cost: Cost
    hits: Mapping[int, Sequence[str]]

    @property
    def speed(self) -> float:
        """MB of the training file per CPU-second."""
        return self.megabytes / self.scan_cpu_s


def spend(command: Sequence[str], environment: Mapping[str, str] | None = None, allowed: Sequence[int] = (0,)) -> Cost:
    """CPU-seconds, wall-clock and peak memory of the command's process tree; raises when it fails."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=said
        )
        # Unlike RUSAGE_CHILDREN this is of one child (and those it waited for), so its peak memory is its own.
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in allowed:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"{' '.join(command[:6])} …: exit {process.returncode}: {' | '.join(lines[-3:])}")
    return Cost(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024)


def why_not(peer: Peer) -> str:
    """ "" when the peer can run here, else what is missing."""
    folder = os.environ.get("DECONTAM_PEERS")
    if not peer.needs:
        return ""
    if not folder:
        return "not installed (DECONTAM_PEERS is not set)"
    needed = _extension(Path(folder)) if peer.needs == "janitor" else _python(Path(folder))
    return "" if needed.exists() else f"not installed (no {needed.name} in DECONTAM_PEERS)"


def run(peer: Peer, workload: Workload, rows: int | None = None) -> Run:
    """The peer over the first `rows` rows of the plain workload, in a process of its own."""
    rows = min(peer.rows, rows or peer.rows, workload.rows)
    folder = Path(os.environ.get("DECONTAM_PEERS", ""))
    python = str(_python(folder)) if peer.needs == "datatrove" else sys.executable
    environment = {"PYTHONPATH": str(folder)} if peer.needs == "janitor" else {}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.json"
        evals = workload.suites[0].parent
        module = "tests.speed.decontam_peer_scan"
        command = [python, "-m", module, peer.name, str(evals), str(workload.train), str(rows), str(out)]
        cost = spend(command, environment)
        told = json.loads(out.read_text())
    hits = {int(row): found for row, found in told["hits"].items()}
    megabytes = first_bytes(workload.train, rows) / 1e6
    return Run(peer, megabytes, told["index_cpu_s"], told["scan_cpu_s"], cost, hits)


def first_bytes(file: Path, rows: int) -> int:
    """The bytes of the first rows of a JSONL file."""
    with file.open("rb") as lines:
        return sum(len(line) for line, _ in zip(lines, range(rows), strict=False))


def install(folder: Path) -> None:
    """A virtual environment with datatrove; the janitor's extension, compiled, where its source lies in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    python = _python(folder)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
    source = folder / JANITOR
    if not source.is_file() or shutil.which("c++") is None:
        print(f"no janitor extension: it needs c++ and {source.name} in {folder} ({JANITOR_FROM})", file=sys.stderr)
        return
    includes = subprocess.run([str(python), "-m", "pybind11", "--includes"], check=True, capture_output=True, text=True)
    flags = ["-O3", "-shared", "-std=c++17", "-fPIC", *includes.stdout.split()]
    subprocess.run(["c++", *flags, str(source), "-o", str(_extension(folder))], check=True)


def _python(folder: Path) -> Path:
    return folder.absolute() / "venv" / "bin" / "python"


def _extension(folder: Path) -> Path:
    return folder.absolute() / f"janitor_util{sysconfig.get_config_var('EXT_SUFFIX')}"


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["install"]:
        return install(Path(arguments[1]))
    folder = Path(arguments[0])
    told = json.loads((folder / "workload.json").read_text())
    workload = Workload(folder, told["rows"], told["evals"], told["seed"], told["variant"])
    for peer in PEERS:
        if lacking := why_not(peer):
            print(f"{peer.name}: {lacking}")
            continue
        got = run(peer, workload)
        print(
            f"{peer.name}: {got.speed:.2f} MB/CPU-s ({got.megabytes:.1f} MB, scan {got.scan_cpu_s:.1f} s, index "
            f"{got.index_cpu_s:.1f} s, peak {got.cost.rss_mb:.0f} MB), {len(got.hits)} rows flagged",
            flush=True,
        )
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
