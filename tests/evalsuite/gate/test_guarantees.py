"""A small copy of the simulation behind results/GATE.md: a broken rule, margin or bound misses these by far.

Limits are the promised numbers with four standard errors of the run; seeds are fixed. The last tests hold the
simulation itself against item-by-item drawing, the clustered error and the gate's own replay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from evalsuite.gate.judge import judge, prepare
from evalsuite.gate.margins import Spread
from evalsuite.gate.order import Order
from evalsuite.gate.policy import Policy
from evalsuite.gate.reading import load_policy
from evalsuite.gate.rule import Course, course
from evalsuite.scorecard import Scorecard
from evalsuite.stats.inferiority import cluster_robust
from tests.evalsuite.gate.cards import duel, facts_of
from tests.speed.gate_errors import (
    Q,
    binary_cell,
    clustered_cell,
    clustered_looks,
    clustered_order,
)
from tests.speed.gate_peers import peers
from tests.speed.gate_simulation import draw_w1, draw_w2, draw_w4
from tests.speed.gate_worlds import SIZES, World, binary_world, difference_chances, disagreements, effects, variance_of

POLICY = load_policy()
RUNS = 600


def rng(seed: int = 11) -> np.random.Generator:
    return np.random.default_rng(seed)


def chance(limit: float, runs: int = RUNS) -> float:
    """Four standard errors of a share that is `limit` in truth."""
    return 4 * math.sqrt(limit * (1 - limit) / runs)


def gone(world: World) -> tuple[float, float, float]:
    """(promoted, blocked, mean cost)."""
    went: Course = course(world.setup, world.looks)
    return float(went.promoted.mean()), float(went.blocked.mean()), float(world.cost(went).mean())


def test_an_equal_checkpoint_is_promoted_at_a_third_of_the_cost() -> None:
    promoted, blocked, cost = gone(draw_w1(POLICY, rng(), "equal", RUNS))
    assert promoted >= 0.93 - chance(0.93)
    assert blocked <= 0.025 + chance(0.025)
    assert cost <= 0.35


def test_a_better_checkpoint_is_promoted_at_a_fifth_of_the_cost() -> None:
    promoted, _, cost = gone(draw_w1(POLICY, rng(), "+1", RUNS))
    assert promoted >= 0.975 - chance(0.975)
    assert cost <= 0.20


def test_nearly_the_same_checkpoint_is_promoted() -> None:
    promoted, _, _ = gone(draw_w4(POLICY, rng(), "equal", RUNS))
    assert promoted >= 0.93 - chance(0.93)


def test_a_drop_on_three_large_benchmarks_is_not_promoted() -> None:
    promoted, blocked, _ = gone(draw_w1(POLICY, rng(), "reg3 big", RUNS))
    assert promoted <= 0.01 + chance(0.01)
    assert blocked >= 0.95


def test_with_samples_a_drop_on_any_three_benchmarks_is_rarely_promoted() -> None:
    for scenario in ("reg3 rand", "masked"):
        promoted, _, cost = gone(draw_w2(POLICY, rng(), scenario, RUNS))
        assert promoted <= 0.05 + chance(0.05)
        assert cost <= 0.60


@pytest.mark.parametrize(("n", "q"), [(164, 0.15), (320, 0.02), (1319, 0.1), (14000, 0.15)])
def test_a_drop_of_the_margin_clears_one_time_in_twenty_at_most(n: int, q: float) -> None:
    cell = binary_cell(POLICY, n, q, 4000, rng(n))
    assert cell.cleared <= 0.05 + chance(0.05, 4000)
    assert cell.cleared >= 0.01  # a gate that clears nothing would promise as much
    assert cell.blocked <= 0.025 + 18 * chance(0.025 / 18, 4000)


@pytest.mark.parametrize(("n", "groups", "icc"), [(6500, 27, 0.03), (14000, 57, 0.01), (5000, 7, 0.01)])
def test_clusters_leave_the_error_where_it_was(n: int, groups: int, icc: float) -> None:
    cell = clustered_cell(POLICY, n, groups, icc, 2000, rng(n), uneven=False)
    assert cell.cleared <= 0.05 + chance(0.05, 2000)
    assert cell.blocked <= 0.025 + 18 * chance(0.025 / 18, 2000)


def test_clusters_that_are_ignored_would_be_noticed() -> None:
    # 27 clusters of 240 with ICC .03 taken for independent items: the error at the margin is five times the promised.
    items = clustered_order([240] * 27, 10)
    rough = np.sqrt(0.03 * Q) * 240 * rng().standard_normal((2000, 27)) + np.sqrt(0.97 * Q * 240) * rng(
        1
    ).standard_normal((2000, 27))
    world = binary_world(POLICY, rng(), np.full((2000, 1), Q), np.zeros((2000, 1)), sizes=[6480], n_tests=18)
    margin = float(world.setup.margin[0, 0])
    naive = [
        replace(s, stderr=np.sqrt(Q / s.n), groups=np.zeros_like(s.n))
        for s in clustered_looks(items, rough, -margin, 0.01)
    ]
    assert course(world.setup, naive).promoted.mean() > 0.15


def test_the_rules_of_others_do_what_they_are_known_for() -> None:
    q = disagreements(0.1, 0.2, RUNS, len(SIZES), rng())
    effect = effects("masked", RUNS, rng(1))
    found = peers(binary_world(POLICY, rng(2), q, effect), q, effect, rng(3))
    assert found["macro mean ≥ champion"].promoted.mean() > 0.85  # a gain elsewhere hides three drops
    assert found["95 % interval inside 1.5 points"].promoted.mean() == 0  # 164 items cannot show it
    assert found["no benchmark lower"].promoted.mean() < 0.05


def test_counts_of_latent_abilities_are_those_of_items_drawn_one_by_one() -> None:
    draw = rng()
    n, k = 400_000, 4
    ability = 0.5 + 5 * draw.standard_normal(n)
    candidate = ability + 0.7 * draw.standard_normal(n)
    right = [draw.binomial(k, 1 / (1 + np.exp(-a))) for a in (candidate, ability)]
    drawn = np.bincount(right[0] - right[1] + k, minlength=2 * k + 1) / n
    # The model of the draw has μ = 0, which loses a little: σ is steeper below one half than above it.
    effect = float((right[0] - right[1]).mean() / k)
    assert np.abs(drawn - difference_chances(k, effect)).max() < 0.003
    assert [variance_of(difference_chances(k, 0.0)) for k in (1, 4, 8)] == pytest.approx(
        [0.155, 0.0433, 0.0248], abs=2e-4
    )
    assert difference_chances(8, -0.02) @ np.arange(-8, 9) / 8 == pytest.approx(-0.02, abs=1e-9)


def test_sums_of_clusters_have_the_error_of_the_items() -> None:
    items = clustered_order([30, 5, 40, 25, 10, 10, 20, 15, 30, 15, 20, 80], 4)
    d = rng().standard_normal(items.n)
    names = list(dict.fromkeys(items.clusters))
    index = np.array([names.index(c) for c in items.clusters])
    looks = clustered_looks(items, np.bincount(index, weights=d)[None, :], 0.25, 0.01)
    for seen, size in zip(looks, items.sizes, strict=True):
        stderr, groups = cluster_robust(d[:size], index[:size], 0.01)
        assert seen.stderr[0, 0] == pytest.approx(stderr)
        assert seen.groups[0, 0] == pytest.approx(groups)
        assert seen.mean[0, 0] == pytest.approx(d[:size].mean() + 0.25)


@pytest.mark.parametrize("seed", range(12))
def test_the_gate_replays_two_scorecards_to_the_course_that_is_simulated(seed: int) -> None:
    policy = replace(POLICY, infra=(), anchor=None)
    draw, sizes = rng(seed), {"a": 3000, "b": 500, "c": 164}
    drop = 0.04 if seed % 3 == 0 else 0.0
    sides = {}
    for name, n in sizes.items():
        was = draw.integers(0, 2, n).astype(float)
        flip = draw.random(n) < 0.15 + np.where(was == 1, drop, -drop)
        sides[name] = (list(np.where(flip, 1 - was, was)), list(was))
    candidate, champion = duel(**sides)
    facts = facts_of(candidate, champion, spreads={(name, "champion", 1): Spread(0.15) for name in sizes})
    verdict = judge(policy, candidate, champion, None, facts)
    digests = {"candidate": candidate.checkpoint.digest, "champion": champion.checkpoint.digest}
    suite = {"digest": candidate.suite.digest, "regime": candidate.suite.regime}
    orders = prepare(policy, suite, digests, facts).orders
    world = _as_seen(policy, candidate, champion, orders)
    went = course(world.setup, world.looks)
    wanted = "promote" if went.promoted[0] else "block" if went.blocked[0] else "hold"
    assert verdict.outcome == wanted
    assert verdict.cost["share"] == pytest.approx(float(world.cost(went)[0]))


def _as_seen(policy: Policy, candidate: Scorecard, champion: Scorecard, orders: Mapping[str, Order]) -> World:
    """The counts of each look of two scorecards, in the place of drawn ones."""
    sizes = [o.n for o in orders.values()]
    plain = np.full((1, len(sizes)), 0.15)
    world = binary_world(policy, rng(), plain, np.zeros_like(plain), sizes=sizes, n_tests=len(sizes))
    looks = []
    for k, seen in enumerate(world.looks):
        wins, losses = np.zeros(plain.shape), np.zeros(plain.shape)
        for b, (name, items) in enumerate(orders.items()):
            now, was = (result.scores for c in (candidate, champion) if (result := c.result(name)))
            d = np.array([now[i] - was[i] for i in items.ids[: items.sizes[k]]])
            wins[0, b], losses[0, b] = (d > 0).sum(), (d < 0).sum()
        looks.append(replace(seen, wins=wins, losses=losses, mean=(wins - losses) / seen.n))
    return replace(world, looks=tuple(looks))
