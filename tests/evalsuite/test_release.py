"""`evalsuite release`: preconditions, the one look, what is told of it, what stays sealed, and what a kill leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite import run, unseen
from evalsuite.__main__ import main
from evalsuite.checkpoint import Checkpoint, open_checkpoint
from evalsuite.errors import CheckpointError, Incomplete, RegistryError, UnseenBudget, UsageError
from evalsuite.gate.facts import Contamination, Training
from evalsuite.gate.policy import Decontamination, Unseen
from evalsuite.gate.reading import load_policy
from evalsuite.models.fake import FakeModel
from evalsuite.registry import Registry
from evalsuite.release import REFS, planned, refuse_raised, release, status, suite_number, unseal
from evalsuite.scorecard import Scorecard
from evalsuite.suite import load_suite
from evalsuite.tables.collect import collect
from evalsuite.tables.marks import Released, gate_marks
from tests.evalsuite.cards import make_result
from tests.evalsuite.looks import HELD_OUT, Clock, card, checkpoint, clear, floor, registry_at, wish
from tests.toy import make_benchmark

HALF = [1.0, 0.0] * 50  # mean .5, SE √(.25 · 100/99 / 100) = .0503
MOST = [1.0] * 90 + [0.0] * 10  # mean .9, SE √(.09 · 100/99 / 100) = .0302


class Desk:
    """A results folder with its registry, a clock, and a count of how often anything unseen was scored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.clock = Clock()
        self.registry = registry_at(self.results, self.clock)
        self.n_runs = 0

    def checkpoint(self, name: str, ref: str = "champion", outcome: str = "promote", **facts: Any) -> Checkpoint:
        chosen = checkpoint(self.folder, name)
        clear(self.registry, chosen, ref, outcome, **facts)
        return chosen

    def release(self, chosen: Checkpoint, *scores: Any, **changes: Any) -> Any:
        return release(wish(self.registry, chosen, self.results, self.clock, **changes), self.scored(chosen, *scores))

    def scored(self, chosen: Checkpoint, *scores: Any) -> Callable[..., Scorecard]:
        def make_scorecard(suite: Any, folder: Path) -> Scorecard:
            self.n_runs += 1
            assert folder == self.results / "sealed"
            return card(chosen, *scores)

        return make_scorecard

    def events(self) -> list[str]:
        return [event.event for event in self.registry.peeks.read()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# -- preconditions --


@pytest.mark.parametrize("ref", REFS)
def test_the_champion_and_the_candidate_may_be_looked_at(desk: Desk, ref: str) -> None:
    outcome = desk.release(desk.checkpoint("a", ref), HALF)
    assert (outcome.passed, outcome.exit_code) == (True, 0)


def test_what_is_neither_is_refused_and_costs_nothing(desk: Desk) -> None:
    old, _ = desk.checkpoint("old"), desk.checkpoint("new")
    with pytest.raises(UsageError, match="neither candidate nor champion"):
        desk.release(old, HALF)
    assert (desk.n_runs, desk.events()) == (0, [])


@pytest.mark.parametrize(
    ("outcome", "final", "said"),
    [("hold", True, "'hold'"), ("block", True, "'block'"), ("promote", False, "not final")],
)
def test_only_a_final_promotion_on_development_is_worth_a_look(
    desk: Desk, outcome: str, final: bool, said: str
) -> None:
    with pytest.raises(UsageError, match=f"verdict on demo is {said}"):
        desk.release(desk.checkpoint("a", outcome=outcome, final=final), HALF)
    assert (desk.n_runs, desk.events()) == (0, [])


def test_a_suite_that_is_not_unseen_needs_no_release(desk: Desk) -> None:
    wanted = wish(desk.registry, desk.checkpoint("a"), desk.results, desk.clock)
    with pytest.raises(UsageError, match="evalsuite score --suite held-out"):
        planned(replace(wanted, suite=replace(HELD_OUT, split="development")))


def trained(fraction: float, complete: bool = True) -> Training:
    report = Contamination("mix", complete, {"gpqa": fraction})
    return Training(True, {"mix": "e" * 64}, {"e" * 64: report})


@pytest.mark.parametrize(
    ("training", "required", "refused"),
    [
        (Training(), False, ""),
        (Training(), True, "does not say what it was trained on"),
        (trained(0.0), True, ""),
        (trained(0.01), True, ""),  # at most 2 % of the items: a warning
        (trained(0.03), False, "gpqa: mix holds 3.0%"),
        (trained(0.0, complete=False), True, "is not complete"),
    ],
)
def test_training_data_is_checked_against_the_unseen_suite_first(
    desk: Desk, training: Training, required: bool, refused: str
) -> None:
    wanted = wish(desk.registry, desk.checkpoint("a"), desk.results, desk.clock, training=training)
    wanted = replace(wanted, policy=replace(wanted.policy, decontamination=Decontamination(required)))
    scored = desk.scored(wanted.checkpoint, HALF)
    if refused:
        with pytest.raises(UsageError, match=refused):
            release(wanted, scored)
        assert (desk.n_runs, desk.events()) == (0, [])
    else:
        release(wanted, scored)
        assert desk.events() == ["decontam", "intent", "result"]


def test_where_nothing_is_known_of_the_training_data_a_warning_says_so(desk: Desk) -> None:
    assert desk.release(desk.checkpoint("a"), HALF).warnings == ("the checkpoint does not say what it was trained on",)


# -- the look --


def test_one_number_in_steps_and_the_release_ref(desk: Desk) -> None:
    chosen = desk.checkpoint("a")
    outcome = desk.release(chosen, HALF, MOST)
    # (.5 + .9) / 2 = .7; SE √(.0503² + .0302²) / 2 = .0293; .7 / .0293 = 23.9 → 24 · .0293 = .7035
    eta = (0.25 / 99 + 0.09 / 99) ** 0.5 / 2
    assert (outcome.value, outcome.eta) == pytest.approx((24 * eta, eta))
    assert outcome.left == 2
    ref = desk.registry.ref("release")
    assert ref is not None
    assert (ref.id, ref.generation) == (chosen.digest, outcome.generation)
    move = desk.registry.events()[-1]
    assert (move.event, move.detail["peek"]) == ("promote", desk.registry.peeks.read()[-1].hash)
    assert desk.registry.verify() == ()


def test_the_number_of_a_suite_has_no_error_where_a_column_has_none(desk: Desk) -> None:
    one = make_result("b", [1.0])
    assert suite_number(card(checkpoint(desk.folder, "a"), HALF, one)) == (0.75, None)


def test_a_floor_that_is_not_reached_fails_and_moves_no_ref_and_names_no_benchmark(desk: Desk) -> None:
    outcome = desk.release(desk.checkpoint("a"), HALF, MOST, floors={"a": floor(0.4), "b": floor(0.91)})
    assert (outcome.passed, outcome.exit_code, outcome.generation) == (False, 1, None)
    assert desk.registry.ref("release") is None
    assert "floors" not in json.dumps(status(desk.registry, load_policy(), desk.clock()))


@pytest.mark.parametrize(("name", "limit", "passed"), [("a", 0.5, True), ("c", 0.1, False), ("a/hard", 0.1, False)])
def test_a_floor_is_met_when_it_is_reached_and_never_by_what_is_absent(
    desk: Desk, name: str, limit: float, passed: bool
) -> None:
    assert desk.release(desk.checkpoint("a"), HALF, floors={name: floor(limit)}).passed == passed


def test_a_second_release_of_a_checkpoint_exits_5(desk: Desk) -> None:
    chosen = desk.checkpoint("a")
    desk.release(chosen, HALF)
    with pytest.raises(UnseenBudget, match="looked at once"):
        desk.release(chosen, HALF)
    assert desk.n_runs == 1


def test_a_number_that_does_not_beat_the_last_one_is_not_let_out(desk: Desk) -> None:
    first = desk.release(desk.checkpoint("a"), MOST)
    # MOST has SE .0302: .9 / .0302 = 29.8 → 30 steps = .9045; .93 is not more than one step above it, .97 is.
    near = desk.release(desk.checkpoint("b"), [1.0] * 93 + [0.0] * 7)
    far = desk.release(desk.checkpoint("c"), [1.0] * 97 + [0.0] * 3)
    assert (near.value, near.last) == (None, first.value)
    assert far.value is not None
    assert far.value > first.value
    marks = gate_marks(desk.results / "registry")
    assert set(marks.released) == {checkpoint(desk.folder, name).digest for name in "ac"}


def test_failed_samples_release_nothing_and_the_look_goes_on(desk: Desk) -> None:
    chosen = desk.checkpoint("a")
    with pytest.raises(Incomplete, match="2 samples failed") as caught:
        desk.release(chosen, make_result("a", HALF, failures=2))
    assert caught.value.exit_code == 3
    assert desk.events()[-1] == "intent"
    outcome = desk.release(chosen, HALF)
    assert (outcome.left, desk.events().count("intent")) == (2, 1)


def test_a_scorecard_of_another_checkpoint_is_not_taken(desk: Desk) -> None:
    chosen = desk.checkpoint("a")
    other = card(checkpoint(desk.folder, "b"), HALF)
    with pytest.raises(UsageError, match="the look stays open"):
        release(wish(desk.registry, chosen, desk.results, desk.clock), lambda suite, folder: other)


def test_a_checkpoint_that_changed_while_it_was_looked_at_is_not_released(desk: Desk) -> None:
    chosen = desk.checkpoint("a")
    changed = replace(chosen, digest="f" * 64)
    with pytest.raises(CheckpointError, match="changed since it was looked at"):
        desk.release(chosen, HALF, reopen=lambda path: changed)
    assert desk.registry.ref("release") is None


def test_a_dry_run_says_what_would_be_spent_and_writes_nothing(desk: Desk) -> None:
    wanted = wish(desk.registry, desk.checkpoint("a"), desk.results, desk.clock)
    before = sorted(path for path in desk.results.rglob("*"))
    plan = planned(wanted)
    assert (plan.ref, plan.peek, plan.budget.in_window) == ("champion", None, 3)
    assert sorted(path for path in desk.results.rglob("*")) == before


# -- kills --


def play(folder: str) -> None:
    """A release in a process of its own; a file tells whether it came as far as to score."""
    desk = Desk(Path(folder))
    chosen = checkpoint(desk.folder, "a")

    def make_scorecard(suite: Any, sealed: Path) -> Scorecard:
        (desk.folder / "scored").write_text("")
        return card(chosen, HALF)

    release(wish(desk.registry, chosen, desk.results, desk.clock), make_scorecard)


def killed(desk: Desk, fault: str) -> None:
    process = multiprocessing.get_context("fork").Process(target=_play_with, args=(str(desk.folder), fault))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _play_with(folder: str, fault: str) -> None:
    os.environ["EVALSUITE_FAULT"] = fault
    play(folder)


def test_a_kill_between_intent_and_first_prompt_leaves_a_look_that_counts(desk: Desk) -> None:
    chosen = desk.checkpoint("a")
    killed(desk, "intent")
    assert not (desk.folder / "scored").exists()
    (peek,) = unseen.peeks(desk.registry)
    assert peek.result is None
    left = unseen.budget((peek,), Unseen(), chosen.digest, desk.clock())
    assert (left.of_candidate, left.in_window) == (0, 2)
    # Of a budget of one look nothing is left for another checkpoint, and the same one goes on with what it paid for.
    other = desk.checkpoint("b", "candidate")
    with pytest.raises(UnseenBudget, match="1 looks in 90 days is spent"):
        desk.release(other, HALF, unseen=Unseen(1, 1))
    outcome = desk.release(chosen, HALF, unseen=Unseen(1, 1))
    assert (outcome.passed, outcome.left) == (True, 0)
    assert desk.events() == ["decontam", "intent", "result"]
    with pytest.raises(UnseenBudget):
        desk.release(chosen, HALF)
    assert desk.registry.verify() == ()


# The events of a release, in order: decontam, intent, its repetition in the audit log, result, the move of the ref.
@pytest.mark.parametrize("fault", ["event-write:2", "event-fsync:3", "event-fsync:4", "event-fsync:5"])
def test_wherever_it_is_killed_one_look_is_paid_and_the_next_command_ends_it(desk: Desk, fault: str) -> None:
    chosen = desk.checkpoint("a")
    killed(desk, fault)
    assert desk.events().count("intent") == 1
    if fault == "event-fsync:5":  # all that was left is the ref's file, and any command that writes makes it
        with pytest.raises(UnseenBudget, match=r"looked at once \(passed, 50.25\)"):  # 10 steps of √(.25 / 99)
            desk.release(chosen, HALF)
    else:
        assert desk.release(chosen, HALF).passed
    assert desk.events().count("intent") == desk.events().count("result") == 1
    assert [e.event for e in desk.registry.events()].count("peek") == 1
    ref = desk.registry.ref("release")
    assert ref is not None
    assert ref.id == chosen.digest
    assert desk.registry.verify() == ()


# -- what stays sealed --


def test_the_seal_is_broken_with_a_reason_that_the_ledger_keeps(desk: Desk) -> None:
    chosen = desk.checkpoint("a")
    with pytest.raises(UsageError, match="nothing to unseal"):
        unseal(desk.registry, desk.results, chosen.digest, HELD_OUT.digest, "curious")
    desk.release(chosen, HALF)
    with pytest.raises(UsageError, match="add --reason"):
        unseal(desk.registry, desk.results, chosen.digest, HELD_OUT.digest, " ")
    assert desk.events()[-1] == "result"
    whole = unseal(desk.registry, desk.results, chosen.digest, HELD_OUT.digest, "after the deadline")
    assert whole.results[0].value == 0.5
    last = desk.registry.peeks.read()[-1]
    assert (last.event, last.actor, last.reason, last.id) == ("unseal", "ann", "after the deadline", chosen.digest)


def test_a_sealed_card_that_was_changed_is_not_shown(desk: Desk) -> None:
    chosen = desk.checkpoint("a")
    desk.release(chosen, HALF)
    (path,) = (desk.results / "sealed" / "released").glob("*.json")
    path.write_text(path.read_text().replace('"value": 0.5', '"value": 0.9'))
    with pytest.raises(RegistryError, match="gone, or changed"):
        unseal(desk.registry, desk.results, chosen.digest, HELD_OUT.digest, "why")


def test_tables_find_the_released_number_and_nothing_sealed(desk: Desk) -> None:
    chosen = desk.checkpoint("a")
    outcome = desk.release(chosen, HALF)
    assert collect(desk.results).found == ()
    marks = gate_marks(desk.results / "registry")
    assert marks.released == {chosen.digest: (Released("held-out", outcome.value, outcome.eta),)}
    assert stat.S_IMODE((desk.results / "sealed").stat().st_mode) == 0o700


def test_the_shipped_policy_looks_once_and_demands_nothing() -> None:
    policy = load_policy(suite=load_suite("tulu3-unseen"))
    assert (policy.name, policy.unseen, policy.safety) == ("release", Unseen(1, 3, None), {})


# -- the command --


@pytest.fixture
def held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that name an unseen suite of one generated benchmark, answered right by a fake engine."""
    make_benchmark(tmp_path / "benchmarks", "toy")
    suite = tmp_path / "held-out.yaml"
    suite.write_text("suite: held-out\nregime: house\nsplit: unseen\ncolumns: {toy: toy}\n")

    def right(request: Any) -> str:
        return str(2 * int(request.prompt.text.split()[2]))

    monkeypatch.setattr(run, "open_model", lambda spec, path: FakeModel(path, answers=right))
    options = ["--suite", str(suite), "--benchmarks", str(tmp_path / "benchmarks")]
    return [*options, "--results", str(tmp_path / "results")]


@pytest.mark.slow
def test_the_command_looks_once_tells_one_number_and_then_exits_5(
    tiny_checkpoint: Path, tmp_path: Path, held_out: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["release", str(tiny_checkpoint), *held_out, "--model", "fake"]
    results = tmp_path / "results"
    assert main(command) == 2
    clear(Registry.at(results), open_checkpoint(tiny_checkpoint))
    capsys.readouterr()

    assert main([*command, "--dry-run"]) == 0
    assert "would spend one look; then 2 of 3" in capsys.readouterr().out
    assert not (results / "sealed").exists()

    assert main(command) == 0
    out, said = capsys.readouterr()
    # 20 of 20 right: SE 0, steps of half a point, 1.0 / .005 = 200 steps.
    assert "held-out 100.0, in steps of 0.5 points" in out
    assert "tamper-evident, not secret" in out
    assert "toy: done" in said
    assert "exact_match" not in out + said
    assert list((results / "sealed" / "journal").rglob("*.jsonl"))
    assert not (results / "journal").exists()
    assert not (results / "scorecards").exists()

    assert main(command) == 5
    assert main(["release", "--status", *held_out]) == 0
    out, _ = capsys.readouterr()
    assert "2 of 3 looks in 90 days are left" in out
    assert "passed  100" in out

    assert main([*command, "--unseal"]) == 2
    assert main([*command, "--unseal", "--reason", "to look at errors"]) == 0
    assert "exact_match" in capsys.readouterr().out
    assert main(["release", "--status", *held_out, "--json"]) == 0
    history = json.loads(capsys.readouterr().out)["history"]
    assert [event["event"] for event in history] == ["decontam", "intent", "result", "unseal"]
    assert history[-1]["reason"] == "to look at errors"
    assert main(["registry", "verify", "--results", str(results)]) == 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("unseen.per_90_days=99", "unseen.per_90_days is 99, the policy allows 3"),
        ("unseen.per_candidate=2", "unseen.per_candidate is 2, the policy allows 1"),
        ("unseen.eta=0.0001", "unseen.eta is 0.0001, the policy allows auto"),
    ],
)
def test_set_gives_no_more_looks_than_the_policy(
    held_out: list[str], capsys: pytest.CaptureFixture[str], setting: str, said: str
) -> None:
    assert main(["release", "--status", *held_out, "--set", setting]) == 2
    assert said in capsys.readouterr().err


def test_set_may_give_fewer_looks(held_out: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["release", "--status", *held_out, "--set", "unseen.per_90_days=1"]) == 0
    assert "1 of 1 looks in 90 days are left" in capsys.readouterr().out


@pytest.mark.parametrize(("eta", "refused"), [(0.01, False), (0.02, False), (0.005, True), (None, True)])
def test_a_step_may_only_be_coarser_than_the_policys(eta: float | None, refused: bool) -> None:
    allowed = Unseen(eta=0.01)
    if refused:
        with pytest.raises(UsageError, match=r"unseen\.eta is .*, the policy allows 0\.01"):
            refuse_raised(replace(allowed, eta=eta), allowed)
    else:
        refuse_raised(replace(allowed, eta=eta), allowed)


def test_verify_names_a_look_whose_lines_were_cut_from_log_and_ledger(desk: Desk) -> None:
    chosen = desk.checkpoint("a")
    kept = len(desk.registry.events())
    desk.release(chosen, HALF)
    (desk.results / "sealed" / "journal" / chosen.digest[:12]).mkdir(parents=True)
    assert desk.registry.unlogged(pause_s=0) == ()
    log, release_ref = desk.registry.log.path, desk.registry.root / "refs" / "release.json"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:kept]))
    release_ref.unlink()
    late = Registry.at(desk.results)
    assert late.verify() == ()
    # The ledger still has an intent that the log does not repeat
    assert sum("a manifest, not in the log" in line for line in late.unlogged(pause_s=0)) == 1
    assert sum("the intent of line" in line for line in late.unlogged(pause_s=0)) == 1
    desk.registry.peeks.path.unlink()
    named = Registry.at(desk.results).unlogged(pause_s=0)
    assert [line.rpartition(": ")[0].partition(": ")[2] for line in named] == [
        "a manifest, not in the log",
        "answers to unseen questions, not in the ledger",
        "the scorecard of a look, not in the ledger",
    ]


def test_an_endpoint_cannot_be_released(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["release", str(tmp_path), "--model", "api:http://127.0.0.1:1/v1"]) == 2
    assert "needs the checkpoint's folder" in capsys.readouterr().err
