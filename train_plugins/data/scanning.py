"""Rows without those that hold text of benchmarks: found and cleaned by `evalsuite decontam`, in processes of its own.

evalsuite's libraries know nothing of decontam; like the loop we run the commands that a person would type.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evalsuite.errors import UsageError
from train_plugins.data.rows import write_dataset

DONE = (0, 1)  # exit codes of a scan that has seen everything; 1: something is over its limit, which cleaning mends
SELECT = "messages[role=user].content"

RunFn = Callable[[Sequence[str]], int]
"""Runs `evalsuite decontam` with these arguments; its exit code."""


@dataclass(frozen=True, slots=True)
class ScanRule:
    """What rows are cleaned of: all texts of the suites in `against`. `waive` says why they are not cleaned at all.

    `scan` "all" looks at answers too.
    """

    against: tuple[str, ...] = ("tulu3-dev", "tulu3-unseen", "tulu3-safety")
    scan: Literal["prompts", "all"] = "prompts"
    waive: str | None = None

    def __post_init__(self) -> None:
        if self.waive is not None and not self.waive.strip():
            raise UsageError("waive is blank; give the reason why the rows are not scanned")
        if self.waive is None and not self.against:
            raise UsageError("against names no suite; name some, or say why not: {waive: reason}")


@dataclass(frozen=True, slots=True)
class Scanned:
    """The ids of rows that hold nothing, and what the sidecar says of the scan."""

    kept: frozenset[str]
    facts: Mapping[str, Any] = field(default_factory=dict)


def run_decontam(arguments: Sequence[str]) -> int:
    """The command in a process of its own; its tables go to stderr, where progress belongs."""
    typed = [sys.executable, "-P", "-m", "evalsuite", "decontam", *arguments]
    return subprocess.run(typed, stdout=2, check=False).returncode


def without_benchmarks(
    rows: Sequence[Mapping[str, Any]],
    rule: ScanRule,
    work: Path,
    options: Sequence[str] = (),
    run: RunFn = run_decontam,
) -> Scanned:
    """Which rows stay. Each has an `id` of its own and `messages`; `options` go to the scan (where data lies).

    A scan of the same rows against the same suites is not repeated. Raises UsageError when the rows could not be
    scanned, with the command.
    """
    if rule.waive is not None:
        return Scanned(frozenset(str(row["id"]) for row in rows), {"waived": rule.waive})
    if not rows:
        return Scanned(frozenset())
    work.mkdir(parents=True, exist_ok=True)
    part = write_dataset(work / "candidates.jsonl", rows, {})
    asked = hashlib.sha256(json.dumps([part.digest, rule.against, rule.scan, list(options)]).encode()).hexdigest()
    folder = work / f"scan-{asked[:12]}"
    if not (folder / "cleaned" / "cleaning.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        suites = ["--suite", ",".join(rule.against)]
        places = ["--select", SELECT, "--scan", rule.scan, "--out", str(folder / "report"), *options]
        _do(["scan", str(part.path), *suites, *places], run, DONE)
        _do(["clean", str(folder / "report"), "-o", str(folder / "cleaned")], run, (0,))
    return _read(folder, rule)


def _do(arguments: Sequence[str], run: RunFn, fine: Sequence[int]) -> None:
    code = run(arguments)
    if code not in fine:
        raise UsageError(
            f"decontamination failed with exit code {code}; what it said stands above, the command was: "
            f"{shlex.join(['evalsuite', 'decontam', *arguments])} (data of benchmarks: --data-root; to go without, "
            "give a reason: decontam: {waive: ...})"
        )


def _read(folder: Path, rule: ScanRule) -> Scanned:
    cleaned = folder / "cleaned" / "candidates.jsonl"
    lines = cleaned.read_text(encoding="utf-8").split("\n")[:-1]
    told = json.loads((folder / "cleaned" / "cleaning.json").read_text(encoding="utf-8"))
    verdict = (folder / "report" / "verdict.json").read_bytes()
    facts = {
        "suites": list(rule.against),
        "scanned": rule.scan,
        "rule": told["rule"],
        "rows_dropped": sum(each["n_dropped"] for each in told["files"]),
        "report": hashlib.sha256(verdict).hexdigest(),
    }
    return Scanned(frozenset(str(json.loads(line)["id"]) for line in lines), facts)
