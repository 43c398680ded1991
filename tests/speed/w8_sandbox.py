"""W8: judging model-written code: HumanEval programs in the sandbox against the same programs run bare, one by one.

The programs are the canonical solutions with their tests; where the data is absent, invented ones of the same shape.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from evalsuite import sandbox
from evalsuite.benchmark import find_benchmark
from evalsuite.models.cores import usable_cores
from evalsuite.sandbox import Policy, Program, levels, pool

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = 20
GOAL = 0.67  # of the bare programs' speed: at most one and a half times their time


def run(scale: float = 1.0) -> list[dict[str, Any]]:
    """One row for each level that works here, wall seconds with all cores busy."""
    programs = _programs() * max(1, round(SAMPLES * scale))
    with tempfile.TemporaryDirectory() as folder:
        files = [_write(Path(folder, f"{n}.py"), program) for n, program in enumerate(programs)]
        return [_row(level, programs, files) for level in ("bwrap", "landlock") if levels.probe(level)[0] is not None]


def _programs() -> list[Program]:
    module: Any = find_benchmark("humaneval").module
    data = Path(os.environ.get("EVALSUITE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    file = data / "hub/openai/openai_humaneval/openai_humaneval/test.jsonl"
    if file.is_file():
        docs = [json.loads(line) for line in file.read_text().splitlines() if line]
    else:
        case = json.loads((ROOT / "benchmarks/humaneval/cases.jsonl").read_text().splitlines()[0])
        docs = [case["doc"] | {"canonical_solution": case["response"]}] * 164
    return [module.program(module.gold_response(doc), doc) for doc in docs]


def _write(file: Path, program: Program) -> Path:
    file.write_text(f"{program.source}\n{program.tests}\n")
    return file


def _row(level: str, programs: list[Program], files: list[Path]) -> dict[str, Any]:
    workers = usable_cores()
    ours, theirs = [], []
    n_passed = 0
    for _ in range(3):  # alternating, so that both meet the same neighbours on the machine
        start = time.perf_counter()
        n_passed = sum(o.passed for _, o in sandbox.run_many(programs, Policy(level=level, workers=workers)))  # type: ignore[arg-type]
        pool.close_all()
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        with ThreadPoolExecutor(workers) as threads:
            codes = list(threads.map(_bare, files))
        theirs.append(time.perf_counter() - start)
    a, b = sorted(ours)[1], sorted(theirs)[1]
    return {
        "name": f"W8 {len(programs)} HumanEval programs, {level}",
        "peer": "each program by `python -I -S`, as many at once",
        "unit": "seconds by the clock",
        "ours": round(a, 2),
        "theirs": round(b, 2),
        "ratio": round(b / a, 2),
        "goal": GOAL,
        "command": "make bench",
        "note": f"{workers} cores, {1000 * a * workers / len(programs):.1f} ms a program and core; median of 3",
        "equality": f"{n_passed} of {len(programs)} pass in the sandbox, {codes.count(0)} bare",
    }


def _bare(file: Path) -> int:
    interpreter = os.path.realpath(sys.executable)
    return subprocess.run([interpreter, "-I", "-S", str(file)], capture_output=True, check=False).returncode
