"""What stands before any score: infra checks, chat templates, judges, bootstrap, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from evalsuite import run as running
from evalsuite.errors import EngineError, PolicyError, UsageError
from evalsuite.gate.policy import Floor, Rule
from evalsuite.gate.verdict import Finding
from evalsuite.gating import Gated, GateJob, gate
from evalsuite.judge import Judge
from evalsuite.score import Job, score
from evalsuite.types import GenerateRequest
from tests.evalsuite.gating.world import LOOK, POLICY, Checkpoint, N, World, every, pair
from tests.evalsuite.judges import make_judge, prefers_longer
from tests.evalsuite.test_score_judged import make_judged

CHECKED = replace(POLICY, infra=("loads", "generates", "chat_template", "finite_weights"))


def check(gated: Gated, name: str) -> Finding:
    (found,) = [f for f in gated.verdict.findings if f.rule == f"infra.{name}"]
    return found


# -- infra --


def test_an_engine_that_cannot_start_blocks_and_nothing_is_asked(world: World) -> None:
    mine, theirs = Checkpoint("new", broken="no kernel for this head size"), Checkpoint("old")
    gated = world.gate(mine, theirs, CHECKED)
    found = check(gated, "generates")
    assert (gated.verdict.outcome, gated.verdict.exit_code, found.outcome) == ("block", 1, "block")
    assert "the engine cannot start: no kernel for this head size" in found.why
    assert (mine.asked, theirs.asked) == ([], [])
    mine.broken = ""
    assert world.gate(mine, theirs, CHECKED).verdict.outcome == "promote"


def test_without_that_check_the_error_of_the_engine_is_the_users(world: World) -> None:
    with pytest.raises(EngineError, match="no kernel"):
        world.gate(Checkpoint("new", broken="no kernel"), Checkpoint("old"))


def test_one_prompt_is_generated_once_and_remembered(world: World) -> None:
    mine, theirs = Checkpoint("new"), Checkpoint("old")
    gated = world.gate(mine, theirs, CHECKED)
    assert mine.asked[0] == ("", -1, 0)  # before any question of the benchmark
    assert check(gated, "generates").why == "3 tokens on one prompt"  # "Hello to you"
    world.gate(mine, theirs, CHECKED)
    assert [n for _, n, _ in mine.asked].count(-1) == 1
    assert [n for _, n, _ in theirs.asked].count(-1) == 0


def test_a_response_that_fails_blocks(world: World) -> None:
    gated = world.gate(Checkpoint("new", fails=lambda r: "hello" in r.prompt.text), Checkpoint("old"), CHECKED)
    assert gated.verdict.outcome == "block"
    assert check(gated, "generates").why == "cannot generate: the device is lost"


def templated(world: World, who: Checkpoint, template: str) -> Job:
    job = world.job(who)
    return replace(job, engine=replace(job.engine, template_digest=template))


def test_another_chat_template_blocks_unless_it_is_accepted(world: World) -> None:
    mine, theirs = Checkpoint("new"), Checkpoint("old")
    job = world.gate_job(mine, theirs, CHECKED)
    job = replace(job, candidate=templated(world, mine, "b" * 64), champion=templated(world, theirs, "a" * 64))
    gated = gate(job)
    assert gated.verdict.outcome == "block"
    words = "bbbbbbbbbbbb, the champion's is aaaaaaaaaaaa"
    assert check(gated, "chat_template").why == f"{words} (--accept-template)"
    assert (mine.numbers(), theirs.numbers()) == ([], [])
    accepted = gate(replace(job, accept_template=True))
    assert accepted.verdict.outcome == "promote"
    assert check(accepted, "chat_template").why == f"{words} (accepted)"


# -- the first checkpoint --


def test_without_a_champion_only_a_bootstrap_goes_on(world: World) -> None:
    with pytest.raises(UsageError, match="first checkpoint\\? add --bootstrap"):
        world.gate(Checkpoint("first"), None)
    assert not world.results.exists()


def test_a_bootstrap_asks_nothing_that_no_floor_is_about(world: World) -> None:
    mine = Checkpoint("first")
    gated = world.gate(mine, None, CHECKED, bootstrap=True)
    assert (gated.verdict.outcome, gated.verdict.bootstrap, gated.verdict.champion) == ("promote", True, None)
    assert mine.numbers() == []


@pytest.mark.parametrize(("floor", "outcome"), [(0.8, "promote"), (0.95, "block")])
def test_a_bootstrap_is_held_to_the_floors(world: World, floor: float, outcome: str) -> None:
    # Right about nine in ten. Over 400 items the standard error at a floor of .8 is .02, and at .95 it is .011.
    policy = replace(POLICY, safety={"toy": Floor(floor)})
    gated = world.gate(Checkpoint("first", every(10)), None, policy, bootstrap=True)
    assert gated.verdict.outcome == outcome


# -- what cannot be compared --


def cards(world: World, *sides: Checkpoint) -> list[object]:
    return [score(world.job(who)) for who in sides]


def stored(world: World, old: object, new: object) -> GateJob:
    return GateJob(POLICY, new, old, results=world.results, dry_run=True)  # type: ignore[arg-type]


def test_scorecards_are_judged_without_an_engine(world: World) -> None:
    old, new, worse = cards(world, Checkpoint("old"), Checkpoint("new"), Checkpoint("worse", every(5)))
    n_opened = len(world.opened)
    assert gate(stored(world, old, new)).verdict.outcome == "promote"
    assert gate(stored(world, old, worse)).verdict.outcome == "block"
    assert len(world.opened) == n_opened
    assert not (world.results / "gates").exists()


def test_a_scorecard_of_an_edited_benchmark_is_refused_with_both_digests(world: World) -> None:
    (old,) = cards(world, Checkpoint("old"))
    yaml = world.root / "benchmarks" / "toy" / "toy.yaml"
    yaml.write_text(yaml.read_text().replace("max_gen_toks: 16", "max_gen_toks: 17"))
    (new,) = cards(world, Checkpoint("new"))
    digests = [str(card.suite.digest)[:40] for card in (new, old)]  # type: ignore[attr-defined]
    assert digests[0] != digests[1]
    with pytest.raises(UsageError, match=f"suite digest '{digests[0]}' and '{digests[1]}'; score the older again"):
        gate(stored(world, old, new))


def test_a_champion_that_answered_an_edited_benchmark_is_asked_anew(world: World) -> None:
    theirs = Checkpoint("old")
    score(world.job(theirs))
    theirs.asked.clear()
    yaml = world.root / "benchmarks" / "toy" / "toy.yaml"
    yaml.write_text(yaml.read_text().replace("max_gen_toks: 16", "max_gen_toks: 17"))
    world.gate(Checkpoint("new"), theirs)
    assert len(theirs.asked) == 2 * LOOK


def test_a_policy_that_could_only_hold_is_refused_before_an_engine_starts(world: World) -> None:
    policy = replace(POLICY, default=Rule(margin=0.01))
    with pytest.raises(PolicyError, match=r"must_not_regress\.toy: a margin of 1 points can only end inconclusive"):
        world.gate(Checkpoint("new"), Checkpoint("old"), policy)
    assert world.opened == []
    assert world.events("attempt") == []


# -- judged benchmarks --


def judged_world(world: World, answers: Callable[[GenerateRequest], str], n: int = N) -> tuple[World, list[Judge]]:
    """A world with a benchmark whose responses a judge compares with the right answer, and the judges it opened."""
    make_judged(world.root / "benchmarks", n=n)
    verify = world.root / "benchmarks" / "judged" / "verify.py"
    verify.write_text(verify.read_text().replace("What is", "judged: what is"))
    made: list[Judge] = []

    def maker() -> Judge:
        made.append(make_judge(answers))
        return made[-1]

    class Judged(World):
        def job(self, who: Checkpoint, **changes: object) -> Job:
            return super().job(who, judges={"demo": maker}, **changes)

    return Judged(world.root, ("judged",), world.opened), made


def test_a_judge_reads_both_sides_and_only_what_was_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def judge(request: GenerateRequest) -> str:
        read.append(request.prompt.text)
        return prefers_longer(request)

    judged, made = judged_world(world, judge)
    monkeypatch.setattr(running, "open_model", judged.open)
    gated = judged.gate(Checkpoint("new"), Checkpoint("old"))
    assert gated.verdict.outcome == "promote"
    assert pair(gated).n == LOOK
    assert (pair(gated).now, pair(gated).was) == (0.5, 0.5)  # both say exactly the right answer: a tie
    # The judge answers each question once, for it was asked the same of both sides.
    assert LOOK <= len(read) <= 3 * LOOK
    assert len(made) == 1
    before = len(read)
    judged.gate(Checkpoint("new"), Checkpoint("old"))
    assert len(read) == before


def test_a_worse_judgement_blocks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    judged, _ = judged_world(world, prefers_longer)
    monkeypatch.setattr(running, "open_model", judged.open)
    # "no idea" is longer than a number, so the judge of length prefers it: the champion is the one that loses here.
    gated = judged.gate(Checkpoint("new"), Checkpoint("old", every(2)))
    assert gated.verdict.outcome == "block"


@pytest.mark.parametrize(("n_silent", "outcome"), [(1, "promote"), (3, "hold")])
def test_a_judge_that_gives_no_verdict_holds_where_it_is_more_than_one_in_two_hundred(
    world: World, monkeypatch: pytest.MonkeyPatch, n_silent: int, outcome: str
) -> None:
    def moody(request: GenerateRequest) -> str:
        silent = any(f"what is {n} + {n}?" in request.prompt.text for n in range(n_silent))
        return "what a lovely day" if silent else prefers_longer(request)

    judged, _ = judged_world(world, moody)
    monkeypatch.setattr(running, "open_model", judged.open)
    policy = replace(POLICY, method=replace(POLICY.method, test="fixed"))  # all 400 items, so that the rate is exact
    gated = judged.gate(Checkpoint("new"), Checkpoint("old"), policy)
    found = {f.reference: f.why for f in gated.verdict.findings if f.rule == "judge"}
    assert gated.verdict.outcome == outcome
    if outcome == "hold":
        assert found.keys() == {"candidate", "champion"}
        assert "the judge gave no verdict on 3 of 400 answers of the candidate (at most 0.5%)" in found["candidate"]
    # Whatever it owes counts at its worst: candidate 0, champion 1.
    assert pair(gated).difference == pytest.approx(-n_silent / N)


def test_a_gate_without_a_judge_is_refused_before_anything_is_asked(world: World) -> None:
    make_judged(world.root / "benchmarks", n=N)
    lonely = World(world.root, ("judged",))
    mine = Checkpoint("new")
    with pytest.raises(UsageError, match="no judge for the protocol 'demo'"):
        lonely.gate(mine, Checkpoint("old"))
    assert mine.asked == []
