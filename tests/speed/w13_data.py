"""W13: data verbs against their budgets: `data convert` by format in MB/s, `data relevance` for a thousand rows.

Real rows where they are, repeated under new ids up to the size; each format in a process that has imported everything.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

DATA = Path(os.environ.get("EVALSUITE_SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "train"
ROWS = 100_000
MEGABYTES_A_SECOND = 30.0
SECONDS_A_THOUSAND = 0.3
FILES = {
    "alpaca": "sft/alpaca_en_demo.jsonl",
    "messages": "sft/oasst1_en100.jsonl",
    "sharegpt": "preference/dpo_en_demo.jsonl",
    "hh": "preference/hh_rlhf_harmless.jsonl",
}


def run(scale: float = 1.0) -> list[dict[str, Any]]:
    """The rows of results/SPEED.md; raises FileNotFoundError where the real data is not there."""
    n = max(1_000, round(ROWS * scale))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = [_convert(root, name, DATA / file, n) for name, file in FILES.items()]
        return [*rows, _relevance(root, n)]


def _convert(root: Path, name: str, file: Path, n: int) -> dict[str, Any]:
    from train_plugins.data.cli.convert import command

    source = root / f"{name}.jsonl"
    source.write_text("".join(islice(_usable(file), n)), encoding="utf-8")
    merge = ["--merge-turns", "--skip-bad", "--max-bad", "0.05"]
    arguments = [
        str(source),
        "-o",
        str(root / f"{name}.out.jsonl"),
        "--new-ids",
        "--overwrite",
        "--licence",
        "MIT",
        *merge,
    ]

    def convert() -> None:
        command.main(arguments, standalone_mode=False)

    spent = _best(convert)
    speed = source.stat().st_size / 1e6 / spent
    row = {"name": f"W13a convert {name}", "peer": "the budget, no tool", "unit": "MB per CPU-second"}
    row |= {"ours": round(speed, 1), "theirs": MEGABYTES_A_SECOND, "ratio": round(speed / MEGABYTES_A_SECOND, 2)}
    return row | {"goal": 1.0, "command": "make bench", "note": f"{n:,} rows, checked and written, best of three"}


def _relevance(root: Path, n: int) -> dict[str, Any]:
    from train_plugins.data.cli.relevance import command

    made = root / "alpaca.out.jsonl"

    def look() -> None:
        command.main([str(made), "--json"], standalone_mode=False)

    spent = _best(look) / n * 1_000
    row = {"name": "W13b relevance of a thousand rows", "peer": "the budget, no tool", "unit": "CPU-seconds"}
    row |= {"ours": round(spent, 3), "theirs": SECONDS_A_THOUSAND, "ratio": round(SECONDS_A_THOUSAND / spent, 2)}
    return row | {"goal": 1.0, "command": "make bench", "note": f"{n:,} rows of instructions, best of three"}


def _usable(file: Path) -> Iterator[str]:
    """Lines of the file again and again, without ids."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        lines.append(json.dumps({key: value for key, value in row.items() if key != "id"}, ensure_ascii=False) + "\n")
    return cycle(lines)


def _best(call: Callable[[], None]) -> float:
    """CPU-seconds of the best of three calls."""
    spent = []
    for _ in range(3):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return min(spent)
