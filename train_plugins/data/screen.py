"""Decontamination within a mix: candidates are scanned and cleaned before any row is counted, the finished file again.

The scanner runs as a process of its own, `evalsuite decontam`, so that a mix and a person get the same answer.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalsuite.errors import DataError
from evalsuite.gating.evidence import REPORTS
from train_plugins.data.mixfile import Decontam
from train_plugins.data.rows import Kind

DONE = (0, 1, 3)  # exit codes of a scan that has written its report
SELECT: Mapping[Kind, str] = {
    "sft": "messages[role=user].content",
    "rlvr": "messages[role=user].content",
    "preference": "chosen[role=user].content",
}
ALL: Mapping[Kind, tuple[str, ...]] = {
    "sft": ("messages[*].content",),
    "rlvr": ("messages[*].content", "ground_truth"),
    "preference": ("chosen[*].content", "rejected[*].content"),
}
RunFn = Callable[[Sequence[str], Path], int]
"""Runs `evalsuite decontam` with these arguments in a folder; its exit code."""


def run_decontam(arguments: Sequence[str], folder: Path) -> int:
    """In a process of its own; what it prints goes to stderr."""
    typed = [sys.executable, "-P", "-m", "evalsuite", "decontam", *arguments]
    return subprocess.run(typed, stdout=2, check=False, cwd=folder).returncode


@dataclass(frozen=True, slots=True)
class Screen:
    """How the scans of a mix are run. `options` are those of every scan: --data-root, --offline, --benchmarks, with
    absolute paths, for a scan runs where the data is."""

    rule: Decontam
    suites: tuple[str, ...]
    results: Path
    options: tuple[str, ...] = ()
    run: RunFn = run_decontam

    @property
    def names(self) -> tuple[str, ...]:
        """What the suites are called: of a file its name, for where it lies is of no interest elsewhere."""
        return tuple(Path(each).stem if each.endswith((".yaml", ".yml")) else each for each in self.suites)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A source after cleaning: its file, how many rows went, and how many rows of it an eval was found in."""

    file: Path
    n_dropped: int = 0
    n_changed: int = 0
    hits: Mapping[str, int] = field(default_factory=dict)


def clean(files: Mapping[str, Path], kind: Kind, screen: Screen, work: Path) -> dict[str, Cleaned]:
    """The candidates of each source (name to file) without what the evals hold.

    Raises DataError where the scan fails, where `on_hit: refuse` meets a hit, and for a source that holds more of an
    unseen eval than the limit unless `over_limit: clean`.
    """
    given = {name: path for name, path in files.items() if path.stat().st_size}
    if not given:
        return {name: Cleaned(path) for name, path in files.items()}
    report = work / "scan"
    _scan([f"{name}={path.absolute()}" for name, path in given.items()], kind, screen, report, work)
    hits = _hits(report)
    _refuse(screen.rule, hits, json.loads((report / "verdict.json").read_text(encoding="utf-8")))
    if not hits:
        return {name: Cleaned(path) for name, path in files.items()}
    return {**{n: Cleaned(p) for n, p in files.items()}, **_cleaned(given, hits, screen, report, work / "cleaned")}


def final_report(path: Path, digest: str, kind: Kind, screen: Screen) -> dict[str, Any]:
    """Scans the finished file, with its report where a gate and the loop find it by the file's digest; what it says.

    The report names the file as seen from its folder, for it will be moved. Raises DataError when the report is not
    complete, or the file still holds more of an eval than the limit.
    """
    name = f"{path.name.split('.jsonl')[0].split('.parquet')[0]}-{digest[:8]}-{'+'.join(screen.names)}"
    out = screen.results / REPORTS / name.replace("/", "-")
    _scan([path.name], kind, screen, out, path.parent)
    raw = (out / "verdict.json").read_bytes()
    verdict = json.loads(raw)
    rates = verdict["rates"].get(digest, {})
    if digest not in {each["digest"] for each in verdict["training"]}:
        raise DataError(f"{out}: the report is of another file than {path}; scan again with evalsuite decontam scan")
    if verdict["exit"] != 0:
        worst = max(rates, key=lambda each: rates[each], default="")
        raise DataError(
            f"{path}: the finished file is not clean (exit code {verdict['exit']} of its scan"
            f"{f', {rates[worst]:.1%} of {worst}' if worst else ''}); see evalsuite decontam review {out}"
        )
    return {
        "suites": list(screen.names),
        "report": out.name,
        "digest": hashlib.sha256(raw).hexdigest(),
        "rule": verdict["rule"]["name"],
        "evals": {name: entry.get("digest", "") for name, entry in verdict["evals"].items()},
        "rates": {name: rate for name, rate in rates.items() if rate},
    }


