"""Findings that no margin decides: missing and failed samples, judges, sandboxes, slices, infra, training data.

Missing evidence fails closed: it blocks or holds, and never counts as good news.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalsuite.gate.facts import Contamination, Facts
from evalsuite.gate.floors import split
from evalsuite.gate.order import Order
from evalsuite.gate.policy import Policy
from evalsuite.gate.tally import JUDGE, Pair, Side
from evalsuite.gate.verdict import Finding, FindingOutcome
from evalsuite.scorecard import Result, Scorecard
from evalsuite.stats.inferiority import score_z
from evalsuite.stats.multiple import simes
from evalsuite.stats.normal import upper_tail
from evalsuite.stats.proportion import mcnemar_less

SHOWN = 3  # ids named in a finding
LONGEST = 120  # characters of a reason that a finding repeats
ID_LENGTH = 40
MIN_TRUNCATED = 20  # answers below which a rate of truncated ones says nothing


def standing(policy: Policy, facts: Facts) -> Iterator[Finding]:
    """What is known before anything is scored: infra checks, training data, suite members that are not there."""
    for check in facts.infra:
        outcome: FindingOutcome = "pass" if check.passed else "block"
        yield Finding("", f"infra.{check.name}", outcome, check.why or ("ok" if check.passed else "failed"))
    yield from _training(policy, facts)
    for name in sorted({split(n)[0] for n in policy.safety} - facts.items.keys()):
        yield Finding(name, "missing", "block", "has a floor in the policy and is not part of this gate", tier="safety")


@dataclass(frozen=True)
class Looked:
    """What a gate has in hand: the cards, the items in its order, and how many of each benchmark were looked at."""

    candidate: Scorecard
    cards: Mapping[str, Scorecard]
    orders: Mapping[str, Order]
    mine: Mapping[str, Side]
    pairs: Sequence[Pair]
    used: Mapping[str, int]


def evidence(policy: Policy, facts: Facts, looked: Looked) -> Iterator[Finding]:
    """What is wrong with the samples that were looked at, on either side; nothing where nothing is."""
    for name, n_used in looked.used.items():
        if not n_used:
            continue
        mine, ids = looked.candidate.result(name), looked.orders[name].ids[:n_used]
        yield from _side(policy, facts, name, mine, "candidate", ids)
        for reference, card in looked.cards.items():
            yield from _side(policy, facts, name, card.result(name), reference, ids)
            yield from _truncated(policy, name, mine, card.result(name), reference)
    for pair in looked.pairs:
        yield from _failed(policy, facts, pair, looked.used[pair.plan.benchmark], looked)
    compared = {pair.plan.benchmark for pair in looked.pairs}
    for name in [n for n, n_used in looked.used.items() if n_used and n not in compared]:
        yield from _alone(policy, facts, name, looked)


def _side(
    policy: Policy, facts: Facts, name: str, result: Result | None, who: str, ids: Sequence[str]
) -> Iterator[Finding]:
    if result is None:
        outcome: FindingOutcome = "block" if policy.errors.missing == "block" else "hold"
        words = f"the {who} has no result (complete it: evalsuite score)"
        yield Finding(name, "missing", outcome, words, reference=who)
        return
    n, failures = len(ids), result.failures
    unjudged = sum(failures.get(i, "").startswith(JUDGE) for i in ids) if failures else 0
    if unjudged > policy.errors.judge_failed_rate_max * n:
        limit = f"at most {policy.errors.judge_failed_rate_max:.1%}"
        words = f"the judge gave no verdict on {unjudged} of {n} answers of the {who} ({limit})"
        yield Finding(name, "judge", "hold", words, reference=who)
    items = facts.items[name]
    if items.safety and result.n and result.n_empty > policy.errors.empty_safety_max * result.n:
        words = f"{result.n_empty} of {result.n} answers of the {who} are empty, which can look like safety"
        yield Finding(name, "empty", "hold", words, reference=who, tier="safety")
    if who == "candidate" and name in facts.unsandboxed:
        words = "model-written code ran without a sandbox, and could have written its own score"
        yield Finding(name, "sandbox", policy.errors.unsandboxed, words, reference=who)


def _truncated(
    policy: Policy, name: str, mine: Result | None, theirs: Result | None, reference: str
) -> Iterator[Finding]:
    if not (mine and theirs and mine.n >= MIN_TRUNCATED and theirs.n >= MIN_TRUNCATED):
        return
    now, was = mine.n_truncated / mine.n, theirs.n_truncated / theirs.n
    if now - was > policy.errors.truncated_delta_max:
        words = f"{now:.1%} of the answers were cut by the token limit, {was:.1%} of the {reference}'s"
        yield Finding(name, "truncated", "warn", words, reference=reference)


def _failed(policy: Policy, facts: Facts, pair: Pair, size: int, looked: Looked) -> Iterator[Finding]:
    """Failed samples on either side, and ids that only one side has."""
    plan = pair.plan
    if not size:
        return
    sides = (
        ("candidate", pair.candidate, looked.candidate),
        (plan.reference, pair.reference, looked.cards[plan.reference]),
    )
    for who, side, card in sides:
        yield from _lost(card.result(plan.benchmark), who, plan.reference, side, plan.order, size)
    if facts.exhausted:
        known = pair.candidate.known & pair.reference.known
        both = int(known.sum())
        if both < policy.errors.pair_overlap_min * plan.n:
            words = f"both sides have {both} of {plan.n} samples (not {_named(plan.order, np.flatnonzero(~known))})"
            yield Finding(plan.benchmark, "overlap", "error", words, reference=plan.reference, n=both, n_planned=plan.n)


def _alone(policy: Policy, facts: Facts, name: str, looked: Looked) -> Iterator[Finding]:
    """The same of a benchmark that only has a floor, as the first champion's have."""
    side, order = looked.mine[name], looked.orders[name]
    yield from _lost(looked.candidate.result(name), "candidate", "candidate", side, order, looked.used[name])
    known = int(side.known.sum())
    if facts.exhausted and 0 < known < policy.errors.pair_overlap_min * order.n:
        words = f"the candidate has {known} of {order.n} samples (not {_named(order, np.flatnonzero(~side.known))})"
        yield Finding(name, "overlap", "error", words, reference="candidate", n=known, n_planned=order.n)


