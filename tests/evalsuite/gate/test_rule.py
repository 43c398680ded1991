"""The rule of one look and of a course, the order of items, and planned margins: arithmetic that fits on a line."""

from __future__ import annotations

import math
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from evalsuite.errors import PolicyError
from evalsuite.gate.margins import PairInput, PairPlan, Spread, history_of, look_bounds, plan_pairs
from evalsuite.gate.order import Order, order
from evalsuite.gate.policy import Method, Planning, Policy, Rule
from evalsuite.gate.rule import BLOCK, CLEAR, OPEN, Seen, Setup, course, look

GATE = "ab" * 32


def binary(*pairs: tuple[int, int, int]) -> Seen:
    """One run of pairs given as (n, wins, losses)."""
    n, wins, losses = np.array([pairs], dtype=float).transpose(2, 0, 1)
    nothing = np.zeros(n.shape)
    return Seen(n, wins, losses, (wins - losses) / n, nothing, nothing, np.ones(n.shape, bool))


def graded(mean: float, stderr: float, *, groups: int = 0, discordant: int = 100, few: float = 1.0) -> Seen:
    """One pair whose scores are not right or wrong."""
    row = np.ones((1, 1))
    half = row * discordant / 2
    return Seen(1000 * row, half, half, mean * row, stderr * row, groups * row, row < 0, few * row)


def setup(margin: float, clear: float | list[float], block: float | list[float], *, null: float = 0.0) -> Setup:
    """One pair; bounds of one look or of several."""
    bounds = [np.array([c if isinstance(c, list) else [c]]) for c in (clear, block)]
    return Setup(np.array([margin]), np.array([null]), *bounds)


def decided(held: Setup, seen: Seen) -> tuple[bool, bool]:
    clear, block = look(held, 0, seen)
    return bool(clear[0, 0]), bool(block[0, 0])


def test_a_pair_clears_at_its_bound_by_the_score_test() -> None:
    # q .0663229: V = .101746; Z = (−.02 + .03)/√(.101746/1000) = .991383 (golden value of the score test)
    assert decided(setup(0.03, 0.9913, 9), binary((1000, 40, 60))) == (True, False)
    assert decided(setup(0.03, 0.9915, 9), binary((1000, 40, 60))) == (False, False)


def test_a_pair_blocks_where_the_drop_below_its_null_is_proven() -> None:
    # Z(0) = −20/√100 = −2
    assert decided(setup(0.03, 9, 1.999), binary((1000, 40, 60))) == (False, True)
    assert decided(setup(0.03, 9, 2.001), binary((1000, 40, 60))) == (False, False)
    # A written margin is a permission: against −.03 the difference of −.02 is no drop at all.
    assert decided(setup(0.03, 9, 1.999, null=-0.03), binary((1000, 40, 60))) == (False, False)


def test_a_proven_drop_inside_the_margin_blocks_rather_than_clears() -> None:
    # D = −200/14000 = −.0143: Z(0) = −200/√1800 = −4.71, and Z(−.05) is far above 2.
    assert decided(setup(0.05, 2, 4), binary((14000, 800, 1000))) == (False, True)


def test_fewer_than_ten_discordant_items_never_block() -> None:
    # Z(0) is −√9 = −3 and −√10 = −3.16.
    assert decided(setup(0.001, 9, 2), binary((1000, 0, 9))) == (False, False)
    assert decided(setup(0.001, 9, 2), binary((1000, 0, 10))) == (False, True)


@pytest.mark.parametrize(
    ("n", "losses", "margin", "p"),
    [
        (33, 0, 0.149, 0.851**33),  # .00487
        (32, 0, 0.149, 0.851**32),  # .00572
        (164, 3, 0.0861, 0.000285634),
    ],
)
def test_fewer_than_ten_discordant_items_clear_by_the_chance_of_so_few_losses(
    n: int, losses: int, margin: float, p: float
) -> None:
    at = float(norm.isf(p))
    assert decided(setup(margin, at - 0.001, 9), binary((n, 5, losses))) == (True, False)
    assert decided(setup(margin, at + 0.001, 9), binary((n, 5, losses))) == (False, False)


def test_identical_answers_clear() -> None:
    # (1 − .0159)^1400 = 1.8e-10 at the first look of 14,000 items
    assert decided(setup(0.0159, 2.4122, 9), binary((1400, 0, 0))) == (True, False)


