"""Programs are judged by their tests, one is nothing to the next, and what dies or starves is tried again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from evalsuite.sandbox import Outcome, Policy, Program, SandboxError, levels, pool, require, run_many


@pytest.fixture(scope="module", autouse=True)
def _held() -> Iterator[None]:
    try:
        require()
    except SandboxError as error:
        pytest.skip(str(error))
    yield
    pool.close_all()


def judge(
    source: str, tests: str = "", *calls: str, timeout_s: float = 20.0, packages: tuple[str, ...] = ()
) -> Outcome:
    [(_, outcome)] = run_many([Program(source, timeout_s, tests=tests, calls=calls, packages=packages)])
    return outcome


def test_outcomes_come_with_their_index_as_they_are_done() -> None:
    slow = Program("import time\ntime.sleep(3)", 20.0)
    programs = [slow, *[Program(f"assert {i} % 2", 20.0) for i in range(1, 6)]]
    found = list(run_many(programs, Policy(workers=2)))
    assert sorted(index for index, _ in found) == list(range(6))
    assert found[-1][0] == 0
    assert {index for index, outcome in found if outcome.passed} == {0, 1, 3, 5}
    assert list(run_many([])) == []


# -- in one process ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("assert 1 + 1 == 2", ""),
        ("assert 1 + 1 == 3", "AssertionError"),
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("import os\nos._exit(0)", "left with exit code 0 before its tests were done"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "ended by signal 9"),
        ("print('passed')\nraise SystemExit", "SystemExit"),
        ("import builtins\nbuiltins.sum = lambda *a: 0", "Tampered: the program changed builtins.sum"),
        ("import unittest\nunittest.TestCase.assertEqual = print", "Tampered: the program changed"),
        ("import sys\nsys.modules['unittest.case'] = sys", "Tampered"),
        ("def f(", "SyntaxError"),
        ("x = '\ud800'", "UnicodeEncodeError"),
    ],
)
def test_a_program_without_tests_passes_when_it_comes_to_its_end(source: str, why: str) -> None:
    outcome = judge(source)
    assert outcome.passed == (why == "")
    assert outcome.why.startswith(why)
    assert outcome.seconds > 0


def test_a_patch_that_is_undone_is_no_tampering() -> None:
    source = "import builtins\nfrom unittest.mock import patch\nwith patch('builtins.open'):\n    open('x')"
    assert judge(source).passed


# -- values that cross -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "test"),
    [
        ("return [1, (2.5, None), {'a': {1, 2}}, b'x', frozenset({3}), True]",
         "f() == [1, (2.5, None), {'a': {1, 2}}, b'x', frozenset({3}), True]"),
        ("return float('inf'), -0.0, 1e-320, 3 + 4j", "f() == (float('inf'), 0.0, 1e-320, 3 + 4j)"),
        ("return float('nan')", "f() != f()"),
        ("return 10 ** 5000", "f() == 10 ** 5000"),
        ("return '\\ud800é'", "f() == '\\ud800é'"),
        ("from collections import OrderedDict\n return OrderedDict(a=1)", "f() == {'a': 1}"),
        ("from collections import defaultdict, Counter\n return [defaultdict(int, a=1), Counter('a')]",
         "f() == [{'a': 1}] * 2"),
        ("from collections import namedtuple\n return namedtuple('P', 'x y')(1, 2)", "f() == (1, 2)"),
        ("from enum import IntEnum\n return IntEnum('E', 'A B').B", "f() == 2"),
        ("return range(3), bytearray(b'x')", "f() == (range(3), bytearray(b'x'))"),
        ("from fractions import Fraction\n return Fraction(1, 2)", "f() == 0.5"),
        ("from decimal import Decimal\n return Decimal('1.5')", "f() == 1.5"),
        ("from datetime import date\n return date(2024, 1, 2)", "f().year == 2024"),
        ("return (i for i in range(3))", "list(f()) == [0, 1, 2]"),
        ("return {'a': 1}.items()", "sorted(f()) == [('a', 1)]"),
        ("return x, y", "f(1, y=[2]) == (1, [2])"),
    ],
)  # fmt: skip
def test_plain_values_cross_as_what_they_are(body: str, test: str) -> None:
    outcome = judge(f"def f(x=0, y=0):\n {body}", f"assert {test}", "f")
    assert outcome.passed, outcome.why


@pytest.mark.parametrize("value", ["object()", "lambda: 4", "type('T', (), {'__eq__': lambda *a: True})()", "int"])
def test_what_is_no_plain_value_equals_nothing_but_itself(value: str) -> None:
    assert judge(f"def f(): return {value}", "assert f() != 4 and not f() == 4", "f").passed


def test_objects_of_the_source_come_back_to_it() -> None:
    source = "class Node:\n    left = None\ndef depth(n): return 0 if n is None else 1 + depth(n.left)"
    tests = "root = Node()\nroot.left = Node()\nroot.left.left = Node()\nassert depth(root) == 3"
    assert judge(source, tests, "Node", "depth").passed


def test_exceptions_cross_by_name() -> None:
    tests = "try:\n    f()\nexcept ValueError as error:\n    assert str(error) == 'no'\nelse:\n    raise AssertionError"
    assert judge("def f(): raise ValueError('no')", tests, "f").passed
    assert judge("def f(): raise TypeError('no')", tests, "f").why.startswith("TypeError: no")
    own = "class Own(Exception): pass\ndef f(): raise Own('mine')"
    assert judge(own, "f()", "f").why == "Raised: Own: mine: f()"


def test_a_stop_iteration_ends_no_loop_of_the_tests() -> None:
    outcome = judge("def f(x): raise StopIteration", "assert [*map(f, [1, 2])] == []", "f")
    assert outcome.why.startswith("Raised: StopIteration")


def test_the_line_of_the_tests_is_in_the_reason() -> None:
    assert judge("def f(): return 1", "x = 2\nassert f() == x", "f").why == "AssertionError: assert f() == x"


# -- libraries ---------------------------------------------------------------------------------------------------------


def test_a_program_sees_the_libraries_it_was_given_and_no_other() -> None:
    pytest.importorskip("numpy")
    assert judge("import numpy\nassert numpy.ones(3).sum() == 3", packages=("numpy",)).passed
    assert judge("import numpy").why.startswith("ModuleNotFoundError")
    assert judge("import yaml", packages=("numpy",)).why.startswith("ModuleNotFoundError")
    scalar = "import numpy\ndef f(): return numpy.float64(0.5), numpy.int64(2), numpy.bool_(True)"
    assert judge(scalar, "assert f() == (0.5, 2, True)", "f", packages=("numpy",)).passed
    with pytest.raises(SandboxError, match="library 'no_such_library' is not installed here; type: pip install"):
        judge("pass", packages=("no_such_library",))


# -- one program and the next ------------------------------------------------------------------------------------------


def test_a_program_finds_nothing_of_the_one_before_it() -> None:
    first = "marker = 'from-the-' + 'first'\nopen('/tmp/left', 'w').write(marker)\nimport random\nrandom.seed(1)"
    second = (
        "import gc, os\n"
        "assert os.listdir('.') == []\n"
        "found = [r for t in gc.get_objects() for r in gc.get_referents(t) if isinstance(r, str)]\n"
        "marked = [text for text in found if 'from-the-' in text and 'first' in text]\n"
        "assert all('gc.get_objects' in text for text in marked)"  # its own text names the marker too
    )
    outcomes = dict(run_many([Program(first, 20.0), Program(second, 20.0)], Policy(workers=1)))
    assert [outcomes[i].why for i in (0, 1)] == ["", ""]


def test_a_zygote_that_dies_is_replaced_and_its_program_repeated() -> None:
    pool.close_all()
    program = Program("import time\ntime.sleep(1.5)\ndef f(): return 1", 20.0, tests="assert f() == 1", calls=("f",))
    seen: list[int] = []

    def kill_once(run: pool._Run) -> None:
        while not run._busy:
            time.sleep(0.02)
        [job] = list(run._busy.values())
        time.sleep(0.3)
        seen.append(job.zygote.process.pid)
        os.kill(job.zygote.process.pid, signal.SIGKILL)

    run = pool._Run([program], require(), 1)
    killer = threading.Thread(target=kill_once, args=(run,))
    killer.start()
    [(_, outcome)] = run.outcomes()
    killer.join()
    assert seen
    assert outcome.passed, outcome.why


def test_stopping_early_ends_what_runs() -> None:
    pool.close_all()
    found = run_many([Program("pass", 20.0), Program("import time\ntime.sleep(60)", 90.0)], Policy(workers=2))
    assert next(found)[0] == 0
    started = time.monotonic()
    found.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 10
    assert sum(len(idle) for idle in pool._idle.values()) == 1


def test_threads_share_the_pool() -> None:
    found: list[bool] = []

    def work(n: int) -> None:
        found.extend(o.passed for _, o in run_many([Program(f"assert {n} < 9", 20.0) for _ in range(5)]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 15


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_program_that_got_no_core_is_repeated_alone_with_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    sleeps, quick = Program("import time\ntime.sleep(1.5)", 1.0), Program("pass", 20.0)
    outcomes = dict(run_many([sleeps, quick, sleeps]))
    assert [outcomes[i].passed for i in range(3)] == [True, True, True]


def test_more_time_by_the_clock_is_not_more_time_on_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    monkeypatch.setattr(pool, "STARVED", 100.0)
    outcome = judge(
        "import time\nend = time.process_time() + 0.7\nwhile time.process_time() < end: pass", timeout_s=0.5
    )
    assert outcome.why == "timeout after 0.5 s"


def test_on_a_free_machine_a_limit_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert judge("import time\ntime.sleep(9)", timeout_s=0.5).why == "timeout after 0.5 s"


@pytest.mark.slow
def test_a_hundred_fork_bombs_leave_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.evalsuite.sandbox.hostile import BOMBS
    from tests.evalsuite.sandbox.test_hostile import _left, note_others

    note_others()

    monkeypatch.setattr(pool, "STARVED", 0.0)
    outcomes = dict(run_many([Program(BOMBS["forks without end"], 0.1)] * 100))
    assert {outcome.why for outcome in outcomes.values()} == {"timeout after 0.1 s"}
    assert _left() == set()
    assert levels.held_by(require()) == ""
