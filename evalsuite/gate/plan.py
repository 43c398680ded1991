"""`gate plan`: what a policy can and cannot see on a suite and what it costs, before any model runs. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evalsuite.benchmark import Benchmark
from evalsuite.errors import UsageError
from evalsuite.gate.facts import needed
from evalsuite.gate.margins import KS, PairInput, PairPlan, Spread, plan_pairs
from evalsuite.gate.order import MIN_CLUSTERS, Order, order
from evalsuite.gate.policy import Policy, Rule
from evalsuite.gate.simulate import Scenario, cleared_alone, gate_of, scenarios
from evalsuite.scorecard import Result, Scorecard
from evalsuite.stats.power import k_ratio
from evalsuite.suite import Suite

RUNS, SEED = 4000, 1234
SEEN_WELL = 0.03  # a benchmark that sees drops of three points is not listed as blind
UNBOUNDED = 100_000  # settings above it mean "as much as the context holds", which bounds nothing
# Clusters of data that no scorecard was read of: subjects of MMLU, MMLU-Pro and MATH; passages of DROP's validation
# split (about: gate.md §14.3).
CLUSTERS = {
    **dict.fromkeys([("mmlu_cot", "category"), ("mmlu_cot", "subject"), ("mmlu_mc", "category")], 57),
    **dict.fromkeys([("mmlu_pro", "category")], 14),
    **dict.fromkeys([("math", "category"), ("math", "subject")], 7),
    **dict.fromkeys([("drop", "passage")], 590),
}
Spreads = Mapping[tuple[str, str, int], Spread]


@dataclass(frozen=True, slots=True)
class Asked:
    """One benchmark as a gate would ask it: items, samples an item, cluster of each item (empty: independent).

    `fixed_k` says why K cannot be chosen, empty where it can; `max_tokens` bounds one answer (0: nothing does);
    `note` is what is not known yet. `base` is how often the regime itself asks an item, `of` how many answers one score
    needs (pass@10).
    """

    benchmark: str
    n: int
    k: int = 1
    clusters: tuple[str, ...] = ()
    fixed_k: str = ""
    max_tokens: int = 0
    note: str = ""
    base: int = 1
    of: int = 1


@dataclass(frozen=True, slots=True)
class Relief:
    """What more samples an item would buy: the margin at `k`, for at most `cost` more full runs of the suite."""

    k: int
    margin: float
    cost: float


@dataclass(frozen=True, slots=True)
class Line:
    """One pair: its plan, the chance to clear when nothing changed and at a drop by the margin, tokens at most."""

    pair: PairPlan
    equal: float
    at_margin: float
    tokens: int
    relief: Relief | None
    fixed_k: str
    note: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`unit` is the number of items of a full run at one sample, in which costs are told; scenarios may be none."""

    policy: Policy
    suite: str
    lines: tuple[Line, ...]
    scenarios: tuple[Scenario, ...]
    unit: int
    runs: int
    seed: int
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": "gate-plan/1",
            "policy": {"name": self.policy.name, "digest": self.policy.digest, "settings": list(self.policy.settings)},
            "suite": self.suite,
            "pairs": [_line_json(line) for line in self.lines],
            "scenarios": [asdict(s) for s in self.scenarios],
            "unit": self.unit,
            "runs": self.runs,
            "seed": self.seed,
            "notes": list(self.notes),
        }


def plan(
    policy: Policy,
    suite: str,
    asked: Sequence[Asked],
    *,
    references: Sequence[str] = ("champion",),
    spreads: Spreads | None = None,
    runs: int = RUNS,
    seed: int = SEED,
) -> Plan:
    """The plan of a gate against these references; `spreads` is what the last gate measured, `runs` 0 skips simulation.

    Raises PolicyError when the policy could only ever hold.
    """
    looks = 1 if policy.method.test == "fixed" else policy.method.looks
    orders = {a.benchmark: _order(a, policy.rule(a.benchmark), looks) for a in asked}
    known = spreads or {}
    inputs = [
        PairInput(a.benchmark, r, orders[a.benchmark], a.k, a.of, known.get((a.benchmark, r, a.k)))
        for r in references
        for a in asked
    ]
    pairs = plan_pairs(policy, inputs, len(policy.safety))
    unit = sum(a.n * a.base for a in asked)
    gate = gate_of(pairs, unit, to_end=_to_end(policy, asked), simes=_simes(policy))
    simulated = runs > 0 and policy.method.test != "betting"
    equal, at_margin = cleared_alone(gate, runs, seed) if simulated else ([math.nan] * len(pairs),) * 2
    by_name = {a.benchmark: a for a in asked}
    lines = tuple(
        _line(policy, p, by_name[p.benchmark], float(e), float(m), unit)
        for p, e, m in zip(pairs, equal, at_margin, strict=True)
    )
    found = scenarios(gate, runs, seed) if simulated else ()
    return Plan(policy, suite, lines, found, unit, runs if simulated else 0, seed, tuple(_notes(policy, asked)))


def asked_of(policy: Policy, suite: Suite, card: Scorecard | None = None) -> tuple[Asked, ...]:
    """Every benchmark of the suite as the policy asks it; sizes and clusters from a scorecard where there is one.

    Raises UsageError naming every benchmark whose size nobody knows.
    """
    found = [_asked(policy, benchmark, card) for benchmark in suite.columns.values()]
    unknown = [a.benchmark for a in found if a.n == 0]
    if unknown:
        raise UsageError(
            f"the size of {', '.join(unknown)} is not known; score one checkpoint on the suite, then --history results/"
        )
    return tuple(found)