def test_graded_scores_are_tested_by_their_own_error_under_the_null() -> None:
    # SE² = .005² + (−.01 + .02)²/1000, T = .01/.0050100 = 1.99601; t with 999 degrees of freedom. Against 0 the same.
    z = norm.isf(student.sf(0.01 / math.sqrt(0.005**2 + 0.01**2 / 1000), 999))
    assert z == pytest.approx(1.9935, abs=1e-4)
    assert decided(setup(0.02, z - 1e-6, 9), graded(-0.01, 0.005)) == (True, False)
    assert decided(setup(0.02, 9, z - 1e-6), graded(-0.01, 0.005)) == (False, True)
    assert decided(setup(0.02, z + 1e-6, z + 1e-6), graded(-0.01, 0.005)) == (False, False)


def test_few_clusters_take_more_than_a_normal_test() -> None:
    # t_.95 with 3 degrees of freedom is 2.353363, which counts as z_.95 = 1.644854.
    seen = graded(0.0, 0.01, groups=4)
    assert decided(setup(0.02353364, 1.64485, 9), seen) == (True, False)
    assert decided(setup(0.02353362, 1.64486, 9), seen) == (False, False)


def test_graded_scores_with_hardly_a_difference_clear_by_their_bets() -> None:
    at = float(norm.isf(0.01))
    assert decided(setup(0.02, at - 0.01, 1), graded(-0.01, 0.001, discordant=8, few=0.01)) == (True, False)
    assert decided(setup(0.02, at + 0.01, 1), graded(-0.01, 0.001, discordant=8, few=0.01)) == (False, False)
    # Up to 29 of them clear so, and from 10 on they can block.
    assert decided(setup(0.02, at + 0.01, 99), graded(-0.01, 0.001, discordant=29, few=0.01)) == (False, False)
    assert decided(setup(0.02, at + 0.01, 99), graded(-0.01, 0.001, discordant=30, few=0.01)) == (True, False)
    assert decided(setup(0.02, 99, 1), graded(-0.01, 0.001, discordant=10)) == (False, True)


def test_wealth_decides_besides_the_bounds() -> None:
    held = replace(setup(0.02, math.inf, math.inf), log_e_clear=math.log(40), log_e_block=math.log(720))
    rich, poor = np.full((1, 1), 3.69), np.full((1, 1), 3.68)  # ln 40 = 3.6889, ln 720 = 6.579
    seen = binary((1000, 100, 100))
    assert decided(held, replace(seen, log_e_clear=rich, log_e_block=poor)) == (True, False)
    assert decided(held, replace(seen, log_e_clear=poor, log_e_block=rich)) == (False, False)
    assert decided(held, replace(seen, log_e_clear=rich, log_e_block=rich + 2.9)) == (False, True)


def two_pairs(looks: int) -> Setup:
    """Each clears at z 2 against −.02 and blocks at 3 below 0."""
    bounds = np.full((2, looks), 2.0), np.full((2, looks), 3.0)
    return Setup(np.array([0.02, 0.02]), np.zeros(2), *bounds)


# 1,000 items with 50 : 50 have Z(−.02) ≈ .02/√(.1/1000) = 2; a little less by the score variance.
LEVEL, AHEAD, BEHIND = (1000, 50, 50), (1000, 70, 50), (1000, 50, 90)  # BEHIND: −40/√140 = −3.4


def test_a_course_ends_with_the_last_pair_that_clears() -> None:
    went = course(two_pairs(3), [binary(AHEAD, LEVEL), binary(BEHIND, LEVEL), binary(BEHIND, AHEAD)])
    # The first pair cleared at once and is not tested again, though it would block later.
    assert went.status.tolist() == [[CLEAR, CLEAR]]
    assert went.at.tolist() == [[0, 2]]
    assert went.stop.tolist() == [2]
    assert went.promoted.tolist() == [True]
    assert went.blocked.tolist() == [False]


def test_a_course_ends_with_the_first_block() -> None:
    went = course(two_pairs(3), [binary(LEVEL, LEVEL), binary(BEHIND, LEVEL), binary(BEHIND, AHEAD)])
    assert went.status.tolist() == [[BLOCK, OPEN]]
    assert went.at.tolist() == [[1, -1]]
    assert went.stop.tolist() == [1]
    assert went.blocked.tolist() == [True]


