"""Pairs by another design or method: graded scores, clusters, strata, bets, one fixed look."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as oracle

from evalsuite.gate.judge import judge, prepare
from evalsuite.gate.margins import Spread
from evalsuite.gate.policy import Method, Planning, Policy
from evalsuite.gate.tally import Pair, betting_paths, side
from evalsuite.stats.betting import log_e
from tests.evalsuite.gate.cards import (
    counts,
    duel,
    facts_of,
    pair,
    ruled,
    written,
)

TEN = Policy(anchor=None)  # ten looks, calibrated margins
Z_95, Z_975 = 1.6448536, 1.9599640  # bounds of one look: clear at 5 %, block at 2.5 % for one pair
FIXED = Policy(method=Method(test="fixed"), anchor=None)
BETTING = Policy(method=Method(test="betting"), anchor=None)


# -- graded scores, clusters, strata --


def test_graded_scores_are_judged_by_the_variance_of_their_differences() -> None:
    was = [0.5] * 100
    now = [0.25] * 40 + [0.75] * 20 + [0.5] * 40
    verdict = ruled(duel(a=(now, was)), items={"a": {"k": 4}})
    # D = (−40 + 20)/4/100 = −.05; Σ(d−D)² = 60·.0625 − 100·.0025 = 3.5; SE = √(3.5/(100·99)) = .018803.
    seen, error = pair(verdict), math.sqrt(3.5 / 9900)
    margin = (Z_95 + oracle.norm.isf(0.06)) * math.sqrt(0.15 * 0.28 / 100)  # ratio .28 at K = 4: m = .0656
    assert (seen.difference, seen.limit, seen.k) == (pytest.approx(-0.05), pytest.approx(margin), 4)
    # Against a null the variance is that around the null, and t has n − 1 degrees of freedom.
    t = (-0.05 + margin) / math.hypot(error, (-0.05 + margin) / 10)
    assert seen.z == pytest.approx(oracle.norm.isf(oracle.t.sf(t, 99)), abs=1e-6)
    assert (seen.low, seen.high) == (pytest.approx(-0.05 - Z_975 * error), pytest.approx(-0.05 + Z_975 * error))
    assert seen.outcome == "block"  # −.05/√(.0188² + .05²/100) = −2.57, below −1.98


def test_graded_scores_with_few_differences_clear_by_a_bet_against_the_margin() -> None:
    was = [0.5] * 1000
    now = [0.25] * 3 + [0.5] * 997
    verdict = ruled(duel(a=(now, was)), items={"a": {"k": 4}})
    # m = 3.2·√(.042/1000) = .0207; ten stakes of at most .8: a tie wins log(1 + .78·.0207) = .016, 997 of them 16.
    assert verdict.outcome == "promote"


CLUSTERS = {f"q{i}": f"c{i // 10}" for i in range(120)}  # twelve of ten


def test_clusters_are_judged_by_t_on_their_number() -> None:
    # Six clusters lose two of ten, six nothing: D = −.1, residuals ∓1: SE² = 12/11·12/120², T = −.1/.03015 = −3.317.
    now = [0.0 if i // 10 < 6 and i % 10 < 2 else 1.0 for i in range(120)]
    verdict = ruled(duel(a=(now, [1.0] * 120)), items={"a": {"clusters": CLUSTERS}})
    seen, error = pair(verdict), math.sqrt(12 / 11 * 12) / 120
    width = oracle.t.ppf(0.975, 11) * error
    assert (seen.low, seen.high) == (pytest.approx(-0.1 - width), pytest.approx(-0.1 + width))
    t = (-0.1 + (seen.limit or 0)) / error
    assert seen.z == pytest.approx(oracle.norm.isf(oracle.t.sf(t, 11)), abs=1e-6)
    assert oracle.t.sf(0.1 / error, 11) == pytest.approx(0.0034, abs=1e-4)  # below .025: a block
    assert seen.outcome == "block"
    # As if the items were independent, p would be .0003.
    assert oracle.norm.sf(math.sqrt(12)) == pytest.approx(0.0003, abs=1e-4)


def test_losses_of_one_cluster_prove_nothing() -> None:
    # All ten losses in one cluster: residuals −9 and eleven times 1 − 2/12 …: T = −.0833/.0833 = −1.
    now = [0.0] * 10 + [1.0] * 110
    verdict = ruled(duel(a=(now, [1.0] * 120)), items={"a": {"clusters": CLUSTERS}})
    assert pair(verdict).outcome == "hold"
    assert ruled(duel(a=(now, [1.0] * 120))).outcome == "block"  # independent items: −√10 = −3.16


def test_looks_at_fewer_than_ten_clusters_decide_nothing() -> None:
    # One win and one loss in each: no spread among ten clusters, tail 2⁻¹⁰. Look k holds ⌈1.2·k⌉: ten first at look 8.
    new = [0.0 if i % 10 == 0 else 1.0 for i in range(120)]
    old = [0.0 if i % 10 == 1 else 1.0 for i in range(120)]
    verdict = ruled(duel(a=(new, old)), TEN, items={"a": {"clusters": CLUSTERS}})
    assert (verdict.outcome, pair(verdict).look, pair(verdict).n) == ("promote", 8, 100)


def test_thousands_of_identical_items_in_few_clusters_wait_for_the_last_look() -> None:
    # (1 − .3)^5000 underflows to 0, and a look that does not count demands a tail of 0.
    spread = {f"q{i}": f"c{i // 1000}" for i in range(7000)}
    verdict = ruled(
        duel(a=counts(0, 0, 7000)),
        written(0.3, TEN),
        items={"a": {"clusters": spread}},
        spreads={("a", "champion", 1): Spread(0.05, 0.0)},
    )
    assert (verdict.outcome, pair(verdict).n) == ("promote", 7000)


def test_strata_leave_the_differences_between_them_out() -> None:
    kinds = {f"q{i}": "even" if i < 50 else "odd" for i in range(100)}
    now = [1.0] * 50 + [0.0] * 10 + [1.0] * 40
    verdict = ruled(duel(a=(now, [1.0] * 100)), items={"a": {"clusters": kinds, "strata": True}})
    # Within "odd" s² = (10 − 50·.04)/49 = 8/49, within "even" 0: SE = √(50·8/49)/100 = .02857; −.1 is −3.5 of them.
    seen = pair(verdict)
    assert seen.low == pytest.approx(-0.1 - Z_975 * math.sqrt(50 * 8 / 49) / 100)
    assert seen.outcome == "block"


# -- other methods --


def test_the_fixed_test_blocks_by_simes_and_holm_names_the_culprit() -> None:
    # a: X ~ Bin(20, ½): P(X<5) + ½P(X=5) = .0133 (gate.md §14.1); b: 12 to 12, ½. Simes .0266 of two pairs > .025.
    assert ruled(duel(a=counts(5, 15, 180), b=counts(12, 12, 176)), FIXED).outcome != "block"
    assert ruled(duel(a=counts(5, 15, 180)), FIXED).outcome == "block"
    # 0 to 12: ½·2⁻¹² = .00012, 0 to 10: .0005; adjusted by Holm .00037 and .001.
    verdict = ruled(duel(a=counts(0, 12, 188), b=counts(12, 12, 176), c=counts(0, 10, 190)), FIXED)
    assert [f.benchmark for f in verdict.findings if f.outcome == "block"] == ["a", "c"]


def test_what_simes_sees_and_holm_cannot_place_is_laid_at_the_worst() -> None:
    # 4 to 12: (1 + 16 + 120 + 560 + 1820/2)/2¹⁶ = .0245, twice. Simes: min(2·.0245, .0245) ≤ .025; Holm: .049.
    assert round((1 + 16 + 120 + 560 + 910) / 2**16, 4) == 0.0245
    verdict = ruled(duel(a=counts(4, 12, 184), b=counts(4, 12, 184)), FIXED)
    assert verdict.outcome == "block"
    assert [f.benchmark for f in verdict.findings if f.outcome == "block"] == ["a"]


def test_the_fixed_test_clears_at_five_percent_in_one_look() -> None:
    verdict = ruled(duel(a=counts(10, 10, 180)), FIXED)
    # D = 0: z = m/√(V/n) with V(−m) ≥ .1; m = .0876 and √(.15/200) = .027.
    assert (verdict.outcome, pair(verdict).look, pair(verdict).looks) == ("promote", 1, 1)
    assert (pair(verdict).z or 0) > Z_95


def test_betting_stops_a_clear_drop_and_a_clear_equal_early() -> None:
    drop = ruled(duel(a=counts(0, 100, 900)), BETTING)
    # Against "no drop" a loss wins up to log 1.8 = .59: P = 1 needs log(2/.05) = 3.7, which ten of the first 100 give.
    assert (drop.outcome, pair(drop).early) == ("block", True)
    equal = ruled(duel(a=counts(0, 0, 1000)), BETTING)
    assert (equal.outcome, pair(equal).early) == ("promote", True)


def test_bets_on_small_clusters_at_the_margin_prove_nothing() -> None:
    # One cluster of 100 and 400 of five. Every small one loses 20 %, which is the margin: no evidence that it is kept.
    # A bet on sum/100 against −.2 would take the small clusters' −.01 for a win of .19, four hundred times over.
    n = 100 + 400 * 5
    clusters = {f"q{i}": "big" if i < 100 else f"c{i // 5}" for i in range(n)}
    now = [0.0 if i % 5 == 0 else 1.0 for i in range(n)]
    verdict = ruled(duel(a=(now, [1.0] * n)), written(0.2, BETTING), items={"a": {"clusters": clusters}})
    assert pair(verdict).outcome == "hold"


def test_what_a_bet_must_win_to_block_grows_with_the_pairs() -> None:
    # Ten losses, ten stakes λ from .01 to .8: (1.8¹⁰ + 1.49¹⁰ + 1.30¹⁰ + …)/10 = 44. One pair: 2/.05 = 40, two: 80.
    assert 40 < sum((1 + 0.01 * 80 ** (i / 9)) ** 10 for i in range(10)) / 10 < 80
    lost = counts(0, 10, 190)
    assert ruled(duel(a=lost), BETTING).outcome == "block"
    assert ruled(duel(a=lost, b=counts(0, 0, 200)), BETTING).outcome != "block"


@pytest.mark.parametrize("clusters", [{}, {f"q{i}": f"c{i // 5}" for i in range(200)}])
def test_what_is_absent_bets_nothing(clusters: dict[str, str]) -> None:
    # q100 … q199 are on one side only. As ties they would bet against a margin of .2, and win a little each.
    new, old = duel(a=([1.0, 0.0] * 50, [1.0] * 200))
    facts = facts_of(old, items={"a": {"clusters": clusters}})
    digests = {"candidate": "c" * 64, "champion": "d" * 64}
    (plan,) = prepare(written(0.2, BETTING), {"digest": "s", "regime": "r"}, digests, facts).pairs
    whole = Pair.of(plan, side(new.result("a"), plan.order.ids), side(old.result("a"), plan.order.ids))
    clear, block = betting_paths(whole)
    size = 5 if clusters else 1
    d = [float(x) for x in whole.difference if not math.isnan(x)]
    bets = [sum(d[i : i + size]) / size for i in range(0, 100, size)]  # whole clusters are present or absent
    # Where an absent item comes first nothing is staked yet, E = 1.
    staked = [0.0] if math.isnan(whole.difference[0]) else []
    assert clear[-1] == pytest.approx(max([*staked, *log_e(np.array(bets), -0.2, "clear")]), abs=1e-9)
    assert block[-1] == pytest.approx(max([*staked, *log_e(np.array(bets), -0.2, "block")]), abs=1e-9)


def test_complete_data_is_judged_at_once_where_the_policy_says_so() -> None:
    fixed = replace(TEN, method=Method(when_complete="fixed"))
    sides = duel(a=counts(0, 0, 200))
    assert (pair(ruled(sides, TEN)).n, pair(ruled(sides, fixed, complete=True)).n) == (60, 200)
    assert pair(ruled(sides, fixed)).n == 60  # nobody said that it was complete before the first look
    facts = facts_of(*sides)
    half = replace(sides[0], results=(replace(sides[0].results[0], scores={"q0": 1.0}),))
    assert not judge(fixed, half, sides[1], None, facts).final  # incomplete: look by look


@pytest.mark.parametrize(("n", "clusters"), [(5, 5), (140, 7)])
def test_complete_data_of_fewer_items_or_clusters_than_looks_can_clear(n: int, clusters: int) -> None:
    groups = {f"q{i}": f"c{i % clusters}" for i in range(n)} if clusters < n else {}
    policy = written(0.9, replace(TEN, method=Method(when_complete="fixed"), plan=Planning(icc=0.0, min_power=0.1)))
    verdict = ruled(duel(a=counts(0, 0, n)), policy, items={"a": {"clusters": groups}}, complete=True)
    assert (verdict.outcome, pair(verdict).n) == ("promote", n)
