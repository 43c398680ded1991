"""What the registry remembers of gates: attempts at a claim, and the spread that plans the next gate."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from evalsuite.gate.policy import MustImprove, Target
from evalsuite.gate.verdict import to_json
from tests.evalsuite.gating.world import LOOK, POLICY, Checkpoint, N, World, every, make_world, never, pair

CLAIM = replace(POLICY, must_improve=MustImprove("any_of", (Target("macro"),)))


def levels(world: World, *names: str) -> list[tuple[int, str]]:
    found = []
    for name in names:
        verdict = world.gate(Checkpoint(name), Checkpoint("old"), CLAIM).verdict
        (claim,) = [f for f in verdict.findings if f.rule == "must_improve"]
        found.append((verdict.attempt, claim.why))
    return found


def test_each_claim_is_another_attempt_at_a_stricter_level(world: World) -> None:
    found = levels(world, "a", "b", "c")
    # α/(t(t+1)) with α = .05: 1/2, 1/6 and 1/12 of it, and z of those tails.
    assert [attempt for attempt, _ in found] == [1, 2, 3]
    for (_, why), (level, z) in zip(found, [("0.025", "1.96"), ("0.0083", "2.39"), ("0.0042", "2.64")], strict=True):
        assert f"{z} needed" in why
        assert f"level {level})" in why
    assert [(e.detail["claim"], e.detail["attempt"]) for e in world.events("attempt")] == [
        (True, 1),
        (True, 2),
        (True, 3),
    ]


def test_a_gate_that_is_repeated_is_the_same_attempt(world: World) -> None:
    first = levels(world, "a")
    assert levels(world, "b")[0][0] == 2
    assert levels(world, "a") == first
    assert len(world.events("attempt")) == 2


def test_without_a_claim_attempts_are_logged_and_cost_nothing(world: World) -> None:
    for name in ("a", "b"):
        world.gate(Checkpoint(name), Checkpoint("old"))
    assert [e.detail["claim"] for e in world.events("attempt")] == [False, False]
    assert levels(world, "c")[0][0] == 1


def test_attempts_are_logged_before_anything_is_asked(world: World) -> None:
    mine = Checkpoint("new", broken="no device")
    with pytest.raises(Exception, match="no device"):
        world.gate(mine, Checkpoint("old"), CLAIM)
    assert len(world.events("attempt")) == 1
    mine.broken = ""
    assert world.gate(mine, Checkpoint("old"), CLAIM).verdict.attempt == 1


def test_an_epoch_lets_attempts_count_from_one_again(world: World) -> None:
    levels(world, "a", "b")
    suite = world.events("attempt")[0].detail["suite"]
    world.registry.record("epoch", ref="champion", reason="another base model", detail={"suite": suite})
    assert levels(world, "c")[0][0] == 1
    assert levels(world, "b")[0][0] == 2  # begun before the epoch, and the same attempt still


def test_a_claim_is_asked_to_its_end_and_a_proven_gain_passes(world: World) -> None:
    # The champion is wrong about one in ten: D = .1, and with no loss z is about √40 = 6.7 against 1.96.
    mine = Checkpoint("new")
    gated = world.gate(mine, Checkpoint("old", every(10)), CLAIM)
    (claim,) = [f for f in gated.verdict.findings if f.rule == "must_improve"]
    assert (gated.verdict.outcome, claim.outcome, claim.difference) == ("promote", "pass", pytest.approx(0.1))
    assert len(mine.numbers()) == N
    assert pair(gated).look == 1


def test_an_equal_checkpoint_with_a_claim_holds(world: World) -> None:
    gated = world.gate(Checkpoint("new", every(10)), Checkpoint("old", every(10)), CLAIM)
    assert (gated.verdict.outcome, gated.verdict.exit_code) == ("hold", 3)


def clean(world: World) -> None:
    """A registry that remembers no gate."""
    shutil.rmtree(world.results / "registry")


def test_the_spread_that_a_gate_measured_plans_the_next_one_and_leaves_the_gate_itself_as_it_was(world: World) -> None:
    policy = replace(POLICY, default=replace(POLICY.default, margin=None))
    theirs = Checkpoint("old", every(2))
    # Each item is won or lost: no drop, and Var d = 1 against the .15 that is planned without a measurement.
    # The order hangs on the names, and some orders clear early by luck; one that goes to its end measures a spread.
    for name in "abcdefgh":
        first = world.gate(Checkpoint(name, every(2, 1)), theirs, policy)
        if pair(first).n == N:
            break
        clean(world)
    before = pair(first)
    assert (before.n, before.outcome) == (N, "hold")
    assert before.variance == pytest.approx(N / (N - 1))
    written = to_json(first.verdict)

    second = world.gate(Checkpoint("other", never), theirs, policy)
    assert before.limit is not None
    # At most twice the disagreement of the plan: a wild gate does not blind the next.
    assert pair(second).limit == pytest.approx(before.limit * 2**0.5)
    assert world.events("attempt")[1].detail["spreads"] == first.digest

    again = world.gate(Checkpoint(name, every(2, 1)), theirs, policy)
    assert to_json(again.verdict) == written
    assert again.digest == first.digest


def test_a_spread_measured_on_part_of_a_benchmark_plans_nothing(world: World) -> None:
    policy = replace(POLICY, default=replace(POLICY.default, margin=None))
    theirs = Checkpoint("old")
    first = world.gate(Checkpoint("a"), theirs, policy)
    second = world.gate(Checkpoint("b"), theirs, policy)
    assert pair(first).n == LOOK
    assert pair(first).variance is None
    assert pair(second).limit == pair(first).limit


def test_a_dry_run_writes_neither_verdict_nor_attempt_and_says_the_same(world: World) -> None:
    mine, theirs = Checkpoint("new", every(9)), Checkpoint("old", every(9, 4))
    dry = world.gate(mine, theirs, dry_run=True)
    assert dry.digest is None
    assert not (world.results / "gates").exists()
    assert not (world.results / "registry").exists()
    real = world.gate(mine, theirs)
    assert to_json(real.verdict) == to_json(dry.verdict)
    assert real.n_asked == {"candidate": 0, "champion": 0}  # answers are kept all the same


def test_a_dry_run_is_no_attempt(world: World) -> None:
    for name in ("a", "b"):
        dry = world.gate(Checkpoint(name), Checkpoint("old"), CLAIM, dry_run=True)
        assert dry.verdict.attempt == 1
    assert world.events("attempt") == []


def test_without_a_registry_a_verdict_is_only_a_file(world: World) -> None:
    gated = world.gate(Checkpoint("new"), Checkpoint("old"), registry=None, ref=None, generation=None)
    assert gated.digest is None
    (name,) = world.written()
    assert name.startswith(gated.verdict.gate_id[:16])
    assert not (world.results / "registry").exists()


def test_registries_of_two_folders_do_not_know_each_other(world: World) -> None:
    levels(world, "a")
    assert levels(make_world(world.root / "other"), "b")[0][0] == 1