def test_a_pair_that_is_never_decided_holds() -> None:
    went = course(two_pairs(2), [binary(AHEAD, LEVEL), binary(AHEAD, LEVEL)])
    assert went.status.tolist() == [[CLEAR, OPEN]]
    assert went.stop.tolist() == [1]
    assert not went.promoted[0]
    assert not went.blocked[0]


def test_runs_of_a_course_end_each_by_themselves() -> None:
    first = [binary(AHEAD, AHEAD), binary(AHEAD, BEHIND), binary(LEVEL, LEVEL)]
    both = replace(
        first[0],
        **{f: np.concatenate([getattr(s, f) for s in first]) for f in ("n", "wins", "losses", "mean", "binary")},
    )
    zero = np.zeros(both.n.shape)
    both = replace(both, stderr=zero, groups=zero)
    went = course(two_pairs(2), [both, both])
    assert went.stop.tolist() == [0, 0, 1]
    assert went.promoted.tolist() == [True, False, False]
    assert went.blocked.tolist() == [False, True, False]


def test_looks_hold_equal_shares_rounded_up() -> None:
    found = order("b", [f"q{i}" for i in range(25)], {}, GATE, 10)
    assert found.sizes == (3, 5, 8, 10, 13, 15, 18, 20, 23, 25)  # ⌈2.5k⌉
    assert found.counts == (True,) * 10
    assert found.times[0] == 3 / 25


def test_a_look_without_a_new_item_does_not_count() -> None:
    found = order("b", ["x", "y", "z"], {}, GATE, 10)
    assert found.sizes == (1, 1, 1, 2, 2, 2, 3, 3, 3, 3)  # ⌈.3k⌉
    assert [k for k, counts in enumerate(found.counts) if counts] == [0, 3, 6]


def test_the_order_is_a_keyed_hash_of_benchmark_and_id() -> None:
    ids = [f"q{i}" for i in range(40)]

    def rank(i: str) -> bytes:
        return blake2b(f"b\0{i}".encode(), digest_size=16, key=bytes.fromhex(GATE)).digest()

    assert order("b", ids, {}, GATE, 4).ids == tuple(sorted(ids, key=rank))


def test_the_order_depends_on_gate_and_benchmark_and_not_on_how_items_came() -> None:
    ids = [f"q{i}" for i in range(40)]
    found = order("b", ids, {}, GATE, 4).ids
    assert order("b", ids[::-1], {}, GATE, 4).ids == found
    assert order("c", ids, {}, GATE, 4).ids != found
    assert order("b", ids, {}, "cd" * 32, 4).ids != found
    assert set(found) == set(ids)


def clustered(sizes: list[int], looks: int, *, strata: bool = False) -> Order:
    members = {f"{c}/{i}": f"c{c}" for c, size in enumerate(sizes) for i in range(size)}
    return order("b", list(members), members, GATE, looks, strata=strata)


def test_clusters_are_looked_at_whole_and_ten_are_needed() -> None:
    found = clustered([5] * 24, 4)
    # 30, 60, 90, 120 items are 6, 12, 18, 24 clusters; six are too few.
    assert found.sizes == (30, 60, 90, 120)
    assert found.counts == (False, True, True, True)
    assert all(len(set(found.clusters[i : i + 5])) == 1 for i in range(0, 120, 5))


def test_the_last_look_counts_however_few_clusters_there_are() -> None:
    found = clustered([5] * 4, 10)
    # The eighth look asks for 16 items, and the fourth cluster brings all 20.
    assert found.sizes == (5, 5, 10, 10, 10, 15, 15, 20, 20, 20)
    assert found.counts == (False,) * 7 + (True, False, False)


def test_a_look_that_adds_no_cluster_does_not_count() -> None:
    # Eleven clusters of 1 and one of 89: wherever the large one comes, at most two looks hold ten clusters or more.
    found = clustered([1] * 11 + [89], 10)
    assert found.n == 100
    large = found.clusters.index("c11")  # how many small ones come first
    first_with_all = min(k for k, size in enumerate(found.sizes) if size == 100)
    assert found.sizes[0] == (10 if large >= 10 else large + 89)
    assert found.counts[first_with_all]
    assert not any(found.counts[first_with_all + 1 :])


