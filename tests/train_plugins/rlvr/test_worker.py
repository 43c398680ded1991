"""The RLVR worker with real training of tiny models: seeds, kills, resume, control, what ends a run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import pstdev
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from evalsuite.trainers import Control, SaveRule, TrainJob, write_control  # noqa: E402
from tests.train_plugins.rlvr import made  # noqa: E402
from tests.train_plugins.rlvr.made import GRPO, PPO, WORKER, curve, job_in, journal, reward_model, rows  # noqa: E402
from tests.train_plugins.runs import digests, fork, judge, log_of, of, run, wait, warm  # noqa: E402
from train_plugins.rlvr import losses  # noqa: E402
from train_plugins.rlvr.rollouts import Reward  # noqa: E402
from train_plugins.saving import POINTS  # noqa: E402

pytestmark = pytest.mark.usefixtures("letters")
letters = made.letters
BOTH: Mapping[str, Mapping[str, Any]] = {"grpo": GRPO, "ppo": PPO}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warm(made.spread(tmp_path_factory.mktemp("start") / "tiny"))


def done(job: TrainJob, *, fault: str = "", prepare: Any = None) -> TrainJob:
    code = run(job, WORKER, fault, prepare)
    assert code in ((-9, 0) if fault else (0,)), log_of(job)
    return job


def state_of(job: TrainJob, name: str, file: str) -> dict[str, Any]:
    """Tensors of a state, optimizers flattened."""
    from safetensors.torch import load_file

    path = job.out / "state" / name / file
    if file.endswith("safetensors"):
        return dict(load_file(path))
    found: dict[str, Any] = {}
    for network, optimizer in enumerate(torch.load(path, weights_only=True)):
        for number, moments in optimizer["state"].items():
            found |= {f"{network}.{number}.{key}": value for key, value in moments.items()}
    return found


def assert_same(one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    assert one.keys() == two.keys()
    assert one
    assert not [name for name in one if not torch.equal(one[name], two[name])]


# -- seeds --


@pytest.mark.parametrize("algorithm", BOTH)
def test_a_seed_reproduces_a_run_bit_for_bit_and_another_does_not(algorithm: str, start: Path, tmp_path: Path) -> None:
    jobs = [
        done(job_in(tmp_path / name, start, BOTH[algorithm], seed=seed, save=SaveRule(), iterations=2))
        for name, seed in (("one", 7), ("again", 7), ("other", 8))
    ]
    one, again, other = (digests(job) for job in jobs)
    assert list(one) == ["step-000002"]
    assert one == again
    assert one != other
    assert curve(jobs[0]) == curve(jobs[1])
    assert journal(jobs[0]) == journal(jobs[1])
    assert journal(jobs[0]) != journal(jobs[2])


# -- kills --

KILLS = ("step-logged", "step-logged:2", "state-written", "state-renamed", "checkpoint-written", "checkpoint-renamed",
         "event-appended")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", BOTH)
def test_a_run_killed_at_every_point_ends_with_the_bits_the_curve_and_the_rollouts_of_one_that_was_not(
    algorithm: str, start: Path, tmp_path: Path
) -> None:
    options = {**BOTH[algorithm], "iterations": 5, "schedule": "linear", "kl_stop": 1e9}
    whole, killed = (job_in(tmp_path / name, start, options, save=SaveRule(steps=2)) for name in ("whole", "killed"))
    done(whole)
    for point in KILLS:
        done(killed, fault=point)
        (killed.out / "events.jsonl").open("ab").write(b'{"kind": "st')  # what a power cut leaves
    done(killed)
    assert len(of(killed, "start")) == len(KILLS) + 1
    assert digests(killed) == digests(whole)
    assert list(digests(whole)) == ["step-000002", "step-000004", "step-000005"]
    assert curve(killed) == curve(whole)
    assert list(curve(whole)) == [1, 2, 3, 4, 5]
    assert (killed.out / "rollouts.jsonl").read_bytes() == (whole.out / "rollouts.jsonl").read_bytes()
    assert len(journal(whole)) == 5 * (12 if algorithm == "grpo" else 6)
    files = ["model.safetensors", "optimizer.pt", *(["value.safetensors"] if algorithm == "ppo" else [])]
    for file in files:
        assert_same(state_of(killed, "step-000005", file), state_of(whole, "step-000005", file))
    counters = [json.loads((job.out / "state/step-000005/run.json").read_text()) for job in (killed, whole)]
    for key in ("step", "tokens", "shuffles", "extra"):
        assert counters[0][key] == counters[1][key], key


def test_a_resumed_run_loads_both_optimizers_and_the_value_network(start: Path, tmp_path: Path) -> None:
    job = job_in(tmp_path / "out", start, PPO, iterations=2)
    done(job, fault="event-appended")
    before = {file: state_of(job, "step-000001", file) for file in ("optimizer.pt", "value.safetensors")}
    assert {name.partition(".")[0] for name in before["optimizer.pt"]} == {"0", "1"}
    learner = made.learner_of(job)
    assert learner.run.step_now == 1
    assert learner.value is not None
    assert_same(learner.value.state_dict(), before["value.safetensors"])
    assert_same(
        learner.policy.state_dict(),
        {**learner.policy.state_dict(), **state_of(job, "step-000001", "model.safetensors")},
    )
    for number, optimizer in enumerate(learner.optimizers):
        state = optimizer.state_dict()["state"]
        told = {f"{number}.{i}.{key}": value for i, moments in state.items() for key, value in moments.items()}
        assert_same(told, {k: v for k, v in before["optimizer.pt"].items() if k.startswith(f"{number}.")})


# -- control --

ROLLBACK_KILLS = ("rollback-logged", "step-logged", "control-obeyed")


@pytest.mark.parametrize("killed", [(), pytest.param(ROLLBACK_KILLS, marks=pytest.mark.slow)], ids=["", "killed"])
def test_a_rollback_goes_on_from_the_promoted_state_with_other_rollouts(
    killed: tuple[str, ...], start: Path, tmp_path: Path
) -> None:
    back = ("rollback", {"lr_scale": 0.5, "seed": 124})
    jobs = []
    for name, kills in (("plain", ()), ("killed", killed)):
        job = job_in(tmp_path / name, start, GRPO, iterations=3, mode="wait")
        thread = judge(job, {"step-000001": ("promote", None), "step-000003": back})
        for point in kills:
            done(job, fault=point)
        done(job)
        thread.join(10)
        jobs.append(job)
    job = jobs[0]
    assert list(digests(job)) == ["step-000001", "step-000002", "step-000002-a1", "step-000003", "step-000003-a1"]
    assert digests(job)["step-000002"] != digests(job)["step-000002-a1"]
    assert [event["lr"] for event in of(job, "step")] == pytest.approx([1e-3] * 3 + [5e-4] * 2)
    told = [(line["iteration"], line["attempt"]) for line in journal(job)]
    assert list(dict.fromkeys(told)) == [(1, 0), (2, 0), (3, 0), (2, 1), (3, 1)]
    assert len(told) == 5 * 12
    texts = [[line["text"] for line in journal(job) if (line["iteration"], line["attempt"]) == (2, a)] for a in (0, 1)]
    assert texts[0] != texts[1]
    assert digests(jobs[1]) == digests(job)
    assert journal(jobs[1]) == journal(job)


def test_every_kill_point_is_passed_by_some_test() -> None:
    assert {point.partition(":")[0] for point in (*KILLS, *ROLLBACK_KILLS)} == set(POINTS)


def test_a_stop_ends_the_run_and_the_next_start_goes_on(start: Path, tmp_path: Path) -> None:
    job = job_in(tmp_path / "out", start, GRPO, mode="wait")
    thread = judge(job, {"step-000002": ("stop", None)})
    done(job)
    thread.join(10)
    assert list(digests(job)) == ["step-000001", "step-000002"]
    assert of(job, "end")[-1]["reason"] == "stopped"
    whole = done(job_in(tmp_path / "whole", start, GRPO))
    pid = fork(job, WORKER)
    for _ in range(600):
        if [event["name"] for event in of(job, "waiting")][-1:] == ["step-000003"]:
            break
        time.sleep(0.05)
    write_control(job.out, Control(3, "step-000003", "continue", None, None, "held"))
    assert wait(pid) == 0, log_of(job)
    assert of(job, "end")[-1]["reason"] == "finished"
    assert digests(job) == digests(whole)


# -- what a run says --


@pytest.mark.parametrize("algorithm", BOTH)
def test_an_iteration_says_every_number_that_is_promised(algorithm: str, start: Path, tmp_path: Path) -> None:
    job = done(job_in(tmp_path / "out", start, BOTH[algorithm], save=SaveRule(), lr=3e-7, iterations=2))
    shared = {
        "score", "pass_rate", "pass_rate_exact", "finished", "length", "length_p95", "at_limit", "kl", "kl2", "kl3",
        "entropy", "advantage_mean", "advantage_std", "clip_fraction", "update_kl", "ratio", "ratio_max", "grad_norm",
        "loss", "lr", "staleness", "gap_mean", "gap_p99", "gap_max", "gap_correlation", "gap_k3", "gap_beyond_clip",
        "generate_s", "verify_s", "score_s", "update_s", "step_cpu_s", "verifier_errors", "skipped", "episodes",
        "score_std", "score_min", "score_max", "prompt_length",
    }  # fmt: skip
    own = {"grpo": {"flat_groups"}, "ppo": {"explained_variance", "value_loss", "value_clip_fraction",
                                            "value_grad_norm", "value_mean", "return_mean"}}  # fmt: skip
    steps = of(job, "step")
    assert shared | own[algorithm] <= set(steps[0])
    assert steps[0]["lr"] == pytest.approx(3e-7)
    assert steps[0]["kl"] == pytest.approx(0.0, abs=1e-5)  # the policy is its reference still
    assert steps[0]["gap_mean"] < 1e-5
    assert [step["staleness"] for step in steps] == [0, 0]
    each = 12 if algorithm == "grpo" else 6
    assert [step["episodes"] for step in steps] == [each, 2 * each]
    scores = [line["score"] for line in journal(job) if line["iteration"] == 1]
    assert steps[0]["score"] == pytest.approx(sum(scores) / each, abs=1e-4)
    assert (steps[0]["score_min"], steps[0]["score_max"]) == pytest.approx((min(scores), max(scores)), abs=1e-4)
    assert steps[0]["score_std"] == pytest.approx(pstdev(scores), abs=1e-4)
    weights = [line["advantage"] for line in journal(job) if line["iteration"] == 1]
    assert len(set(weights)) > 1
    if algorithm == "grpo":  # those of a group are around its mean
        assert sum(weights) == pytest.approx(0.0, abs=1e-4)
    checkpoint = of(job, "checkpoint")[-1]
    assert {"score", "kl", "episodes"} <= set(checkpoint)


def test_the_value_network_starts_with_the_mean_score_and_is_warmed(start: Path, tmp_path: Path) -> None:
    job = done(job_in(tmp_path / "out", start, PPO, iterations=1, value_warmup=3, value_lr=2e-2))
    warmed = of(job, "value_warmup")
    assert [event["iteration"] for event in warmed] == [1, 2, 3]
    assert warmed[0]["explained_variance"] == pytest.approx(0.0, abs=0.01)  # a constant explains nothing
    assert "hardly_right" not in [event["code"] for event in of(job, "warning")]


def test_a_reward_model_gives_the_value_network_and_must_read_the_same_tokens(start: Path, tmp_path: Path) -> None:
    given = {"value_init": reward_model(tmp_path / "rm", start)}
    options = {**PPO, "value_init": "checkpoint", "value_warmup": 0, "iterations": 1}
    done(job_in(tmp_path / "out", start, options, inputs=given))
    headless = job_in(tmp_path / "headless", start, options, inputs={"value_init": start})
    assert run(headless, WORKER) == 2
    assert "no reward model, it has no score head (score.weight)" in of(headless, "end")[-1]["why"]
    other = json.loads((tmp_path / "rm/tokenizer.json").read_text())
    other["model"]["unk_token"] = "</s>"
    (tmp_path / "rm/tokenizer.json").write_text(json.dumps(other))
    job = job_in(tmp_path / "wrong", start, options, inputs=given)
    assert run(job, WORKER) == 2
    assert "has another tokenizer than the policy" in of(job, "end")[-1]["why"]
    nothing = job_in(tmp_path / "nothing", start, options)
    assert run(nothing, WORKER) == 2
    assert "value_init is checkpoint, and the stage names none" in of(nothing, "end")[-1]["why"]


# -- what ends a run --


@pytest.mark.parametrize("name", ["optimizer.pt", "value.safetensors", "model.safetensors"])
def test_a_damaged_state_is_named_in_one_line(name: str, start: Path, tmp_path: Path) -> None:
    job = done(job_in(tmp_path / "out", start, PPO, iterations=1))
    file = job.out / "state/step-000001" / name
    content = file.read_bytes()
    file.unlink()  # a checkpoint shares the weights
    file.write_bytes(content[: len(content) // 2])
    assert run(job, WORKER) == 2
    why = of(job, "end")[-1]["why"]
    assert why.startswith(f"{file.parent}: damaged, it cannot be read (")
    assert why.endswith("delete the folder to go on from the state before it")
    assert "\n" not in why


def _bad_from(n: int) -> Any:
    """The policy's loss is not a number from its n-th pass on."""
    plain, calls = losses.policy_loss, [0]

    def loss(*given: Any) -> Any:
        calls[0] += 1
        return plain(*given) * (float("nan") if calls[0] >= n else 1.0)

    def prepare() -> None:
        setattr(losses, "policy_loss", loss)  # noqa: B010

    return prepare


