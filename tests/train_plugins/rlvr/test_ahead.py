"""Whole RLVR runs whose generator is a process of its own: what wrote each iteration, kills, weights that get lost."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from evalsuite.models.vllm import install  # noqa: E402
from evalsuite.models.vllm.install import vllm_status  # noqa: E402
from evalsuite.trainers import SaveRule, TrainJob  # noqa: E402
from tests.train_plugins.rlvr import made  # noqa: E402
from tests.train_plugins.rlvr.made import GRPO, PPO, WORKER, job_in, journal, learner_of  # noqa: E402
from tests.train_plugins.runs import digests, fork, log_of, of, run, wait, warm  # noqa: E402
from train_plugins.rlvr import worker  # noqa: E402
from train_plugins.rlvr.canary import ATOL, WeightsLost  # noqa: E402
from train_plugins.rlvr.learner import Learner  # noqa: E402
from train_plugins.rlvr.prompts import read_prompts, read_rows  # noqa: E402
from train_plugins.rlvr.rollouts import Request, Sampling  # noqa: E402
from train_plugins.rlvr.sampling import HFGenerator  # noqa: E402
from train_plugins.rlvr.shelf import MEMORY, PREFIX  # noqa: E402
from train_plugins.tiny import EOS_ID, PAD_ID  # noqa: E402

pytestmark = pytest.mark.usefixtures("letters")
letters = made.letters
AHEAD: Mapping[str, Any] = {**GRPO, "mode": "async", "iterations": 6, "kl_stop": 1e9, "generator_threads": 1}
VLLM: Mapping[str, Any] = {**AHEAD, "generator": "vllm", "iterations": 3, "generator_options": {"max_model_len": 64}}
needs_vllm = pytest.mark.skipif(vllm_status()["usable"] == "no", reason=f"vLLM: {vllm_status()['problem']}")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warm(made.spread(tmp_path_factory.mktemp("start") / "tiny"))


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What vLLM takes on a CPU: an output layer of its own, heads of 32."""
    return warm(made.spread(tmp_path_factory.mktemp("untied") / "tiny", hidden=64, tied=False))


def done(job: TrainJob) -> TrainJob:
    assert run(job, WORKER) == 0, log_of(job)
    assert of(job, "end")[-1]["reason"] == "finished"
    return job


def column(job: TrainJob, name: str) -> list[Any]:
    return [event[name] for event in of(job, "step")]


def asked(job: TrainJob) -> dict[int, list[tuple[str, int]]]:
    """(id of the prompt, sample) of each rollout of each iteration, as they lie in the journal."""
    lines = groupby(journal(job), lambda line: int(line["iteration"]))
    found = [(iteration, [(line["id"], line["sample"]) for line in group]) for iteration, group in lines]
    assert len(dict(found)) == len(found)  # no iteration is there twice
    return dict(found)


