"""Which benchmarks of which suites have their rows on this machine, for `evalsuite doctor`; asks no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalsuite.benchmark import Benchmark
from evalsuite.data import resolve_all
from evalsuite.errors import EvalsuiteError
from evalsuite.harness import datasets_of
from evalsuite.suite import known_suites, load_suite


def data_state(roots: Sequence[Path]) -> dict[str, Any]:
    """{roots, suites: {suite: {benchmark: {state, rows, why}}}}.

    A state is complete, partial, absent, unusable, or generated (a benchmark that makes its own rows).
    """
    suites: dict[str, Any] = {}
    for name in known_suites():
        try:
            suite = load_suite(name)
        except EvalsuiteError as error:
            suites[name] = {"error": str(error)}
            continue
        suites[name] = {b.name: _state(b, roots, suite.aliases or {}) for b in suite.columns.values()}
    return {"roots": [str(r) for r in roots], "suites": suites}


def _state(benchmark: Benchmark, roots: Sequence[Path], aliases: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    wanted = datasets_of(benchmark)
    if not wanted:
        return {"state": "generated", "rows": None, "why": ""}
    try:
        found = resolve_all(wanted, roots, offline=True, aliases=aliases).values()
    except EvalsuiteError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        absent = "is not on this machine" in str(error)
        return {
            "state": "absent" if absent else "unusable",
            "rows": None,
            "why": lines[1] if len(lines) > 1 else lines[0],
        }
    rows = None if any(r.rows is None for r in found) else sum(r.rows or 0 for r in found)
    notes = list(dict.fromkeys(note for r in found for note in r.notes))
    partial = any("partial" in note for note in notes)
    return {"state": "partial" if partial else "complete", "rows": rows, "why": "; ".join(notes)}


def data_problems(data: Mapping[str, Any], offline: bool) -> list[tuple[str, str]]:
    """What keeps the suites from being scored, each with what to type."""
    suites = data["suites"].values()
    states = {name: s for suite in suites if "error" not in suite for name, s in suite.items()}
    unusable = [(name, s["why"]) for name, s in states.items() if s["state"] == "unusable"]
    absent = [name for name, s in states.items() if s["state"] == "absent"]
    found = [(f"data of {name}: {why}", "evalsuite check --data-root DIR") for name, why in unusable]
    if absent and offline:
        what = f"the data of {', '.join(absent)} is not here, and the hub is off (HF_HUB_OFFLINE)"
        found.append((what, "export EVALSUITE_DATA_ROOT=DIR, or: unset HF_HUB_OFFLINE"))
    return found + [(s["error"], "") for s in suites if "error" in s]