def test_fixed_categories_leave_the_order_of_items_alone() -> None:
    found = clustered([5] * 4, 10, strata=True)
    assert found.strata
    assert found.ids == order("b", sorted(found.ids), {}, GATE, 10).ids
    assert found.sizes[:3] == (2, 4, 6)
    assert [c.removeprefix("c") for c in found.clusters] == [i.split("/")[0] for i in found.ids]


def items(n: int, clusters: tuple[str, ...] = (), looks: int = 10) -> Order:
    sizes = tuple(math.ceil(k * n / looks) for k in range(1, looks + 1))
    return Order(tuple(f"q{i}" for i in range(n)), clusters, sizes, (True,) * looks)


def planned(
    n: int, policy: Policy | None = None, *, pairs: int = 18, k: int = 1, spread: float | None = None
) -> PairPlan:
    known = None if spread is None else Spread(spread)
    made = PairInput("a", "champion", items(n), k, spread=known)
    return plan_pairs(policy or Policy(), [made], pairs - 1)[0]


@pytest.mark.parametrize(
    ("n", "points"), [(14000, 1.59), (12000, 1.72), (9500, 1.94), (5000, 2.67), (1319, 5.19), (320, 10.6), (164, 14.7)]
)
def test_a_calibrated_margin_is_4_871_standard_errors(n: int, points: float) -> None:
    # C = 2.1579 + Φ⁻¹(1 − .06/18) = 2.1579 + 2.7131; 4.871·√(.15/14000) = .01594
    assert 100 * planned(n).margin == pytest.approx(points, abs=0.06 if n < 400 else 0.006)


@pytest.mark.parametrize(("n", "k", "points"), [(2500, 4, 2.00), (1319, 4, 2.75), (817, 8, 2.64), (164, 8, 5.89)])
def test_more_samples_an_item_make_margins_smaller(n: int, k: int, points: float) -> None:
    # 4.871·√(.15·.28/2500) = .01997
    assert 100 * planned(n, k=k).margin == pytest.approx(points, abs=0.012)


def test_what_the_last_gate_measured_replaces_the_plan_but_for_a_floor() -> None:
    assert planned(14000, spread=0.2).margin == pytest.approx(4.871 * math.sqrt(0.2 / 14000), rel=1e-4)
    assert planned(5000, spread=0.001).margin == pytest.approx(4.871 * math.sqrt(0.05 / 5000), rel=1e-4)
    assert planned(14000, spread=0.05).margin == 0.01  # 4.871·√(.05/14000) = .0092 is under margin_min


def test_the_plan_says_how_often_an_equal_checkpoint_clears() -> None:
    # Φ(4.871 − 2.1579) = 1 − .06/18
    assert planned(5000).power == pytest.approx(1 - 0.06 / 18, abs=1e-5)


def test_every_required_pair_and_floor_shares_the_misses() -> None:
    # 36 pairs: 2.1579 + Φ⁻¹(1 − .06/36) = 2.1579 + 2.9352 = 5.093, 4.56 % more
    assert planned(5000, pairs=36).margin / planned(5000).margin == pytest.approx(5.093 / 4.871, rel=1e-4)
    advisory = Policy(rules={"b": Rule(tier="advisory")})
    pair, warned = (PairInput(name, "champion", items(5000)) for name in "ab")
    alone = plan_pairs(advisory, [pair, warned])[0]
    assert alone.margin == plan_pairs(advisory, [pair])[0].margin
    assert plan_pairs(Policy(), [pair, warned])[0].margin > alone.margin


def test_clustered_pairs_are_planned_by_the_test_that_judges_them() -> None:
    # 27 clusters of 200: deff = 1 + (27·200²/5400 − 1)·.01 = 2.99; t with 26 degrees of freedom
    names = tuple(f"c{i // 200}" for i in range(5400))
    plan = plan_pairs(Policy(), [PairInput("a", "champion", items(5400, names))], 17)[0]
    last = plan.clear[-1]
    reach = student.isf(norm.sf(last), 26) + student.isf(0.06 / 18, 26)
    assert plan.deff == pytest.approx(2.99)
    assert plan.margin == pytest.approx(reach * math.sqrt(0.15 * 2.99 / 5400), rel=1e-6)
    fixed = replace(items(5400, names), strata=True)
    assert plan_pairs(Policy(), [PairInput("a", "champion", fixed)], 17)[0].deff == 1


