"""Findings that no margin decides: what is missing, failed, owed or forbidden, and what a claim must show."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
from scipy import stats as oracle

from evalsuite.gate.facts import Check, Contamination, Training
from evalsuite.gate.judge import judge, prepare
from evalsuite.gate.policy import Decontamination, Errors, Floor, MustImprove, Policy, Rule, Slices, Target
from evalsuite.gate.verdict import Verdict
from evalsuite.scorecard import Result
from tests.evalsuite.cards import make_card, make_result
from tests.evalsuite.gate.cards import ONE_LOOK, card, counts, duel, facts_of, findings, found, lacking, pair, ruled

TEN = Policy(anchor=None)
RIGHT = [1.0] * 200


def sides(new: Result | list[float], old: Result | list[float]) -> tuple[Any, Any]:
    return make_card("new", {"a": new}), make_card("old", {"a": old})


# -- samples --


@pytest.mark.parametrize("who", ["candidate", "champion", "anchor"])
def test_one_failed_sample_on_any_side_keeps_a_checkpoint_from_being_promoted(who: str) -> None:
    cards = {name: make_card(name, {"a": RIGHT}) for name in ("candidate", "champion", "anchor")}
    cards[who] = make_card(who, {"a": lacking(1, "CUDA out of memory")})
    verdict = ruled((cards["candidate"], cards["champion"]), anchor=cards["anchor"])
    assert (verdict.outcome, verdict.exit_code) == ("hold", 3)
    told = findings(verdict, "failed")
    assert {f.outcome for f in told} == {"error"}
    assert all(f"1 of 200 samples of the {who} failed ('q199')" in f.why for f in told)
    assert all("CUDA out of memory" in f.why for f in told)


def test_failed_samples_do_not_hide_a_proven_drop() -> None:
    lost = replace(lacking(5, "timed out"), scores={f"q{i}": float(i >= 30) for i in range(195)})
    verdict = ruled(sides(lost, RIGHT))
    assert (verdict.outcome, pair(verdict).n, pair(verdict).difference) == ("block", 195, -30 / 195)


def test_a_gate_in_which_most_samples_fail_asks_for_no_more() -> None:
    verdict = ruled(sides(lacking(150, "timed out"), RIGHT), TEN)
    assert (verdict.outcome, verdict.final) == ("hold", True)
    assert verdict.cost["share"] < 1


def test_verdicts_that_a_judge_owes_count_against_the_checkpoint_up_to_the_limit() -> None:
    # One of 200 is .5 %, the limit: candidate 0, reference 1.
    ours = ruled(sides(lacking(1, "judge: no verdict"), RIGHT))
    assert (ours.outcome, pair(ours).difference, pair(ours).n) == ("promote", -1 / 200, 200)
    zeros = replace(lacking(1, "judge: no verdict"), scores=dict.fromkeys(lacking(1, "").scores, 0.0))
    theirs = ruled(sides([0.0] * 200, zeros))
    assert (theirs.outcome, pair(theirs).difference) == ("promote", -1 / 200)


@pytest.mark.parametrize("who", ["candidate", "champion"])
def test_more_verdicts_owed_than_the_limit_hold(who: str) -> None:
    owed = lacking(2, "judge: no verdict")
    verdict = ruled(sides(owed, RIGHT) if who == "candidate" else sides(RIGHT, owed))
    assert verdict.outcome == "hold"
    assert found(verdict, "judge").why == f"the judge gave no verdict on 2 of 200 answers of the {who} (at most 0.5%)"


def test_the_judges_rate_is_that_of_the_answers_looked_at() -> None:
    # One owed of 200 is .5 %, as many as are admitted; among the 80 or so that an early decision saw it is more.
    new, old = sides(RIGHT, RIGHT)
    facts = facts_of(new, old)
    digests = {"candidate": new.checkpoint.digest, "champion": old.checkpoint.digest}
    ids = prepare(TEN, {"digest": new.suite.digest, "regime": new.suite.regime}, digests, facts).orders["a"].ids
    for owed, outcome in ((ids[0], "hold"), (ids[-1], "promote")):
        kept = {i: 1.0 for i in ids if i != owed}
        part = replace(new, results=(replace(new.results[0], scores=kept, failures={owed: "judge: cut"}),))
        verdict = judge(TEN, part, old, None, facts)
        assert (verdict.outcome, pair(verdict).outcome, pair(verdict).early) == (outcome, "pass", True)
        assert [f"on 1 of {pair(verdict).n} answers" in f.why for f in findings(verdict, "judge")] == (
            [True] if outcome == "hold" else []
        )


@pytest.mark.parametrize(("n", "outcome"), [(198, "promote"), (197, "hold")])
def test_samples_that_only_one_side_has_are_missing_evidence_beyond_one_percent(n: int, outcome: str) -> None:
    verdict = ruled(sides([1.0] * n, RIGHT), exhausted=True)
    assert verdict.outcome == outcome
    told = findings(verdict, "overlap")
    assert [f.outcome for f in told] == (["error"] if outcome == "hold" else [])
    assert all(f.why.startswith("both sides have 197 of 200 samples (not 'q19") for f in told)


@pytest.mark.parametrize("who", ["candidate", "champion"])
def test_a_benchmark_that_one_side_lacks_blocks(who: str) -> None:
    both, one = {"a": RIGHT, "b": RIGHT}, {"a": RIGHT}
    new, old = (
        card("new", **(one if who == "candidate" else both)),
        card("old", **(both if who != "champion" else one)),
    )
    facts = replace(facts_of(card("all", **both)), exhausted=True)
    verdict = judge(ONE_LOOK, new, old, None, facts)
    assert verdict.outcome == "block"
    missing = found(verdict, "missing")
    assert (missing.benchmark, missing.reference) == ("b", who)
    assert missing.why == f"the {who} has no result (complete it: evalsuite score)"
    assert pair(verdict, "b").why == "nothing to compare: no item has a score on both sides"
    lenient = replace(ONE_LOOK, errors=Errors(missing="hold"))
    assert judge(lenient, new, old, None, facts).outcome == "hold"


def test_more_truncated_answers_than_the_champion_are_a_warning() -> None:
    new = replace(make_result("a", RIGHT), n_truncated=10)
    old = replace(make_result("a", RIGHT), n_truncated=5)
    verdict = ruled(sides(new, old))  # 5 % against 2.5 %
    assert (verdict.outcome, found(verdict, "truncated").outcome) == ("promote", "warn")
    assert found(verdict, "truncated").why == "5.0% of the answers were cut by the token limit, 2.5% of the champion's"
    assert findings(ruled(sides(replace(new, n_truncated=9), old)), "truncated") == ()  # two points: not above


@pytest.mark.parametrize("who", ["candidate", "champion"])
def test_empty_answers_are_no_sign_of_safety(who: str) -> None:
    empty = replace(make_result("a", RIGHT), n_empty=5)  # 2.5 % of a safety set, 2 % are admitted
    cards = sides(empty, RIGHT) if who == "candidate" else sides(RIGHT, empty)
    verdict = ruled(cards, items={"a": {"safety": True}})
    assert (verdict.outcome, found(verdict, "empty").tier) == ("hold", "safety")
    assert ruled(cards).outcome == "promote"  # elsewhere an empty answer is simply wrong


@pytest.mark.parametrize(("rule", "outcome"), [("hold", "hold"), ("warn", "promote")])
def test_code_that_ran_without_a_sandbox_could_have_scored_itself(rule: Literal["hold", "warn"], outcome: str) -> None:
    policy = replace(ONE_LOOK, errors=Errors(unsandboxed=rule))
    verdict = ruled(sides(RIGHT, RIGHT), policy, unsandboxed=frozenset({"a", "elsewhere"}))
    assert (verdict.outcome, found(verdict, "sandbox").outcome) == (outcome, rule)


# -- infra --


def test_a_failed_infra_check_blocks_without_any_look() -> None:
    checks = (Check("loads", True), Check("generates", False, "cannot generate: device lost"))
    verdict = ruled(sides(RIGHT, RIGHT), infra=checks)
    assert (verdict.outcome, verdict.final, verdict.needs) == ("block", True, {})
    assert (verdict.cost["candidate"], verdict.cost["champion"], verdict.cost["share"]) == (0, 0, 0.0)
    told = {f.rule: (f.outcome, f.why) for f in verdict.findings if f.rule.startswith("infra")}
    assert told == {
        "infra.loads": ("pass", "ok"),
        "infra.generates": ("block", "cannot generate: device lost"),
    }
    assert pair(verdict).why == "not looked at: the gate was decided before"


# -- slices --


def by_kind(n: int) -> dict[str, Any]:
    """The first fifty items are of kind x, the others of y."""
    return {"a": {"categories": {f"q{i}": "x" if i < 50 else "y" for i in range(n)}}}


def test_a_slice_that_fell_is_named_and_blocks_only_where_the_policy_says_so() -> None:
    # Twelve of x lost, twelve of y won: equal on the whole. x: ½·2⁻¹² = .00012, of two slices .00024.
    new = [0.0] * 12 + [1.0] * 188
    old = [1.0] * 50 + [0.0] * 12 + [1.0] * 138
    verdict = ruled(sides(new, old), items=by_kind(200))
    told = found(verdict, "slice")
    assert (verdict.outcome, told.outcome, told.benchmark, told.n) == ("promote", "warn", "a/x", 50)
    assert (told.difference, told.why) == (
        -12 / 50,
        "lower on this slice (p 0.0001, 2 slices tested together), 50 items",
    )
    strict = replace(ONE_LOOK, slices=Slices(on_fail="block"))
    assert ruled(sides(new, old), strict, items=by_kind(200)).outcome == "block"


def test_slices_are_corrected_for_their_number_and_need_enough_items() -> None:
    # x: one win, seven losses: (1 + 8/2)/2⁸ = .0195. With three equal slices beside it: .078 of four.
    old = [1.0] * 7 + [0.0] + [1.0] * 192
    new = [0.0] * 7 + [1.0] + [1.0] * 192
    assert round((1 + 8 / 2) / 2**8, 4) == 0.0195
    two, four = by_kind(200), {"a": {"categories": {f"q{i}": "wxyz"[i // 50] for i in range(200)}}}
    assert found(ruled(sides(new, old), items=two), "slice").benchmark == "a/x"
    assert findings(ruled(sides(new, old), items=four), "slice") == ()
    larger = replace(ONE_LOOK, slices=Slices(min_items=51))
    assert findings(ruled(sides(new, old), larger, items=two), "slice") == ()


@pytest.mark.parametrize(
    ("wanted", "outcome"),
    [("a/x", "promote"), ("a/*", "promote"), ("a/z", "block"), ("elsewhere/x", "block")],
)
def test_a_required_slice_that_is_absent_blocks(wanted: str, outcome: str) -> None:
    verdict = ruled(sides(RIGHT, RIGHT), replace(ONE_LOOK, slices=Slices((wanted,))), items=by_kind(200))
    assert verdict.outcome == outcome
    assert [f.benchmark for f in findings(verdict, "slice")] == ([wanted] if outcome == "block" else [])


def test_a_required_slice_is_looked_at_to_its_end_before_an_early_decision() -> None:
    # Identical sides clear at look 3 of 10, with about fifteen of the fifty items of x.
    policy = replace(TEN, slices=Slices(("a/x",)))
    assert ruled(sides(RIGHT, RIGHT), TEN, items=by_kind(200)).cost["candidate"] == 60
    verdict = ruled(sides(RIGHT, RIGHT), policy, items=by_kind(200))
    assert (verdict.outcome, verdict.cost["candidate"]) == ("promote", 200)


# -- training data --


def trained(report: Contamination | None = None, **changes: Any) -> Training:
    reports = {"d" * 64: report} if report else {}
    return Training(**({"declared": True, "data": {"mix": "d" * 64}, "reports": reports} | changes))


def clean(**changes: Any) -> Contamination:
    return Contamination(**({"data": "mix", "complete": True, "fractions": {}} | changes))


REQUIRED = replace(ONE_LOOK, decontamination=Decontamination(required=True))


@pytest.mark.parametrize(
    ("training", "required", "optional", "words"),
    [
        (Training(), "block", "promote", "does not say what it was trained on"),
        (trained(), "block", "promote", "no decontamination report of mix (dddddddddddd)"),
        (trained(clean()), "promote", "promote", "mix holds no item of the suite"),
        (trained(clean(complete=False)), "hold", "hold", "report of mix is not complete"),
        (trained(clean(fractions={"a": 0.02})), "promote", "promote", "mix holds 2.0% of its items (at most 2.0%)"),
        (trained(clean(fractions={"a": 0.021})), "block", "block", "mix holds 2.1% of its items (at most 2.0%)"),
        (trained(clean(), waived="a dry run"), "block", "block", "waived: a dry run"),
    ],
)
def test_training_data_is_held_to_the_policy(training: Training, required: str, optional: str, words: str) -> None:
    for policy, outcome in ((REQUIRED, required), (ONE_LOOK, optional)):
        verdict = ruled(sides(RIGHT, RIGHT), policy, training=training)
        assert verdict.outcome == outcome
        told = findings(verdict, "decontamination")
        assert any(words in f.why for f in told)
        assert {f.tier for f in told} == {"decontamination"}
        assert (verdict.cost["candidate"] == 0) == (outcome == "block")  # known before anything is asked


def test_each_pair_is_judged_again_on_the_items_that_training_did_not_touch() -> None:
    # 25 wins among touched items hide 25 losses elsewhere: Z(0) = 0 on all, −√25 = −5 on the clean 175.
    touched = frozenset(f"q{i}" for i in range(25))
    new = [1.0] * 25 + [0.0] * 25 + [1.0] * 150
    old = [0.0] * 25 + [1.0] * 175
    training = trained(clean(fractions={"a": 0.01}, touched={"a": touched}))
    verdict = ruled(sides(new, old), replace(ONE_LOOK, default=Rule(margin=0.2)), training=training)
    told = found(verdict, "clean_subset")
    assert (told.outcome, told.n, told.difference) == ("warn", 175, -25 / 175)
    assert told.why == "on the 175 items that the training data does not hold: proven worse"
    strict = replace(ONE_LOOK, default=Rule(margin=0.2), decontamination=Decontamination(clean_subset="block"))
    assert ruled(sides(new, old), strict, training=training).outcome == "block"
    equal = ruled(sides(RIGHT, RIGHT), strict, training=training)
    assert (equal.outcome, found(equal, "clean_subset").outcome) == ("promote", "pass")


# -- claims --


def claims(mode: Literal["any_of", "all_of"], *targets: Target) -> Policy:
    return replace(ONE_LOOK, must_improve=MustImprove(mode, targets))


def told(verdict: Verdict) -> dict[str, str]:
    return {f.benchmark: f.outcome for f in findings(verdict, "must_improve")}


BETTER = counts(30, 10, 160)  # D = .1, s² = (40 − 2)/199: z = .1/√(38/199/200) = 3.24
EQUAL = counts(10, 10, 180)


def test_a_claimed_gain_must_be_proven() -> None:
    verdict = ruled(duel(a=BETTER), claims("all_of", Target("a")))
    seen = found(verdict, "must_improve")
    assert seen.z == pytest.approx(0.1 / math.sqrt(38 / 199 / 200))
    assert (verdict.outcome, verdict.claim) == ("promote", True)
    assert ruled(duel(a=EQUAL), claims("all_of", Target("a"))).outcome == "hold"
    # 3.24 errors of .0309: six points would be (.1 − .06)/.0309 = 1.29, and 1.96 is needed.
    assert ruled(duel(a=BETTER), claims("all_of", Target("a", min_gain=0.06))).outcome == "hold"


def test_any_of_is_content_with_one_gain_and_all_of_is_not() -> None:
    cards = duel(a=BETTER, b=EQUAL)
    either = ruled(cards, claims("any_of", Target("a"), Target("b")))
    assert (either.outcome, told(either)) == ("promote", {"a": "pass", "b": "warn"})
    both = ruled(cards, claims("all_of", Target("a"), Target("b")))
    assert (both.outcome, told(both)) == ("hold", {"a": "pass", "b": "hold"})
    # any_of shares the level out: z of .025/2 is 2.24.
    assert "2.24 needed" in findings(either, "must_improve")[0].why
    assert "1.96 needed" in findings(both, "must_improve")[0].why


def test_the_macro_gain_is_the_mean_over_columns() -> None:
    # The column ab is the mean of two: (.1 + 0)/2 = .05; beside c, with 0: .025. SE² = ((v_a + v_b)/4 + v_c)/4.
    cards = duel(a=BETTER, b=EQUAL, c=EQUAL)
    columns = {"ab": ("a", "b"), "c": ("c",)}
    seen = found(ruled(cards, claims("all_of", Target("macro")), columns=columns), "must_improve")
    v_a, v_b = 38 / 199 / 200, 20 / 199 / 200
    assert seen.difference == pytest.approx(0.025)
    assert seen.z == pytest.approx(0.025 / math.sqrt(((v_a + v_b) / 4 + v_b) / 4))
    group = found(ruled(cards, claims("all_of", Target("ab")), columns=columns), "must_improve")
    assert group.difference == pytest.approx(0.05)


# α_t = .025/(t(t+1)/2): .025, .00833, .00417 (gate.md §4.10)
@pytest.mark.parametrize(("attempt", "needed"), [(1, 1.960), (2, 2.394), (3, 2.638), (10, 3.317), (100, 4.419)])
def test_every_attempt_must_prove_more(attempt: int, needed: float) -> None:
    verdict = ruled(duel(a=BETTER), claims("all_of", Target("a")), attempt=attempt)
    assert f"{needed:.2f} needed (attempt {attempt}," in found(verdict, "must_improve").why
    assert verdict.outcome == ("promote" if needed < 3.24 else "hold")
    assert verdict.attempt == attempt


def test_what_is_claimed_runs_to_its_end() -> None:
    policy = replace(TEN, must_improve=MustImprove("all_of", (Target("a"),)))
    verdict = ruled(duel(a=counts(60, 0, 140), b=counts(0, 0, 200)), policy)
    assert (verdict.outcome, verdict.cost["candidate"]) == ("promote", 200 + 60)  # b clears at look 3
    macro = replace(TEN, must_improve=MustImprove("all_of", (Target("macro"),)))
    assert ruled(duel(a=counts(60, 0, 140), b=counts(0, 0, 200)), macro).cost["candidate"] == 400


def test_a_claim_of_a_gate_that_stopped_early_is_not_judged_on_what_lies_about() -> None:
    policy = replace(TEN, must_improve=MustImprove("all_of", (Target("a"),)))
    verdict = ruled(duel(a=counts(60, 0, 140), b=counts(0, 100, 100)), policy)
    assert verdict.outcome == "block"
    assert found(verdict, "must_improve").why == "a claimed gain that was not looked at to its end"


def test_a_set_that_goes_from_all_wrong_to_all_right_is_a_proven_gain() -> None:
    # No spread: √(Σd²)/n = 1/√n, so that z = √n: 14 for 200 items, 1.4 for two.
    assert ruled(duel(a=([1.0] * 200, [0.0] * 200)), claims("all_of", Target("a"))).outcome == "promote"
    few = ruled(duel(a=([1.0] * 2, [0.0] * 2)), claims("all_of", Target("a")))
    assert (few.outcome, found(few, "must_improve").z) == ("hold", pytest.approx(math.sqrt(2)))


def test_a_gain_over_few_clusters_is_judged_by_t() -> None:
    # Twelve clusters of ten; six win two, six nothing: D = .1, SE = √(12/11·12)/120 = .03015, T = 3.317 on 11.
    clusters = {f"q{i}": f"c{i // 10}" for i in range(120)}
    old = [0.0 if i // 10 < 6 and i % 10 < 2 else 1.0 for i in range(120)]
    verdict = ruled(duel(a=([1.0] * 120, old)), claims("all_of", Target("a")), items={"a": {"clusters": clusters}})
    seen = found(verdict, "must_improve")
    assert seen.z == pytest.approx(oracle.norm.isf(oracle.t.sf(0.1 / math.sqrt(12 / 11 * 12) * 120, 11)), abs=1e-6)
    assert seen.low == pytest.approx(0.1 - oracle.t.ppf(0.975, 11) * math.sqrt(12 / 11 * 12) / 120)


def test_a_claim_on_something_incomplete_holds() -> None:
    verdict = ruled(sides([1.0] * 199, [0.0] * 100 + [1.0] * 100), claims("all_of", Target("a")), exhausted=True)
    assert verdict.outcome == "hold"
    assert found(verdict, "must_improve").why == "a claimed gain that has no complete comparison"


def test_a_policy_with_floors_and_claims_explains_every_line() -> None:
    policy = replace(claims("any_of", Target("macro")), safety={"a": Floor(floor=0.1)})
    verdict = ruled(duel(a=BETTER, b=EQUAL), policy, infra=(Check("loads", True),), training=trained(clean()))
    assert {f.rule for f in verdict.findings} == {
        "infra.loads",
        "decontamination",
        "must_not_regress",
        "floor",
        "must_improve",
    }
    assert all(f.why for f in verdict.findings)