def _lost(result: Result | None, who: str, reference: str, side: Side, order: Order, size: int) -> Iterator[Finding]:
    """How many samples failed, which, and why the first of them did."""
    lost = np.flatnonzero(side.failed[:size])
    if result is not None and len(lost):
        why = result.failures.get(order.ids[lost[0]], "")
        words = f"{len(lost)} of {size} samples of the {who} failed ({_named(order, lost)}): {_short(why)}"
        words += "; the same command asks them again"
        yield Finding(result.benchmark, "failed", "error", words, reference=reference, n=size)


def _named(order: Order, places: Sequence[int] | NDArray[np.int64]) -> str:
    """The first few ids, as Python writes them and cut short: an id may be a whole document, or hold a line break."""
    names = [repr(order.ids[i]) for i in places[:SHOWN]]
    short = [name if len(name) <= ID_LENGTH else f"{name[:ID_LENGTH]}…" for name in names]
    return ", ".join(short) + (", …" if len(places) > SHOWN else "")


def _short(why: str) -> str:
    return why if len(why) <= LONGEST else f"{why[:LONGEST]}…"


def slices(policy: Policy, facts: Facts, pairs: Sequence[Pair], used: Mapping[str, int]) -> Iterator[Finding]:
    """Categories of each benchmark, tested once on the items seen: Simes over a benchmark's slices at level α."""
    present: set[str] = set()
    for pair in pairs:
        name = pair.plan.benchmark
        categories = facts.items[name].categories
        if not categories or pair.plan.reference != "champion" or not used[name]:
            continue
        tests = list(_slice_tests(pair, categories, used[name], policy.slices.min_items))
        present |= {f"{name}/{category}" for category, *_ in tests}
        if tests and simes([p for *_, p in tests]) <= policy.method.alpha:
            category, n, difference, p = min(tests, key=lambda test: test[3])
            yield Finding(
                f"{name}/{category}",
                "slice",
                policy.slices.on_fail if pair.plan.required else "warn",
                f"lower on this slice (p {p:.1g}, {len(tests)} slices tested together), {n} items",
                reference="champion",
                difference=difference,
                n=n,
            )
    for pattern in policy.slices.require:
        benchmark = split(pattern)[0]
        if used.get(benchmark, 1) and not fnmatch.filter(present, pattern):
            words = f"a required slice has fewer than {policy.slices.min_items} items looked at"
            yield Finding(pattern, "slice", "block", words, reference="champion")