def written_by(job: TrainJob, model: Path, iteration: int) -> list[str]:
    """What the weights in a folder write where the run wrote that iteration, in this process."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, run = AutoTokenizer.from_pretrained(model), learner_of(job).run
    ids = list(dict.fromkeys(name for name, _ in asked(job)[iteration]))
    rows = {prompt.id: prompt for prompt in read_prompts(run, tokenizer, read_rows(run))}
    prompts = [rows[name] for name in ids]
    request = Request(job.seed, iteration, tuple(p.number for p in prompts), tuple(p.ids for p in prompts), 3)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa").eval()
    responses = HFGenerator(policy, Sampling(6, EOS_ID), PAD_ID).generate(request)
    return [t.strip() for t in tokenizer.batch_decode([list(r.ids) for r in responses], skip_special_tokens=True)]


# -- processes and what they leave --


def generators_of(pid: int) -> list[int]:
    """Generators that a process has started, alive, whoever their parent is by now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            state = (path.parent / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if b"train_plugins.rlvr.child" in words and words[-2] == str(pid).encode() and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def shelves_of(pid: int) -> list[Path]:
    return [path for parent in (MEMORY, Path(tempfile.gettempdir())) for path in parent.glob(f"{PREFIX}{pid}-*")]


def within(seconds: float, holds: Callable[[], Any]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not holds():
        time.sleep(0.02)
    return bool(holds())


# -- transformers ahead --


@pytest.mark.slow
def test_a_generator_that_is_ahead_writes_by_the_weights_of_one_update_ago_and_the_same_every_time(
    start: Path, tmp_path: Path
) -> None:
    one, again = (done(job_in(tmp_path / name, start, AHEAD)) for name in ("one", "again"))
    turns = done(job_in(tmp_path / "turns", start, {**AHEAD, "mode": "sync"}, iterations=3))
    assert column(one, "staleness") == [0, 1, 1, 1, 1, 1]
    assert column(one, "weights_version") == [0, 0, 1, 2, 3, 4]
    assert column(turns, "weights_version") == [0, 1, 2]
    whole = asked(one)
    assert list(whole) == [1, 2, 3, 4, 5, 6]
    assert {len(rollouts) for rollouts in whole.values()} == {12}
    assert {k: whole[k] for k in (1, 2, 3)} == asked(turns)
    found = digests(one)
    assert len(set(found.values())) == 6  # every iteration changed the weights
    assert digests(again) == found
    assert journal(again) == journal(one)
    assert digests(turns)["step-000001"] == found["step-000001"]  # the first iteration is the same in both
    assert digests(turns)["step-000002"] != found["step-000002"]
    gaps = column(one, "gap_mean")
    assert gaps[0] < 1e-4
    assert min(gaps[1:]) > 10 * gaps[0]  # two versions of the weights do not say the same
    for iteration, model in ((2, start), (4, one.out / "checkpoints/step-000002")):
        texts = [line["text"] for line in journal(one) if line["iteration"] == iteration]
        assert written_by(one, model, iteration) == texts
    assert written_by(one, one.out / "checkpoints/step-000003", 4) != texts  # the newer weights write another text


@pytest.mark.slow
def test_ppo_warms_its_value_network_and_trains_with_a_generator_ahead(start: Path, tmp_path: Path) -> None:
    job = done(job_in(tmp_path / "out", start, {**PPO, "mode": "async"}, save=SaveRule()))
    assert column(job, "weights_version") == [0, 0, 1]
    assert len(of(job, "value_warmup")) == 1
    assert column(job, "gap_mean")[0] < 1e-4


@pytest.mark.slow
def test_a_run_ahead_that_is_killed_leaves_no_process_and_no_weights_and_is_never_later_than_one_version(
    start: Path, tmp_path: Path
) -> None:
    job = job_in(tmp_path / "out", start, AHEAD)

    first = fork(job, WORKER, "step-logged:3")  # while the rollouts of the fourth iteration are written
    assert within(60, lambda: generators_of(first))
    assert shelves_of(first)
    assert wait(first) == -signal.SIGKILL, log_of(job)
    assert within(10, lambda: not generators_of(first))
    assert within(10, lambda: not shelves_of(first))

    second = fork(job, WORKER)  # and its generator with it, before anybody can tidy up
    assert within(60, lambda: generators_of(second) and list(job.out.glob(".generator-*")))
    os.kill(second, signal.SIGKILL)
    for pid in generators_of(second):
        os.kill(pid, signal.SIGKILL)
    assert wait(second) == -signal.SIGKILL
    assert shelves_of(second)
    assert list(job.out.glob(".generator-*"))

    third = fork(job, WORKER)
    assert wait(third) == 0, log_of(job)
    assert [event["resumed_from"] for event in of(job, "start")] == [None, "step-000002", "step-000002"]
    # The third iteration again, and at once by the newest weights: nothing was asked for ahead of it.
    assert column(job, "step") == [1, 2, 3, 3, 4, 5, 6]
    assert column(job, "staleness") == [0, 1, 1, 0, 1, 1, 1]
    assert column(job, "weights_version") == [0, 0, 1, 2, 2, 3, 4]
    assert column(job, "gap_mean")[3] < 1e-4  # so the new generator began with the state's weights
    assert {k: len(rollouts) for k, rollouts in asked(job).items()} == dict.fromkeys(range(1, 7), 12)
    texts = [line["text"] for line in journal(job) if line["iteration"] == 3]
    assert written_by(job, job.out / "checkpoints/step-000002", 3) == texts
    for pid in (first, second, third):
        assert within(10, lambda pid=pid: not generators_of(pid))  # type: ignore[misc]
        assert not shelves_of(pid)
    assert not list(job.out.glob(".generator-*"))


@pytest.mark.slow
def test_a_generator_that_is_killed_ends_the_run_and_the_same_command_goes_on(start: Path, tmp_path: Path) -> None:
    job = job_in(tmp_path / "out", start, AHEAD, iterations=30, save=SaveRule(steps=2))
    pid = fork(job, WORKER)
    assert within(60, lambda: of(job, "checkpoint"))
    [generator] = generators_of(pid)
    os.kill(generator, signal.SIGKILL)
    assert wait(pid) == 2, log_of(job)
    assert "was killed by signal 9 (SIGKILL)" in of(job, "end")[-1]["why"]
    assert within(10, lambda: not shelves_of(pid))
    done(job)
    assert of(job, "start")[-1]["resumed_from"] is not None
    assert list(asked(job)) == list(range(1, 31))
    assert max(column(job, "staleness")) == 1


# -- vLLM --


def _scaled(factor: float) -> Callable[[], None]:
    """One tensor of all that are published is `factor` times what it should be."""
    plain = Learner.export

    def export(self: Learner, folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        plain(self, folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.1.mlp.down_proj.weight"] *= factor
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def prepare() -> None:
        setattr(Learner, "export", export)  # noqa: B010

    return prepare


@pytest.mark.vllm
@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize(("mode", "versions"), [("async", [0, 0, 1]), ("sync", [0, 1, 2])])
def test_vllm_writes_by_the_weights_that_were_published_last(
    mode: str, versions: Sequence[int], untied: Path, tmp_path: Path
) -> None:
    job = done(job_in(tmp_path / "out", untied, {**VLLM, "mode": mode}))
    assert column(job, "weights_version") == versions
    assert len({*digests(job).values(), job.start.digest if job.start else ""}) == 4  # each update changed them
    new = [gap for gap, stale in zip(column(job, "gap_mean"), column(job, "staleness"), strict=True) if not stale]
    old = [gap for gap, stale in zip(column(job, "gap_mean"), column(job, "staleness"), strict=True) if stale]
    assert max(new) < 1e-4
    assert all(gap > 10 * max(new) for gap in old)
    assert {k: len(rollouts) for k, rollouts in asked(job).items()} == {1: 12, 2: 12, 3: 12}


@pytest.mark.vllm
@pytest.mark.slow
@needs_vllm
def test_weights_that_do_not_arrive_in_vllm_end_the_run_before_anything_is_written_by_them(
    untied: Path, tmp_path: Path
) -> None:
    job = job_in(tmp_path / "out", untied, VLLM)
    pid = fork(job, WORKER, prepare=_scaled(1.5))
    assert wait(pid) == WeightsLost.exit_code == 70, log_of(job)
    assert (of(job, "end")[-1]["reason"], of(job, "end")[-1]["exit_code"]) == ("failed", 70)
    why = of(job, "end")[-1]["why"]
    assert why.startswith("weights did not arrive: token ")
    assert f"more than {ATOL['float32']:g} apart" in why
    assert column(job, "step") == [1]  # the second iteration has its rollouts, by the start; the third's ended it
    assert {line["version"] for line in journal(job)} == {0}
    assert within(10, lambda: not generators_of(pid))
    assert within(10, lambda: not shelves_of(pid))


def test_tied_embeddings_with_vllm_on_a_cpu_are_refused_before_anything_is_loaded(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_time(*_: Any) -> Any:
        raise AssertionError("something was loaded")

    monkeypatch.setattr(install, "require_vllm", lambda: None)
    monkeypatch.setattr(install, "is_cpu_build", lambda: True)
    for name in ("read_prompts", "Learner"):
        monkeypatch.setattr(worker, name, no_time)
    job = job_in(tmp_path / "out", start, VLLM)
    assert run(job, WORKER) == 2, log_of(job)
    why = of(job, "end")[-1]["why"]
    assert "tied embeddings" in why
    assert why.endswith("set generator: hf")
