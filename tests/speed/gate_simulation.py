"""The seeded simulation behind results/GATE.md: how often the gate promotes, blocks and holds, and at what cost.

`python -m tests.speed.gate_simulation --write` measures everything in a few minutes on one core; `--only W1,peers` a
part (the other parts of the file stay as they are), `--runs-scale 0.1` with a tenth of the runs. Every scenario draws
from a seed of its own, so a part gives the same numbers alone.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import numpy as np

from evalsuite.gate.policy import Policy
from evalsuite.gate.reading import load_policy
from evalsuite.gate.rule import course
from evalsuite.provenance import git_commit
from tests.speed import gate_report, w10_gate
from tests.speed.gate_errors import (
    BINARY,
    CLUSTERED,
    GRADED,
    Cell,
    binary_cell,
    clustered_cell,
    graded_cell,
)
from tests.speed.gate_peers import Ruling, fixed_test, peers
from tests.speed.gate_worlds import SIZES, World, anchored_world, binary_world, disagreements, effects, graded_world

SEED = 20_260
BATCH = 2000  # runs drawn at once; 18 pairs over ten looks of that many take about 100 MB
Row = dict[str, Any]
Draw = Callable[[Policy, np.random.Generator, str, int], World]

W1_RUNS = {
    "equal": 20_000,
    "+1": 10_000,
    "half": 10_000,
    "reg3 rand": 10_000,
    "reg3 big": 10_000,
    "reg3 small": 10_000,
    "masked": 10_000,
    "masked big": 10_000,
    "-5": 10_000,
}
W2_RUNS = dict.fromkeys(("equal", "+1", "reg3 rand", "reg3 big", "reg3 small", "masked"), 4000)
ANCHOR_RUNS = dict.fromkeys(("equal", "+1", "reg3 rand", "reg3 big", "masked"), 4000)
PEER_RUNS = dict.fromkeys(("equal", "+1", "reg3 big", "masked"), 4000)
BETTING_RUNS = 2000
CELL_RUNS = {"binary": 40_000, "graded": 20_000, "clustered": 20_000, "uneven": 20_000}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help=f"parts, separated by commas: {', '.join(PARTS)}")
    parser.add_argument("--runs-scale", type=float, default=1.0, help="fraction of the full number of runs")
    parser.add_argument("--write", action="store_true", help="write results/GATE.md and results/gate.json")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"no part named {', '.join(unknown)}; there are {', '.join(PARTS)}")
    parts = gate_report.stored() if options.write else {}
    for name in chosen:
        parts[name] = part(name, options.runs_scale)
        if options.write:
            gate_report.write({name: parts[name] for name in PARTS if name in parts})
    for goal in gate_report.goals(parts):
        print(f"{goal.mark:<22} {goal.name}: {goal.measured:.4g} (goal {goal.sign} {goal.limit:g})", flush=True)
    return 0


def part(name: str, scale: float) -> Row:
    """One part's rows and where they come from."""
    start = time.process_time()
    rows = PARTS[name](scale)
    commit, changed = (git_commit() or "unknown").partition("+")[::2]
    when = {"date": date.today().isoformat(), "commit": commit[:12] + (" with changes" if changed else "")}
    when |= {"scale": scale, "seed": SEED}
    spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name}: {spent:.0f} CPU-seconds, {peak:.2f} GiB at most so far", file=sys.stderr, flush=True)
    return {"rows": rows, "when": when, "cpu_s": round(spent, 1)}


def draw_w1(policy: Policy, rng: np.random.Generator, scenario: str, runs: int) -> World:
    q = disagreements(0.10, 0.20, runs, len(SIZES), rng)
    return binary_world(policy, rng, q, effects(scenario, runs, rng))


def draw_w2(policy: Policy, rng: np.random.Generator, scenario: str, runs: int) -> World:
    return graded_world(policy, rng, effects(scenario, runs, rng))


def draw_w4(policy: Policy, rng: np.random.Generator, scenario: str, runs: int) -> World:
    q = disagreements(0.005, 0.03, runs, len(SIZES), rng)
    return binary_world(policy, rng, q, effects(scenario, runs, rng))


def draw_anchor(policy: Policy, rng: np.random.Generator, scenario: str, runs: int) -> World:
    q = disagreements(0.10, 0.20, runs, 2 * len(SIZES), rng)
    return anchored_world(policy, rng, q, effects(scenario, runs, rng))


def draw_misplanned(policy: Policy, rng: np.random.Generator, scenario: str, runs: int) -> World:
    """Half as much disagreement again as the plan knows."""
    q = disagreements(0.10, 0.20, runs, len(SIZES), rng)
    return binary_world(policy, rng, 1.5 * q, effects(scenario, runs, rng), planned=q)