def _scan(train: Sequence[str], kind: Kind, screen: Screen, out: Path, folder: Path) -> None:
    selectors = ALL[kind] if screen.rule.scan == "all" else (SELECT[kind],)
    selected = [word for selector in selectors for word in ("--select", selector)]
    near = ["--near-dup"] if screen.rule.near else []
    where = ["--results", str(screen.results.absolute()), "--out", str(out.absolute()), "--quiet"]
    arguments = [
        "scan",
        *train,
        "--suite",
        ",".join(screen.suites),
        *selected,
        "--scan",
        screen.rule.scan,
        *near,
        *where,
    ]
    arguments += screen.options
    code = screen.run(arguments, folder)
    if code not in DONE:
        raise DataError(
            f"the decontamination failed with exit code {code}; what it said stands above, the command was: "
            f"{shlex.join(['evalsuite', 'decontam', *arguments])}"
        )


def _hits(report: Path) -> dict[str, Counter[str]]:
    """By data set, how many of its rows each eval was found in, whether or not that counts by the rule of the mix."""
    rows = {(m["dataset"], m["file"], m["row"], m["eval"]) for m in _matches(report)}
    found: dict[str, Counter[str]] = {}
    for dataset, _, _, name in rows:
        found.setdefault(dataset, Counter())[name] += 1
    return found


def _matches(report: Path) -> Iterator[dict[str, Any]]:
    for name in ("matches.jsonl", "near.jsonl"):
        path = report / name
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                yield from (json.loads(line) for line in file if line.strip())


def _refuse(rule: Decontam, hits: Mapping[str, Mapping[str, int]], verdict: Mapping[str, Any]) -> None:
    if rule.on_hit == "refuse" and hits:
        told = "; ".join(
            f"{name} ({', '.join(f'{e} {n}' for e, n in sorted(of.items()))})" for name, of in hits.items()
        )
        raise DataError(f"rows with text of evals, which on_hit: refuse does not allow: {told}")
    named = {each["digest"]: each["name"] for each in verdict["training"]}
    over = {
        named[digest]: sorted(e for e, action in actions.items() if action == "drop")
        for digest, actions in verdict.get("actions", {}).items()
    }
    if bad := {name: evals for name, evals in over.items() if evals and rule.over_limit == "refuse"}:
        told = "; ".join(f"{name} holds {', '.join(evals)}" for name, evals in bad.items())
        raise DataError(
            f"over the limit on unseen evals, so not to be used at all: {told} (--without {next(iter(bad))} leaves a "
            "source out, decontam.over_limit: clean takes it without those rows)"
        )


def _cleaned(
    given: Mapping[str, Path], hits: Mapping[str, Mapping[str, int]], screen: Screen, report: Path, into: Path
) -> dict[str, Cleaned]:
    rule = screen.rule
    if not (into / "cleaning.json").is_file():
        shutil.rmtree(into, ignore_errors=True)
        arguments = ["clean", str(report.absolute()), "-o", str(into.absolute()), "--how", rule.how, "--by", rule.by]
        arguments += ["--also", "near", "--quiet"] if rule.near else ["--quiet"]
        if code := screen.run(arguments, report):
            raise DataError(
                f"cleaning failed with exit code {code}: {shlex.join(['evalsuite', 'decontam', *arguments])}"
            )
    told = json.loads((into / "cleaning.json").read_text(encoding="utf-8"))
    return {
        each["dataset"]: Cleaned(into / each["written"], each["n_dropped"], each["n_changed"],
                                 dict(sorted(hits.get(each["dataset"], {}).items())))
        for each in told["files"] if each["dataset"] in given
    }  # fmt: skip
