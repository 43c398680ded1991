"""A generator in a process of its own: versions, deaths on both sides, stalls, and what is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import DiskFull, TrainerFailed, UsageError
from train_plugins.rlvr import shelf as shelves
from train_plugins.rlvr.canary import WeightsLost, check_canary
from train_plugins.rlvr.engines import GeneratorSpec
from train_plugins.rlvr.link import NOTICE_S, GeneratorDied
from train_plugins.rlvr.rollouts import Generator, Request, Response, Sampling
from train_plugins.rlvr.serving import Served
from train_plugins.rlvr.shelf import LOCK, PREFIX, VERSION, Shelf, read_version, remove_dead
from train_plugins.tiny import EOS_ID, PAD_ID, write_tiny

REQUEST = Request(seed=1, iteration=1, numbers=(4, 7), prompts=((5, 6), (7, 8, 9)), samples=2)


def spec_of(folder: Path, **options: float | bool | str) -> GeneratorSpec:
    return GeneratorSpec(
        kind="tests.train_plugins.rlvr.fake:make", start=folder, sampling=Sampling(3, 2), options=options
    )


def serve(folder: Path, *, stall_s: float = 30.0, interrupt: bool = True, **options: float | bool | str) -> Served:
    return Served(spec_of(folder, **options), folder / "generator.log", stall_s=stall_s, interrupt=interrupt)


def weights(number: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "weights").write_text(str(number))

    return write


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


def test_the_answer_carries_the_version_that_wrote_all_of_it(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        as_generator: Generator = served
        served.request(REQUEST, 0)
        version, responses, seconds = served.receive()
        assert (version, len(responses)) == (0, 4)  # 2 prompts × 2 samples
        assert set(seconds) == {"sync_s", "sync_cpu_s", "generate_s", "generate_cpu_s"}
        served.request(REQUEST, 1, served.put(1, weights(11)))
        answer = served.receive()
        assert answer.version == 1
        assert {response.ids for response in answer.responses} == {(11, 11, 11)}
        served.load(served.put(2, weights(22)), 2)
        assert as_generator.generate(REQUEST)[0].ids == (22, 22, 22)
        assert as_generator.greedy((1, 2), 2) == Response((1, 1), (-22.0, -22.0), finished=False)
        root = served.shelf.root
        assert [path.name for path in root.iterdir()] == [LOCK]  # what was read is gone
    assert not root.exists()
    assert "closed in good order" in (tmp_path / "generator.log").read_text()


def test_the_learner_can_work_while_responses_are_written_and_has_one_request_outstanding(tmp_path: Path) -> None:
    with serve(tmp_path, bad_iteration=1, how="slow but alive") as served:
        served.wait_ready()
        began = time.monotonic()
        served.request(REQUEST, 0)
        assert time.monotonic() - began < 1.0  # the answer takes 4 seconds
        for forbidden in (lambda: served.request(REQUEST, 0), lambda: served.greedy((1,), 1)):
            with pytest.raises(RuntimeError, match="a request is outstanding"):
                forbidden()
        assert served.receive().version == 0
        with pytest.raises(RuntimeError, match="nothing was requested"):
            served.receive()


def test_random_delays_on_both_sides_never_mix_versions_nor_lag_by_more_than_one(tmp_path: Path) -> None:
    with serve(tmp_path, delay_s=0.004) as served:
        lags = []
        served.request(replace(REQUEST, iteration=1), 0)
        for k in range(1, 201):
            answer = served.receive()
            if k < 200:  # asked for ahead, with the weights of now: k - 1 updates
                served.request(replace(REQUEST, iteration=k + 1), k - 1, served.put(k - 1, weights(k - 1)))
            lags.append(k - 1 - answer.version)
            assert {response.ids for response in answer.responses} == {(answer.version,) * 3}
            time.sleep(0.004 * (k * 7919 % 101) / 101)
        assert lags == [0, *[1] * 199]


def test_weights_of_another_version_than_asked_for_are_a_bug(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        served.request(REQUEST, 5)  # 0 are loaded, and no folder is given
        with pytest.raises(GeneratorDied, match="asked for weights 5, but 0 are loaded"):
            served.receive()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("killed", r"was killed by signal 9 \(SIGKILL\), perhaps because memory ran out"),
        ("exit", "ended with exit code 3"),
        ("raise", "ended with exit code 1.*ValueError: a bug while generating"),
    ],
)
def test_a_dead_generator_is_told_with_how_it_ended_and_what_it_said_last(how: str, said: str, tmp_path: Path) -> None:
    served = serve(tmp_path, bad_iteration=1, how=how)
    served.wait_ready()
    served.request(REQUEST, 0)
    began = time.monotonic()
    with pytest.raises(TrainerFailed, match=f"(?s){said}.*") as caught:
        served.receive()
    assert "iteration 1 begins" in str(caught.value)
    assert caught.value.exit_code == 2
    assert time.monotonic() - began < 5
    for _ in range(2):
        served.close()
    assert not served.shelf.root.exists()


def test_an_error_of_the_user_is_raised_as_it_is_and_the_generator_lives_on(tmp_path: Path) -> None:
    with serve(tmp_path, bad_iteration=1, how="refuse") as served:
        served.request(REQUEST, 0)
        with pytest.raises(UsageError, match="a prompt of 9 tokens does not fit"):
            served.receive()
        served.request(replace(REQUEST, iteration=2), 0)
        assert served.receive().version == 0


@pytest.mark.parametrize(
    ("start", "kind", "said"),
    [("refuse", UsageError, "nothing of the kind"), ("crash", GeneratorDied, "(?s)exit code 1.*a bug while loading")],
)
def test_a_generator_that_cannot_be_built_says_why(
    start: str, kind: type[Exception], said: str, tmp_path: Path
) -> None:
    with serve(tmp_path, start=start) as served, pytest.raises(kind, match=said):
        served.wait_ready()


def test_a_learner_that_waits_for_nothing_hears_of_a_death_within_five_seconds(tmp_path: Path) -> None:
    served = serve(tmp_path)
    served.wait_ready()
    os.kill(served.link.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(GeneratorDied, match="was killed by signal 9"):
        within(20.0, lambda: False)  # an update
    assert time.monotonic() - began < 5
    served.close()


def test_a_learner_that_closes_hears_nothing_of_the_end(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        served.wait_ready()
    assert not is_running(served.link.pid)
    time.sleep(3.0)  # longer than the watch waits before it interrupts


def test_a_stall_ends_with_the_stacks_of_both_processes(tmp_path: Path) -> None:
    served = serve(tmp_path, stall_s=1.5, bad_iteration=1, how="stall")
    served.wait_ready()
    served.request(REQUEST, 0)
    with pytest.raises(TrainerFailed, match=r"said nothing for 1\.5 s") as caught:
        served.receive()
    for frame in ("in stuck_here", "in test_a_stall_ends_with_the_stacks_of_both_processes"):
        assert frame in str(caught.value)
        assert frame in (tmp_path / "generator.log").read_text()
    assert not is_running(served.link.pid)


def test_a_stopped_process_is_a_stall_too(tmp_path: Path) -> None:
    served = serve(tmp_path, stall_s=1.0)
    served.wait_ready()
    os.kill(served.link.pid, signal.SIGSTOP)
    served.request(REQUEST, 0)
    with pytest.raises(TrainerFailed, match="said nothing for 1 s"):
        served.receive()
    assert not is_running(served.link.pid)


def test_signs_of_progress_are_no_stall(tmp_path: Path) -> None:
    with serve(tmp_path, stall_s=2.5, bad_iteration=1, how="slow but alive") as served:  # 4 seconds
        served.wait_ready()
        served.request(REQUEST, 0)
        assert served.receive().version == 0


def test_a_model_that_loads_for_ever_has_a_limit_of_its_own(tmp_path: Path) -> None:
    served = Served(spec_of(tmp_path, start="slow"), tmp_path / "log", stall_s=0.1, start_s=2.5)
    with pytest.raises(TrainerFailed, match=r"said nothing for 2\.5 s"):
        served.wait_ready()


PARENT = """
    import os, sys, time
    from pathlib import Path
    from tests.train_plugins.rlvr.test_serving import REQUEST, serve, weights
    if __name__ == "__main__":
        served = serve(Path(sys.argv[1]), bad_iteration=1, how="stall")
        served.wait_ready()
        helper = served.call("start_helper")
        served.put(1, weights(1))
        if sys.argv[2] == "busy":
            served.request(REQUEST, 0)
        heir = os.fork()  # such a process holds the pipe's end open after its parent's death
        if heir == 0:
            time.sleep(60)
            os._exit(0)
        print(served.link.pid, helper, heir, served.shelf.root, flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_death_of_the_learner_ends_the_generator_and_all_it_started(
    how: signal.Signals, state: str, tmp_path: Path
) -> None:
    (tmp_path / "parent.py").write_text(textwrap.dedent(PARENT))
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path), state]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert parent.stdout is not None
    child, helper, heir, root = parent.stdout.readline().split()
    try:
        assert is_running(int(child))
        assert (Path(root) / "1" / VERSION).exists()
        time.sleep(0.3)
        parent.send_signal(how)
        parent.wait(5)
        assert within(5.0, lambda: not is_running(int(child)) and not is_running(int(helper)))
        assert not Path(root).exists()
    finally:
        os.kill(int(heir), signal.SIGKILL)
        parent.kill()
        parent.stdout.close()


