"""Floors and ceilings: the candidate's own score against a number, in both directions (refusal and over-refusal)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evalsuite.gate.facts import Facts, Items
from evalsuite.gate.margins import look_bounds
from evalsuite.gate.order import Order
from evalsuite.gate.policy import Floor, Policy
from evalsuite.gate.tally import Floats, Side
from evalsuite.scorecard import Metric
from evalsuite.stats import macro_stderr, mean_stderr
from evalsuite.stats.normal import z_of_upper_tail
from evalsuite.stats.proportion import clopper_pearson_lower, clopper_pearson_upper

LEVEL = 0.95  # of the exact one-sided bound that decides at the last look
EXPECTED = 5  # right and wrong answers at the limit from which the normal distribution is near enough


@dataclass(frozen=True, slots=True)
class FloorPlan:
    """One bound on one score. `members` marks the items, in the gate's order, that it is about: all, or a category."""

    name: str
    benchmark: str
    kind: Literal["floor", "ceiling"]
    limit: float
    order: Order
    members: tuple[bool, ...]
    categories: tuple[str, ...]  # in the gate's order, where the score is a mean of category means; else empty
    clear: tuple[float, ...]
    block: tuple[float, ...]
    k: int

    @property
    def n(self) -> int:
        return self.order.n


@dataclass(slots=True)
class FloorState:
    """Where the test of a floor stands."""

    plan: FloorPlan
    open: bool = True
    outcome: Literal["pass", "block", "hold"] = "hold"
    look: int | None = None
    metric: Metric | None = None
    z: float | None = None
    n_used: int = 0
    exact: float | None = None  # the one-sided bound of the last look


def plan_floors(policy: Policy, orders: Mapping[str, Order], facts: Facts, n_pairs: int = 0) -> tuple[FloorPlan, ...]:
    """Every floor and ceiling of the policy whose benchmark is there; an absent one is missing evidence.

    Early blocks are shared out over them and `n_pairs` required pairs.
    """
    found = []
    wanted = {name: bounds for name, bounds in policy.safety.items() if split(name)[0] in orders}
    n_tests = n_pairs + sum(len(_limits(bounds)) for bounds in wanted.values())
    for name, bounds in wanted.items():
        benchmark, category = split(name)
        found += [
            _plan(policy, name, orders[benchmark], facts.items[benchmark], category, kind, limit, n_tests)
            for kind, limit in _limits(bounds)
        ]
    return tuple(found)


def split(name: str) -> tuple[str, str | None]:
    """ "xstest/contrast" is (benchmark, category); a name without a slash is the whole benchmark."""
    benchmark, slash, category = name.partition("/")
    return benchmark, category if slash else None


def _limits(bounds: Floor) -> list[tuple[Literal["floor", "ceiling"], float]]:
    found: list[tuple[Literal["floor", "ceiling"], float]] = []
    if bounds.floor is not None:
        found.append(("floor", bounds.floor))
    if bounds.ceiling is not None:
        found.append(("ceiling", bounds.ceiling))
    return found


def _plan(
    policy: Policy,
    name: str,
    order: Order,
    items: Items,
    category: str | None,
    kind: Literal["floor", "ceiling"],
    limit: float,
    n_tests: int,
) -> FloorPlan:
    clear, block = look_bounds(policy, order, n_tests)
    members = tuple(category is None or items.categories.get(i) == category for i in order.ids)
    macro = items.macro and category is None
    categories = tuple(items.categories.get(i, "") for i in order.ids) if macro else ()
    return FloorPlan(name, order_name(name), kind, limit, order, members, categories, clear, block, items.k)


def order_name(name: str) -> str:
    return split(name)[0]


def floor_at(state: FloorState, side: Side, k: int, size: int) -> None:
    """Tests a floor on the first `size` items. The last look decides by the exact one-sided 95 % bound.

    Earlier ones decide nothing while fewer than five right and five wrong answers are expected at the limit: a small
    category has two or three items in the first look, and one wrong answer is ten errors below a floor of .99.
    """
    plan = state.plan
    sign = 1.0 if plan.kind == "floor" else -1.0
    worst = 0.0 if plan.kind == "floor" else 1.0
    values = np.where(side.unjudged, worst, side.scores)[:size]
    held = np.array(plan.members[:size], dtype=bool) & ~np.isnan(values)
    x = values[held]
    state.n_used = len(x)
    if not len(x):
        return
    categories = [c for c, h in zip(plan.categories[:size], held, strict=True) if h] if plan.categories else None
    state.metric = macro_stderr(list(x), categories) if categories else mean_stderr(list(x))
    state.z = sign * _z(x, state.metric, plan, binary := _is_binary(x, plan))
    last, enough = size == plan.n, len(x) * min(plan.limit, 1 - plan.limit) >= EXPECTED
    if last:
        _decide_last(state, x, sign, binary)
    elif enough and state.z >= plan.clear[k]:
        state.outcome, state.open = "pass", False
    elif enough and -state.z >= plan.block[k]:
        state.outcome, state.open = "block", False
    if last or not state.open:
        state.look, state.open = k, False


def _decide_last(state: FloorState, x: Floats, sign: float, binary: bool) -> None:
    lower, upper = _interval(x, state.metric, binary)
    worse, better = (upper, lower) if sign > 0 else (-lower, -upper)
    limit = sign * state.plan.limit
    state.exact = sign * better
    state.outcome = "pass" if better >= limit else "block" if worse < limit else "hold"


def _interval(x: Floats, metric: Metric | None, binary: bool) -> tuple[float, float]:
    """One-sided 95 % bounds below and above."""
    assert metric is not None
    if binary:
        hits, n = round(float(x.sum())), len(x)
        return float(clopper_pearson_lower(hits, n, LEVEL)), float(clopper_pearson_upper(hits, n, LEVEL))
    width = float(z_of_upper_tail(1 - LEVEL)) * (metric.stderr if metric.stderr is not None else math.inf)
    return metric.value - width, metric.value + width


def _is_binary(x: Floats, plan: FloorPlan) -> bool:
    return plan.k == 1 and not plan.categories and bool(((x == 0) | (x == 1)).all())


def _z(x: Floats, metric: Metric, plan: FloorPlan, binary: bool) -> float:
    """Standard errors above the limit: at the limit's own variance for a share, else the sample's."""
    gap = metric.value - plan.limit
    stderr = math.sqrt(plan.limit * (1 - plan.limit) / len(x)) if binary else metric.stderr
    if not stderr:
        return 0.0
    return max(-38.0, min(38.0, gap / stderr))
