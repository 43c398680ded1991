"""`make bench`: measures every workload against the named peer in one run and writes results/SPEED.md and speed.json.

`python -m tests.speed --only w1,w6 --scale 0.2` measures a part of it and writes nothing unless --write is given; then
the rows of other workloads stay as they are, each with the day and commit it was measured at.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from evalsuite.provenance import git_commit, versions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
WORKLOADS = (
    "w1_options",
    "w2_mmlu",
    "w3_vllm",
    "w4_generation",
    "w6_overhead",
    "w7_startup",
    "w8_sandbox",
    "w9_verifiers",
    "w10_gate",
    "w11_decontam",
    "w12_training",
    "w13_data",
    "w14_rlvr",
    "w15_async",
)
COLUMNS = ("name", "peer", "unit", "ours", "theirs", "ratio", "goal", "command", "note", "when")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="workloads by number or name (w1, w10_gate), separated by commas")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the full size")
    parser.add_argument("--write", action="store_true", help="write the results of a partial run too")
    options = parser.parse_args()
    wanted = tuple(f"{name}_" for name in options.only.split(",")) if options.only else ("",)
    chosen = [w for w in WORKLOADS if f"{w}_".startswith(wanted)]
    rows, skipped = [], []
    for name in chosen:
        try:
            found = measure(name, options.scale)
        except Exception as error:
            skipped.append(f"{name}: {error}")
            print(skipped[-1], file=sys.stderr, flush=True)
            continue
        when = f"{date.today().isoformat()}, scale {options.scale:g}, {(git_commit() or 'unknown')[:12]}"
        found = [row | {"note": f"{row.get('note', '')}{_equality(row)}", "when": when} for row in found]
        for row in found:
            print(line(row), flush=True)
        rows += found
    if options.write or (not options.only and options.scale == 1.0):
        write(rows, skipped)
    return 1 if skipped else 0


def measure(workload: str, scale: float) -> list[dict[str, Any]]:
    """The workload's rows, measured in a process of its own, so that no workload warms up or slows another."""
    program = (
        "import json, sys, importlib\n"
        "rows = importlib.import_module(sys.argv[1]).run(float(sys.argv[2]))\n"
        "open(sys.argv[3], 'w').write(json.dumps(rows))"
    )
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [sys.executable, "-c", program, f"tests.speed.{workload}", str(scale), out.name],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError((done.stderr.strip() or "no message").splitlines()[-1])
        rows: list[dict[str, Any]] = json.loads(Path(out.name).read_text())
    return rows


def line(row: dict[str, Any]) -> str:
    mark = "ok  " if row["ratio"] >= row["goal"] else "LOW "
    numbers = f"goal {row['goal']}×; {row['ours']} against {row['theirs']} {row['unit']}"
    return f"{mark}{row['name']}: {row['ratio']}× ({numbers})"


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of this run, and those that an earlier run wrote for workloads that this one left out."""
    file = RESULTS / "speed.json"
    old = json.loads(file.read_text()) if file.is_file() else []
    again = {row["name"].split()[0] for row in rows}
    kept = [row for row in old if row["name"].split()[0] not in again]
    return sorted([*kept, *rows], key=_number)


def _number(row: dict[str, Any]) -> tuple[int, str]:
    """(10, "") for W10, (2, "a") for W2a."""
    word = row["name"].split()[0].removeprefix("W")
    digits = word.rstrip("abcdefghijklmnopqrstuvwxyz")
    return int(digits), word.removeprefix(digits)


def write(rows: list[dict[str, Any]], skipped: list[str]) -> None:
    """results/speed.json (the rows) and results/SPEED.md (the same for people, with machine and versions)."""
    rows = merged(rows)
    (RESULTS / "speed.json").write_text(json.dumps([{k: r[k] for k in COLUMNS} for r in rows], indent=1) + "\n")
    found = versions("vllm")
    text = [
        "# Speed",
        "",
        "Ratios against the tool people use today, both sides of a row from one run on one machine, on the same data",
        "and model. CPU-seconds with one thread unless the unit says otherwise; more than 1 means that evalsuite",
        "is faster. A workload can be measured again by itself, so each row has its day, scale and commit.",
        "",
        f"{_machine()}; last run on {date.today().isoformat()} with",
        ", ".join(f"{k} {v}" for k, v in found.items()) + ".",
        "",
        "| workload | ours | theirs | ratio | goal | unit | peer |",
        "|---|---:|---:|---:|---:|---|---|",
        *(
            f"| {r['name']} | {r['ours']} | {r['theirs']} | **{r['ratio']}×** | {r['goal']}× "
            f"| {r['unit']} | {r['peer']} |"
            for r in rows
        ),
        "",
        "Equality, sizes, and when:",
        "",
        *(f"- {r['name']}: {r['note']} ({r['when']})" for r in rows),
        *(["", "Not measured:", "", *(f"- {s}" for s in skipped)] if skipped else []),
    ]
    (RESULTS / "SPEED.md").write_text("\n".join(text) + "\n")


def _equality(row: dict[str, Any]) -> str:
    equality = row.get("equality")
    if not equality:
        return ""
    shown = ", ".join(f"{k} {v}" for k, v in equality.items()) if isinstance(equality, dict) else equality
    return f"; {shown}"


def _machine() -> str:
    model = next(
        (li.split(":")[1].strip() for li in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in li),
        platform.machine(),
    )
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


if __name__ == "__main__":
    sys.exit(main())
