"""W10: what the gate costs besides the model: a verdict over 72,315 paired items, `gate --help`, and `gate plan`.

The verdict joins two scorecards by sample id, hashes the order, and plays all ten looks of every benchmark: a claim of
a better macro mean keeps each to its end. No tool decides in looks, so each row is held against a budget.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
EVALSUITE = [sys.executable, "-m", "evalsuite"]
VERDICT_S, HELP_S, PLAN_S = 0.5, 0.2, 5.0


def run(scale: float = 1.0) -> list[dict[str, Any]]:
    """Three rows in CPU-seconds against their budgets."""
    rounds = max(1, round(5 * scale))
    spent, note = verdict(rounds)
    return [
        _row("W10 verdict over 72,315 paired items, all looks", spent, VERDICT_S, note),
        _row("W10 gate --help", _command(["gate", "--help"], rounds), HELP_S, "the whole command"),
        _row("W10 gate plan, tulu3-dev", _command(["gate", "plan", "--suite", "tulu3-dev"], 1), PLAN_S, "no caches"),
    ]


def verdict(rounds: int) -> tuple[float, str]:
    """(median CPU-seconds of `judge` from two scorecards, what it said)."""
    from evalsuite.gate.judge import judge
    from evalsuite.gate.reading import load_policy

    settings = ["must_improve={any_of: [{metric: macro}]}", "infra=[]", "must_not_regress.default.block_null=margin"]
    policy = load_policy(sets=settings)
    candidate, champion, facts = made_up()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        found = judge(policy, candidate, champion, None, facts)
        seconds.append(time.process_time() - start)
    assert found.final
    assert found.cost["candidate"] == found.cost["full_run"] == 72315
    return median(seconds), f"{len(found.findings)} findings, {found.outcome}; bounds computed once"


def made_up(worse: float = 0.004) -> tuple[Any, Any, Any]:
    """Two scorecards of 72,315 items and the facts: slightly worse, so that large benchmarks stay open for long.

    Under the policy above a drop within the margin does not block, so that no look is spared.
    """
    from evalsuite.gate.facts import Facts, Items
    from tests.evalsuite.cards import make_card, make_result
    from tests.speed.gate_worlds import SIZES

    rng = np.random.default_rng(10)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name, n in SIZES.items():
        was = rng.integers(0, 2, n).astype(float)
        flip = rng.random(n) < 0.15 + np.where(was == 1, worse, -worse)
        before[name] = make_result(name, list(map(float, was)))
        after[name] = replace(
            before[name], scores=dict(zip(before[name].scores, np.where(flip, 1 - was, was).tolist(), strict=True))
        )
    items = {name: Items(tuple(result.scores)) for name, result in before.items()}
    facts = Facts(items, {name: (name,) for name in items}, ref="champion", generation=1)
    return make_card("candidate", after), make_card("champion", before), facts


def _command(arguments: list[str], rounds: int) -> float:
    return median(_seconds([*EVALSUITE, *arguments]) for _ in range(rounds))


def _seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, env={**os.environ}, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _row(name: str, ours: float, budget: float, note: str) -> dict[str, Any]:
    return {
        "name": name,
        "peer": "the budget, no tool",
        "unit": "CPU-seconds",
        "ours": round(ours, 3),
        "theirs": budget,
        "ratio": round(budget / ours, 2),
        "goal": 1.0,
        "command": "make bench",
        "note": note,
    }