def _asked(policy: Policy, benchmark: Benchmark, card: Scorecard | None) -> Asked:
    result = card.result(benchmark.name) if card else None
    n = result.n_planned if result else benchmark.meta.n_expected or 0
    config = benchmark.tasks[0].config
    sampled = benchmark.kind == "generate_until"
    repeats = int(config.get("repeats", 1))
    k, fixed = repeats if repeats > 1 else policy.samples.k_for(n, sampled=sampled), ""
    if not sampled:
        fixed = "nothing is sampled, so K has no effect"
    elif repeats > 1:
        fixed = f"{benchmark.meta.metric} asks {repeats} times itself, so K has no effect"
    clusters, note = _clusters(policy.rule(benchmark.name), benchmark, result, n)
    tokens = int((config.get("generation_kwargs") or {}).get("max_gen_toks") or 0) if sampled else 0
    bounded = tokens if tokens < UNBOUNDED else 0
    of = min(k, needed(benchmark.meta.metric))
    return Asked(benchmark.name, n, k, clusters, fixed, bounded, note, repeats, of)


def _clusters(rule: Rule, benchmark: Benchmark, result: Result | None, n: int) -> tuple[tuple[str, ...], str]:
    """(cluster of each item, what is not known of them); too few clusters are fixed categories and count as none."""
    meta = benchmark.meta
    field = (meta.gate_cluster or meta.cluster) if rule.cluster == "default" else rule.cluster
    if rule.strata or field in (None, "none"):
        return (), ""
    named, note = _named_clusters(str(field), benchmark, result, n)
    fixed = rule.cluster == "default" and len(set(named)) < MIN_CLUSTERS
    return ((), "" if named else note) if fixed else (named, note)


def _named_clusters(field: str, benchmark: Benchmark, result: Result | None, n: int) -> tuple[tuple[str, ...], str]:
    meta = benchmark.meta
    if result:
        known = result.categories if field in ("category", meta.category) else {}
        known = result.clusters if field == meta.cluster else known
        ids = (*result.scores, *result.failures)
        if known:
            return tuple(known.get(i, i) for i in ids), ""
    count = len(benchmark.tasks) if benchmark.is_group else CLUSTERS.get((benchmark.name, field))
    if count:
        return tuple(str(i % count) for i in range(n)), f"its {count} clusters are taken to be of one size"
    return (), f"planned as independent items: no scorecard tells its clusters by {field}"


def _order(asked: Asked, rule: Rule, looks: int) -> Order:
    ids = [str(i) for i in range(asked.n)]
    clusters = dict(zip(ids, asked.clusters, strict=True)) if asked.clusters else {}
    return order(asked.benchmark, ids, clusters, "00" * 32, looks, strata=rule.strata)


def _simes(policy: Policy) -> float | None:
    return policy.method.alpha / 2 if policy.method.test == "fixed" else None


def _to_end(policy: Policy, asked: Sequence[Asked]) -> frozenset[str]:
    """Benchmarks behind a claimed gain, which are asked whole; any claim about a mean counts for all."""
    wanted = {t.metric for t in policy.must_improve.targets} if policy.must_improve else set()
    names = {a.benchmark for a in asked}
    return frozenset(names if wanted - names else wanted)


def _line(policy: Policy, pair: PairPlan, asked: Asked, equal: float, at_margin: float, unit: int) -> Line:
    tokens = asked.n * asked.k * asked.max_tokens
    return Line(pair, equal, at_margin, tokens, _relief(pair, asked, unit), asked.fixed_k, asked.note)


def _relief(pair: PairPlan, asked: Asked, unit: int) -> Relief | None:
    """The next K worth having: 8, or 16 for what has 8; None where K is fixed or the user wrote the margin."""
    k = next((k for k in KS if k >= 8 and k > asked.k), None)
    if k is None or asked.fixed_k or pair.rule.margin is not None:
        return None
    margin = max(pair.rule.margin_min, pair.margin * math.sqrt(k_ratio(k) / k_ratio(asked.k)))
    return Relief(k, margin, (k - asked.k) * asked.n / unit)


def _notes(policy: Policy, asked: Sequence[Asked]) -> list[str]:
    notes = [f"{a.benchmark}: {a.note}" for a in asked if a.note]
    if policy.safety:
        notes.append("Floors depend on the candidate's own score and are not simulated; they can only add cost.")
    if policy.must_improve:
        notes.append("must_improve asks its benchmarks whole; whether a gain is proven is not simulated.")
    if policy.method.test == "betting":
        notes.append("The betting test has no simulation here; margins and samples hold.")
    return notes


def _line_json(line: Line) -> dict[str, Any]:
    pair = line.pair
    return {
        "benchmark": pair.benchmark,
        "reference": pair.reference,
        "tier": pair.rule.tier,
        "n": pair.n,
        "k": pair.k,
        "source": pair.source,
        "stderr": pair.stderr,
        "deff": pair.deff,
        "margin": pair.margin,
        "null": pair.null,
        "blind": pair.blind,
        "power": pair.power,
        "cleared_equal": None if math.isnan(line.equal) else line.equal,
        "cleared_at_margin": None if math.isnan(line.at_margin) else line.at_margin,
        "sizes": list(pair.order.sizes),
        "tokens_at_most": line.tokens,
        "relief": asdict(line.relief) if line.relief else None,
        "fixed_k": line.fixed_k,
        "note": line.note,
    }
