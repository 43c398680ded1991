"""What a gate asks: the first items of an order that only its inputs decide, look after look, until it knows."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b, sha256
from pathlib import Path

import pytest

from evalsuite.gate.verdict import Verdict, to_json
from evalsuite.score import score
from tests.evalsuite.gating.world import (
    LOOK,
    POLICY,
    Checkpoint,
    N,
    World,
    Wrong,
    about,
    every,
    make_world,
    pair,
    pairs,
    world_in,
)


def keyed_order(verdict: Verdict, benchmark: str = "toy", n: int = N) -> list[int]:
    """The numbers of the questions by blake2b-128 of benchmark, a zero byte and sample id, keyed by suite and pair."""
    assert verdict.champion is not None
    pair = [verdict.suite["digest"], verdict.suite["regime"], verdict.candidate.digest, verdict.champion.digest]
    key = sha256(json.dumps(pair, separators=(",", ":")).encode()).digest()

    def rank(i: int) -> bytes:
        text = f"{benchmark}\0q{i}".encode()
        return blake2b(text, digest_size=16, key=key).digest()

    return sorted(range(n), key=rank)


def test_an_equal_checkpoint_is_asked_the_first_look_of_the_keyed_order_and_no_more(world: World) -> None:
    mine, theirs = Checkpoint("new"), Checkpoint("old")
    gated = world.gate(mine, theirs)
    ordered = keyed_order(gated.verdict)
    assert gated.verdict.outcome == "promote"
    # No loss in 100 items: (1 − .1)^100 = 2.7e-5, far under the first Pocock bound's .02.
    assert sorted(mine.numbers()) == sorted(ordered[:LOOK])
    finding = pair(gated)
    assert (finding.n, finding.n_planned, finding.look, finding.looks) == (100, 400, 1, 4)
    assert gated.verdict.cost == {"candidate": 100, "champion": 100, "full_run": 400, "share": 0.25}


def test_a_reference_is_asked_two_looks_ahead_and_the_next_gate_finds_its_answers(world: World) -> None:
    theirs = Checkpoint("old")
    first = world.gate(Checkpoint("new"), theirs)
    ordered = keyed_order(first.verdict)
    assert sorted(theirs.numbers()) == sorted(ordered[: 2 * LOOK])
    assert first.n_asked == {"candidate": LOOK, "champion": 2 * LOOK}
    held = set(theirs.numbers())
    theirs.asked.clear()
    second = world.gate(Checkpoint("newer"), theirs)
    wanted = keyed_order(second.verdict)
    assert wanted != ordered  # another candidate is another gate
    missing = set(wanted[: 2 * LOOK]) - held
    assert set(theirs.numbers()) == missing
    assert second.n_asked["champion"] == len(missing)


def test_a_worse_checkpoint_is_blocked_as_soon_as_that_is_proven(world: World) -> None:
    # Wrong about every tenth question, the champion about none. At the second look some 20 losses of 200 stand against
    # no win: z = −√20 = −4.5, and the O'Brien–Fleming bound at t = .5, α = .025 is 2.86 (at t = .25 it is 4.05).
    mine = Checkpoint("new", every(10))
    gated = world.gate(mine, Checkpoint("old"))
    ordered = keyed_order(gated.verdict)
    finding = pair(gated)
    assert (gated.verdict.outcome, finding.outcome, finding.look) == ("block", "block", 2)
    assert sorted(mine.numbers()) == sorted(ordered[: 2 * LOOK])
    lost = sum(n % 10 == 0 for n in ordered[: 2 * LOOK])
    assert finding.difference == -lost / 200


def test_what_a_gate_asked_is_not_asked_again_by_a_full_score(world: World) -> None:
    mine = Checkpoint("new", every(10))
    world.gate(mine, Checkpoint("old"))
    seen = set(mine.numbers())
    mine.asked.clear()
    card = score(world.job(mine))
    assert set(mine.numbers()) == set(range(N)) - seen
    assert card.results[0].value == 0.9
    assert set(world.answers().values()) == {1}


def test_a_gate_after_full_scores_asks_nothing_and_says_the_same(world: World) -> None:
    mine, theirs = Checkpoint("new", every(10)), Checkpoint("old", every(10, 5))
    fresh = make_world(world.root / "other")
    before = fresh.gate(mine, theirs)
    for who in (mine, theirs):
        score(world.job(who))
    n_opened = len(world.opened)
    after = world.gate(mine, theirs)
    assert after.n_asked == {"candidate": 0, "champion": 0}
    assert len(world.opened) == n_opened
    assert to_json(after.verdict) == to_json(before.verdict)


def test_a_gate_that_is_repeated_opens_no_engine_and_writes_the_same_bytes(world: World) -> None:
    mine, theirs = Checkpoint("new", every(7)), Checkpoint("old", every(9))
    first = world.gate(mine, theirs)
    written, n_opened = world.written(), len(world.opened)
    second = world.gate(mine, theirs)
    assert second.digest == first.digest
    assert second.n_asked == {"candidate": 0, "champion": 0}
    assert (world.written(), len(world.opened)) == (written, n_opened)
    assert [len(world.events(kind)) for kind in ("attempt", "verdict")] == [1, 1]


def test_benchmarks_are_asked_in_lock_step_and_one_that_cleared_is_asked_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_in(tmp_path, monkeypatch, names=("easy", "hard")) as world:
        # On "hard" one question in seven is lost and another one in seven won: no drop, and much disagreement.
        def wrong(remainder: int) -> Wrong:
            return lambda r: r.prompt.text.startswith("hard") and every(7, remainder)(r)

        mine, theirs = Checkpoint("n6", wrong(0)), Checkpoint("old", wrong(1))
        gated = world.gate(mine, theirs)
        easy, hard = (pairs(gated)[name, "champion"] for name in ("easy", "hard"))
        assert (easy.look, easy.n) == (1, LOOK)
        assert hard.n == LOOK * (hard.look or 0) > LOOK
        assert (len(mine.numbers("easy")), len(mine.numbers("hard"))) == (LOOK, hard.n)
        first_of_look_two = mine.asked[2 * LOOK]
        assert first_of_look_two[0] == "hard"
        assert {b for b, *_ in mine.asked[: 2 * LOOK]} == {"easy", "hard"}


def test_engines_take_turns_and_never_hold_the_device_together(world: World) -> None:
    # Losses and wins cancel, so that it takes more than two looks in the order that these names give.
    mine, theirs = Checkpoint("n6", every(6)), Checkpoint("old", every(6, 1))
    gated = world.gate(mine, theirs)
    assert (pair(gated).look or 0) >= 3
    # The champion answers two looks when its engine is open: at looks 1 and 3, and not at look 2.
    assert world.order_of_engines == ["n6", "old", "n6", "old"]


def test_the_anchor_is_asked_too_and_a_loss_against_it_alone_blocks(world: World) -> None:
    lost = about({n for n in range(N) if n % 5 == 0})
    mine, theirs, anchor = Checkpoint("new", lost), Checkpoint("old", lost), Checkpoint("base")
    gated = world.gate(mine, theirs, anchor=anchor, anchor_generation=1)
    outcomes = {reference: f.outcome for (_, reference), f in pairs(gated).items()}
    assert (gated.verdict.outcome, outcomes) == ("block", {"champion": "pass", "anchor": "block"})
    assert gated.verdict.anchor is not None
    assert (gated.verdict.anchor.name, gated.verdict.anchor.generation) == ("base", 1)
    assert gated.n_asked.keys() == {"candidate", "champion", "anchor"}


def test_one_look_asks_everything_at_once(world: World) -> None:
    mine = Checkpoint("new")
    policy = replace(POLICY, method=replace(POLICY.method, test="fixed"))
    gated = world.gate(mine, Checkpoint("old"), policy)
    assert gated.verdict.outcome == "promote"
    assert len(mine.numbers()) == N