def test_the_child_has_its_threads_its_cpus_and_no_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "ACCELERATE_USE_FSDP"):
        monkeypatch.setenv(name, "1")
    cpu = min(os.sched_getaffinity(0))
    spec = replace(spec_of(tmp_path, cuda_visible_devices="2,3"), threads=3, cpus=(cpu,))
    with Served(spec, tmp_path / "log", environment={"MORE": "yes"}) as served:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "MORE", "RANK", "WORLD_SIZE")
        found = [served.call("environment", name) for name in (*names, "ACCELERATE_USE_FSDP")]
        assert found == ["3", "3", "2,3", "yes", None, None, None]
        assert served.call("cpus") == {cpu}


def test_cores_that_are_not_there_are_told_once_and_the_childs_end_is_no_news(tmp_path: Path) -> None:
    said = r"generator_cpus is \[100000\], the cores here are \d.*; name some of these"
    with Served(replace(spec_of(tmp_path), cpus=(100_000,)), tmp_path / "log") as served:
        with pytest.raises(UsageError, match=said):
            served.wait_ready()
        deadline = time.monotonic() + 2 * NOTICE_S
        while time.monotonic() < deadline:  # GeneratorDied would be raised in here
            time.sleep(0.05)


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("policies")
    sizes = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64, "context": 64}
    return [write_tiny(folder / str(seed), seed, **sizes) for seed in (1, 2)]


