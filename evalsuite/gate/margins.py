"""What a gate holds each pair to, planned before anything is looked at: margin, bounds, power, what it cannot see.

A margin is the smallest drop that the data can rule out with the planned power. It never comes from the candidate's own
results: a margin computed from the data it is tested on inflates the error it bounds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalsuite.distributions import t_quantile
from evalsuite.errors import PolicyError
from evalsuite.gate.order import Order
from evalsuite.gate.policy import Policy, Rule
from evalsuite.stats.bounds import bounds
from evalsuite.stats.inferiority import even_clusters
from evalsuite.stats.normal import upper_tail, z_of_upper_tail
from evalsuite.stats.power import design_effect, k_ratio

KS = (1, 2, 4, 8, 16)
MOST = 2.0  # (ours) how far above the plan a measured disagreement may plan: one wild gate must not blind the next


@dataclass(frozen=True, slots=True)
class Spread:
    """What the last gate measured of one pair over the full benchmark: variance of the differences, and their ICC."""

    variance: float
    icc: float | None = None


@dataclass(frozen=True, slots=True)
class PairPlan:
    """One pair as planned. `margin` is the allowed drop (0 to 1), `null` what a block must be proven to lie below.

    `clear` and `block` are bounds on z for each look, inf where that look may not decide. `power` is the chance that an
    equal checkpoint clears, `source` where the planned variance comes from. A `blind` pair has a margin above the
    policy's `margin_max`, and its findings say so.
    """

    benchmark: str
    reference: str
    rule: Rule
    k: int
    order: Order
    deff: float
    icc: float
    stderr: float
    source: str
    margin: float
    null: float
    clear: tuple[float, ...]
    block: tuple[float, ...]
    power: float
    blind: bool

    @property
    def n(self) -> int:
        return self.order.n

    @property
    def required(self) -> bool:
        """Whether this pair can stop a promotion; an advisory one only warns."""
        return self.rule.tier != "advisory"


@dataclass(frozen=True, slots=True)
class PairInput:
    """A pair before it is planned: its items in their order, how many samples an item has, what is known of it.

    A score that needs several samples (pass@10: `of` = 10) varies as if it had k / of of them; the latent model of
    gate.md §14.3 gives less, .28 against the .52 planned for 20 samples of pass@10.
    """

    benchmark: str
    reference: str
    order: Order
    k: int = 1
    of: int = 1
    spread: Spread | None = None


def plan_pairs(policy: Policy, inputs: Sequence[PairInput], n_floors: int = 0) -> tuple[PairPlan, ...]:
    """The plan of every pair, in the order given; blocks and planned misses are shared out over pairs and floors.

    Raises PolicyError, naming every pair, when one can only ever end inconclusive: its margin is finer than its items
    and samples can show. It says which K or n would do.
    """
    n_tests = max(1, n_floors + sum(policy.rule(i.benchmark).tier != "advisory" for i in inputs))
    plans, problems = [], []
    for each in inputs:
        plan = _plan(policy, each, n_tests)
        plans.append(plan)
        if plan.required and plan.rule.on_inconclusive == "hold" and plan.power < policy.plan.min_power:
            problems.append(_unreachable(policy, plan, each, n_tests))
    if problems:
        raise PolicyError("\n".join(problems))
    return tuple(plans)


def look_bounds(policy: Policy, order: Order, n_tests: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(clear, block): bounds on z at each look of the policy's method, inf where a look decides nothing."""
    method, alpha = policy.method, policy.method.alpha
    looks = len(order.sizes)
    if method.test != "group_sequential":
        # Betting: half of α is spent by the e-process as items arrive, half by the fixed test when they run out. The
        # fixed test blocks by Simes over all pairs (judge.py). Neither has a bound on z to block.
        at = float(z_of_upper_tail(alpha if method.test == "fixed" else alpha / 2))
        last = order.sizes.index(order.n)
        return tuple(at if k == last else math.inf for k in range(looks)), (math.inf,) * looks
    times = tuple(t for t, counts in zip(order.times, order.counts, strict=True) if counts)
    to_clear = iter(bounds(method.clear, alpha, times))
    to_block = iter(bounds(method.block, alpha / 2 / n_tests, times))
    clear = [next(to_clear) if counts else math.inf for counts in order.counts]
    block = [next(to_block) if counts else math.inf for counts in order.counts]
    return tuple(clear), tuple(block)


def _plan(policy: Policy, each: PairInput, n_tests: int) -> PairPlan:
    rule = policy.rule(each.benchmark)
    clear, block = look_bounds(policy, each.order, n_tests)
    last = _last(clear)
    stderr, source, deff, icc = _planned_stderr(policy, each)
    clusters = () if each.order.strata else each.order.clusters
    reach = _reach(last, policy.method.beta / n_tests, clusters, icc)
    margin, blind = _margin(policy, rule, reach, last, stderr)
    return PairPlan(
        each.benchmark,
        each.reference,
        rule,
        each.k,
        each.order,
        deff,
        icc,
        stderr,
        source,
        margin,
        _block_null(rule, margin),
        clear,
        block,
        _power(margin, stderr, last),
        blind,
    )


