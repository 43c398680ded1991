"""The trainer protocol: options, jobs, the control file, the subprocess and what it reports."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from evalsuite.checkpoint import Checkpoint, open_checkpoint
from evalsuite.errors import TrainerFailed, UsageError
from evalsuite.trainers import (
    Control,
    ControlReader,
    EventReader,
    SaveRule,
    TrainJob,
    append_event,
    find_trainer,
    known_trainers,
    lookup,
    parse,
    process,
    read_control,
    read_job,
    run_worker,
    write_control,
    write_job,
)
from evalsuite.trainers.events import cut_torn_line
from tests.evalsuite.loop.folders import write_model

# A whole trainer: saves a model folder at steps 1, 2, …, waits for the verdict after each, obeys stop.
WORKER = f"""
import json, pathlib, sys, time
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from evalsuite.trainers import ControlReader, append_event, read_events, read_job
from tests.evalsuite.loop.folders import write_model
job = read_job(pathlib.Path(sys.argv[-1]))
events = job.out / "events.jsonl"
done = [e["step"] for e in read_events(events) if e["kind"] == "checkpoint"]
append_event(events, "start", resumed_from=max(done, default=0))
control, reason = ControlReader(job.out), "finished"
for step in range(max(done, default=0) + 1, job.options["steps"] + 1):
    append_event(events, "step", step=step, loss=1.0 / step)
    write_model(job.out / "checkpoints" / f"step-{{step:06d}}", job.seed + step)
    append_event(events, "checkpoint", step=step, path=f"checkpoints/step-{{step:06d}}")
    told = None
    while job.coupling.mode == "wait" and not (told and (told.decision == "stop" or told.about.endswith(str(step)))):
        told = control.next()
        time.sleep(0.01)
    if job.coupling.mode == "wait" and told.decision == "stop":
        reason = "stopped"
        break
