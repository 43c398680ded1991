"""Before a stage trains: its data has the decontamination report that the policy asks for, and is not to be dropped."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evalsuite.errors import UsageError
from evalsuite.gate.facts import Contamination
from evalsuite.gate.policy import Decontamination
from evalsuite.gating.evidence import REPORTS, read_reports, reports_of
from evalsuite.recipe import DataRule
from evalsuite.trainers.types import DataRef

DONE = (0, 1, 3)  # exit codes of a scan that has written its report

ScanFn = Callable[[Sequence[str]], int]
"""Runs `evalsuite decontam scan` with these arguments; its exit code."""


@dataclass(frozen=True, slots=True)
class Against:
    """What a report must be about: each benchmark of the suite, with the digests of its data where they are known.

    `options` make `evalsuite decontam scan` look for that suite. `asks` is who requires a report, `or_else` what may be
    typed instead of one.
    """

    suite: str
    benchmarks: Mapping[str, frozenset[str]]
    rule: Decontamination = field(default_factory=Decontamination)
    options: tuple[str, ...] = ()
    asks: str = "the policy"
    or_else: str = "in the recipe: decontam: {run: true}"


@dataclass(frozen=True, slots=True)
class Given:
    """Training data of a stage: what the recipe says of it, and the file."""

    ref: DataRef
    path: Path


def run_scan(arguments: Sequence[str]) -> int:
    """The scan in a process of its own: evalsuite's libraries know nothing of decontam."""
    typed = [sys.executable, "-P", "-m", "evalsuite", "decontam", "scan", *arguments]
    # Its tables go to stderr: stdout belongs to what the loop itself prints.
    return subprocess.run(typed, stdout=2, check=False).returncode


def check_data(
    stage: str,
    data: Sequence[Given],
    against: Against | None,
    results: Path,
    rule: DataRule,
    scan: ScanFn = run_scan,
) -> None:
    """Raises UsageError, a line a problem, for data that the gate would block or hold, or a report says to drop.

    Data without a whole report is scanned first where the recipe says `run`. `against` is None where no gate comes.
    """
    if against is not None and rule.run:
        for each in _unchecked(data, against, results):
            _scan(stage, each, against, results, rule, scan)
    problems = [line for each in data for line in _dropped(each, results)]
    if against is not None:
        reports = _reports(data, against, results)
        for each in data:
            problems += _problems(each, reports.get(each.ref.digest), against, results)
    if problems:
        raise UsageError("\n".join(f"stage {stage!r}: {line}" for line in dict.fromkeys(problems)))


def _unchecked(data: Sequence[Given], against: Against, results: Path) -> Iterator[Given]:
    reports = _reports(data, against, results)
    for each in data:
        report = reports.get(each.ref.digest)
        if report is None or not report.complete:
            yield each


def _reports(data: Sequence[Given], against: Against, results: Path) -> dict[str, Contamination]:
    return reports_of(results / REPORTS, {each.ref.path: each.ref.digest for each in data}, against.benchmarks)


def _scan(stage: str, each: Given, against: Against, results: Path, rule: DataRule, scan: ScanFn) -> None:
    # The digest is in the name: the report of a file that was changed is another one.
    out = results / REPORTS / f"{each.path.stem}-{each.ref.digest[:8]}-{against.suite}"
    select = (rule.select,) if isinstance(rule.select, str) else rule.select
    selected = [word for selector in select for word in ("--select", selector)]
    arguments = [str(each.path), *against.options, *selected, "--scan", rule.scan, "--out", str(out)]
    code = scan(arguments)
    if code not in DONE:
        raise UsageError(
            f"stage {stage!r}: the decontamination of {each.ref.path} failed with exit code {code}; what it said stands"
            f" above, the command was: {_typed(arguments)}"
        )


def _dropped(each: Given, results: Path) -> Iterator[str]:
    for path, raw in read_reports(results / REPORTS):
        actions = (raw.get("actions") or {}).get(each.ref.digest, {})
        if evals := sorted(name for name, action in actions.items() if action == "drop"):
            yield f"{path} says to drop {each.ref.path}: it holds items of {', '.join(evals)}; train on other data"


def _problems(each: Given, report: Contamination | None, against: Against, results: Path) -> Iterator[str]:
    name, rule = each.ref.path, against.rule
    typed = _typed([str(each.path), *against.options])
    if rule.required and (report is None or not report.complete):
        lacks = "none" if report is None else "none that is complete"
        yield (
            f"{against.asks} requires a decontamination report, and there is {lacks} of {name} "
            f"({each.ref.digest[:12]}) against {against.suite} below {results / REPORTS}: {typed} "
            f"(or {against.or_else})"
        )
    over = {b: f for b, f in sorted((report.fractions if report else {}).items()) if f > rule.max_eval_fraction}
    if over:
        held = ", ".join(f"{fraction:.1%} of {benchmark}" for benchmark, fraction in over.items())
        yield (
            f"{name} holds {held} (at most {rule.max_eval_fraction:.1%}): the gate would block whatever is trained on "
            f"it; clean it and name the clean file: evalsuite decontam clean {_report_folder(each, over, results)} "
            f"-o {Path(each.path).stem}-clean"
        )


def _report_folder(each: Given, over: Mapping[str, float], results: Path) -> Path:
    """The report with most of what is over the limit."""

    def found(entry: tuple[Path, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> float:
        return sum(entry[1]["rates"].get(each.ref.digest, {}).get(name, 0.0) for name in over)

    return max(read_reports(results / REPORTS), key=found)[0].parent


def _typed(arguments: Sequence[str]) -> str:
    return shlex.join(["evalsuite", "decontam", "scan", *arguments])
