"""The verdict on each data set, as the gate reads it, and the lists of touched instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from decontam.job.folder import CLEAN_IDS, write
from decontam.report.facts import Scan
from decontam.report.lines import json_text
from decontam.report.tally import Tally
from decontam.rules import Rule
from decontam.types import Kind

SCHEMA = "decontam/1"
Action = Literal["none", "drop_or_clean", "drop"]
SEVERITY: tuple[Action, ...] = ("none", "drop_or_clean", "drop")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`exit` is 0 when nothing is over the limit, 1 when something is, 3 when nothing is but not all was read."""

    exit: Literal[0, 1, 3]
    complete: bool
    actions: Mapping[tuple[int, int], Action]  # by data set and eval, in the order of the scan


def judge(scan: Scan, counted: Tally) -> Verdict:
    """More than the limit of an eval's instances, strictly, contaminates a data set for that eval."""
    limit = Fraction(str(scan.limit))  # the number that was typed: 2 of 100 is not above 0.02
    actions = {
        (d, e): action(scan.evals[e].eval.kind, hits["exact"].instances, scan.evals[e].n, limit)
        for (d, e), hits in counted.cells.items()
    }
    complete = all(facts.complete for facts in scan.datasets)
    over = any(each != "none" for each in actions.values())
    return Verdict(1 if over else 0 if complete else 3, complete, actions)


def action(kind: Kind, hit: int, n: int, limit: Fraction) -> Action:
    """What the paper does: drop the data for an unseen eval; for others drop it, or clean it where dropping hurts."""
    if hit <= n * limit:
        return "none"
    return "drop" if kind == "unseen" else "drop_or_clean"


def as_json(scan: Scan, counted: Tally, verdict: Verdict) -> dict[str, Any]:
    """The content of verdict.json. Of data sets with equal digests the worse numbers count."""
    rates: dict[str, dict[str, float]] = {}
    row_rates: dict[str, dict[str, float]] = {}
    capped: dict[str, dict[str, float]] = {}
    actions: dict[str, dict[str, Action]] = {}
    for (d, e), hits in counted.cells.items():
        data, facts = scan.datasets[d], scan.evals[e]
        name = facts.eval.name
        _worse(rates.setdefault(data.digest, {}), name, share(hits["exact"].instances, facts.n))
        _worse(row_rates.setdefault(data.digest, {}), name, share(hits["exact"].rows, data.n_rows))
        _worse(capped.setdefault(data.digest, {}), name, share(hits["capped"].instances, facts.n))
        chosen = actions.setdefault(data.digest, {})
        chosen[name] = max(chosen.get(name, "none"), verdict.actions[d, e], key=SEVERITY.index)
    return {
        "schema": SCHEMA,
        "complete": verdict.complete,
        "rule": rule_json(scan.rule, scan.cap),
        "training": [{"name": d.name, "digest": d.digest, "path": d.path} for d in scan.datasets],
        "evals": {
            f.eval.name: {"digest": f.eval.digest, "kind": f.eval.kind, "n": f.n, "unprotected": f.n_unprotected}
            for f in scan.evals
        },
        "rates": rates,
        "row_rates": row_rates,
        "capped_rates": capped,
        "actions": actions,
        "limit": scan.limit,
        "exit": verdict.exit,
    }


def rule_json(rule: Rule, cap: int) -> dict[str, Any]:
    """A rule as reports store it."""
    return {
        "name": rule.name,
        "version": rule.version,
        "digest": rule.digest,
        "analyzer": rule.analyzer,
        "positions": rule.positions,
        "n": rule.n,
        "score": rule.score,
        "threshold": str(rule.threshold),
        "cap": cap,
    }


def share(part: int, whole: int) -> float:
    """part / whole, 0 of nothing."""
    return part / whole if whole else 0.0


def write_verdict(out: Path, scan: Scan, counted: Tally, verdict: Verdict) -> None:
    """verdict.json and clean_ids/<eval>.txt, an empty list where nothing is touched."""
    (out / CLEAN_IDS).mkdir(exist_ok=True)
    for facts, lines in zip(scan.evals, clean_ids(scan, counted), strict=True):
        write(out / CLEAN_IDS / f"{facts.eval.name}.txt", lines.encode())
    # Last: whoever finds a verdict finds the lists it goes with.
    write(out / "verdict.json", json_text(as_json(scan, counted, verdict), indent=1).encode() + b"\n")


def clean_ids(scan: Scan, counted: Tally) -> Iterator[str]:
    """For each eval its touched ids, one a line, each once, in the eval's order."""
    for facts, touched in zip(scan.evals, counted.touched, strict=True):
        yield "".join(f"{i}\n" for i in dict.fromkeys(facts.eval.ids[number] for number in touched))


def _worse(rates: dict[str, float], name: str, rate: float) -> None:
    rates[name] = max(rate, rates.get(name, 0.0))
