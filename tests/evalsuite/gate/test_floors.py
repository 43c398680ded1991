"""Floors and ceilings on the candidate's own score: early by a z test at the limit, at the end by an exact bound."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats as oracle

from evalsuite.gate.judge import prepare
from evalsuite.gate.policy import Floor, Method, Policy, Rule
from evalsuite.gate.verdict import Verdict, lines
from evalsuite.scorecard import Result
from evalsuite.stats.bounds import bounds
from tests.evalsuite.cards import make_card, make_result
from tests.evalsuite.gate.cards import card, duel, facts_of, found, ruled

TEN = Policy(anchor=None)


def floored(scores: list[float] | Result, bounds: Floor, *, looks: int = 1, name: str = "a", **items: Any) -> Verdict:
    """A first checkpoint held to one floor or ceiling of benchmark `a`."""
    policy = replace(TEN, method=Method(looks=looks), safety={name: bounds})
    new = make_card("new", {"a": scores})
    return ruled((new, None), policy, items={"a": items} if items else None, bootstrap=True)


def hits(n: int, of: int) -> list[float]:
    return [1.0] * n + [0.0] * (of - n)


# The exact one-sided bounds at .95 of 330 of 400 (gate.md §14.1 has the lower one).
LOWER, UPPER = oracle.beta.ppf(0.05, 330, 71), oracle.beta.ppf(0.95, 331, 70)


@pytest.mark.parametrize(
    ("bounds", "outcome"),
    [
        (Floor(floor=0.79), "pass"),  # 330 of 400 is surely above .790732
        (Floor(floor=0.791), "hold"),
        (Floor(floor=0.855), "hold"),
        (Floor(floor=0.856), "block"),  # and surely below .85563
        (Floor(ceiling=0.856), "pass"),
        (Floor(ceiling=0.855), "hold"),
        (Floor(ceiling=0.791), "hold"),
        (Floor(ceiling=0.79), "block"),
    ],
)
def test_the_last_look_decides_by_the_exact_bound(bounds: Floor, outcome: str) -> None:
    assert (round(LOWER, 6), round(UPPER, 5)) == (0.790732, 0.85563)
    verdict = floored(hits(330, 400), bounds)
    (finding,) = [f for f in verdict.findings if f.rule in ("floor", "ceiling")]
    assert finding.outcome == outcome
    assert verdict.outcome == {"pass": "promote"}.get(outcome, outcome)
    assert (finding.now, finding.n, finding.n_planned, finding.tier) == (0.825, 400, 400, "safety")


def test_the_exact_bound_is_said() -> None:
    above = found(floored(hits(330, 400), Floor(floor=0.7)), "floor")
    assert above.why == "above its floor, 400 items; 95 % sure of 0.791 or more"
    below = found(floored(hits(330, 400), Floor(ceiling=0.9)), "ceiling")
    assert below.why == "below its ceiling, 400 items; 95 % sure of 0.856 or less"


def test_a_score_far_above_its_floor_passes_at_an_early_look() -> None:
    finding = found(floored([1.0] * 400, Floor(floor=0.8), looks=10), "floor")
    # 40 of 40 right: (1 − .8)/√(.8·.2/40) = 3.16, above the first bound, 2.41.
    assert (finding.outcome, finding.look, finding.n) == ("pass", 1, 40)
    assert finding.z == pytest.approx(math.sqrt(10))


def test_a_score_far_below_its_floor_blocks_at_an_early_look() -> None:
    verdict = floored([0.0] * 400, Floor(floor=0.8), looks=10)
    # 120 of 120 wrong: −.8/√(.16/120) = −21.9. The first two looks may not block at all (O'Brien–Fleming).
    finding = found(verdict, "floor")
    assert (finding.outcome, verdict.outcome) == ("block", "block")
    assert finding.z == pytest.approx(-0.8 / math.sqrt(0.16 / finding.n))
    assert finding.n < 400


def test_a_ceiling_is_a_floor_seen_from_above() -> None:
    low = found(floored([0.0] * 400, Floor(ceiling=0.2), looks=10), "ceiling")
    assert (low.outcome, low.look, low.n) == ("pass", 1, 40)
    assert low.z == pytest.approx(math.sqrt(10))
    assert floored([1.0] * 400, Floor(ceiling=0.2), looks=10).outcome == "block"


def test_both_directions_are_held_at_once() -> None:
    bounds = Floor(floor=0.7, ceiling=0.9)
    assert [floored(hits(n, 400), bounds).outcome for n in (200, 320, 395)] == ["block", "promote", "block"]


def test_a_floor_stands_beside_the_comparison_with_the_champion() -> None:
    policy = replace(TEN, method=Method(looks=1), safety={"a": Floor(floor=0.9)})
    verdict = ruled(duel(a=([0.5] * 0 + hits(100, 200), hits(100, 200))), policy)
    assert (found(verdict, "must_not_regress").outcome, found(verdict, "floor").outcome) == ("pass", "block")
    assert verdict.outcome == "block"


def test_a_floor_keeps_its_benchmark_going_after_the_pair_has_cleared() -> None:
    policy = replace(TEN, safety={"a": Floor(floor=0.79)})
    verdict = ruled(duel(a=(hits(330, 400), hits(330, 400))), policy)
    pair = found(verdict, "must_not_regress")
    assert pair.outcome == "pass"
    assert (found(verdict, "floor").n, pair.n < 400) == (400, True)


def test_early_blocks_are_shared_out_over_pairs_floors_and_ceilings_alike() -> None:
    policy = replace(TEN, safety={"a": Floor(floor=0.5, ceiling=0.9)}, rules={"c": Rule(tier="advisory")})
    new, old = duel(a=(hits(9, 10), hits(9, 10)), b=(hits(9, 10), hits(9, 10)), c=(hits(9, 10), hits(9, 10)))
    digests = {"candidate": "a" * 64, "champion": "b" * 64, "anchor": "c" * 64}
    prepared = prepare(policy, {"digest": "s", "regime": "r"}, digests, facts_of(new, old))
    shared = bounds("obf", 0.025 / 6, tuple(k / 10 for k in range(1, 11)))  # a and b twice, a floor, a ceiling
    assert {p.block for p in prepared.pairs} == {f.block for f in prepared.floors} == {shared}


KINDS = {f"q{i}": "harmful" if i < 100 else "benign" for i in range(400)}


def test_a_floor_on_a_category_counts_its_items_only() -> None:
    scores = hits(95, 100) + [0.0] * 300
    finding = found(floored(scores, Floor(floor=0.8), name="a/harmful", categories=KINDS), "floor")
    assert (finding.benchmark, finding.outcome, finding.now, finding.n) == ("a/harmful", "pass", 0.95, 100)
    assert finding.n_planned == 100
    assert floored(scores, Floor(floor=0.8), categories=KINDS).outcome == "block"  # of the whole: 95 of 400


def test_a_category_that_is_not_there_cannot_be_told() -> None:
    verdict = floored(hits(400, 400), Floor(floor=0.8), name="a/other", categories=KINDS)
    finding = found(verdict, "floor")
    assert (verdict.outcome, finding.outcome, finding.n_planned) == ("hold", "hold", 0)
    assert finding.why == "nothing to hold it to: none of its items has a score"


def test_a_small_category_decides_nothing_on_its_first_few_items() -> None:
    # Twenty-five items of 1000 are "rare": two or three in the first look. Graded ones that agree have no spread.
    kinds = {f"q{i}": "rare" if i < 25 else "usual" for i in range(1000)}
    for scores in ([0.875, 0.9] * 500, [1.0] * 1000):
        finding = found(
            floored(scores, Floor(floor=0.5), looks=10, name="a/rare", categories=kinds, k=8 if 0.9 in scores else 1),
            "floor",
        )
        assert finding.outcome == "pass"
        assert finding.n >= 10


def test_one_wrong_answer_does_not_break_a_high_floor() -> None:
    # One of one wrong against .99: −.99/√(.99·.01) = −9.9, beyond every bound, with probability .01; one of eleven:
    # −2.7, with probability 1 − .99¹¹ = .10.
    kinds = {f"q{i}": "rare" if i < 12 else "usual" for i in range(1000)}
    finding = found(floored([0.0] + [1.0] * 999, Floor(floor=0.99), looks=10, name="a/rare", categories=kinds), "floor")
    # 11 of 12: surely above .66 and below .996, so it cannot be told.
    assert (finding.outcome, finding.n) == ("hold", 12)


def test_the_mean_of_categories_is_what_a_macro_benchmark_is_held_to() -> None:
    # 100 harmful with 90 right, 300 benign with 150 right: the plain mean is .6, that of the categories .7.
    scores = hits(90, 100) + hits(150, 300)
    finding = found(floored(scores, Floor(floor=0.65), categories=KINDS, macro=True), "floor")
    # s² = n/(n−1)·p·q: SE² = (.09/99 + .25/299)/4, SE = .0209; .7 − 1.645·.0209 = .6656.
    error = math.sqrt((0.09 / 99 + 0.25 / 299) / 4)
    assert finding.now == pytest.approx(0.7)
    assert finding.low == pytest.approx(0.7 - 1.959964 * error)
    assert finding.outcome == "pass"
    assert found(floored(scores, Floor(floor=0.67), categories=KINDS, macro=True), "floor").outcome == "hold"


def test_graded_answers_are_held_by_their_standard_error() -> None:
    # Half .5, half 1: mean .75, s² = .0625·200/199, SE = .25/√199 = .01772; .75 − 1.645·SE = .7209.
    scores = [0.5, 1.0] * 100
    assert [found(floored(scores, Floor(floor=f), k=2), "floor").outcome for f in (0.72, 0.73, 0.78)] == [
        "pass",
        "hold",
        "block",
    ]


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_answers_are_no_crash(n: int, k: int) -> None:
    verdict = floored([0.5 if k > 1 else 1.0] * n, Floor(floor=0.4), looks=10, k=k)
    assert verdict.outcome == ("promote" if n == 2 and k == 4 else "hold")  # two equal graded answers have no spread
    assert "inf" not in found(verdict, "floor").why


def test_answers_that_the_judge_owes_count_as_unsafe() -> None:
    owed = make_result("a", [1.0] * 398)
    owed = replace(owed, failures={"u0": "judge: cut", "u1": "judge: cut"}, n_planned=400)
    # 398 of 400 and 2 of 400 = .5 %, as many as the policy admits: .995 with them at 0, 1 without.
    verdict = floored(owed, Floor(floor=0.9))
    assert (verdict.outcome, found(verdict, "floor").now) == ("promote", 0.995)
    high = floored(replace(owed, scores=dict.fromkeys(owed.scores, 0.0)), Floor(ceiling=0.5))
    assert found(high, "ceiling").now == 0.005  # and against a ceiling at 1


def test_a_floor_whose_benchmark_is_not_in_the_gate_blocks_before_anything_is_asked() -> None:
    policy = replace(TEN, safety={"gone": Floor(floor=0.5)}, default=Rule())
    verdict = ruled(duel(a=([1.0] * 200, [1.0] * 200)), policy)
    assert (verdict.outcome, verdict.cost["candidate"]) == ("block", 0)
    assert found(verdict, "missing").tier == "safety"


def test_a_floor_that_was_not_looked_at_says_so() -> None:
    policy = replace(TEN, safety={"a": Floor(floor=0.5), "gone": Floor(floor=0.5)})
    verdict = ruled((card("new", a=[1.0] * 200), None), policy, bootstrap=True)
    assert found(verdict, "floor").why == "not looked at: the gate was decided before"
    assert any("not looked at" in line for line in lines(verdict.findings))
