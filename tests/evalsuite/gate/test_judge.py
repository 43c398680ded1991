"""The gate's judgement: what clears, what blocks and what cannot be told, each with its arithmetic."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from evalsuite.errors import PolicyError, UsageError
from evalsuite.gate.facts import Facts, Items
from evalsuite.gate.judge import judge, prepare
from evalsuite.gate.policy import Floor, Method, MustImprove, Policy, Rule, Slices, Target
from evalsuite.gate.verdict import Verdict, to_json
from evalsuite.scorecard import Scorecard
from tests.evalsuite.cards import make_card, make_result
from tests.evalsuite.gate.cards import (
    ONE_LOOK,
    card,
    counts,
    duel,
    facts_of,
    found,
    pair,
    prefix,
    ruled,
    written,
)

TEN = Policy(anchor=None)  # ten looks, calibrated margins
Z_95, Z_975 = 1.6448536, 1.9599640  # bounds of one look: clear at 5 %, block at 2.5 % for one pair
FIXED = Policy(method=Method(test="fixed"), anchor=None)
BETTING = Policy(method=Method(test="betting"), anchor=None)


# -- one pair --


def test_thirty_losses_and_no_wins_block_the_checkpoint() -> None:
    verdict = ruled(duel(a=counts(wins=0, losses=30, ties=170)))
    assert verdict.outcome == "block"
    # D = −30/200, V(0) = 30/200: Z(0) = −30/√30 = −5.48, and −1.96 would do.
    assert pair(verdict).outcome == "block"
    assert (pair(verdict).was, pair(verdict).now, pair(verdict).difference) == (1.0, 0.85, -0.15)
    assert "proven worse" in pair(verdict).why


@pytest.mark.parametrize(("losses", "outcome"), [(9, "pass"), (10, "block")])
def test_nine_discordant_items_are_too_few_to_prove_a_drop(losses: int, outcome: str) -> None:
    # √9 = 3 lies beyond 1.96 as √10 does, and no variance can be told from nine items.
    verdict = ruled(duel(a=counts(0, losses, 1000 - losses)))
    assert pair(verdict).outcome == outcome


def test_a_calibrated_margin_is_planned_from_the_policy_and_never_from_the_results() -> None:
    # C = z_.95 + z_.06 = 1.6449 + 1.5548, SE = √(.15/200) = .027386: m = .08763, whatever is seen.
    expected = (Z_95 + oracle.norm.isf(0.06)) * math.sqrt(0.15 / 200)
    for sides in (counts(0, 0, 200), counts(60, 60, 80)):
        assert pair(ruled(duel(a=sides))).limit == pytest.approx(expected, rel=1e-6)


def test_identical_responses_clear_by_the_chance_of_no_loss_at_the_margin() -> None:
    verdict = ruled(duel(a=counts(0, 0, 200)), TEN)
    margin, tail = verdict.blind["a"], [oracle.norm.sf(c) for c in (2.4122, 2.3626, 2.3166)]
    # (1 − m)^n at 20, 40 and 60 items: .117, .0137, .0016 against .0079, .0091, .0103.
    assert [(1 - margin) ** n <= p for n, p in zip((20, 40, 60), tail, strict=True)] == [False, False, True]
    assert (verdict.outcome, pair(verdict).look, pair(verdict).n) == ("promote", 3, 60)
    assert verdict.cost["share"] == 60 / 200


def test_a_nearly_identical_checkpoint_clears_although_one_more_item_is_lost_than_won() -> None:
    verdict = ruled(duel(a=counts(wins=1, losses=2, ties=197)))
    # Two losses or fewer of 200 at m = .0876: 2e-6.
    assert oracle.binom.cdf(2, 200, verdict.blind["a"]) < 0.05
    assert verdict.outcome == "promote"


def test_at_one_look_a_proven_drop_wins_over_a_cleared_margin() -> None:
    # 40 of 2000 lost: Z(0) = −√40 = −6.3 blocks; −.02 lies far above −.05: at V ≈ .05 the error is .005, six of them.
    sides = duel(a=counts(0, 40, 1960))
    assert ruled(sides, written(0.05, block_null="zero")).outcome == "block"
    assert ruled(sides, written(0.05)).outcome == "promote"


def test_a_written_margin_permits_a_small_proven_drop_and_says_so() -> None:
    sides = duel(a=counts(0, 40, 960))  # Z(0) = −√40 = −6.3: surely worse, by four points
    verdict = ruled(sides, written(0.1))
    assert verdict.outcome == "promote"
    assert pair(verdict).outcome == "warn"
    assert "within what is allowed" in pair(verdict).why
    assert ruled(sides).outcome == "block"  # a calibrated margin is a limit of sight


def test_a_drop_beyond_a_written_margin_blocks() -> None:
    # D = −.2 against −.1 of 1000: with V = 2q + δ(1−δ) the error is below √(.3/1000) = .017: −5.8 or less.
    verdict = ruled(duel(a=counts(0, 200, 800)), written(0.1))
    assert verdict.outcome == "block"
    assert "worse than the allowed drop" in pair(verdict).why


def test_what_is_neither_worse_nor_within_the_margin_holds() -> None:
    sides = duel(a=counts(15, 25, 160))
    # Z(0) = −10/√40 = −1.58; Z(−m) = (−.05 + .0876)/√(.2/200) ≈ 1.2.
    verdict = ruled(sides)
    assert (verdict.outcome, verdict.exit_code) == ("hold", 3)
    assert pair(verdict).why.startswith("inconclusive after 200 of 200 items")
    relaxed = ruled(sides, replace(ONE_LOOK, default=Rule(on_inconclusive="warn")))
    assert (relaxed.outcome, pair(relaxed).outcome) == ("promote", "warn")


def test_disagreement_above_the_plan_is_said_where_it_kept_the_gate_from_telling() -> None:
    verdict = ruled(duel(a=counts(60, 65, 75)))  # 125 of 200 differ: variance .625 of 200 − D²
    assert verdict.outcome == "hold"
    assert "disagreement above plan: 0.63, planned 0.15" in pair(verdict).why


def test_an_advisory_pair_warns_and_never_stops() -> None:
    policy = replace(ONE_LOOK, rules={"a": Rule(tier="advisory")})
    verdict = ruled(duel(a=counts(0, 30, 170), b=counts(0, 0, 200)), policy)
    assert (verdict.outcome, pair(verdict, "a").outcome, verdict.pairs) == ("promote", "warn", 1)
    # b alone is tested: its margin is that of one pair.
    assert verdict.blind["b"] == ruled(duel(b=counts(0, 0, 200))).blind["b"]
    with_slices = replace(policy, slices=Slices(min_items=10, on_fail="block"))
    kinds = {"a": {"categories": {f"q{i}": "x" for i in range(200)}}}
    sliced = ruled(duel(a=counts(0, 30, 170)), with_slices, items=kinds)
    assert (sliced.outcome, found(sliced, "slice").outcome) == ("promote", "warn")


def test_blocks_are_shared_out_over_pairs_and_floors() -> None:
    # Z(0) = −12/√24 = −2.449, p = .00716: beyond .025/3 = .00833 for three pairs, not beyond .025/4 = .00625.
    lost = counts(6, 18, 176)
    three = {name: counts(0, 0, 200) for name in ("b", "c")}
    assert ruled(duel(a=lost, **three)).outcome == "block"
    assert ruled(duel(a=lost, d=counts(0, 0, 200), **three)).outcome != "block"
    with_floor = replace(ONE_LOOK, safety={"b": Floor(floor=0.5)})
    assert ruled(duel(a=lost, **three), with_floor).outcome != "block"


# -- references --


def test_a_checkpoint_must_also_clear_the_anchor() -> None:
    right, lost = [1.0] * 200, [0.0] * 30 + [1.0] * 170
    verdict = ruled((card("new", a=lost), card("old", a=lost)), ONE_LOOK, anchor=card("first", a=right))
    assert verdict.outcome == "block"
    assert pair(verdict).outcome == "pass"
    assert pair(verdict, reference="anchor").outcome == "block"
    assert (verdict.anchor.name if verdict.anchor else None, verdict.pairs) == ("first", 2)
    assert verdict.cost["anchor"] == verdict.cost["candidate"]


def test_an_anchor_that_is_the_champion_is_one_comparison() -> None:
    sides = duel(a=counts(0, 0, 200))
    verdict = ruled(sides, ONE_LOOK, anchor=sides[1])
    assert (verdict.pairs, verdict.anchor) == (1, None)
    assert verdict.blind == ruled(sides).blind


def test_the_first_checkpoint_needs_only_its_floors() -> None:
    policy = replace(
        ONE_LOOK,
        safety={"a": Floor(floor=0.5)},
        slices=Slices(require=("a/x",)),
        must_improve=MustImprove("any_of", (Target("macro"),)),
    )
    alone = (card("new", a=[1.0] * 90 + [0.0] * 10, b=[0.0] * 50), None)
    verdict = ruled(alone, policy, bootstrap=True)
    assert (verdict.outcome, verdict.bootstrap, verdict.champion, verdict.claim) == ("promote", True, None, False)
    assert [f.rule for f in verdict.findings if f.outcome == "pass"] == ["floor"]
    assert verdict.cost["candidate"] == 100  # b has no floor and is not asked
    with pytest.raises(UsageError, match=r"first checkpoint\? add --bootstrap"):
        ruled(alone, policy)


def test_a_first_checkpoint_with_failed_or_absent_samples_is_not_promoted() -> None:
    policy = replace(ONE_LOOK, safety={"a": Floor(floor=0.5)})
    failed = make_card("new", {"a": make_result("a", [1.0] * 99, failures=1)})
    verdict = ruled((failed, None), policy, bootstrap=True)
    assert (verdict.outcome, found(verdict, "failed").outcome) == ("hold", "error")
    some = card("new", a=[1.0] * 50)
    known = facts_of(card("all", a=[1.0] * 100), bootstrap=True, exhausted=True)
    half = judge(policy, some, None, None, known)
    assert (half.outcome, found(half, "overlap").why.split(" (")[0]) == (
        "hold",
        "the candidate has 50 of 100 samples",
    )


# -- what the gate is told --


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"suite": "other"}, "suite 'demo' and 'other'"),
        ({"regime": "demo@v2"}, "regime 'demo@v1' and 'demo@v2'"),
        ({"suite_digest": "e" * 64}, "suite digest"),
    ],
)
def test_sides_that_were_not_asked_alike_are_refused(changed: dict[str, Any], what: str) -> None:
    old = make_card("old", {"a": [1.0] * 50}, **changed)
    with pytest.raises(UsageError, match=what):
        ruled((card("new", a=[1.0] * 50), old))
    with pytest.raises(UsageError, match=what):
        ruled((card("new", a=[1.0] * 50), card("mid", a=[1.0] * 50)), anchor=old)


def test_sides_judged_by_different_judges_are_refused() -> None:
    by = {name: {"digest": name * 64, "model": f"judge-{name}"} for name in "xy"}
    new, old = (make_card(n, {"a": make_result("a", [1.0] * 50, judge=by[j])}) for n, j in (("new", "x"), ("old", "y")))
    with pytest.raises(UsageError, match=r"judge-x \(xxxxxxxxxxxx\) and judge-y"):
        ruled((new, old))
    assert ruled((new, replace(old, results=new.results))).outcome == "promote"


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, -0.01, 1.0000001, None, "high"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_score_that_is_no_number_from_0_to_1_is_refused_by_name(score: Any, which: int) -> None:
    sides = list(duel(a=counts(0, 0, 50)))
    bad = replace(sides[which].results[0], scores={**sides[which].results[0].scores, "q7": score})
    sides[which] = replace(sides[which], results=(bad,))
    who = ("candidate", "champion")[which]
    with pytest.raises(UsageError, match=rf"a: sample 'q7' of the {who} has the score {score!r}, which is no number"):
        ruled((sides[0], sides[1]))


def test_benchmarks_without_items_and_ids_that_stand_for_two_are_refused_together() -> None:
    new, old = duel(a=counts(0, 0, 50))
    facts = Facts({"a": Items(("q0", "q1", "q0")), "b": Items(())}, {})
    with pytest.raises(UsageError, match=r"(?s)a: sample id 'q0' stands for 2 samples.*b: has no samples"):
        judge(ONE_LOOK, new, old, None, facts)


def test_a_margin_that_can_only_end_inconclusive_is_refused_before_any_look() -> None:
    with pytest.raises(PolicyError, match=r"a margin of 1 points can only end inconclusive"):
        ruled(duel(a=counts(0, 0, 100)), written(0.01))


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("policy", [TEN, ONE_LOOK, FIXED, BETTING])
@pytest.mark.parametrize("score", [0.0, 1.0])
def test_hardly_any_items_are_judged_without_a_crash(n: int, policy: Policy, score: float) -> None:
    verdict = ruled(duel(a=([score] * n, [1.0] * n)), policy)
    exact = policy is FIXED and n == 5  # mid-p McNemar of 0 to 5: ½·2⁻⁵ = .0156, under .025; else too few to prove
    assert verdict.outcome == ("promote" if score else "block" if exact else "hold")
    assert json.loads(to_json(verdict))["findings"]


@pytest.mark.parametrize("policy", [TEN, ONE_LOOK, FIXED, BETTING])
@pytest.mark.parametrize(("now", "outcome"), [(0.5, "promote"), (0.75, "promote"), (0.25, "block")])
def test_items_that_all_move_alike_have_no_spread_and_are_judged_all_the_same(
    policy: Policy, now: float, outcome: str
) -> None:
    twenty = {f"q{i}": f"c{i % 20}" for i in range(200)}
    # Twenty bets that win log 1.2 each, averaged over ten stakes: at most 3.6, and log(2/.05) = 3.7 would block.
    for grouped, expected in (({}, outcome), (twenty, "hold" if policy is BETTING and now == 0.25 else outcome)):
        verdict = ruled(duel(a=([now] * 200, [0.5] * 200)), policy, items={"a": {"k": 4, "clusters": grouped}})
        assert verdict.outcome == expected
        assert all(math.isfinite(f.z) for f in verdict.findings if f.z is not None)


def test_ids_may_be_huge_or_of_any_script() -> None:
    ids = ["x" * 100_000, "ñ", "問い", "a\nb", "", "\ud800", *map(str, range(194))]
    result = replace(make_result("a", [1.0] * 200), scores=dict.fromkeys(ids, 1.0))
    failing = replace(result, scores=dict.fromkeys(ids[6:], 1.0), failures=dict.fromkeys(ids[:6], "timed out"))
    assert ruled((make_card("new", {"a": result}), make_card("old", {"a": result}))).outcome == "promote"
    verdict = ruled((make_card("new", {"a": failing}), make_card("old", {"a": result})))
    assert verdict.outcome == "hold"
    assert len(found(verdict, "failed").why) < 400
    assert to_json(verdict).encode()  # a surrogate would not go into a file


# -- looks --


def suite_of(seed: int, sizes: dict[str, int], *, drop: float = 0.0) -> tuple[Scorecard, Scorecard]:
    """Two checkpoints that differ on about 15 % of the items; `drop` of the rest is lost by the candidate."""
    rng = random.Random(seed)
    pairs = {}
    for name, n in sizes.items():
        old = [float(rng.random() < 0.7) for _ in range(n)]
        new = [1 - x if rng.random() < 0.15 else x for x in old]
        pairs[name] = ([0.0 if rng.random() < drop else x for x in new], old)
    return duel(**pairs)


def play(policy: Policy, sides: tuple[Scorecard, Scorecard], facts: Facts) -> tuple[Verdict, int]:
    """The gate asked look by look, and how many verdicts it took."""
    suite = {"digest": sides[0].suite.digest, "regime": sides[0].suite.regime}
    digests = {"candidate": sides[0].checkpoint.digest, "champion": sides[1].checkpoint.digest}
    prepared = prepare(policy, suite, digests, facts)
    order = {name: o.ids for name, o in prepared.orders.items()}
    asked: dict[str, int] = {}
    for turn in range(1, 100):
        new, old = (prefix(each, order, asked) for each in sides)
        verdict = judge(policy, new, old, None, facts, prepared)
        if verdict.final:
            return verdict, turn
        assert verdict.outcome == "hold"
        assert all(size > asked.get(name, 0) for name, size in verdict.needs.items())
        asked |= verdict.needs
    raise AssertionError("never final")


CLAIM = MustImprove("all_of", (Target("a"),))


@pytest.mark.parametrize(
    "policy",
    [
        TEN,
        ONE_LOOK,
        FIXED,
        BETTING,
        replace(TEN, must_improve=CLAIM),
        replace(TEN, safety={"b": Floor(floor=0.4, ceiling=0.9)}, slices=Slices(("a/x",), 20, "block")),
    ],
)
@pytest.mark.parametrize("drop", [0.0, 0.1])
def test_a_gate_fed_look_by_look_ends_in_the_bytes_of_one_that_had_everything(policy: Policy, drop: float) -> None:
    sides = suite_of(7, {"a": 300, "b": 200, "c": 400}, drop=drop)
    kinds = {"a": {"categories": {f"q{i}": "xyz"[i % 3] for i in range(300)}}}
    facts = facts_of(*sides, items=kinds)
    fed, turns = play(policy, sides, facts)
    at_once = judge(policy, *sides, None, facts)
    assert to_json(fed) == to_json(at_once)
    assert fed.needs == {}
    assert turns == 2 if policy.method.looks == 1 or policy.method.test == "fixed" else turns > 2


def test_failures_beyond_what_was_looked_at_change_nothing() -> None:
    sides = suite_of(3, {"a": 400})
    facts = facts_of(*sides)
    policy = replace(TEN, default=Rule(margin=0.2))
    before = judge(policy, *sides, None, facts)
    used = pair(before).n
    assert used < 400
    suite, digests = (
        {"digest": sides[0].suite.digest, "regime": sides[0].suite.regime},
        {"candidate": sides[0].checkpoint.digest, "champion": sides[1].checkpoint.digest},
    )
    later = prepare(policy, suite, digests, facts).orders["a"].ids[used:]
    result = sides[0].results[0]
    for why in ("timed out", "judge: no verdict"):
        broken = replace(
            result,
            scores={i: s for i, s in result.scores.items() if i not in later},
            failures=dict.fromkeys(later, why),
        )
        after = judge(policy, replace(sides[0], results=(broken,)), sides[1], None, facts)
        assert to_json(after) == to_json(before)


def test_a_gate_stops_at_the_first_block_and_leaves_the_rest_undecided() -> None:
    verdict = ruled(duel(a=counts(0, 60, 140), b=counts(40, 50, 110)), TEN)
    assert verdict.outcome == "block"
    assert pair(verdict, "b").outcome == "hold"
    assert "undecided when the gate stopped" in pair(verdict, "b").why
    assert verdict.cost["share"] < 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    sides, shuffle = suite_of(seed, {"a": 120, "b": 60}), random.Random(seed)

    def mixed(each: Scorecard) -> Scorecard:
        results = []
        for r in each.results:
            rows = list(r.scores.items())
            shuffle.shuffle(rows)
            results.append(replace(r, scores=dict(rows)))
        shuffle.shuffle(results)
        return replace(each, results=tuple(results))

    facts = facts_of(*sides)
    before = judge(TEN, *sides, None, facts)
    ids = {name: shuffle.sample(items.ids, len(items.ids)) for name, items in facts.items.items()}
    again = replace(facts, items={n: replace(items, ids=tuple(ids[n])) for n, items in facts.items.items()})
    assert to_json(judge(TEN, mixed(sides[0]), mixed(sides[1]), None, again)) == to_json(before)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), graded=st.booleans())
def test_swapping_the_sides_negates_the_difference(seed: int, graded: bool) -> None:
    new, old = suite_of(seed, {"a": 80})
    if graded:
        halved = {i: s / 2 for i, s in new.results[0].scores.items()}
        new = replace(new, results=(replace(new.results[0], scores=halved),))
    policy = written(0.2, block_null="zero")
    one, other = pair(ruled((new, old), policy)), pair(ruled((old, new), policy))
    assert one.difference == pytest.approx(-(other.difference or 0), abs=1e-12)
    assert (one.low, one.high) == (pytest.approx(-(other.high or 0)), pytest.approx(-(other.low or 0)))
    assert (one.was, one.now) == (other.now, other.was)


@settings(max_examples=40, deadline=None)
@given(
    a=st.tuples(st.integers(0, 40), st.integers(0, 80)),
    b=st.tuples(st.integers(0, 40), st.integers(0, 80)),
    policy=st.sampled_from([ONE_LOOK, FIXED]),
)
def test_one_more_benchmark_that_clears_never_turns_a_block_into_a_promotion(
    a: tuple[int, int], b: tuple[int, int], policy: Policy
) -> None:
    # Under written margins: calibrated ones widen with the number of pairs, for what is missed is shared out as well.
    pairs = {name: counts(w, n, 200 - w - n) for name, (w, n) in (("a", a), ("b", b))}
    before = ruled(duel(**pairs), written(0.1, policy))
    after = ruled(duel(**pairs, c=counts(0, 0, 200)), written(0.1, policy))
    assert pair(after, "c").outcome == "pass"
    if before.outcome != "promote":
        assert after.outcome != "promote"


def test_the_same_inputs_are_the_same_gate_and_any_other_is_another() -> None:
    sides = duel(a=counts(0, 0, 200))
    one = ruled(sides)
    assert one.gate_id == ruled(sides).gate_id
    others = [
        ruled(sides, TEN),
        ruled((card("newer", a=[1.0] * 200), sides[1])),
        ruled(sides, anchor=card("first", a=[1.0] * 200)),
        ruled(sides, items={"a": {"k": 4}}),
    ]
    assert len({one.gate_id, *(v.gate_id for v in others)}) == 5