append_event(events, "end", reason=reason, step=step)
"""


def job(out: Path, mode: Literal["wait", "off"] = "off", **changes: Any) -> TrainJob:
    from evalsuite.trainers import Coupling

    start = open_checkpoint(write_model(out.parent / "start", 0.5))
    made = TrainJob("external", start, (), out, 7, SaveRule(), {"steps": 3}, coupling=Coupling(mode))
    return replace(made, **changes)


def train(made: TrainJob, text: str = WORKER) -> Iterator[Checkpoint]:
    return run_worker(made, [sys.executable, "-c", text, "--job", str(made.out / "job.json")], grace_s=5, poll_s=0.02)


def test_a_ten_line_trainer_yields_its_checkpoints_and_a_second_call_trains_nothing(tmp_path: Path) -> None:
    made = job(tmp_path / "out")
    first = list(train(made))
    assert [c.path.name for c in first] == ["step-000001", "step-000002", "step-000003"]
    again = list(train(made))
    assert [c.digest for c in again] == [c.digest for c in first]
    kinds = [json.loads(line)["kind"] for line in (made.out / "events.jsonl").read_text().splitlines()]
    assert kinds.count("start") == 1


def test_a_waiting_trainer_goes_on_when_the_control_file_says_so_and_stops_when_it_says_stop(tmp_path: Path) -> None:
    made = job(tmp_path / "out", "wait")
    seen = []
    for seq, checkpoint in enumerate(train(made), 1):
        seen.append(checkpoint.path.name)
        write_control(made.out, Control(seq, checkpoint.path.name, "stop" if seq == 2 else "continue"))
    assert seen == ["step-000001", "step-000002"]
    assert json.loads((made.out / "events.jsonl").read_text().splitlines()[-1])["reason"] == "stopped"


def test_closing_the_iterator_stops_the_trainer_and_the_next_call_goes_on(tmp_path: Path) -> None:
    made = job(tmp_path / "out", "wait")
    checkpoints = train(made)
    assert next(checkpoints).path.name == "step-000001"
    checkpoints.close()  # type: ignore[attr-defined]
    assert process.find(made.out) is None
    assert json.loads((made.out / "events.jsonl").read_text().splitlines()[-1])["reason"] == "stopped"
    told = read_control(made.out)
    assert told is not None
    assert told.decision == "stop"
    seen = []
    for checkpoint in train(made):
        seen.append(checkpoint.path.name)
        last = read_control(made.out)
        assert last is not None
        write_control(made.out, Control(last.seq + 1, checkpoint.path.name, "continue"))
    assert seen == ["step-000001", "step-000002", "step-000003"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys; print('start', file=sys.stderr); sys.exit('lr is missing')", "ended with exit code 1"),
        ("import sys; print('options.lr: set it', file=sys.stderr); sys.exit(2)", "options.lr: set it"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("print('nothing')", "without an 'end' event"),
    ],
)
def test_a_trainer_that_does_not_end_well_is_an_error_that_says_how(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TrainerFailed, match=said) as caught:
        list(train(job(tmp_path / "out"), text))
    assert "log.txt" in str(caught.value)


def test_the_end_of_a_log_is_shown_without_its_progress_bars(tmp_path: Path) -> None:
    bars = r"Loading:  50%|#    | 1/2\rLoading: 100%|##| 2/2\nlast words"
    text = f"import sys; print('{bars}', file=sys.stderr); sys.exit(9)"
    with pytest.raises(TrainerFailed) as caught:
        list(train(job(tmp_path / "out"), text))
    assert "last words" in str(caught.value)
    assert "Loading" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "{}", '{"schema": 1, "digest": "x"}', "[]"])
def test_a_damaged_job_is_named_with_what_to_do(tmp_path: Path, content: str) -> None:
    made = job(tmp_path / "out")
    made.out.mkdir(parents=True, exist_ok=True)
    (made.out / "job.json").write_text(content)
    with pytest.raises(TrainerFailed, match=r"job\.json: .*; move .* away to start anew"):
        write_job(made)


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerFailed, match=r"could not start .*no-such-program"):
        list(run_worker(job(tmp_path / "out"), ["no-such-program"], poll_s=0.02))


def test_a_changed_job_is_refused_with_what_changed(tmp_path: Path) -> None:
    made = job(tmp_path / "out")
    write_job(made)
    with pytest.raises(UsageError, match=r"options\.steps 3 → 4; seed 7 → 8"):
        write_job(replace(made, options={"steps": 4}, seed=8))


def test_a_start_that_was_moved_is_the_same_job_and_one_with_other_content_is_refused(tmp_path: Path) -> None:
    made = job(tmp_path / "out")
    digest = write_job(made)
    moved = open_checkpoint(write_model(tmp_path / "elsewhere", 0.5))
    assert write_job(replace(made, start=moved)) == digest
    write_model(tmp_path / "start", 0.75)
    with pytest.raises(UsageError, match="the job was made for"):
        read_job(made.out / "job.json")


def test_a_second_command_in_one_folder_is_refused_and_only_its_own_group_is_killed(tmp_path: Path) -> None:
    bystander = process.start(tmp_path / "other", ["sleep", "30"])
    running = process.start(tmp_path / "out", ["bash", "-c", "trap '' TERM; sleep 30 & sleep 30"],
                            stop=process.StopRule("TERM", 0.3))  # fmt: skip
    with pytest.raises(TrainerFailed, match="running there already"):
        process.start(tmp_path / "out", ["true"])
    found = process.find(tmp_path / "out")
    assert found is not None
    started = time.monotonic()
    found.stop()
    assert 0.3 <= time.monotonic() - started < 8  # the trap ignores TERM; KILL comes after the grace
    ended = running.poll()
    assert ended is not None
    assert ended.code == -9
    assert bystander.poll() is None
    bystander.stop()


def test_the_environment_of_a_command_is_not_on_any_command_line(tmp_path: Path) -> None:
    running = process.start(tmp_path, ["bash", "-c", "echo $SECRET; sleep 5"], environment={"SECRET": "s3cret"})
    deadline = time.monotonic() + 10
    while "s3cret" not in ((tmp_path / "log.txt").read_text() if (tmp_path / "log.txt").exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while "supervisor" not in (record := json.loads((tmp_path / "run.json").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    supervisor = record["supervisor"]
    assert "s3cret" not in Path(f"/proc/{supervisor}/cmdline").read_text()
    assert "s3cret" not in (tmp_path / "run.json").read_text()
    running.stop()


def test_a_torn_last_line_is_neither_read_nor_continued(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    append_event(file, "step", step=1)
    with file.open("a") as stream:
        stream.write('{"kind":"step","st')
    reader = EventReader(file)
    assert [e["step"] for e in reader.new()] == [1]
    assert cut_torn_line(file) == len('{"kind":"step","st')
    append_event(file, "step", step=2)
    assert [e["step"] for e in reader.new()] == [2]


def test_control_numbers_only_grow_and_each_is_obeyed_once(tmp_path: Path) -> None:
    reader = ControlReader(tmp_path)
    assert reader.next() is None
    write_control(tmp_path, Control(2, "step-000001", "rollback", "abc", {"lr_scale": 0.5}))
    write_control(tmp_path, Control(2, "step-000001", "stop"))
    write_control(tmp_path, Control(1, "step-000001", "stop"))
    assert reader.next() == Control(2, "step-000001", "rollback", "abc", {"lr_scale": 0.5})
    assert reader.next() is None


def test_a_control_file_broken_three_looks_in_a_row_means_stop(tmp_path: Path) -> None:
    (tmp_path / "control.json").write_text("{")
    reader = ControlReader(tmp_path)
    assert [reader.next(), reader.next()] == [None, None]
    told = reader.next()
    assert told is not None
    assert told.decision == "stop"


@dataclass(frozen=True, slots=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Options:
    lr: float
    kind: Literal["linear", "cosine"] = "linear"
    steps: int | None = None
    names: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)


def test_options_become_a_frozen_class_and_exponents_without_a_dot_are_numbers() -> None:
    raw = {"lr": "5e-7", "names": ["a"], "inner": {"depth": 2}, "steps": None}
    assert parse(Options, raw, "sft.options") == Options(5e-7, "linear", None, ("a",), Inner(2))


def test_every_problem_of_the_options_is_told_at_once_with_the_near_miss() -> None:
    raw = {"lr": None, "kind": "cosin", "step": 3, "names": "a", "inner": {"depth": True}}
    with pytest.raises(UsageError) as caught:
        parse(Options, raw, "sft.options")
    assert str(caught.value).splitlines() == [
        "sft.options: unknown key 'step'; did you mean 'steps'?",
        "sft.options.lr: expected a number, found null: no public source gives this value, so set it",
        "sft.options.kind: expected linear | cosine, found 'cosin'; did you mean 'cosine'?",
        "sft.options.names: expected a list, found 'a'",
        "sft.options.inner.depth: expected a whole number, found True",
    ]


def test_a_trainer_is_found_by_name_and_a_near_miss_is_named() -> None:
    assert find_trainer("exec").name == "exec"
    with pytest.raises(UsageError, match="no trainer named 'exce'; did you mean 'exec'"):
        find_trainer("exce")


def test_two_distributions_that_offer_one_name_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offer(distribution: str) -> Any:
        point = SimpleNamespace(name="mine", value=f"{distribution}.mod:Mine")
        point.dist = SimpleNamespace(name=distribution, version="1.0")
        return point

    monkeypatch.setattr(lookup, "entry_points", lambda group: [offer("one"), offer("two")])
    with pytest.raises(UsageError, match="'mine': one and two"):
        known_trainers()


def test_a_trainer_that_does_not_import_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("broken", "no_such_module_here:Mine", "evalsuite.trainers")
    monkeypatch.setattr(lookup, "entry_points", lambda group: [point])
    with pytest.raises(UsageError, match=r"'broken'.*does not import: No module named 'no_such_module_here'"):
        find_trainer("broken")


def test_the_list_of_trainers_says_which_import(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from evalsuite.cli.list import command

    point = EntryPoint("broken", "no_such_module_here:Mine", "evalsuite.trainers")
    monkeypatch.setattr(lookup, "entry_points", lambda group: [point])
    done = CliRunner().invoke(command, ["--trainers"])
    header, broken, *ours = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert header == ["trainer", "distribution", "version", "imports"]
    assert broken == ["broken", "?", "?", "no: ModuleNotFoundError: No module named 'no_such_module_here'"]
    assert [(o[0], o[1], o[3]) for o in ours] == [(n, "evalsuite", "yes") for n in ("dpo", "exec", "rlvr", "rm", "sft")]


def test_naming_the_trainers_imports_none(tmp_path: Path) -> None:
    import subprocess

    text = "import sys, evalsuite.trainers as t; t.known_trainers(); print('train_plugins' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "False"