@pytest.mark.slow
def test_a_transformers_model_in_a_child_writes_what_it_writes_here(policies: list[Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from train_plugins.rlvr.sampling import HFGenerator

    def copy(folder: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            shutil.copy(policies[1] / name, folder / name)

    sampling = Sampling(6, EOS_ID, 0.8)
    here = [
        HFGenerator(AutoModelForCausalLM.from_pretrained(path, dtype="float32"), sampling, PAD_ID) for path in policies
    ]
    spec = GeneratorSpec(kind="hf", start=policies[0], sampling=sampling, pad_id=PAD_ID, threads=1)
    with Served(spec, tmp_path / "log") as served:
        assert ids_of(served.generate(REQUEST)) == ids_of(here[0].generate(REQUEST))
        served.request(REQUEST, 1, served.put(1, copy))
        version, responses, seconds = served.receive()
        assert version == 1
        expected = here[1].generate(REQUEST)
        assert ids_of(responses) == ids_of(expected) != ids_of(here[0].generate(REQUEST))
        for one, other in zip(responses, expected, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        wanted = here[1].greedy((5, 6, 7), 8)
        assert check_canary(served, lambda prompt, ids: wanted.logprobs, (5, 6, 7), 8, 1e-3) < 1e-5
        with pytest.raises(WeightsLost):
            check_canary(served, lambda prompt, ids: here[0].greedy(prompt, 8).logprobs, (5, 6, 7), 8, 1e-3)
        assert seconds["sync_s"] > 0


def ids_of(responses: list[Response]) -> list[tuple[int, ...]]:
    return [response.ids for response in responses]


class TestShelf:
    def test_a_version_has_its_name_when_it_is_complete(self, tmp_path: Path) -> None:
        shelf = Shelf(10, memory=tmp_path)
        seen: list[list[str]] = []

        def write(folder: Path) -> None:
            (folder / "weights").write_text("x")
            seen.append(sorted(path.name for path in shelf.root.iterdir()))

        folder = shelf.put(7, write)
        assert seen == [[LOCK, ".tmp-7"]] or seen == [sorted([LOCK, ".tmp-7"])]
        assert (folder.name, read_version(folder)) == ("7", 7)
        shelf.put(8, write)
        shelf.drop(7)
        assert sorted(path.name for path in shelf.root.iterdir()) == sorted([LOCK, "8"])
        shelf.close()
        assert list(tmp_path.iterdir()) == []

    def test_a_write_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        shelf = Shelf(10, memory=tmp_path)

        def full(folder: Path) -> None:
            raise OSError(28, "No space left on device")

        def broken(folder: Path) -> None:
            raise ValueError("not a tensor")

        with pytest.raises(DiskFull, match="no room for the weights"):
            shelf.put(1, full)
        with pytest.raises(ValueError, match="not a tensor"):
            shelf.put(1, broken)
        assert [path.name for path in shelf.root.iterdir()] == [LOCK]
        shelf.close()

    @pytest.mark.parametrize(("n_bytes", "where"), [(10**9, "memory"), (10**15, "disk")])
    def test_shared_memory_is_used_where_two_versions_fit(
        self, n_bytes: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("memory", "disk"):
            (tmp_path / name).mkdir()
        usage: Any = type("Usage", (), {"free": 22 * 10**8})  # 2.2 × 10**9: just enough for two of 10**9 bytes
        monkeypatch.setattr(shelves.shutil, "disk_usage", lambda path: usage)
        shelf = Shelf(n_bytes, memory=tmp_path / "memory", fallback=tmp_path / "disk")
        assert shelf.root.parent.name == where
        shelf.close()

    def test_a_machine_without_shared_memory_uses_the_disk(self, tmp_path: Path) -> None:
        shelf = Shelf(1, memory=tmp_path / "none", fallback=tmp_path)
        assert shelf.root.parent == tmp_path
        shelf.close()

    def test_what_the_dead_left_is_removed_and_what_the_living_use_stays(self, tmp_path: Path) -> None:
        living = Shelf(1, memory=tmp_path)
        dead, young, old = (tmp_path / f"{PREFIX}{name}" for name in ("dead", "young", "old"))
        for folder in (dead, young, old, tmp_path / "somebody-elses"):
            folder.mkdir()
        (dead / LOCK).touch()
        os.utime(old, (1, 1))
        remove_dead(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {living.root.name, young.name, "somebody-elses"}
        living.close()


class TestCanary:
    @pytest.mark.parametrize(("learner", "apart"), [([-1.0, -2.0], 0.0), ([-1.0004, -1.9995], 5e-4)])
    def test_equal_weights_pass(self, learner: list[float], apart: float) -> None:
        found = check_canary(Answering([-1.0, -2.0]), lambda prompt, ids: learner, (5,), 2, 1e-3)
        assert found == pytest.approx(apart)

    @pytest.mark.parametrize("learner", [[-1.0, -2.1], [float("nan"), -2.0], [-1.0, float("-inf")]])
    def test_other_weights_are_exit_70(self, learner: list[float]) -> None:
        with pytest.raises(WeightsLost, match=r"weights did not arrive: token [12] of the canary") as caught:
            check_canary(Answering([-1.0, -2.0]), lambda prompt, ids: learner, (5,), 2, 1e-3)
        assert caught.value.exit_code == 70
        assert isinstance(caught.value, TrainerFailed)


class Answering:
    def __init__(self, logprobs: list[float]) -> None:
        self.logprobs = logprobs

    def load(self, folder: Path, version: int) -> None: ...

    def generate(self, request: Request) -> list[Response]:
        return []

    def greedy(self, prompt: Any, n_tokens: int) -> Response:
        return Response(tuple(range(n_tokens)), tuple(self.logprobs), finished=False)

    def close(self) -> None: ...