def scenarios(world: str, draw: Draw, runs: Mapping[str, int], scale: float) -> list[Row]:
    policy = load_policy()
    return [_scenario(world, draw, policy, name, _scaled(n, scale)) for name, n in runs.items()]


def _scenario(world: str, draw: Draw, policy: Policy, scenario: str, runs: int) -> Row:
    promoted, blocked, costs = [], [], []
    for rng, size in _batches(f"{world} {scenario}", runs):
        drawn = draw(policy, rng, scenario, size)
        went = course(drawn.setup, drawn.looks)
        promoted.append(went.promoted)
        blocked.append(went.blocked)
        costs.append(drawn.cost(went))
    return {"world": world, "scenario": scenario} | _shares(promoted, blocked, np.concatenate(costs))


def _shares(promoted: Sequence[Any], blocked: Sequence[Any], cost: Any) -> Row:
    yes, no = np.concatenate(promoted), np.concatenate(blocked)
    return {
        "runs": len(yes),
        "promote": float(yes.mean()),
        "block": float(no.mean()),
        "hold": float(1 - yes.mean() - no.mean()),
        "cost": float(np.mean(cost)),
        "cost_se": float(np.std(cost) / np.sqrt(len(yes))),
    }


def peer_rows(scale: float) -> list[Row]:
    """The others' rules, and our own fixed and betting tests, on W1's data."""
    policy, fixed = load_policy(), load_policy(sets=["method.test=fixed"])
    rows: list[Row] = []
    for scenario, n in PEER_RUNS.items():
        rulings: dict[str, list[Ruling]] = {}
        for rng, size in _batches(f"peers {scenario}", _scaled(n, scale)):
            q = disagreements(0.10, 0.20, size, len(SIZES), rng)
            effect = effects(scenario, size, rng)
            world = binary_world(policy, rng, q, effect)
            found = {**peers(world, q, effect, rng), "the gate's fixed test": fixed_test(fixed, world, q)}
            for rule, ruling in found.items():
                rulings.setdefault(rule, []).append(ruling)
        for rule, each in rulings.items():
            shares = _shares([r.promoted for r in each], [r.blocked for r in each], each[0].cost)
            rows.append({"rule": rule, "scenario": scenario} | shares)
    betting = load_policy(sets=["method.test=betting"])
    for scenario in PEER_RUNS:
        row = _scenario("betting", draw_w1, betting, scenario, _scaled(BETTING_RUNS, scale))
        rows.append({"rule": "the gate's betting", **row})
    return rows


def cells(kind: str, scale: float) -> list[Row]:
    policy = load_policy()
    runs = {name: _scaled(n, scale) for name, n in CELL_RUNS.items()}

    def rng(name: object) -> np.random.Generator:
        return _rng(f"{kind} {name}", 0)

    found: list[Cell]
    if kind == "binary":
        found = [binary_cell(policy, n, q, runs["binary"], rng((n, q))) for n, q in BINARY]
    elif kind == "graded":
        found = [graded_cell(policy, n, k, runs["graded"], rng((n, k))) for n, k in GRADED]
    else:
        uneven = kind == "uneven"
        found = [clustered_cell(policy, *c, runs[kind], rng(c), uneven=uneven) for c in CLUSTERED]
    return [asdict(c) | {"cleared_se": c.cleared_error, "blocked_se": c.blocked_error} for c in found]


def _scaled(runs: int, scale: float) -> int:
    return max(100, round(runs * scale))


def _batches(name: str, runs: int) -> Iterator[tuple[np.random.Generator, int]]:
    for i, done in enumerate(range(0, runs, BATCH)):
        yield _rng(name, i), min(BATCH, runs - done)


def _rng(name: str, batch: int) -> np.random.Generator:
    return np.random.default_rng([SEED, zlib.crc32(name.encode()), batch])


PARTS: dict[str, Callable[[float], list[Row]]] = {
    "W1": lambda scale: scenarios("W1", draw_w1, W1_RUNS, scale),
    "W2": lambda scale: scenarios("W2", draw_w2, W2_RUNS, scale),
    "W4": lambda scale: scenarios("W4", draw_w4, {"equal": 6000}, scale),
    "anchor": lambda scale: scenarios("anchor", draw_anchor, ANCHOR_RUNS, scale),
    "misplanned": lambda scale: scenarios("misplanned", draw_misplanned, {"equal": 4000}, scale),
    "peers": peer_rows,
    "binary": lambda scale: cells("binary", scale),
    "graded": lambda scale: cells("graded", scale),
    "clustered": lambda scale: cells("clustered", scale),
    "uneven": lambda scale: cells("uneven", scale),
    "speed": lambda scale: w10_gate.run(),
}

if __name__ == "__main__":
    sys.exit(main())
