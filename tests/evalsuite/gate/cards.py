"""Two sides of a gate written in one line: scores by place, or counts of wins, losses and ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evalsuite.gate.facts import Facts, Items
from evalsuite.gate.judge import judge
from evalsuite.gate.policy import Method, Policy, Rule
from evalsuite.gate.verdict import Finding, Verdict
from evalsuite.scorecard import Result, Scorecard
from tests.evalsuite.cards import make_card, make_result

# One look at the end of the data, so that arithmetic fits on a line.
ONE_LOOK = Policy(method=Method(looks=1), anchor=None)
Scores = Sequence[float] | Result


def card(name: str, **scores: Scores) -> Scorecard:
    """Samples q0, q1, … of each benchmark."""
    return make_card(name, scores)


def counts(wins: int, losses: int, ties: int) -> tuple[list[float], list[float]]:
    """(candidate, reference): ties are right on both sides."""
    return [1.0] * wins + [0.0] * losses + [1.0] * ties, [0.0] * wins + [1.0] * losses + [1.0] * ties


def duel(**pairs: tuple[Scores, Scores]) -> tuple[Scorecard, Scorecard]:
    """Candidate `new` and champion `old` from (candidate, champion) scores of each benchmark."""
    return card("new", **{n: a for n, (a, _) in pairs.items()}), card("old", **{n: b for n, (_, b) in pairs.items()})


def facts_of(*cards: Scorecard | None, items: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any) -> Facts:
    """Facts over every sample that a card holds; `items` adds fields to a benchmark's Items."""
    ids: dict[str, dict[str, None]] = {}
    for each in cards:
        for result in each.results if each else ():
            ids.setdefault(result.benchmark, {}).update(dict.fromkeys([*result.scores, *result.failures]))
    known = {name: Items(ids=tuple(found), **(items or {}).get(name, {})) for name, found in ids.items()}
    return Facts(**({"items": known, "columns": {name: (name,) for name in known}} | changes))


def ruled(
    sides: tuple[Scorecard, Scorecard | None],
    policy: Policy = ONE_LOOK,
    *,
    anchor: Scorecard | None = None,
    items: Mapping[str, Mapping[str, Any]] | None = None,
    **facts: Any,
) -> Verdict:
    """The verdict on (candidate, champion) with everything at hand."""
    candidate, champion = sides
    return judge(policy, candidate, champion, anchor, facts_of(*sides, anchor, items=items, **facts))


def found(verdict: Verdict, rule: str, benchmark: str | None = None, reference: str | None = None) -> Finding:
    """The one finding of a rule."""
    (finding,) = findings(verdict, rule, benchmark, reference)
    return finding


def findings(
    verdict: Verdict, rule: str, benchmark: str | None = None, reference: str | None = None
) -> tuple[Finding, ...]:
    return tuple(
        f
        for f in verdict.findings
        if f.rule == rule and benchmark in (None, f.benchmark) and reference in (None, f.reference)
    )


def pair(verdict: Verdict, benchmark: str = "a", reference: str = "champion") -> Finding:
    return found(verdict, "must_not_regress", benchmark, reference)


def written(margin: float, policy: Policy = ONE_LOOK, **rule: Any) -> Policy:
    """The policy with a margin that somebody wrote down."""
    return replace(policy, default=Rule(margin=margin, **rule))


def prefix(each: Scorecard, order: Mapping[str, Sequence[str]], sizes: Mapping[str, int]) -> Scorecard:
    """The card as it is when only the first items of each benchmark's order were scored."""
    kept = []
    for r in each.results:
        asked = set(order[r.benchmark][: sizes.get(r.benchmark, 0)])
        if asked:
            scores = {i: s for i, s in r.scores.items() if i in asked}
            kept.append(replace(r, scores=scores, failures={i: w for i, w in r.failures.items() if i in asked}))
    return replace(each, results=tuple(kept))


def lacking(n: int, why: str, of: int = 200) -> Result:
    """Benchmark `a`, all right but for the last n, which have no score."""
    whole = make_result("a", [1.0] * of)
    lost = [f"q{i}" for i in range(of - n, of)]
    kept = {i: s for i, s in whole.scores.items() if i not in lost}
    return replace(whole, scores=kept, failures=dict.fromkeys(lost, why))
