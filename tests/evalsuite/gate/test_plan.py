"""`gate plan`: margins and costs known before any model runs, by simulations that use the gate's own rule."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from evalsuite.cli.gate_plan import check as check_command
from evalsuite.cli.gate_plan import plan as plan_command
from evalsuite.errors import PolicyError, UsageError
from evalsuite.gate.margins import Spread
from evalsuite.gate.plan import Asked, Plan, asked_of, plan
from evalsuite.gate.plan_table import pairs_table, scenarios_table
from evalsuite.gate.policy import Method, MustImprove, Planning, Policy, Rule, Samples, Target
from evalsuite.gate.reading import load_policy
from evalsuite.gate.simulate import Scenario
from evalsuite.registry import Registry
from evalsuite.suite import load_suite
from evalsuite.tables import write
from tests.evalsuite.cards import make_card, make_result

# Workload W1 of gate.md §14.3: mmlu popqa truthfulqa mmlu_pro bbh drop agieval gsm8k math humaneval humaneval+ ifeval
# alpaca harmbench dan xstest wildguard wildjailbreak.
SIZES = (14000, 14000, 817, 12000, 6500, 9500, 2500, 1319, 5000, 164, 164, 541, 805, 320, 300, 450, 1725, 2210)
ONCE = Policy(samples=Samples())
K_PLAN = load_policy("default")
RUNS = 1000


def benchmarks(sizes: Sequence[int] = SIZES, policy: Policy = ONCE) -> list[Asked]:
    return [Asked(f"b{i}", n, policy.samples.k_for(n, sampled=True)) for i, n in enumerate(sizes)]


def scenario(planned: Plan, name: str) -> Scenario:
    return next(s for s in planned.scenarios if s.name == name)


@pytest.fixture(scope="module")
def timed() -> tuple[Plan, float]:
    """W1 planned in full, and the processor seconds that it took."""
    start = time.process_time()
    planned = plan(ONCE, "w1", benchmarks())
    return planned, time.process_time() - start


@pytest.fixture(scope="module")
def w1(timed: tuple[Plan, float]) -> Plan:
    return timed[0]


# §4.5, in points: C = 4.871 and disagreement .15, so 4.871·√(.15/14000) = .0159 and so on.
PUBLISHED = dict(zip((14000, 12000, 9500, 6500, 5000, 2500), (1.59, 1.72, 1.94, 2.34, 2.67, 3.77), strict=True))
PUBLISHED |= dict(zip((2210, 1725, 1319, 817, 541), (4.01, 4.54, 5.19, 6.60, 8.11), strict=True))
PUBLISHED |= dict(zip((450, 320, 300, 164), (8.89, 10.6, 10.9, 14.7), strict=True))
PUBLISHED_K = dict(zip((2500, 2210, 1725, 1319, 817), (2.00, 2.12, 2.40, 2.75, 2.64), strict=True))
PUBLISHED_K |= dict(zip((541, 450, 320, 300, 164), (3.24, 3.56, 4.22, 4.36, 5.89), strict=True))


@pytest.mark.parametrize(("policy", "published"), [(ONCE, PUBLISHED), (K_PLAN, PUBLISHED_K)])
def test_margins_are_those_of_the_specification(policy: Policy, published: dict[int, float]) -> None:
    planned = plan(policy, "w1", benchmarks(policy=policy), runs=0)
    margins = {line.pair.n: 100 * line.pair.margin for line in planned.lines}
    assert {n: margins[n] for n in published} == pytest.approx(published, rel=0.006)  # printed with three digits


def test_the_simulation_ends_as_the_measured_gates_of_the_specification_do(w1: Plan) -> None:
    """§14.3 measures whole gates on drawn items. Left out here: the variance is known, and no count is small."""
    equal, better = scenario(w1, "equal"), scenario(w1, "+1 everywhere")
    assert equal.promote == pytest.approx(0.944, abs=0.025)
    assert equal.cost == pytest.approx(0.309, abs=0.02)
    assert better.promote == pytest.approx(0.992, abs=0.01)
    assert better.cost == pytest.approx(0.183, abs=0.02)
    worse = scenario(w1, "−2 on three at random")
    assert (worse.promote, worse.block, worse.cost) == pytest.approx((0.195, 0.763, 0.344), abs=0.04)
    masked = scenario(w1, "−2 on three at random, +1 elsewhere")
    assert (masked.promote, masked.block, masked.cost) == pytest.approx((0.206, 0.759, 0.246), abs=0.04)
    assert scenario(w1, "−2 on the three largest").promote <= 0.005


def test_the_shares_of_a_scenario_add_up(w1: Plan) -> None:
    assert len(w1.scenarios) == 6
    for s in w1.scenarios:
        assert s.promote + s.block + s.hold == pytest.approx(1)


def test_a_drop_by_the_margin_clears_no_more_often_than_alpha_and_an_equal_checkpoint_almost_always(w1: Plan) -> None:
    # Shares of 4,000 runs: three standard errors are 3·√(.05·.95/4000) = .0103 and 3·√(.0033·.9967/4000) = .0027.
    assert all(line.at_margin <= 0.05 + 0.0103 for line in w1.lines)
    assert all(line.equal >= 1 - 0.06 / 18 - 0.0027 for line in w1.lines)


def test_what_is_hard_to_see_is_said_with_what_more_samples_would_buy(w1: Plan) -> None:
    line = next(line for line in w1.lines if line.pair.n == 164)
    assert line.relief is not None
    # §8: "drops under 14.7 pt; K = 8 would make it 5.9 pt for 0.016 suite units": 14.7·√.16 = 5.9, 7·164/72315 = .0159
    assert (line.relief.k, line.relief.margin, line.relief.cost) == pytest.approx((8, 0.0589, 0.0159), rel=0.01)
    caption = " ".join(pairs_table(w1).caption)
    assert "b9: cannot see a drop under 14.7 points; K = 8 would make it 5.89 for at most 0.016 full runs." in caption
    assert "b0:" not in caption  # 1.59 points


def test_the_worst_seen_benchmark_is_named_first(w1: Plan) -> None:
    named = [line.partition(":")[0] for line in pairs_table(w1).caption[1:]]
    assert named[:2] == ["b9", "b10"]
    assert len(named) == len([n for n in SIZES if n <= 2500])


def test_another_anchor_doubles_the_pairs_and_widens_the_margins() -> None:
    one = plan(ONCE, "w1", benchmarks(), runs=0)
    two = plan(ONCE, "w1", benchmarks(), references=("champion", "anchor"), runs=0)
    assert len(two.lines) == 2 * len(one.lines)
    # §15: C = 5.09 for 36 pairs, 4.5 % more than 4.871
    assert two.lines[0].pair.margin / one.lines[0].pair.margin == pytest.approx(1.045, abs=0.001)


def test_two_references_share_the_candidate_so_they_miss_together() -> None:
    # One benchmark, β = .4: each pair misses with chance .4/2 = .2 at its last look, less what earlier looks save.
    # Independent pairs would both clear with the product of their chances; correlated ones do so more often.
    loose = Policy(samples=Samples(), method=Method(beta=0.4))
    planned = plan(loose, "s", benchmarks([5000]), references=("champion", "anchor"), runs=4000)
    alone = [line.equal for line in planned.lines]
    assert scenario(planned, "equal").promote > alone[0] * alone[1] + 0.01


def test_a_policy_that_could_only_hold_is_refused_with_what_would_repair_it() -> None:
    policy = Policy(samples=Samples(), rules={"b9": Rule(margin=0.02)})
    with pytest.raises(
        PolicyError, match=r"must_not_regress\.b9: a margin of 2 points can only end inconclusive.*items"
    ):
        plan(policy, "w1", benchmarks())


def test_a_written_margin_buys_no_samples() -> None:
    policy = Policy(samples=Samples(), rules={"b0": Rule(margin=0.2)})
    (line,) = plan(policy, "s", benchmarks([164]), runs=0).lines
    assert line.relief is None
    assert line.pair.null == -0.2


def test_advisory_benchmarks_stop_nothing_and_still_cost() -> None:
    advisory = Policy(samples=Samples(), rules={"b0": Rule(tier="advisory")})
    both = scenario(plan(advisory, "s", benchmarks([5000, 5000]), runs=RUNS), "−2 everywhere")
    alone = scenario(plan(ONCE, "s", benchmarks([5000]), runs=RUNS), "−2 everywhere")
    # the same chances but for noise: the standard error of a share of 1,000 is at most .016
    assert (both.promote, both.block) == pytest.approx((alone.promote, alone.block), abs=0.06)
    assert both.cost > 0.3


def test_what_stands_behind_a_claim_is_asked_whole() -> None:
    claim = replace(ONCE, must_improve=MustImprove("any_of", (Target("b0"),)))
    free = scenario(plan(ONCE, "s", benchmarks([9000, 1000]), runs=RUNS), "+1 everywhere")
    held = scenario(plan(claim, "s", benchmarks([9000, 1000]), runs=RUNS), "+1 everywhere")
    assert free.cost < 0.5
    assert held.cost > 0.9  # b0 is nine tenths of the items; only a block ends it early
    assert plan(
        replace(ONCE, must_improve=MustImprove("all_of", (Target("macro"),))), "s", benchmarks([50]), runs=0
    ).notes


def test_a_fixed_test_looks_once_at_everything_and_rejects_an_equal_checkpoint_rarely() -> None:
    planned = plan(Policy(samples=Samples(), method=Method(test="fixed")), "w1", benchmarks(), runs=RUNS)
    equal = scenario(planned, "equal")
    assert equal.cost == pytest.approx(1)
    assert equal.block <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / RUNS)  # Simes at α/2
    assert scenario(planned, "−2 on the three largest").block > 0.95
    assert planned.lines[0].pair.order.sizes == (14000,)


def test_the_betting_test_is_planned_without_scenarios() -> None:
    planned = plan(Policy(samples=Samples(), method=Method(test="betting")), "w1", benchmarks())
    assert planned.scenarios == ()
    assert planned.as_json()["pairs"][0]["cleared_equal"] is None
    assert "no simulation" in " ".join(planned.notes)
    assert "–" in write(pairs_table(planned), "terminal")


def test_what_the_last_gate_measured_replaces_the_assumption() -> None:
    spreads = {("b0", "champion", 1): Spread(0.3), ("b1", "champion", 8): Spread(0.3)}
    first, second = plan(ONCE, "s", benchmarks([5000, 5000]), spreads=spreads, runs=0).lines
    assert (first.pair.source, second.pair.source) == ("last gate", "policy")  # that of K = 8 is no measure of K = 1
    assert first.pair.stderr == pytest.approx(math.sqrt(0.3 / 5000))


def test_the_same_seed_says_the_same_and_another_seed_something_else() -> None:
    def text(seed: int) -> str:
        return json.dumps(plan(ONCE, "s", benchmarks([900, 3000, 700, 200]), runs=500, seed=seed).as_json())

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_a_plan_of_eighteen_benchmarks_takes_under_five_seconds(timed: tuple[Plan, float]) -> None:
    assert timed[1] < 5


def test_the_tulu_suite_is_asked_as_the_policy_says() -> None:
    asked = {a.benchmark: a for a in asked_of(K_PLAN, load_suite("tulu3-dev"))}
    assert len(asked) == 17
    assert (asked["mmlu_cot"].n, asked["mmlu_cot"].k) == (14042, 1)
    assert (asked["gsm8k"].k, asked["ifeval"].k) == (4, 8)  # 1,319 and 541 items
    assert (asked["truthfulqa"].k, asked["truthfulqa"].fixed_k) == (1, "nothing is sampled, so K has no effect")
    assert (asked["humaneval"].k, asked["humaneval"].fixed_k[:27]) == (20, "pass@10 asks 20 times itself"[:27])


def test_an_unknown_size_is_a_usage_error_until_a_scorecard_tells_it() -> None:
    demo = load_suite("demo")
    bare = {c: replace(b, meta=replace(b.meta, n_expected=None)) for c, b in demo.columns.items()}
    suite = replace(demo, columns=bare)
    with pytest.raises(UsageError, match="the size of demo_add, demo_reverse, demo_larger is not known"):
        asked_of(ONCE, suite)
    card = make_card("base", {b.name: [1.0] * 30 for b in demo.columns.values()})
    assert [a.n for a in asked_of(ONCE, suite, card)] == [30, 30, 30]


def test_clusters_are_those_of_a_scorecard_and_before_there_is_one_of_equal_size() -> None:
    suite = load_suite("tulu3-dev")
    asked = {a.benchmark: a for a in asked_of(K_PLAN, suite)}
    counts = {name: len(set(a.clusters)) for name, a in asked.items() if a.clusters}
    assert counts == {"mmlu_cot": 57, "bbh": 27, "drop": 590}  # the 7 subjects of MATH are fixed categories
    assert asked["bbh"].note == "its 27 clusters are taken to be of one size"

    subjects = [f"s{i % 11}" for i in range(40)]
    card = make_card("base", {"math": make_result("math", [1.0, 0.0] * 20, categories=subjects)})
    scored = {a.benchmark: a for a in asked_of(K_PLAN, suite, card)}
    assert (scored["math"].n, len(set(scored["math"].clusters)), scored["math"].note) == (40, 11, "")

    by_name = {line.pair.benchmark: line.pair for line in plan(K_PLAN, "s", list(asked.values()), runs=0).lines}
    # 27 tasks of 241 or 242 items: deff = 1 + (6511/27 − 1)·.01 = 3.40
    assert by_name["bbh"].deff == pytest.approx(1 + (6511 / 27 - 1) * 0.01, rel=1e-3)
    assert by_name["gsm8k"].deff == 1


def test_clusters_that_a_policy_asks_for_or_waives_are_planned_so() -> None:
    suite = load_suite("tulu3-dev")
    lines = ["must_not_regress.math.cluster=subject", "must_not_regress.bbh.cluster=none"]
    lines += ["must_not_regress.xstest.cluster=type"]
    asked = {a.benchmark: a for a in asked_of(load_policy(None, lines, suite=suite), suite)}
    assert len(set(asked["math"].clusters)) == 7
    assert asked["bbh"].clusters == ()
    assert "no scorecard tells its clusters by type" in asked["xstest"].note


def test_clustered_benchmarks_are_simulated_with_the_looks_that_count() -> None:
    clustered = Policy(samples=Samples(), plan=Planning(icc=0.01), rules={"b0": Rule(cluster="category")})
    asked = [Asked("b0", 6500, clusters=tuple(str(i % 26) for i in range(6500)))]
    planned = plan(clustered, "s", asked, runs=RUNS)
    (line,) = planned.lines
    assert line.at_margin <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)
    assert line.equal > 0.9
    assert line.pair.order.counts[:3] == (False, False, False)  # under ten clusters of 250 items


def test_tables_say_points_and_full_runs(w1: Plan) -> None:
    pairs = write(pairs_table(w1), "terminal")
    assert "18 pairs against champion can stop a promotion" in pairs
    assert "1400, 2800 … 14000" in pairs
    ends = write(scenarios_table(w1), "terminal")
    assert "A full run is 72315 responses" in ends


def invoke(command: Any, *arguments: str) -> str:
    """What a command prints; its errors are raised."""
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_prints_tables_or_json() -> None:
    assert "demo_reverse" in invoke(plan_command, "--suite", "demo")
    raw = json.loads(invoke(plan_command, "--suite", "demo", "--set", "method.looks=2", "--json"))
    assert raw["schema"] == "gate-plan/1"
    assert raw["policy"]["settings"] == ["method.looks=2"]
    assert raw["pairs"][0]["sizes"] == [100, 200]
    assert {s["name"] for s in raw["scenarios"]} == {"equal", "+1 everywhere", "−2 everywhere"}


def test_history_tells_spreads_and_whether_the_anchor_is_another_checkpoint(tmp_path: Path) -> None:
    demo = load_suite("demo")
    registry = Registry.at(tmp_path)
    finding = {"rule": "must_not_regress", "benchmark": "demo_add", "reference": "champion", "k": 1, "variance": 0.4}
    verdict = registry.put({"suite": {"digest": demo.digest}, "findings": [finding | {"icc": None}]})
    other = registry.put({"suite": {"digest": "other"}, "findings": [finding | {"icc": None, "variance": 0.9}]})
    registry.record("verdict", "champion", "c" * 64, verdict)
    registry.record("verdict", "champion", "c" * 64, other)
    for ref, checkpoint in (("champion", "c" * 64), ("anchor", "a" * 64)):
        manifest = {"checkpoint": {"digest": checkpoint}}
        registry.promote(ref, checkpoint_id=checkpoint, manifest=manifest, expected_generation=0, verdict=verdict)
    raw = json.loads(invoke(plan_command, "--suite", "demo", "--history", str(tmp_path), "--json"))
    found = {(p["benchmark"], p["reference"]): p for p in raw["pairs"]}
    assert len(found) == 6
    assert found["demo_add", "champion"]["stderr"] == pytest.approx(math.sqrt(0.4 / 200))
    assert found["demo_add", "champion"]["source"] == "last gate"
    assert found["demo_add", "anchor"]["source"] == "policy"


def test_history_without_anything_in_it_changes_nothing(tmp_path: Path) -> None:
    plain = invoke(plan_command, "--suite", "demo", "--json")
    assert invoke(plan_command, "--suite", "demo", "--json", "--history", str(tmp_path)) == plain
    assert list(tmp_path.iterdir()) == []  # reading creates nothing


@pytest.mark.parametrize("command", [plan_command, check_command])
def test_a_refused_policy_ends_in_two(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("suite: demo\nmust_not_regress: {demo_add: {margin: 0.01}}\n", encoding="utf-8")
    named = ["--policy", str(path)] if command is plan_command else [str(path)]
    result = CliRunner().invoke(command, named)
    assert isinstance(result.exception, PolicyError)
    assert result.exception.exit_code == 2
    assert "must_not_regress.demo_add" in str(result.exception)


@pytest.mark.parametrize("name", ["default", "demo", "tulu3"])
def test_every_shipped_policy_can_come_to_a_decision(name: str) -> None:
    assert "cannot see a drop under" in invoke(check_command, name)


def test_check_prints_the_merged_policy() -> None:
    raw = json.loads(invoke(check_command, "demo", "--json"))
    assert raw["policy"]["method"]["looks"] == 4
    assert raw["digest"] == load_policy("demo", suite=load_suite("demo")).digest


def test_the_help_needs_neither_numpy_nor_scipy() -> None:
    code = "import sys; import evalsuite.cli.gate_plan; print(sorted({'numpy', 'scipy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