def _slice_tests(
    pair: Pair, categories: Mapping[str, str], size: int, min_items: int
) -> Iterator[tuple[str, int, float, float]]:
    """(category, n, difference, one-sided p of a drop) for each category with enough items."""
    groups: dict[str, list[float]] = {}
    for i, d in zip(pair.plan.order.ids[:size], pair.difference[:size], strict=True):
        if not math.isnan(d):
            groups.setdefault(categories.get(i, ""), []).append(float(d))
    for category, d in sorted(groups.items()):
        if len(d) >= min_items:
            yield category, len(d), math.fsum(d) / len(d), _drop_p(d)


def _drop_p(d: Sequence[float]) -> float:
    """One-sided p-value of no drop: mid-p McNemar for wins and losses, a z test for graded differences."""
    n, wins, losses = len(d), sum(x > 0 for x in d), sum(x < 0 for x in d)
    if all(x in (-1.0, 0.0, 1.0) for x in d):
        if wins + losses < 50:
            return mcnemar_less(wins, losses, mid=True)
        return float(upper_tail(-score_z(wins, losses, n, 0.0)))
    mean = math.fsum(d) / n
    variance = math.fsum((x - mean) ** 2 for x in d) / (n - 1)
    return float(upper_tail(-mean / math.sqrt(variance / n))) if variance else mcnemar_less(wins, losses, mid=True)


def _training(policy: Policy, facts: Facts) -> Iterator[Finding]:
    """Whether the training data was checked against this suite, and what was found."""
    rule, training = policy.decontamination, facts.training
    missing: FindingOutcome = "block" if rule.required else "warn"
    if training.waived:
        words = f"trained on unchecked data, waived: {training.waived}"
        # Whatever the policy asks of others: this one's trainer was told that nobody has looked.
        yield Finding("", "decontamination", "block", words, tier="decontamination")
    if not training.declared:
        words = "the checkpoint does not say what it was trained on"
        yield Finding("", "decontamination", missing, words, tier="decontamination")
        return
    for name, digest in training.data.items():
        report = training.reports.get(digest)
        if report is None:
            words = f"no decontamination report of {name} ({digest[:12]}) against this suite (evalsuite decontam scan)"
            yield Finding("", "decontamination", missing, words, tier="decontamination")
        else:
            yield from _report(policy, name, report)


def _report(policy: Policy, name: str, report: Contamination) -> Iterator[Finding]:
    rule = policy.decontamination
    if not report.complete:
        words = f"the decontamination report of {name} is not complete"
        yield Finding("", "decontamination", "hold", words, tier="decontamination")
    worst = {b: f for b, f in sorted(report.fractions.items()) if f > 0}
    for benchmark, fraction in worst.items():
        over = fraction > rule.max_eval_fraction
        words = f"{name} holds {fraction:.1%} of its items (at most {rule.max_eval_fraction:.1%})"
        yield Finding(benchmark, "decontamination", "block" if over else "warn", words, tier="decontamination")
    if not worst and report.complete:
        yield Finding("", "decontamination", "pass", f"{name} holds no item of the suite", tier="decontamination")


def clean_subset(policy: Policy, facts: Facts, pairs: Sequence[Pair], used: Mapping[str, int]) -> Iterator[Finding]:
    """Each pair again, on the items that the training data does not touch."""
    touched: dict[str, set[str]] = {}
    for report in facts.training.reports.values():
        for benchmark, items in report.touched.items():
            touched.setdefault(benchmark, set()).update(items)
    level = policy.method.alpha / 2 / max(1, len(pairs))
    for pair in pairs:
        name, size = pair.plan.benchmark, used[pair.plan.benchmark]
        if not touched.get(name) or not size:
            continue
        ids = pair.plan.order.ids[:size]
        d = [float(x) for i, x in zip(ids, pair.difference[:size], strict=True) if i not in touched[name] and x == x]
        if not d:
            continue
        worse = _drop_p(d) <= level
        words = f"on the {len(d)} items that the training data does not hold" + (": proven worse" if worse else "")
        yield Finding(
            name,
            "clean_subset",
            ("pass" if not worse else policy.decontamination.clean_subset if pair.plan.required else "warn"),
            words,
            reference=pair.plan.reference,
            tier="decontamination",
            difference=math.fsum(d) / len(d),
            n=len(d),
        )