def test_three_bad_updates_end_the_run_with_its_last_good_checkpoint(start: Path, tmp_path: Path) -> None:
    job = job_in(tmp_path / "out", start, GRPO, iterations=9)
    assert run(job, WORKER, prepare=_bad_from(3)) == 2
    why = of(job, "end")[-1]["why"]
    assert why.startswith("3 updates in a row had a loss or gradient that is not finite at iteration 5")
    assert "the last good checkpoint is checkpoints/step-000004" in why
    found = digests(job)
    assert found["step-000002"] == found["step-000003"] == found["step-000004"]  # nothing bad was learnt
    assert found["step-000001"] != found["step-000002"]
    assert [step["skipped"] for step in of(job, "step")] == [0, 0, 1, 1, 1]
    assert len(journal(job)) == 5 * 12  # also the rollouts of the iteration that ended it


def test_a_collapse_ends_the_run_and_can_be_looked_at(start: Path, tmp_path: Path) -> None:
    job = job_in(tmp_path / "out", start, GRPO, iterations=9, lr=0.3, beta=0.0, kl_stop=0.5)
    assert run(job, WORKER) == 2
    why = of(job, "end")[-1]["why"]
    assert "per response (kl_stop 0.5)" in why
    assert of(job, "step")[-1]["kl"] > 0.5
    assert journal(job)[-1]["iteration"] == of(job, "step")[-1]["step"]


def test_more_failed_verifiers_than_allowed_end_the_run(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        made.Letters,
        "__call__",
        lambda _, items: [Reward({"exact": 0.0}, "timeout", i == 0) for i in range(len(items))],
    )
    job = job_in(tmp_path / "out", start, GRPO)
    assert run(job, WORKER) == 2
    assert "verifiers failed on 8.3% of 12 responses" in of(job, "end")[-1]["why"]
    done(job_in(tmp_path / "fine", start, GRPO, max_verifier_errors=0.1, iterations=1))


def test_rows_are_read_in_full_before_anything_is_loaded(start: Path, tmp_path: Path) -> None:
    job = job_in(tmp_path / "out", start, GRPO, content=rows(3))
    assert run(job, WORKER) == 2
    assert "the data has 3 prompts, an iteration asks 4" in of(job, "end")[-1]["why"]
