"""A model in a child process answers like one in this process, and its end, wanted or not, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import CheckpointError, EngineCrash
from evalsuite.models.child.model import ChildModel
from evalsuite.models.child.wire import Pipe, pack_requests, pack_result, unpack_generate, unpack_loglik, unpack_result
from evalsuite.models.fake import FakeModel
from evalsuite.types import (
    Failed,
    GenerateRequest,
    Likelihoods,
    LogLikelihood,
    LoglikRequest,
    Message,
    Prompt,
    Response,
    Sampling,
)

HERE = "tests.evalsuite.models.child.test_model"
FAKE = "evalsuite.models.fake:FakeModel"
REQUESTS = [GenerateRequest(Prompt(f"prompt {i}"), Sampling(8)) for i in range(40)]
OPTIONS = [LoglikRequest(Prompt(f"context {i}"), (" a", " b")) for i in range(40)]


class Scripted(FakeModel):
    """A fake that does to its process what its options say, and lets the folder `checkpoint` remember it."""

    def __init__(self, checkpoint: Path, *, script: str = "", batch: int = 4, **options: Any) -> None:
        if script == "no tokenizer":
            raise CheckpointError("no tokenizer.json; copy it from the base model")
        if script == "bad start":
            raise RuntimeError("the driver is too old")
        if script == "slow start":
            time.sleep(600)
        super().__init__(checkpoint, **options)
        self.script, self.batch, self.folder = script, batch, checkpoint
        self.heartbeat: Callable[[], None] = lambda: None

    def generate(
        self, requests: Sequence[GenerateRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Response]]:
        for n, (index, response) in enumerate(super().generate(requests, wanted)):
            (self.folder / "computed").write_text(str(n + 1))
            if n == 5 and (self.script == "die" or (self.script == "die once" and self.batch == 4)):
                print("the last words of the engine", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            if self.script == "grandchild" and n == 0:
                child = subprocess.Popen(["sleep", "600"])
                (self.folder / "grandchild").write_text(str(child.pid))
            if self.script == "lose" and index == 3:
                continue
            if self.script == "long step" and n == 1:
                while True:
                    time.sleep(0.01)
                    self.heartbeat()
            yield index, response

    def close(self) -> None:
        (self.folder / "closed").write_text("yes")


class Small(ChildModel):
    def smaller(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {**options, "batch": options["batch"] // 2}


def scripted(folder: Path, script: str = "", **options: Any) -> ChildModel:
    return Small(f"{HERE}:Scripted", folder, {"script": script, "batch": 4}, name="scripted", **options)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not running(pid)


def pid_of(model: ChildModel) -> int:
    assert model._child is not None
    return model._child.pid


def test_answers_and_likelihoods_are_those_of_the_same_model_in_this_process(tmp_path: Path) -> None:
    alone = FakeModel(seed=3)
    with closing(ChildModel(FAKE, tmp_path, {"seed": 3}, name="fake")) as model:
        assert list(model.generate(REQUESTS)) == list(alone.generate(REQUESTS))
        assert list(model.loglikelihood(OPTIONS, {3, 7})) == list(alone.loglikelihood(OPTIONS, {3, 7}))
        assert model.max_length == alone.max_length
        assert model.fingerprint() == alone.fingerprint()
        assert (model.environment(), model.counts()) == ({}, {"restarts": 0})


def test_every_field_of_every_type_survives_the_pipe() -> None:
    hostile = "a\x00b\ud800 \u2028 é 🎉"
    generate = [
        GenerateRequest(
            Prompt(hostile, True, (Message("system", ""), Message("user", hostile)), "Sure"),
            Sampling(7, ("\n", "</s>"), 0.7, 0.9, 5, 0.1, 2**64 - 1),
            want_tokens=True,
        ),
        REQUESTS[0],
    ]
    reading, writing = os.pipe()
    pipe = Pipe(reading, writing)
    pipe.send({"values": pack_requests(generate), "more": pack_requests(OPTIONS[:2])})
    frame = pipe.receive()
    assert unpack_generate(frame["values"]) == generate
    assert unpack_loglik(frame["more"]) == OPTIONS[:2]
    results: list[Response | Likelihoods] = [
        Response(hostile, "length", 3, (1, 2, 3), (-0.1, -1e-45, float("-inf")), "thought", "why", True),
        Response("plain"),
        (LogLikelihood(-0.30000001192092896, True, 2), LogLikelihood(-12.5, False, 1)),
        Failed("option 2 has no tokens of its own"),
    ]
    for result in results:
        pipe.send({"value": pack_result(result)})
        assert unpack_result(pipe.receive()["value"]) == result
    pipe.close()


def test_an_error_of_the_user_while_loading_arrives_as_itself(tmp_path: Path) -> None:
    with closing(scripted(tmp_path, "no tokenizer")) as model:
        for _ in range(2):
            with pytest.raises(CheckpointError, match=r"^no tokenizer\.json; copy it"):
                list(model.generate(REQUESTS))


def test_a_crash_while_loading_names_the_engine_and_shows_the_traceback(tmp_path: Path) -> None:
    with (
        closing(scripted(tmp_path, "bad start")) as model,
        pytest.raises(EngineCrash, match=r"(?s)scripted engine did not start.*driver is too old.*Traceback"),
    ):
        next(model.generate(REQUESTS))


def test_a_child_that_dies_once_is_restarted_smaller_and_goes_on_with_what_is_left(tmp_path: Path) -> None:
    with closing(scripted(tmp_path, "die once")) as model:
        found = list(model.generate(REQUESTS))
        assert sorted(index for index, _ in found) == list(range(40))  # each exactly once
        assert {response.finish for _, response in found} == {"stop"}
        assert model.n_restarts == 1


def test_a_second_death_is_a_crash_with_the_last_words_of_the_child(tmp_path: Path) -> None:
    with closing(scripted(tmp_path, "die")) as model:
        found = []
        with pytest.raises(EngineCrash) as crash:
            found += list(model.generate(REQUESTS))
        assert "died twice" in str(crash.value)
        assert "killed by SIGKILL: perhaps the machine ran out of memory" in str(crash.value)
        assert "the last words of the engine" in str(crash.value)
        assert crash.value.exit_code == 70


def test_what_the_engine_loses_is_a_failed_answer(tmp_path: Path) -> None:
    with closing(scripted(tmp_path, "lose")) as model:
        found = dict(model.generate(REQUESTS, {1, 3, 5}))
    assert found[3] == Response("", "error", why="the engine lost this request")
    assert [found[i].finish for i in (1, 5)] == ["stop", "stop"]


def test_the_child_computes_at_most_ahead_more_than_was_taken(tmp_path: Path) -> None:
    with closing(scripted(tmp_path, ahead=8)) as model:
        results = model.generate(REQUESTS)
        next(results)
        time.sleep(0.5)
        assert int((tmp_path / "computed").read_text()) <= 9
        assert len(list(results)) == 39


def test_nothing_is_computed_before_the_first_next_and_a_closed_iterator_stops_a_long_step(tmp_path: Path) -> None:
    with closing(scripted(tmp_path, "long step")) as model:
        results = model.generate(REQUESTS)
        _ = model.max_length  # it is loaded
        assert not (tmp_path / "computed").exists()
        next(results)
        results.close()  # type: ignore[attr-defined]
        start = time.monotonic()
        assert len(list(model.loglikelihood(OPTIONS))) == 40  # the child is free again
        assert time.monotonic() - start < 5


def test_a_new_call_takes_over_from_an_iterator_left_open(tmp_path: Path) -> None:
    with closing(scripted(tmp_path, ahead=4)) as model:
        old = model.generate(REQUESTS)
        next(old)
        assert len(list(model.loglikelihood(OPTIONS))) == 40
        with pytest.raises(RuntimeError, match="another call"):
            list(old)
        assert len(list(model.generate(REQUESTS))) == 40


def test_after_close_the_child_and_what_it_started_are_gone(tmp_path: Path) -> None:
    model = scripted(tmp_path, "grandchild")
    assert len(list(model.generate(REQUESTS))) == 40
    pid, grandchild = pid_of(model), int((tmp_path / "grandchild").read_text())
    assert running(pid)
    assert running(grandchild)
    model.close()
    assert not running(pid)
    assert not running(grandchild)
    assert (tmp_path / "closed").read_text() == "yes"  # the model was closed in order
    model.close()  # idempotent


@pytest.mark.parametrize("script", ["slow start", "long step"])
def test_closing_while_the_child_loads_or_computes_does_not_wait_for_it(tmp_path: Path, script: str) -> None:
    model = scripted(tmp_path, script)
    results = model.generate(REQUESTS)
    if script == "long step":
        next(results)
    pid = pid_of(model)
    start = time.monotonic()
    model.close()
    assert not running(pid)
    assert time.monotonic() - start < 10


CALLER = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from tests.evalsuite.models.child.test_model import REQUESTS, scripted
model = scripted(Path(sys.argv[1]), "long step")
try:
    for result in model.generate(REQUESTS):
        print(model._child.pid, flush=True)
except KeyboardInterrupt:
    model.close()
    print("closed", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_caller_that_is_killed_or_interrupted_leaves_no_child(tmp_path: Path, how: signal.Signals) -> None:
    # The caller is a script without `if __name__ == "__main__"`, read from the command line.
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4]
    ) as caller:
        try:
            assert caller.stdout is not None
            pid = int(caller.stdout.readline())
            assert running(pid)
            caller.send_signal(how)
            assert gone(pid)
            rest, _ = caller.communicate(timeout=10)
        finally:
            caller.kill()  # a failure here must not wait for ever
        assert ("closed" in rest) == (how == signal.SIGINT)
