"""What runs in a generator's own process: builds it, and answers one request after the other.

Started as `python -P -m train_plugins.rlvr.child FD PARENT` by `link.Link`, the leader of a session of its own.
A thread reads from the parent, so that its end is noticed while the generator computes: then the weights in shared
memory are removed and this process ends, with all that it started.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from evalsuite.errors import EvalsuiteError, UsageError
from train_plugins.rlvr.engines import GeneratorSpec, build
from train_plugins.rlvr.rollouts import Generator, Request, Response
from train_plugins.rlvr.shelf import read_version

ALIVE_S = 1.0
CLOSING_S = 20.0
LOOK_S = 1.0


class Child:
    """The generator and the version of the weights in it. Each method that the parent may call answers plain data."""

    def __init__(self, spec: GeneratorSpec, connection: Connection) -> None:
        self.generator: Generator = build(spec)
        self.version = spec.version
        if hasattr(self.generator, "heartbeat"):
            self.generator.heartbeat = heartbeat(connection)

    def generate(
        self, request: Request, version: int, folder: Path | None
    ) -> tuple[int, list[Response], dict[str, float]]:
        """(version, responses, seconds of load and generation); all responses are written by that one version."""
        seconds = {"sync_s": 0.0, "sync_cpu_s": 0.0} if folder is None else self.load(folder, version)
        if version != self.version:
            raise RuntimeError(f"asked for weights {version}, but {self.version} are loaded")
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        responses = self.generator.generate(request)
        seconds |= {"generate_s": time.perf_counter() - wall_s, "generate_cpu_s": time.process_time() - cpu_s}
        return version, responses, seconds

    def load(self, folder: Path, version: int) -> dict[str, float]:
        """Seconds that it took."""
        if (found := read_version(folder)) != version:
            raise RuntimeError(f"{folder}: holds weights {found}, expected {version}")
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        self.generator.load(folder, version)
        self.version = version
        return {"sync_s": time.perf_counter() - wall_s, "sync_cpu_s": time.process_time() - cpu_s}

    def loaded(self) -> int:
        return self.version

    def adopt(self, version: int) -> None:
        """The weights came another way (see `transfer`)."""
        self.version = version

    def greedy(self, prompt: tuple[int, ...], n_tokens: int) -> Response:
        return self.generator.greedy(prompt, n_tokens)

    def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """A method that only this kind of generator has."""
        return getattr(self.generator, method)(*arguments)


def heartbeat(connection: Connection) -> Callable[[], None]:
    """Says to the parent, once in a second, that there is progress."""
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last >= ALIVE_S:
            last = time.monotonic()
            connection.send(("alive", None))

    return beat


def read(connection: Connection, parent: int, shelf: Path, inbox: queue.SimpleQueue[Any]) -> None:
    """Passes on what the parent says, until it ends."""
    try:
        while True:
            # Processes that the parent has forked may hold its end of the connection open after its death.
            while not connection.poll(LOOK_S):
                if os.getppid() != parent:
                    raise EOFError
            inbox.put(message := connection.recv())
            if message[0] == "close":
                threading.Timer(CLOSING_S, end_at_once).start()
                return
    except (EOFError, OSError):
        shutil.rmtree(shelf, ignore_errors=True)
        end_at_once()


def end_at_once() -> None:
    """Kills this process and everything it started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def serve(connection: Connection, parent: int) -> None:
    """Answers until the parent closes. An error of ours is an answer; any other is one too, and ends the process."""
    spec, shelf = connection.recv()  # the parent waits meanwhile: nothing is computed yet
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=read, args=(connection, parent, shelf, inbox), name="parent", daemon=True).start()
    try:
        _pin(spec.cpus)
        child = Child(spec, connection)
    except EvalsuiteError as error:
        connection.send(("error", (type(error).__name__, str(error))))
        raise
    connection.send(("ready", None))
    while (message := inbox.get())[0] != "close":
        method, arguments = message
        try:
            connection.send(("answer", getattr(child, method)(*arguments)))
        except EvalsuiteError as error:
            traceback.print_exc()
            connection.send(("error", (type(error).__name__, str(error))))
    child.generator.close()


def _pin(cpus: tuple[int, ...]) -> None:
    """Keeps this process to these cores, to none where there are none. Raises UsageError where they are not ours."""
    try:
        if cpus:
            os.sched_setaffinity(0, cpus)
    except OSError as error:
        there = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise UsageError(f"generator_cpus is {list(cpus)}, the cores here are {there}; name some of these") from error


def main(descriptor: int, parent: int) -> int:
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # how the parent asks where it hangs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    try:
        serve(Connection(descriptor), parent)
    except ConnectionError:
        time.sleep(2 * LOOK_S)  # nobody listens: the thread that reads sees it too, tidies up and ends this process
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    status = main(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # tearing down an interpreter with an engine in it takes seconds, or hangs
