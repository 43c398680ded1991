"""The tests in two processes side by side: `python -m tests.lanes`, then whatever pytest takes.

Each lane collects everything and takes one module after the other that the other lane has not taken: the first lane
from those that start vLLM on, which want both cores at times, the second from the quick ones on. A module's tests stay
together and in order, as their fixtures are shared. The first lane prints as it goes, the second when both are done.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

import pytest

LANES = min(2, os.cpu_count() or 1)
FOLDER = "EVALSUITE_TEST_LANES"  # names the folder in which the lanes say what they take
LANE = "EVALSUITE_TEST_LANE"


def main(arguments: list[str]) -> int:
    """The exit code of the first lane that failed; 1 where tests were collected that no lane ran."""
    with tempfile.TemporaryDirectory(prefix="evalsuite-lanes-") as folder:
        lanes = [start(Path(folder), lane, arguments) for lane in range(LANES)]
        try:
            codes = [lane.wait() for lane in lanes]
        except KeyboardInterrupt:  # the lanes have it from the terminal as well
            codes = [lane.wait() for lane in lanes]
        for lane in range(1, LANES):
            print((Path(folder) / f"{lane}.log").read_text(encoding="utf-8", errors="replace"), flush=True)
        # A lane that found nothing left to take has not failed.
        failed = [code for code in codes if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)]
        collected, run = counts(Path(folder))
        print(f"{run} of {collected} tests were run in {LANES} processes, whose exit codes are {codes}")
        return failed[0] if failed else int(run != collected or not run)


def start(folder: Path, lane: int, arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", "-p", "tests.lanes", *arguments]
    environment = os.environ | {FOLDER: str(folder), LANE: str(lane)}
    if lane == 0:
        return subprocess.Popen(command, env=environment)
    with (folder / f"{lane}.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def counts(folder: Path) -> tuple[int, int]:
    """(number of tests that the lanes collected, number of tests that they ran)."""
    told = [tuple(map(int, path.read_text().split())) for path in folder.glob("*.count")]
    return max((collected for collected, _ in told), default=0), sum(run for _, run in told)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """pytest's own loop, over the tests of the modules that this lane takes."""
    if FOLDER not in os.environ or session.config.option.collectonly or session.testsfailed:
        return None
    folder, run = Path(os.environ[FOLDER]), 0
    # One test ahead: which fixtures end with a test depends on the test after it.
    for item, following in pairwise(chain(taken(session.items, folder), [None])):
        assert item is not None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        run += 1
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
    (folder / f"{os.getpid()}.count").write_text(f"{len(session.items)} {run}")
    return True


def taken(items: list[pytest.Item], folder: Path) -> Iterator[pytest.Item]:
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    for path in sorted(modules, key=lambda path: heaviness(modules[path]), reverse=os.environ[LANE] == "0"):
        try:
            (folder / hashlib.sha256(bytes(path)).hexdigest()).touch(exist_ok=False)
        except FileExistsError:
            continue
        yield from modules[path]


def heaviness(items: list[pytest.Item]) -> tuple[int, int]:
    """How many of these tests start vLLM, how many are slow."""
    vllm, slow = (sum(item.get_closest_marker(name) is not None for item in items) for name in ("vllm", "slow"))
    return vllm, slow


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
