"""Samples that failed never lead to a promotion, and when they are mended the same command decides."""

from __future__ import annotations

import pytest

from evalsuite.cli.gate import _find
from evalsuite.errors import UsageError
from evalsuite.gate.override import refuse_override
from tests.evalsuite.gating.world import LOOK, Checkpoint, World, about, every, never, pair


@pytest.mark.parametrize("broken", ["candidate", "champion"])
def test_failed_samples_hold_and_promote_once_they_are_mended(world: World, broken: str) -> None:
    mine, theirs = Checkpoint("new"), Checkpoint("old")
    sick = mine if broken == "candidate" else theirs
    sick.fails = every(20)
    held = world.gate(mine, theirs)
    (failed,) = [f for f in held.verdict.findings if f.rule == "failed"]
    assert (held.verdict.outcome, held.verdict.exit_code) == ("hold", 3)
    assert failed.outcome == "error"
    assert f"samples of the {broken} failed" in failed.why
    n_failed = int(failed.why.split()[0])
    assert n_failed == sum(n % 20 == 0 for n in mine.numbers()) > 0
    # Everything else was fine, so it is the failures alone that hold it.
    assert pair(held).outcome == "pass"

    failing = sorted(n for n in sick.numbers() if n % 20 == 0)  # of the champion also those asked ahead
    sick.fails = never
    sick.asked.clear()
    promoted = world.gate(mine, theirs)
    assert promoted.verdict.outcome == "promote"
    assert sorted(sick.numbers()) == failing
    assert promoted.verdict.gate_id == held.verdict.gate_id
    assert len(world.events("verdict")) == 2
    assert len(world.events("attempt")) == 1


def test_every_failed_sample_is_counted_and_some_are_named(world: World) -> None:
    mine = Checkpoint("new", fails=every(1))
    gated = world.gate(mine, Checkpoint("old"))
    failed = [f for f in gated.verdict.findings if f.rule == "failed"]
    assert gated.verdict.outcome == "hold"
    assert len(failed) == 1
    assert f"{failed[0].n} of {failed[0].n} samples of the candidate failed" in failed[0].why
    assert failed[0].why.count("q") == 3


def test_a_proven_drop_blocks_even_where_samples_failed(world: World) -> None:
    mine = Checkpoint("new", every(3), fails=every(50))
    gated = world.gate(mine, Checkpoint("old"))
    assert gated.verdict.outcome == "block"
    assert {"failed", "must_not_regress"} <= {f.rule for f in gated.verdict.blocking}


def test_nobody_overrides_failed_samples(world: World) -> None:
    gated = world.gate(Checkpoint("new", fails=every(20)), Checkpoint("old"))
    assert gated.digest is not None
    digest, found = _find(world.results, gated.digest[:12])
    with pytest.raises(UsageError, match=r"may not be overridden: toy \(standard, failed\): \d+ of 100 samples"):
        refuse_override(found, world.registry.get(found.policy))
    assert digest == gated.digest


def test_a_single_failed_sample_among_the_items_looked_at_is_enough_to_hold(world: World) -> None:
    mine, theirs = Checkpoint("new"), Checkpoint("old")
    clean = world.gate(mine, theirs)
    one = mine.numbers()[0]
    other = Checkpoint("newer", fails=about({one}))
    gated = world.gate(other, theirs)
    looked_at = one in other.numbers()
    assert clean.verdict.outcome == "promote"
    assert len(other.numbers()) == LOOK
    assert gated.verdict.outcome == ("hold" if looked_at else "promote")
