"""Names, states, the order of rows and the coupling to the loop, without a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evalsuite.errors import DiskFull, TrainerFailed
from evalsuite.trainers import Control, Coupling, write_control
from train_plugins.order import Order, share
from train_plugins.pinning import size_of, temporary_folder
from train_plugins.saving import (
    finish,
    link_weights,
    naming_a_full_disk,
    prune_states,
    read_counters,
    read_name,
    resume_point,
    step_name,
)
from train_plugins.steering import Steering


@pytest.mark.parametrize(
    ("step", "attempt", "name"),
    [(100, 0, "step-000100"), (250, 1, "step-000250-a1"), (1234567, 12, "step-1234567-a12")],
)
def test_a_folder_is_named_by_step_and_attempt(step: int, attempt: int, name: str) -> None:
    assert step_name(step, attempt) == name
    assert read_name(name) == (step, attempt)


@pytest.mark.parametrize("name", ["step-12", "step-000100-a", "xstep-000100", ".tmp-1-ab", "checkpoint-100"])
def test_other_names_are_no_steps(name: str) -> None:
    assert read_name(name) is None


def _states(out: Path, *names: str) -> None:
    for name in names:
        (out / "state" / name).mkdir(parents=True)


def _event(name: str) -> dict[str, Any]:
    return {"kind": "checkpoint", "path": f"checkpoints/{name}"}


BACK = {"kind": "rollback", "to_name": "step-000200", "attempt": 1}
RESUMES: dict[str, tuple[tuple[str, ...], list[Any], str | None]] = {
    "nothing was done": ((), [], None),
    "the newest state": (("step-000100", "step-000200"), [_event("step-000100"), _event("step-000200")], "step-000200"),
    "a state without its event": (("step-000100", "step-000200"), [_event("step-000100")], "step-000200"),
    "after a rollback its target": (("step-000200", "step-000300"), [_event("step-000300"), BACK], "step-000200"),
    "after a rollback the new state": (
        ("step-000200", "step-000300", "step-000250-a1"), [BACK], "step-000250-a1"
    ),
    "numbers, not letters": (("step-999999", "step-1000000"), [], "step-1000000"),
}  # fmt: skip


@pytest.mark.parametrize("case", RESUMES)
def test_a_start_goes_on_from(case: str, tmp_path: Path) -> None:
    names, events, expected = RESUMES[case]
    _states(tmp_path, *names, ".tmp-1-abcd")
    point = resume_point(tmp_path, events)
    assert (point.name if point else None) == expected


@pytest.mark.parametrize("events", [[_event("step-000100")], [BACK]])
def test_a_run_whose_states_are_gone_is_not_begun_anew_in_silence(events: list[Any], tmp_path: Path) -> None:
    with pytest.raises(TrainerFailed, match="use another --out"):
        resume_point(tmp_path, events)


def test_the_last_two_states_and_those_that_may_be_needed_are_kept(tmp_path: Path) -> None:
    _states(tmp_path, "step-000100", "step-000200", "step-000300", "step-000150-a1", "step-000200-a1")
    prune_states(tmp_path, frozenset({"step-000200"}))
    left = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert left == ["step-000150-a1", "step-000200", "step-000200-a1"]


def test_a_state_whose_counters_are_broken_is_named(tmp_path: Path) -> None:
    _states(tmp_path, "step-000100")
    point = resume_point(tmp_path, [])
    assert point is not None
    for content in (None, "{"):
        if content is not None:
            (point.folder / "run.json").write_text(content)
        with pytest.raises(TrainerFailed, match="delete the folder to go on from the state before it"):
            read_counters(point)


def test_what_was_published_is_never_written_again(tmp_path: Path) -> None:
    temporary, final = tmp_path / ".tmp-1-ab", tmp_path / "step-000100"
    for folder in (temporary, final):
        folder.mkdir()
        (folder / "weights").write_text(folder.name)
    with pytest.raises(TrainerFailed, match="there already"):
        finish(temporary, final, "checkpoint")
    assert (final / "weights").read_text() == "step-000100"


def test_float32_weights_of_a_state_and_its_checkpoint_are_one_file(tmp_path: Path) -> None:
    state, checkpoint = tmp_path / "state", tmp_path / "checkpoint"
    state.mkdir()
    checkpoint.mkdir()
    assert not link_weights(state, checkpoint)
    (state / "model.safetensors").write_bytes(b"w")
    (state / "optimizer.pt").write_bytes(b"o")
    assert link_weights(state, checkpoint)
    assert [path.name for path in checkpoint.iterdir()] == ["model.safetensors"]
    assert (checkpoint / "model.safetensors").samefile(state / "model.safetensors")


TORCH = "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"  # torch.save on a full disk


@pytest.mark.parametrize(
    "error", [OSError(28, "x"), RuntimeError("write: No space left on device"), RuntimeError(TORCH)]
)
def test_a_disk_that_fills_up_during_a_save_is_named_as_such(error: Exception, tmp_path: Path) -> None:
    half_written = temporary_folder(tmp_path / "state")
    with pytest.raises(DiskFull, match="the disk filled up"), naming_a_full_disk(tmp_path):
        raise error
    assert not half_written.exists()
    with pytest.raises(ValueError, match="other"), naming_a_full_disk(tmp_path):
        raise ValueError("other")


# -- the order of rows --


def test_every_epoch_has_every_row_once_in_an_order_of_its_own() -> None:
    order = Order(22, 8, [(0, 7)])
    epochs = [[row for step in range(3 * e, 3 * e + 3) for row in order.rows(step)] for e in range(3)]
    assert all(sorted(epoch) == list(range(22)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [len(order.rows(step)) for step in range(3)] == [8, 8, 6]
    assert Order(22, 8, [(0, 7)]).rows(4) == order.rows(4)  # a function of the seed, wherever one begins
    assert Order(22, 8, [(0, 8)]).rows(4) != order.rows(4)


def test_another_seed_in_the_middle_of_an_epoch_shuffles_what_is_left_of_it() -> None:
    before, after = Order(22, 8, [(0, 7)]), Order(22, 8, [(0, 7), (4, 8)])
    same = [before.rows(step) == after.rows(step) for step in range(9)]
    assert same == [True] * 4 + [False] * 5
    assert sorted(row for step in (3, 4, 5) for row in after.rows(step)) == list(range(22))


def test_processes_share_a_step_in_as_many_passes_each() -> None:
    # 11 items, 2 processes, 2 a pass: 4 items a round, so 3 rounds; the second process has nothing in the last.
    shares = [share(range(11), rank, 2, 2) for rank in (0, 1)]
    assert shares == [((0, 1), (4, 5), (8, 9)), ((2, 3), (6, 7), (10,))]
    assert share(range(1), 1, 2, 4) == ((),)


# -- the coupling --


class FakeRun:
    """What Steering needs of a run."""

    def __init__(self, out: Path, mode: Any, lag: int = 1, attempt: int = 0) -> None:
        self.out, self.events, self.is_main, self.step_now, self.attempt = out, list[Any](), True, 0, attempt
        self.job = SimpleNamespace(coupling=Coupling(mode, lag))
        self.ranks = SimpleNamespace(agree=lambda value: value)
        self.shuffles = [(0, 7)]
        self.paused = 0.0

    def add(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})

    def warn(self, code: str, text: str) -> None:
        self.add("warning", code=code)

    def pause_clock(self, seconds: float) -> None:
        self.paused += seconds

    def save(self, *names: str) -> None:
        for name in names:
            self.add("checkpoint", path=f"checkpoints/{name}", digest=f"digest of {name}")
            (self.out / "state" / name).mkdir(parents=True, exist_ok=True)


def _steering(run: FakeRun) -> Steering:
    return Steering(run)  # type: ignore[arg-type]


HOLDS = [
    # mode, lag, saved, judged, final -> is training held back?
    ("wait", 1, 1, 0, False, True),
    ("wait", 1, 1, 1, False, False),
    ("lag", 2, 2, 0, False, False),
    ("lag", 2, 3, 0, False, True),
    ("lag", 2, 3, 1, False, False),
    ("lag", 2, 2, 0, True, True),
    ("off", 1, 5, 0, True, False),
]


@pytest.mark.parametrize(("mode", "lag", "saved", "judged", "final", "held"), HOLDS)
def test_training_is_held_back_as_the_coupling_says(
    mode: str, lag: int, saved: int, judged: int, final: bool, held: bool, tmp_path: Path
) -> None:
    run = FakeRun(tmp_path, mode, lag)
    names = [step_name(n, 0) for n in range(1, saved + 1)]
    run.save(*names)
    steering = _steering(run)
    if judged:  # checkpoints are judged in order, so this one's verdict means that those before have theirs
        write_control(tmp_path, Control(1, names[judged - 1], "continue"))
        steering.look()
    assert steering._holds(final) is held


def test_a_decision_is_obeyed_once_also_by_the_next_start(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, "wait")
    run.save("step-000002")
    write_control(tmp_path, Control(3, "step-000002", "stop", why="2 blocked in a row"))
    steering = _steering(run)
    assert steering.look().kind == "stop"
    assert steering.look().kind == "go"
    assert _steering(run).look().kind == "go"
    (gate,) = [event for event in run.events if event["kind"] == "gate"]
    assert (gate["decision"], gate["seq"], gate["about"], gate["why"]) == (
        "stop", 3, "step-000002", "2 blocked in a row",
    )  # fmt: skip


GOOD = "digest of step-000002"
ROLLBACKS: dict[str, tuple[Mapping[str, Any], int, str, list[str]]] = {
    # control, attempt -> action, kinds and codes written
    "to a state that is there": ({"to": GOOD, "adjust": {"seed": 8}}, 0, "rollback", ["rollback", "gate"]),
    "to one that never was": ({"to": "digest of another", "adjust": {"seed": 8}}, 0, "stop", ["no_state", "gate"]),
    "that changes nothing": ({"to": GOOD, "adjust": {"seed": 7}}, 0, "stop", ["unchanged_rollback", "gate"]),
    "about a branch left behind": ({"to": GOOD, "adjust": {"seed": 8}}, 1, "go", ["rollback_late", "gate"]),
    "with an unknown adjustment": (
        {"to": GOOD, "adjust": {"seed": 8, "lr": 1}}, 0, "rollback",
        ["unknown_adjustment", "rollback", "gate"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ROLLBACKS)
def test_a_rollback(case: str, tmp_path: Path) -> None:
    more, attempt, action, written = ROLLBACKS[case]
    run = FakeRun(tmp_path, "wait", attempt=attempt)
    run.save("step-000002", "step-000004")
    steering = _steering(run)
    write_control(tmp_path, Control(1, "step-000004", "rollback", **more))
    found = steering.look()
    assert found.kind == action
    assert [event.get("code", event["kind"]) for event in run.events[2:]] == written
    if action == "rollback":
        assert found.point is not None
        assert (found.point.name, found.point.step, found.point.attempt) == ("step-000002", 2, 1)


def test_a_control_file_that_cannot_be_read_stops_after_three_looks(tmp_path: Path) -> None:
    (tmp_path / "control.json").write_text("{")
    run = FakeRun(tmp_path, "off")
    steering = _steering(run)
    assert [steering.look().kind for _ in range(3)] == ["go", "go", "stop"]
    assert run.events[0] == {"kind": "warning", "code": "control"}


def test_the_state_of_a_promoted_checkpoint_is_kept_for_a_rollback(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, "lag", lag=2)
    run.save("step-000002", "step-000004", "step-000006")
    write_control(tmp_path, Control(1, "step-000002", "continue", why="promoted"))
    steering = _steering(run)
    steering.look()
    assert steering.may_be_needed == {"step-000002", "step-000004", "step-000006"}
    assert _steering(run).promoted == "step-000002"


def test_a_file_under_two_names_takes_its_room_once(tmp_path: Path) -> None:
    for name in ("state", "checkpoint"):
        (tmp_path / name).mkdir()
    (tmp_path / "state" / "weights").write_bytes(bytes(1000))
    os.link(tmp_path / "state" / "weights", tmp_path / "checkpoint" / "weights")
    (tmp_path / "checkpoint" / "config").write_bytes(bytes(10))
    assert size_of(tmp_path / "state", tmp_path / "checkpoint") == 1010
