"""results/GATE.md and gate.json: the simulation's rows, for people and for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "results"
COMMAND = "python -m tests.speed.gate_simulation --write"
Row = Mapping[str, Any]
Parts = Mapping[str, Row]


@dataclass(frozen=True)
class Goal:
    """A number to reach. `error` is the standard error of what was measured; 3 of them are what chance may take."""

    name: str
    measured: float
    error: float
    limit: float
    at_least: bool = False

    @property
    def sign(self) -> str:
        return "≥" if self.at_least else "≤"

    @property
    def missed_by(self) -> float:
        return self.limit - self.measured if self.at_least else self.measured - self.limit

    @property
    def mark(self) -> str:
        if self.missed_by <= 0:
            return "reached"
        return "reached within 3 s.e." if self.missed_by <= 3 * self.error else "NOT REACHED"


def goals(parts: Parts) -> list[Goal]:
    """The goals that the parts at hand measure."""
    return [*_of_scenarios(parts), *_of_cells(parts), *_of_speed(parts)]


def _of_scenarios(parts: Parts) -> Iterable[Goal]:
    def share(world: str, scenario: str, limit: float, at_least: bool = False) -> Iterable[Goal]:
        for row in _rows(parts, world):
            if row["scenario"] == scenario:
                p = row["promote"]
                name = f"{world} {scenario}: promoted"
                yield Goal(name, p, math.sqrt(p * (1 - p) / row["runs"]), limit, at_least)

    def cost(world: str, limit: float, scenario: str | None = None) -> Iterable[Goal]:
        rows = [r for r in _rows(parts, world) if scenario in (None, r["scenario"])]
        if rows:
            worst = max(rows, key=lambda r: r["cost"])
            name = f"{world} {worst['scenario']}{'' if scenario else ' (its dearest)'}: mean cost"
            yield Goal(name, worst["cost"], worst["cost_se"], limit)

    yield from cost("W1", 0.35, "equal")
    yield from cost("W1", 0.20, "+1")
    yield from cost("W2", 0.60)
    yield from share("W1", "equal", 0.93, at_least=True)
    yield from share("W1", "+1", 0.975, at_least=True)
    yield from share("W4", "equal", 0.93, at_least=True)
    yield from share("W1", "reg3 big", 0.01)
    yield from share("W2", "reg3 rand", 0.05)
    yield from share("W2", "masked", 0.05)


KINDS = {
    "binary": "one answer an item",
    "clustered": "equal clusters",
    "uneven": "uneven clusters",
    "graded": "K samples an item",
}


def _of_cells(parts: Parts) -> Iterable[Goal]:
    """The worst cell of each kind: the one most standard errors beyond the limit."""
    for kind, words in KINDS.items():
        rows = _rows(parts, kind)
        for what, limit, verb in (
            ("cleared", 0.05, "a drop of the margin clears"),
            ("blocked", 0.025, "no drop blocks"),
        ):
            if rows:
                worst = max(rows, key=lambda r: _beyond(r, what, limit))
                name = f"{words}, {verb}; worst of {len(rows)} cells ({worst['name']})"
                yield Goal(name, worst[what], worst[f"{what}_se"], limit)


def _beyond(row: Row, what: str, limit: float) -> float:
    return float((row[what] - limit) / max(row[f"{what}_se"], 1e-9))


def _of_speed(parts: Parts) -> Iterable[Goal]:
    for row in _rows(parts, "speed"):
        yield Goal(f"{row['name'].removeprefix('W10 ')}, CPU-seconds", row["ours"], 0.0, row["theirs"])


def _rows(parts: Parts, name: str) -> Sequence[Row]:
    return parts[name]["rows"] if name in parts else ()


def stored() -> dict[str, Any]:
    """The parts that an earlier run wrote."""
    file = RESULTS / "gate.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))["parts"]) if file.is_file() else {}


def write(parts: Parts) -> None:
    found = [asdict(g) | {"mark": g.mark} for g in goals(parts)]
    text = json.dumps({"goals": found, "parts": parts}, indent=1, ensure_ascii=False)
    (RESULTS / "gate.json").write_text(text + "\n", encoding="utf-8")
    (RESULTS / "GATE.md").write_text("\n".join(page(parts)) + "\n", encoding="utf-8")


def page(parts: Parts) -> list[str]:
    return [
        "# What the gate promises, measured",
        "",
        "A simulation with fixed seeds: invented checkpoints, the real rule. Margins come from `plan_pairs` under the",
        "shipped default policy, decisions from `rule.course`; only the answers are drawn. The suite is as large as",
        "tulu3-dev: 18 benchmarks, 72,315 items, ten looks. All numbers are shares of runs unless they say otherwise.",
        "",
        *_goal_table(parts),
        *_scenario_tables(parts),
        *_peer_table(parts),
        *_cell_tables(parts),
        *LIMITS,
        *_provenance(parts),
    ]


def _goal_table(parts: Parts) -> Iterable[str]:
    yield from ("## Goals", "", "| goal | limit | measured | s.e. | |", "|---|---:|---:|---:|---|")
    for g in goals(parts):
        mark = f"**{g.mark}**" if g.mark == "NOT REACHED" else g.mark
        error = f"{g.error:.4f}" if g.error else "–"
        yield f"| {g.name} | {g.sign} {g.limit:g} | {g.measured:.4f} | {error} | {mark} |"
    yield from (
        "",
        "s.e. is the standard error of the simulation itself; a goal within three of them is told as such. What misses",
        "its goal is explained under Limits. The error at K samples an item was not promised, and is measured because",
        "the default policy asks for them.",
        "",
    )


WORLDS = {
    "W1": "W1: one answer an item, right or wrong; 10 to 20 % of the items differ (the plan knows how many)",
    "W2": "W2: latent abilities; K = 8 below 1,000 items and 4 below 2,600 (15.5 % of items differ at K = 1)",
    "W4": "W4: nearly the same checkpoint, .5 to 3 % of the items differ",
    "anchor": "W1 with an anchor besides the champion: 36 pairs, so margins grow by 4.5 %",
    "misplanned": "W1 when half as many items again differ as was planned",
}
SCENARIOS = {
    "equal": "equal",
    "+1": "+1 point everywhere",
    "half": "+2 on a random half",
    "reg3 rand": "−2 on three, any",
    "reg3 big": "−2 on three of ≥ 5,000 items",
    "reg3 small": "−2 on three of < 1,000 items",
    "masked": "−2 on three, any; +1 elsewhere",
    "masked big": "−2 on three of ≥ 5,000; +1 elsewhere",
    "-5": "−5 on three, any",
}


def _scenario_tables(parts: Parts) -> Iterable[str]:
    yield from (
        "## Scenarios",
        "",
        "Cost is in runs of the whole suite at one answer an item, on the candidate's side.",
        "",
    )
    yield from (
        "| world | true difference | runs | promote | block | hold | cost |",
        "|---|---|---:|---:|---:|---:|---:|",
    )
    for world in WORLDS:
        for r in _rows(parts, world):
            shares = " | ".join(f"{r[k]:.4f}" for k in ("promote", "block", "hold"))
            yield f"| {world} | {SCENARIOS[r['scenario']]} | {r['runs']:,} | {shares} | {r['cost']:.3f} |"
    yield ""
    yield from (f"- {words}." for world, words in WORLDS.items() if world in parts)
    yield ""


def _peer_table(parts: Parts) -> Iterable[str]:
    rows = _rows(parts, "peers")
    if not rows:
        return
    shown = list(dict.fromkeys(r["scenario"] for r in rows))
    yield from (
        "## The rules that others ship, on W1",
        "",
        "Promoted, and in brackets held (neither promoted nor blocked).",
        "",
    )
    yield f"| rule | {' | '.join(SCENARIOS[s] for s in shown)} | cost, equal |"
    yield f"|---|{'---:|' * (len(shown) + 1)}"
    ours = [{"rule": "**this gate**", **r} for r in _rows(parts, "W1") if r["scenario"] in shown]
    for rule in dict.fromkeys(r["rule"] for r in [*ours, *rows]):
        of = {r["scenario"]: r for r in [*ours, *rows] if r["rule"] == rule}
        found = " | ".join(f"{of[s]['promote']:.3f}{_held(of[s])}" if s in of else "–" for s in shown)
        yield f"| {rule} | {found} | {of['equal']['cost']:.2f} |"
    runs = sorted({f"{r['runs']:,}" for r in rows})
    yield from (
        "",
        f"Runs: {' or '.join(runs)} a cell (this gate: as in the table above). The interval is the 95 % paired t",
        "interval of NeMo Evaluator's gate (engine/gate.py @01b90280), without clusters: GO where none reaches beyond",
        "the allowed drop. Unpaired z is lm-eval's model_comparator with Holm's correction over 18 benchmarks; items",
        "that both agree on are right three times in four. Wealth is read at a hundred points, not after each item.",
        "",
    )


def _held(row: Row) -> str:
    return f" ({row['hold']:.3f})" if row["hold"] > 0.0005 else ""


def _cell_tables(parts: Parts) -> Iterable[str]:
    yield from (
        "## Errors at the margin",
        "",
        "One pair of a gate of 18. *Clears*: share of runs that clear although the drop is exactly the margin, with",
        "blocking switched off (at most .05). *Blocks*: share that block although nothing dropped, with clearing",
        "switched off, times 18 (at most .025 for all pairs together). In a gate the two races end each other, so both",
        "are what is bounded, not what is seen. *Cost*: share of its items that an equal checkpoint takes.",
        "",
    )
    for kind, words in KINDS.items():
        rows = _rows(parts, kind)
        if not rows:
            continue
        yield from ("", f"{words.capitalize()}, {rows[0]['runs']:,} runs a cell:", "")
        yield from (
            "| pair | margin, points | clears | s.e. | blocks | s.e. | cost |",
            "|---|---:|---:|---:|---:|---:|---:|",
        )
        for r in rows:
            errors = f"{r['cleared']:.4f} | {r['cleared_se']:.4f} | {r['blocked']:.3f} | {r['blocked_se']:.3f}"
            yield f"| {r['name']} | {100 * r['margin']:.2f} | {errors} | {r['cost']:.2f} |"
    yield ""


LIMITS = [
    "## Limits",
    "",
    "- Synthetic: items are alike and independent, benchmarks are independent of each other, and a drop is spread over",
    "  all items of a benchmark. Real drops may sit in a few categories.",
    "- The plan knows how many items differ. The last row of the scenarios has half as many again: equal ones are then",
    "  held more often. That costs promotions; it promotes nothing that is worse.",
    "- Sizes resemble the real suite's and are not the same; code benchmarks and judged ones are right or wrong here.",
    "- An anchor is drawn as independent of the champion given the candidate. Real ones resemble each other, and then",
    "  pass or fail together more often.",
    "- Uneven clusters have Dirichlet(2) sizes (their standard deviation is .7 times the mean), and the plan knows the",
    "  correlation inside them. Fewer than ten clusters are judged as fixed categories unless a policy asks otherwise,",
    "  so that the cells with seven are not what the default does.",
    "- At K samples an item a drop skews the differences to the left, and the test of their mean then clears slightly",
    "  more often than it says on some hundred items.",
    "",
]


def _provenance(parts: Parts) -> Iterable[str]:
    yield from ("## How it was measured", "", f"`{COMMAND}` (single-threaded; `make bench` runs it too):", "")
    for name, found in parts.items():
        when = found["when"]
        yield (
            f"- {name}: {when['date']}, commit {when['commit']}, seed {when['seed']}, scale {when['scale']:g}, "
            f"{found['cpu_s']:.0f} CPU-seconds"
        )