def _last(bounds_: Sequence[float]) -> float:
    """The bound of the last look that may decide."""
    return [b for b in bounds_ if math.isfinite(b)][-1]


def _reach(last: float, miss: float, clusters: Sequence[str], icc: float) -> float:
    """C: how many planned standard errors a margin must be, so that an equal checkpoint misses it with chance `miss`.

    Clustered pairs are tested by Student's t on the degrees of freedom that their clusters leave, and planned by it.
    """
    if not clusters:
        return last + float(z_of_upper_tail(miss))
    freedom = even_clusters(list(Counter(clusters).values()), icc) - 1 if len(set(clusters)) > 1 else 1
    return t_quantile(1 - float(upper_tail(last)), freedom) + t_quantile(1 - miss, freedom)


def _planned_stderr(policy: Policy, each: PairInput) -> tuple[float, str, float, float]:
    """√(v·deff/n) of the mean difference over all items, where v comes from, deff and the ICC behind it."""
    plan, ratio = policy.plan, k_ratio(each.k / each.of)
    floor = plan.disagreement_floor * ratio
    if each.spread is not None:
        most = MOST * plan.disagreement * ratio
        variance, source = min(max(each.spread.variance, floor), most), "last gate"
    else:
        variance, source = max(plan.disagreement * ratio, floor), "policy"
    icc = plan.icc if each.spread is None or each.spread.icc is None else each.spread.icc
    clusters = () if each.order.strata else each.order.clusters
    deff = float(design_effect(list(Counter(clusters).values()), icc)) if clusters else 1.0
    return math.sqrt(variance * deff / each.order.n), source, deff, icc


def _margin(policy: Policy, rule: Rule, reach: float, last: float, stderr: float) -> tuple[float, bool]:
    """(allowed drop, whether it is wider than the policy wanted)."""
    if rule.margin is not None:
        return rule.margin, False
    calibrated = max(rule.margin_min, reach * stderr)
    if rule.margin_max is None or calibrated <= rule.margin_max:
        return calibrated, False
    if _power(rule.margin_max, stderr, last) >= policy.plan.min_power or rule.on_inconclusive == "hold":
        return rule.margin_max, False
    return calibrated, True


def _power(margin: float, stderr: float, last: float) -> float:
    """The chance that a checkpoint as good as the reference clears, by the normal approximation."""
    return float(upper_tail(last - margin / stderr))


def _block_null(rule: Rule, margin: float) -> float:
    """A calibrated margin is a limit of sight, and any proven drop blocks; a written one is a permission."""
    wanted = rule.block_null or ("zero" if rule.margin is None else "margin")
    return 0.0 if wanted == "zero" else -margin


def _unreachable(policy: Policy, plan: PairPlan, each: PairInput, n_tests: int) -> str:
    """One line: what cannot be decided, and the K or n that would repair it."""
    where = f"must_not_regress.{plan.benchmark}"
    wanted = policy.plan.min_power
    head = (
        f"{where}: a margin of {100 * plan.margin:.3g} points can only end inconclusive: an equal checkpoint clears it "
        f"with chance {plan.power:.2f} at {plan.n} items and K = {plan.k}, and min_power is {wanted:g}"
    )
    last = _last(plan.clear)
    needed = last + float(z_of_upper_tail(1 - wanted))
    n = math.ceil(plan.n * (needed * plan.stderr / plan.margin) ** 2)
    k = next((k for k in KS if k > plan.k and _power(plan.margin, _at_k(plan, k), last) >= wanted), None)
    ways = [f"K = {k} would do"] if k is not None else []
    ways += [f"{n} items would do", f"a margin of {100 * needed * plan.stderr:.3g} points would do"]
    return f"{head}; {', '.join(ways)} (or on_inconclusive: warn)"


def _at_k(plan: PairPlan, k: int) -> float:
    return plan.stderr * math.sqrt(k_ratio(k) / k_ratio(plan.k))


def history_of(findings: Sequence[Mapping[str, object]]) -> dict[tuple[str, str, int], Spread]:
    """(benchmark, reference, K) to what a verdict's findings measured over whole benchmarks."""
    found = {}
    for f in findings:
        variance, icc = f.get("variance"), f.get("icc")
        if isinstance(variance, float | int) and f.get("rule") == "must_not_regress":
            key = str(f["benchmark"]), str(f["reference"]), int(str(f["k"]))
            found[key] = Spread(float(variance), float(str(icc)) if icc is not None else None)
    return found
