"""A generator without a model, for tests of the process around it: its weights are one number in a file."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from evalsuite.errors import UsageError
from train_plugins.rlvr.engines import GeneratorSpec
from train_plugins.rlvr.rollouts import Request, Response


class Fake:
    """Every token of a response is the weights' number, read anew for each: a torn update would show."""

    def __init__(self, spec: GeneratorSpec) -> None:
        self.options, self.weights = dict(spec.options), spec.version
        self.heartbeat: Callable[[], None] = lambda: None
        self.random = random.Random(spec.seed)
        if self.options.get("start") == "refuse":
            raise UsageError("generator_options: nothing of the kind")
        if self.options.get("start") == "crash":
            raise ValueError("a bug while loading")
        if self.options.get("start") == "slow":
            time.sleep(3600)

    def load(self, folder: Path, version: int) -> None:
        self.weights = int((folder / "weights").read_text())

    def generate(self, request: Request) -> list[Response]:
        print(f"iteration {request.iteration} begins", flush=True)
        if request.iteration == self.options.get("bad_iteration", -1):
            misbehave(str(self.options["how"]), self.heartbeat)
        if delay := float(self.options.get("delay_s", 0.0)):
            time.sleep(self.random.uniform(0, delay))
        return [Response((self.weights,) * 3, (-0.5, -1.0, -1.5), finished=True) for _ in request.sample_seeds()]

    def greedy(self, prompt: Sequence[int], n_tokens: int) -> Response:
        return Response((1,) * n_tokens, (-float(self.weights),) * n_tokens, finished=False)

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def cpus(self) -> set[int]:
        return os.sched_getaffinity(0)

    def start_helper(self) -> int:
        """A process of the generator's own, as an engine has them."""
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid

    def close(self) -> None:
        print("closed in good order", flush=True)


def misbehave(how: str, heartbeat: Callable[[], None]) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(3)
    if how == "raise":
        raise ValueError("a bug while generating")
    if how == "refuse":
        raise UsageError("a prompt of 9 tokens does not fit")
    if how == "stall":
        stuck_here()
    if how == "slow but alive":
        for _ in range(40):
            time.sleep(0.1)
            heartbeat()


def stuck_here() -> None:
    time.sleep(3600)


def make(spec: GeneratorSpec) -> Fake:
    return Fake(spec)
