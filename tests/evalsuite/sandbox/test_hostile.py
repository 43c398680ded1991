"""No hostile program passes, gets anything from the machine or leaves anything behind, at every level there is."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evalsuite.sandbox import Outcome, Policy, Program, levels, pool, run_many
from evalsuite.sandbox.launch import Means
from tests.evalsuite.sandbox import hostile

REPOSITORY = Path(__file__).resolve().parents[3]
SECRET = "secret-of-the-test"
MEANS = {
    "bwrap": Means("bwrap", nested=True),
    "bwrap without namespaces of each program": Means("bwrap", nested=False),
    "landlock": Means("landlock", nested=True),
    "landlock without namespaces": Means("landlock", nested=False),
}
NAMES = [*hostile.SPOOFS, *hostile.REACHES, *hostile.BOMBS]
FINDS_NOTHING = Program(
    "import os\ndef answer(x): return os.listdir('.'), os.nice(0), len(os.sched_getaffinity(0))",
    10.0,
    tests=f"assert answer(2) == ([], {os.nice(0)}, {len(os.sched_getaffinity(0))}), answer(2)",
    calls=("answer",),
)
LEAVES_CHILDREN = "import os, time\nfor _ in range(3): os.fork()\nwhile True: time.sleep(0.1)"
HONEST = Program("def answer(x): return x * x", 10.0, tests="assert answer(2) == 4", calls=("answer",))


@dataclass
class Ground:
    """Where hostile programs ran: what they could have reached, and what came of them."""

    means: Means
    folder: Path
    outcomes: dict[str, Outcome]
    left: set[int]
    connections: int


@pytest.fixture(scope="module", params=MEANS)
def means(request: pytest.FixtureRequest) -> Means:
    note_others()
    found: Means = MEANS[request.param]
    if why := levels.held_by(found):
        pytest.skip(f"{request.param} does not work here: {why}")
    return found


@pytest.fixture(scope="module")
def ground(means: Means) -> Iterator[Ground]:
    with (
        tempfile.TemporaryDirectory(prefix="evalsuite-public-") as place,  # pytest's own folders are closed to others
        pytest.MonkeyPatch.context() as patch,
        socket.socket() as listening,
    ):
        folder = Path(place)
        folder.chmod(0o777)
        (folder / "public").write_text("for everybody")
        patch.setattr(levels, "require", lambda rules=None: means)
        patch.setattr(pool, "STARVED", 0.0)  # no second try for those that use their time up
        patch.setenv("EVALSUITE_TEST_SECRET", "hidden")
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        listening.setblocking(False)
        places: dict[str, object] = {"folder": str(folder), "repository": str(REPOSITORY), "pid": os.getpid()}
        places["port"] = listening.getsockname()[1]
        programs = [_program(name, places) for name in NAMES]
        assert [o.passed for _, o in run_many([HONEST])] == [True]
        outcomes = {NAMES[index]: outcome for index, outcome in run_many(programs)}
        left = _left()
        connections = 0
        try:
            listening.accept()
            connections += 1
        except BlockingIOError:
            pass
        yield Ground(means, folder, outcomes, left, connections)
        pool.close_all()


def _program(name: str, places: dict[str, object]) -> Program:
    if name in hostile.REACHES:
        source = hostile.REACH + hostile.REACHES[name].format(**places)
    else:
        source = {**hostile.SPOOFS, **hostile.BOMBS}[name]
    tests = hostile.TESTS.format(secret=SECRET)
    return Program(source, hostile.LIMIT_S, memory_mib=512, tests=tests, calls=("answer",))


OTHERS: set[int] = set()  # processes that other tests have left running: engines, workers of sympy


def note_others() -> None:
    pool.close_all()
    OTHERS.clear()
    OTHERS.update(_below(os.getpid()))


def _left() -> set[int]:
    """Processes below this one that are no waiting zygotes and were not there before; they get a second to end."""
    deadline = time.monotonic() + 1
    while (found := _below(os.getpid()) - _zygotes() - OTHERS) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _below(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, todo = set(), [pid]
    while todo:
        parent = todo.pop()
        children = [child for child, its in parents.items() if its == parent]
        found.update(children)
        todo += children
    return found


def _zygotes() -> set[int]:
    """The idle ones; bubblewrap is two processes with the zygote below them."""
    own = {zygote.process.pid for idle in pool._idle.values() for zygote in idle}
    ours: set[int] = set()
    for pid in own:
        ours.add(pid)
        while len(below := [p for p in _below(pid) if p not in ours]) and len(ours) < 3 * len(own):
            ours.add(min(below))
    return ours


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_program_scores_nothing_and_says_why(name: str, ground: Ground) -> None:
    outcome = ground.outcomes[name]
    assert not outcome.passed
    assert outcome.why
    assert not outcome.why.startswith("not judged"), outcome.why
    assert outcome.seconds < hostile.LIMIT_S + 5


@pytest.mark.parametrize("name", hostile.REACHES)
def test_a_program_that_reaches_for_something_gets_nothing(name: str, ground: Ground) -> None:
    assert ground.outcomes[name].why.startswith("AssertionError: []"), ground.outcomes[name].why


def test_nothing_is_left_behind_or_changed(ground: Ground) -> None:
    assert ground.left == set()
    assert ground.connections == 0
    assert [p.name for p in ground.folder.iterdir()] == ["public"]
    assert (ground.folder / "public").read_text() == "for everybody"
    assert ground.folder.stat().st_mode & 0o777 == 0o777
    assert [o.why for _, o in run_many([HONEST, *[FINDS_NOTHING] * 8])] == [""] * 9


def test_stopping_early_leaves_no_process(means: Means, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "require", lambda rules=None: means)
    found = run_many([HONEST, Program(LEAVES_CHILDREN, 60.0)], Policy(workers=2))
    assert next(found)[0] == 0
    time.sleep(0.5)  # by then it has children
    found.close()  # type: ignore[attr-defined]
    assert _left() == set()
    pool.close_all()
