"""The worker with real training of a tiny model: kills, resume, control, refusals. Workers are forks of it."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import TrainerFailed, UsageError
from evalsuite.gating.evidence import training_of
from evalsuite.trainers import Launch, SaveRule, TrainJob, parse, run_worker, worker_command
from tests.train_plugins.runs import (
    OPTIONS,
    curve,
    digests,
    fork,
    judge,
    log_of,
    make_job,
    make_start,
    of,
    run,
    sft_rows,
    wait,
    warm,
)
from train_plugins import machine
from train_plugins.saving import POINTS
from train_plugins.settings import SFTOptions

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from train_plugins.sft_worker import work  # noqa: E402  (imports TRL)
from train_plugins.worker import main  # noqa: E402

SFT = partial(main, SFTOptions, work)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warm(make_start(tmp_path_factory.mktemp("start") / "tiny"))


# Each run is killed at every one of its points in turn, going on after each kill from what the one before left.
KILLS = ("step-logged:2", "state-written", "state-renamed", "checkpoint-written", "checkpoint-renamed",
         "event-appended", "step-logged", "checkpoint-renamed")  # fmt: skip
VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "all weights": (KILLS, {"log_every": 3}),
    "adapters with dropout": (KILLS[2:5], {"lora": {"r": 4, "dropout": 0.2}, "packing": "none"}),
    "a resumed epoch end": (KILLS[3:6:2], {"save": SaveRule(epochs=1), "schedule": "cosine", "max_grad_norm": 0.5}),
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_killed_at_every_point_ends_with_the_bits_and_the_curve_of_one_that_was_not(
    variant: str, start: Path, tmp_path: Path
) -> None:
    kills, options = VARIANTS[variant]
    whole = make_job(tmp_path / "whole", start, sft_rows(), **options)
    killed = make_job(tmp_path / "killed", start, sft_rows(), **options)
    assert run(whole, SFT) == 0, log_of(whole)
    for point in kills:
        assert run(killed, SFT, fault=point) in (-9, 0), log_of(killed)
        (killed.out / "events.jsonl").open("ab").write(b'{"kind": "st')  # what a power cut leaves
    assert run(killed, SFT) == 0, log_of(killed)
    assert len(of(killed, "start")) == len(kills) + 1
    assert digests(killed) == digests(whole)
    assert curve(killed) == curve(whole)
    assert [e["step"] for e in of(killed, "checkpoint")] == [e["step"] for e in of(whole, "checkpoint")]
    assert [e["digest"] for e in of(killed, "checkpoint")] == list(digests(whole).values())
    for name in ("state", "checkpoints"):
        assert not [path for path in (killed.out / name).iterdir() if path.name.startswith(".tmp")]
    kept = [sorted(path.name for path in (job.out / "state").iterdir()) for job in (killed, whole)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2


def test_every_kill_point_is_passed_by_some_test() -> None:
    """A point that is renamed in the worker would silently never kill."""
    used = {point.partition(":")[0] for point in (*KILLS, *ROLLBACK_KILLS)}
    assert used == set(POINTS)


def test_the_resumed_start_says_where_it_went_on_and_the_other_that_it_began_anew(start: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "out", start, sft_rows())
    assert run(job, SFT, fault="step-logged:3") == -9
    assert run(job, SFT) == 0, log_of(job)
    assert [event["resumed_from"] for event in of(job, "start")] == [None, "step-000002"]
    first = of(job, "start")[0]
    assert first["processes"] == 1
    assert first["devices"] == ["cpu, 1 threads"]
    assert {"torch", "trl", "transformers"} <= set(first["versions"])
    assert [event["reason"] for event in of(job, "end")] == ["finished"]


def test_a_checkpoint_holds_a_whole_model_and_where_it_comes_from(start: Path, tmp_path: Path) -> None:
    job = make_job(
        tmp_path / "out", start, sft_rows(), decontamination="waived: a test of ours", save=SaveRule(at=(4,))
    )
    assert run(job, SFT) == 0, log_of(job)
    assert sorted(digests(job)) == ["step-000004", "step-000006"]  # the end always saves
    folder = job.out / "checkpoints" / "step-000006"
    facts = json.loads((folder / "evalsuite.json").read_text())
    event = of(job, "checkpoint")[-1]
    assert (facts["stage"], facts["step"], facts["attempt"], facts["seed"]) == ("sft", 6, 0, 7)
    assert facts["digest"] == event["digest"] == digests(job)["step-000006"]
    assert job.start is not None
    assert facts["start"] == facts["parent"] == job.start.digest
    assert facts["tokens"] == event["tokens"] == of(job, "step")[-1]["tokens"]
    assert facts["metrics"]["loss"] == of(job, "step")[-1]["loss"]
    assert json.loads((folder / "generation_config.json").read_text()) == {"eos_token_id": 2, "pad_token_id": 0}
    assert (folder / "chat_template.jinja").is_file()
    training = training_of(folder, tmp_path, [])
    assert training.waived == "a test of ours"
    assert list(training.data) == ["rows.jsonl"]


def test_a_step_event_has_every_number_that_is_promised(start: Path, tmp_path: Path) -> None:
    rows = sft_rows()
    job = make_job(tmp_path / "out", start, rows)
    assert run(job, SFT) == 0, log_of(job)
    steps = of(job, "step")
    names = {"step", "loss", "lr", "grad_norm", "tokens", "tokens_per_s", "epoch", "steps", "eta_s", "wall_s", "cpu_s"}
    assert names <= set(steps[0])
    # Warm-up of int(6 * 0.2) = 1 step from 0, then down by 1/5 each: 0, 1, 4/5, …
    assert [event["lr"] for event in steps] == pytest.approx([0, 0.01, 0.008, 0.006, 0.004, 0.002])
    assert [event["epoch"] for event in steps] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    # <|user|> and <|assistant|> are a token each here, with a line break; the user's turn ends with one, an answer
    # with </s>, and a line break stands between two turns.
    each = [sum(len(m["content"]) + 3 for m in row["messages"]) + len(row["messages"]) // 2 - 1 for row in rows]
    assert steps[2]["tokens"] == sum(each)
    assert steps[5]["tokens"] == 2 * sum(each)
    assert steps[5]["eta_s"] == 0
    assert all(a["wall_s"] <= b["wall_s"] for a, b in itertools.pairwise(steps))


ROLLBACK_KILLS = ("rollback-logged", "control-obeyed")
BACK = ("rollback", {"lr_scale": 0.5, "seed": 124})


@pytest.mark.parametrize(
    "kills", [(), ROLLBACK_KILLS, ("event-appended:2",)], ids=["not killed", "killed while it obeys", "killed before"]
)
def test_a_rollback_goes_on_from_the_promoted_state_with_another_seed_and_half_the_rate(
    kills: tuple[str, ...], start: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "out", start, sft_rows(), mode="wait", schedule="constant", warmup_ratio=0.0)
    thread = judge(job, {"step-000002": ("promote", None), "step-000004": BACK})
    for point in kills:
        assert run(job, SFT, fault=point) == -9, log_of(job)
    assert run(job, SFT) == 0, log_of(job)
    thread.join(5)
    assert list(digests(job)) == ["step-000002", "step-000004", "step-000004-a1", "step-000006-a1"]
    (back,) = of(job, "rollback")
    assert (back["from_step"], back["to_name"], back["attempt"]) == (4, "step-000002", 1)
    steps = [event for event in of(job, "step") if event["step"] > 2]
    rates = dict.fromkeys((event["step"], event["lr"]) for event in steps)
    assert list(rates) == [(3, 0.01), (4, 0.01), (3, 0.005), (4, 0.005), (5, 0.005), (6, 0.005)]
    # Step 4 begins the second epoch, so with another seed it has other rows.
    assert digests(job)["step-000004"] != digests(job)["step-000004-a1"]
    assert [event["decision"] for event in of(job, "gate")].count("continue") == 3
    assert {event["name"] for event in of(job, "waiting")} <= set(digests(job))
    facts = json.loads((job.out / "checkpoints/step-000006-a1/evalsuite.json").read_text())
    assert facts["attempt"] == 1
    assert facts["tokens"] == of(job, "step")[-1]["tokens"]
    assert of(job, "end")[-1]["reason"] == "finished"


def test_a_stop_ends_the_run_without_another_checkpoint_and_the_next_start_goes_on(start: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "out", start, sft_rows(), mode="wait")
    judge(job, {"step-000002": ("stop", None)}).join(0)
    assert run(job, SFT) == 0, log_of(job)
    assert (of(job, "end")[-1]["reason"], of(job, "end")[-1]["step"]) == ("stopped", 2)
    assert list(digests(job)) == ["step-000002"]
    assert [(e["decision"], e["step"], e["about"]) for e in of(job, "gate")] == [("stop", 2, "step-000002")]


def test_a_killed_worker_still_waits_for_the_verdict_that_it_waited_for(start: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "out", start, sft_rows(), mode="wait")
    assert run(job, SFT, fault="event-appended") == -9
    pid = fork(job, SFT)
    for _ in range(600):
        if of(job, "waiting"):
            break
        time.sleep(0.05)
    assert [event["step"] for event in of(job, "step")] == [1, 2]
    judge(job, {})
    assert wait(pid) == 0, log_of(job)
    assert [event["step"] for event in of(job, "step")] == [1, 2, 3, 4, 5, 6]


def _no_room() -> None:
    real = shutil.disk_usage

    def usage(path: Any) -> Any:
        published = Path(path).joinpath("checkpoints", "step-000002").is_dir()
        return real(path)._replace(free=1000) if published else real(path)

    shutil.disk_usage = usage  # type: ignore[assignment]


ENDS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "the loss diverges": ({"lr": 1e36}, None, "the training diverged; the last good checkpoint is"),
    "the disk is too small": ({}, _no_room, "no room to keep a checkpoint: it needs"),
    "a batch that does not divide": ({"per_device_batch": 3}, None, "the nearest that do: 6 and 9"),
    "nothing left in max_length": ({"max_length": 8, "overlong": "drop"}, None, "rows were dropped"),
    "a template that is not there": ({"chat_template": "tulo"}, None, "no chat template 'tulo'; did you mean 'tulu'"),
    "targets that the model lacks": ({"lora": {"targets": ["w_proj"]}}, None, "this model has no w_proj"),
    "an adapter on the head": ({"lora": {"targets": ["lm_head"]}}, None, "lm_head cannot have adapters"),
    "an adapter on the embedding": ({"lora": {"targets": ["embed_tokens"]}}, None, "embed_tokens cannot have adapters"),
}


@pytest.mark.parametrize("case", ENDS)
def test_what_a_user_can_fix_ends_with_one_line_exit_2_and_an_event(case: str, start: Path, tmp_path: Path) -> None:
    options, prepare, words = ENDS[case]
    job = make_job(tmp_path / "out", start, sft_rows(), **options)
    assert run(job, SFT, prepare=prepare) == 2, log_of(job)
    assert words in log_of(job).splitlines()[-1]
    (end,) = of(job, "end")
    assert end["reason"] == "failed"
    assert words in end["why"]


def test_a_run_that_diverges_or_lacks_room_keeps_its_last_good_checkpoint(start: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "out", start, sft_rows())
    assert run(job, SFT, prepare=_no_room) == 2
    assert list(digests(job)) == ["step-000002"]
    assert [event["code"] for event in of(job, "warning")] == ["disk"]
    assert run(job, SFT) == 0, log_of(job)  # with room again the same command goes on
    assert list(digests(job)) == ["step-000002", "step-000004", "step-000006"]


def test_changed_data_and_a_lost_state_are_refused(start: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "out", start, sft_rows())
    assert run(job, SFT, fault="event-appended") == -9
    shutil.move(job.out / "state", tmp_path / "state")
    assert run(job, SFT) == 2
    assert "no state to go on from, although checkpoints were published" in of(job, "end")[-1]["why"]
    shutil.move(tmp_path / "state", job.out / "state")
    file = Path(job.data[0].location)
    file.write_bytes(file.read_bytes().replace(b"a", b"b", 1))
    assert run(job, SFT) == 2
    assert "put the file back" in of(job, "end")[-1]["why"]


MACHINES: dict[str, tuple[dict[str, Any], str]] = {
    "bfloat16 on an old CPU": ({"dtype": "bfloat16"}, "use dtype: float32"),
    "attention of GPUs": ({"attention": "flash_attention_2"}, "needs a GPU; use attention: sdpa"),
    "a tracker that is not installed": ({"report_to": ["wandb"]}, "pip install wandb"),
}


@pytest.mark.parametrize("case", MACHINES)
def test_a_machine_that_cannot_do_the_job_is_told_before_anything_is_loaded(
    case: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, words = MACHINES[case]
    monkeypatch.setattr(machine, "has_accelerator", lambda: False)
    monkeypatch.setattr(machine, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    job = make_job(tmp_path / "out", start, sft_rows(1))
    with pytest.raises(UsageError, match=words):
        machine.check_machine(parse(SFTOptions, {**OPTIONS, **more}, "options"), job)


def test_a_recipe_for_gpus_on_a_cpu_is_told_with_the_memory_that_it_takes(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    monkeypatch.setattr(machine, "has_accelerator", lambda: False)
    job: TrainJob = make_job(tmp_path / "out", start, sft_rows(1))
    assert job.start is not None
    large = dataclasses.replace(job, start=dataclasses.replace(job.start, n_parameters=70_600_000_000))
    # 70.6e9 parameters * 16 bytes = 1129.6 GB
    with pytest.raises(UsageError, match=r"takes 1130 GB \(16 bytes for each of 70\.6e9 parameters\)"):
        machine.check_machine(parse(SFTOptions, dict(OPTIONS), "options"), large)
    machine.check_machine(parse(SFTOptions, dict(OPTIONS), "options"), job)


def test_the_words_of_a_failed_worker_are_told_also_when_a_launcher_hides_its_exit_code(
    start: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "out", start, sft_rows(1))
    line = json.dumps({"kind": "end", "reason": "failed", "why": "set options.lr"})
    code = f"import sys; open({str(job.out / 'events.jsonl')!r}, 'a').write({line!r} + chr(10)); sys.exit(1)"
    for text, words in ((code, "set options.lr"), ("import sys; sys.exit(1)", "ended with exit code 1")):
        with pytest.raises(TrainerFailed, match=words):
            list(run_worker(job, [sys.executable, "-c", text], poll_s=0.02))


LAUNCHES: list[tuple[Launch, list[str]]] = [
    (Launch(), []),
    (Launch(processes=4), ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]),
    (Launch("fsdp2", 8), ["-m", "accelerate.commands.launch", "--config_file", "fsdp2.yaml", "--num_processes", "8"]),
]


@pytest.mark.parametrize(("launch", "launcher"), LAUNCHES)
def test_a_worker_is_started_below_the_launcher_that_it_needs(
    launch: Launch, launcher: list[str], tmp_path: Path
) -> None:
    job = TrainJob("sft", None, (), tmp_path, 1, SaveRule(), {}, launch=launch)
    command = [Path(word).name if word.endswith("yaml") else word for word in worker_command("m", job)]
    assert command == [sys.executable, *launcher, "-m", "m", "--job", str(tmp_path / "job.json")]


def test_the_worker_reports_finite_numbers_only(start: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "out", start, sft_rows(), lr=1e36)
    assert run(job, SFT) == 2
    assert all(math.isfinite(event["loss"]) for event in of(job, "step"))