@pytest.mark.parametrize(
    ("rule", "null"),
    [
        (Rule(), 0.0),  # a limit of sight: any proven drop blocks
        (Rule(margin=0.05), -0.05),  # a permission
        (Rule(block_null="margin", margin_max=0.05), -0.02668),  # 4.871·√(.15/5000)
        (Rule(margin=0.05, block_null="zero"), 0.0),
    ],
)
def test_a_block_is_proven_against_nothing_or_against_a_permission(rule: Rule, null: float) -> None:
    assert planned(5000, Policy(default=rule)).null == pytest.approx(null, abs=2e-5)


def test_a_margin_that_cannot_be_decided_is_refused_with_what_would_do() -> None:
    with pytest.raises(PolicyError) as raised:
        planned(1320, Policy(default=Rule(margin=0.02)))
    # SE √(.15/1320) = .010660; Φ(.02/.010660 − 2.1579) = Φ(−.2817) = .389; power .8 takes (2.1579 + .8416)·SE = .03197,
    # that is (2.9995/.02)²·.15 = 3374 items, or K = 4: √.28 = .529 of .03197 is .0169.
    message = str(raised.value)
    assert "must_not_regress.a: a margin of 2 points can only end inconclusive" in message
    assert "chance 0.39 at 1320 items and K = 1" in message
    assert "K = 4 would do" in message
    assert "3374 items would do" in message
    assert "a margin of 3.2 points would do" in message


def test_a_limit_on_calibrated_margins_holds_while_it_has_power() -> None:
    # n = 1319: the calibrated margin is 5.19 points; 4 points have Φ(.04/.010664 − 2.1579) = Φ(1.593) = .944.
    plan = planned(1319, Policy(default=Rule(margin_max=0.04)))
    assert (plan.margin, plan.blind) == (0.04, False)
    assert plan.power == pytest.approx(0.944, abs=5e-4)
    with pytest.raises(PolicyError, match="margin of 3 points"):
        planned(1319, Policy(default=Rule(margin_max=0.03)))
    blind = planned(1319, Policy(default=Rule(margin_max=0.03, on_inconclusive="warn")))
    assert blind.blind
    assert 100 * blind.margin == pytest.approx(5.19, abs=0.006)


def test_a_policy_may_ask_for_less_power() -> None:
    lax = Policy(default=Rule(margin=0.02), plan=Planning(min_power=0.3))
    assert planned(1319, lax).power == pytest.approx(0.389, abs=5e-4)


def test_bounds_of_each_method() -> None:
    ten = items(14000)
    clear, block = look_bounds(Policy(), ten, 18)
    assert (clear[0], clear[-1]) == pytest.approx((2.4122, 2.1579), abs=1e-4)
    assert block[:2] == (math.inf, math.inf)
    assert (block[2], block[-1]) == pytest.approx((5.7202, 3.0520), abs=1e-4)
    clear, block = look_bounds(Policy(method=Method(test="fixed")), items(14000, looks=1), 18)
    assert clear == pytest.approx((1.644854,))
    assert block == (math.inf,)
    clear, block = look_bounds(Policy(method=Method(test="betting")), ten, 18)
    assert clear[:-1] == (math.inf,) * 9  # bets decide until the items run out
    assert clear[-1] == pytest.approx(1.959964)
    assert block == (math.inf,) * 10


def test_looks_that_do_not_count_decide_nothing() -> None:
    few = replace(items(100), counts=(False,) * 8 + (True, True))
    clear, block = look_bounds(Policy(), few, 1)
    assert clear[:8] == block[:8] == (math.inf,) * 8
    assert all(map(math.isfinite, clear[8:] + block[8:]))


def test_a_verdict_plans_the_next_gate() -> None:
    found = history_of(
        [
            {
                "rule": "must_not_regress",
                "benchmark": "a",
                "reference": "champion",
                "k": 4,
                "variance": 0.2,
                "icc": 0.03,
            },
            {"rule": "must_not_regress", "benchmark": "b", "reference": "anchor", "k": 1, "variance": 0.1, "icc": None},
            {"rule": "must_not_regress", "benchmark": "c", "reference": "champion", "k": 1, "variance": None},
            {"rule": "floor", "benchmark": "d", "reference": "", "k": 1, "variance": 0.1},
        ]
    )
    assert found == {("a", "champion", 4): Spread(0.2, 0.03), ("b", "anchor", 1): Spread(0.1)}
