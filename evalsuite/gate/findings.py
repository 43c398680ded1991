"""One finding for each pair and each floor: what was seen, what it was held to, and the sentence that explains it."""

from __future__ import annotations

import math
from typing import Any

from evalsuite.distributions import t_quantile
from evalsuite.gate.floors import FloorState
from evalsuite.gate.margins import PairPlan
from evalsuite.gate.policy import Policy
from evalsuite.gate.rule import BLOCK, CLEAR, FEW, z_against
from evalsuite.gate.tally import Pair, Sample
from evalsuite.gate.verdict import Finding, FindingOutcome

Z_95 = 1.959963984540054
NOT_LOOKED_AT = "not looked at: the gate was decided before"
ABOVE_PLAN = 1.25  # measured over planned disagreement from which a finding says so


def pair_finding(
    policy: Policy, pair: Pair, sample: Sample | None, state: tuple[int, int], used: int, ended: bool
) -> Finding:
    """The finding of one pair. `state` is (status, look of the decision); `ended` when every look was played.

    An advisory pair only warns. A pair that was still open when another one blocked is undecided and holds nothing up
    by itself: the verdict is a block anyway.
    """
    plan = pair.plan
    status, at = state
    outcome, words = _decision(policy, plan, sample, status, at, ended)
    if not plan.required and outcome in ("block", "hold"):
        outcome, words = "warn", f"{words}; advisory, so it stops nothing"
    base = Finding(
        benchmark=plan.benchmark,
        rule="must_not_regress",
        outcome=outcome,
        why=words,
        reference=plan.reference,
        tier=plan.rule.tier,
        limit=plan.margin,
        n_planned=plan.n,
        k=plan.k,
        looks=len(plan.order.sizes),
        look=at + 1 if at >= 0 else None,
        blind=plan.margin,
    )
    return _with_numbers(base, plan, sample) if sample is not None and sample.n else base


def _with_numbers(finding: Finding, plan: PairPlan, sample: Sample) -> Finding:
    from dataclasses import replace

    low, high = _interval(plan, sample)
    whole = sample.n == plan.n
    return replace(
        finding,
        was=sample.was,
        now=sample.now,
        difference=sample.mean,
        low=low,
        high=high,
        z=_z(sample, -plan.margin),
        n=sample.n,
        early=not whole,
        variance=sample.variance if whole else None,
        icc=sample.icc if whole else None,
    )


def _decision(
    policy: Policy, plan: PairPlan, sample: Sample | None, status: int, at: int, ended: bool
) -> tuple[FindingOutcome, str]:
    seen = f"{sample.n if sample else 0} of {plan.n} items" + (f", K {plan.k}" if plan.k > 1 else "")
    blind = f"cannot see a drop under {_points(plan)}" + (" (wider than wanted)" if plan.blind else "")
    when = f"look {at + 1} of {len(plan.order.sizes)}" if len(plan.order.sizes) > 1 else "the end"
    if status == CLEAR:
        smaller = _small_drop(policy, plan, sample, at)
        words = f"clear at {when}, {seen}; {blind}"
        return ("warn", f"{words}; a drop, though proven, is within what is allowed") if smaller else ("pass", words)
    if status == BLOCK:
        than = "worse than the allowed drop" if plan.null < 0 else "worse"
        return "block", f"proven {than} at {when}, {seen}"
    if sample is None:
        return "hold", NOT_LOOKED_AT
    if not sample.n:
        return "hold", "nothing to compare: no item has a score on both sides"
    if not ended:
        return "hold", f"undecided when the gate stopped, {seen}; {blind}"
    words = f"inconclusive after {seen}: neither proven worse nor within {_points(plan)}"
    words += _above_plan(policy, plan, sample)
    return ("warn" if plan.rule.on_inconclusive == "warn" else "hold"), words


def _points(plan: PairPlan) -> str:
    """The margin in points; one or two items calibrate to more than there is to lose."""
    return f"{100 * min(plan.margin, 1.0):.1f} points"


def _small_drop(policy: Policy, plan: PairPlan, sample: Sample | None, at: int) -> bool:
    """Whether a pair that cleared a written margin is nevertheless proven lower than its reference."""
    if sample is None or plan.null == 0 or sample.wins + sample.losses < FEW:
        return False
    bound = plan.block[at] if math.isfinite(plan.block[at]) else 3.0
    return -_z(sample, 0.0) >= bound


def _above_plan(policy: Policy, plan: PairPlan, sample: Sample) -> str:
    planned = plan.stderr**2 * plan.n / plan.deff
    if sample.variance <= ABOVE_PLAN * planned:
        return ""
    return f"; disagreement above plan: {sample.variance:.2f}, planned {planned:.2f} (the next gate plans with it)"


def _z(sample: Sample, null: float) -> float:
    import numpy as np

    from evalsuite.gate.rule import Seen

    one: Any = {
        name: np.array([float(getattr(sample, name))]) for name in ("n", "wins", "losses", "mean", "stderr", "groups")
    }
    return float(z_against(Seen(**one, binary=np.array([sample.binary])), np.array([null]))[0])


def _interval(plan: PairPlan, sample: Sample) -> tuple[float, float] | tuple[None, None]:
    if sample.n < 2 or not math.isfinite(sample.stderr):
        return None, None
    width = sample.stderr * (t_quantile(0.975, sample.groups - 1) if sample.groups > 1 else Z_95)
    return sample.mean - width, sample.mean + width


def floor_finding(state: FloorState, looked: bool, ended: bool) -> Finding:
    """The finding of a floor or ceiling: `pass`, `block`, or `hold` when it could not be told."""
    plan = state.plan
    seen = f"{state.n_used} items" + (f", K {plan.k}" if plan.k > 1 else "")
    words = {
        "pass": f"above its floor, {seen}" if plan.kind == "floor" else f"below its ceiling, {seen}",
        "block": f"below its floor, {seen}" if plan.kind == "floor" else f"above its ceiling, {seen}",
        "hold": f"inconclusive after {seen}" if ended else f"undecided when the gate stopped, {seen}",
    }[state.outcome]
    if state.metric is None:
        words = NOT_LOOKED_AT if not looked else "nothing to hold it to: none of its items has a score"
    if state.exact is not None and math.isfinite(state.exact) and state.outcome != "block":
        words += f"; 95 % sure of {state.exact:.3f} or {'more' if plan.kind == 'floor' else 'less'}"
    metric = state.metric
    width = Z_95 * metric.stderr if metric and metric.stderr is not None else None
    return Finding(
        benchmark=plan.name,
        rule=plan.kind,
        outcome=state.outcome,
        why=words,
        tier="safety",
        now=metric.value if metric else None,
        low=metric.value - width if metric and width is not None else None,
        high=metric.value + width if metric and width is not None else None,
        limit=plan.limit,
        z=state.z,
        n=state.n_used,
        n_planned=sum(plan.members),
        k=plan.k,
        look=state.look + 1 if state.look is not None else None,
        looks=len(plan.order.sizes),
    )
