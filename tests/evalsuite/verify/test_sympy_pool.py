"""The killable sympy worker: equal to lm-eval's in-process comparison, bounded in time, and gone with its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from evalsuite.verify import sympy_pool
from evalsuite.verify.sympy_pool import close_workers, equal_latex

PAIRS = [
    ("\\frac{1}{2}", "0.5"),
    ("2x+2", "2(x+1)"),
    ("x^2-1", "(x-1)(x+1)"),
    ("\\sqrt{8}", "2\\sqrt{2}"),
    ("\\sqrt{8}", "2\\sqrt{3}"),
    ("[0,1)", "[0,1)"),
    ("(1,2)", "(1,2)"),
    ("x<5", "x<5"),
    ("\\pi", "3.14159"),
    ("5", "5"),
    ("5", "05"),
    ("-0", "0"),
    ("-7", "7"),
    ("", ""),
    ("\\frac{1}", "1"),
    ("\\text{yes}", "\\text{yes}"),
    ("1+", "1"),
    ("x=5", "5"),
    ("\\begin{pmatrix}1\\end{pmatrix}", "1"),
    ("\\infty", "\\infty"),
    ("10\\%", "10"),
    ("2^{10}", "1024"),
    ("\\sin(x)^2+\\cos(x)^2", "1"),
    ("\ud800", "1"),
    ("\x00", "1"),
]
HANGS = ("9^{9^{9^{9}}}", "2")


@pytest.fixture
def fresh_workers() -> Iterator[None]:
    close_workers()
    sympy_pool._ask.cache_clear()
    yield
    close_workers()


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_the_worker_agrees_with_lm_eval(one: str, other: str) -> None:
    pytest.importorskip("math_verify")
    from lm_eval.tasks.minerva_math import utils

    # lm-eval 0.4.13 lets identical strings through before sympy; 0.4.3 did not. A space around one keeps them apart.
    assert equal_latex(one, other) == utils.is_equiv(one + " ", other)


@pytest.mark.parametrize(("one", "other", "equal"), [("12", "12", True), ("12", "13", False), ("-0", "0", True)])
def test_integers_need_no_worker(one: str, other: str, equal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sympy_pool, "_take", lambda: pytest.fail("a worker was asked"))
    assert equal_latex(one, other) is equal


@pytest.mark.usefixtures("fresh_workers")
def test_a_hanging_question_is_given_up_and_the_next_one_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sympy_pool, "LIMIT_S", 1.0)
    assert equal_latex("x+1", "1+x")  # the worker is up
    pid = sympy_pool._idle[0].process.pid
    start = time.monotonic()
    assert not equal_latex(*HANGS)
    assert time.monotonic() - start < 2.5
    assert not _alive(pid)
    assert equal_latex("y+1", "1+y")


@pytest.mark.usefixtures("fresh_workers")
def test_workers_are_reused_and_threads_do_not_share_one() -> None:
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda n: equal_latex(f"{n}x+1", f"1+x\\cdot{n}"), range(12)))
    assert all(answers)
    assert 1 <= len(sympy_pool._idle) <= 2
    before = {worker.process.pid for worker in sympy_pool._idle}
    assert equal_latex("x+77", "77+x")
    assert {worker.process.pid for worker in sympy_pool._idle} == before


def test_a_worker_that_hangs_ends_by_itself_when_its_parent_is_killed() -> None:
    code = (
        "from evalsuite.verify import sympy_pool as p, sympy_pool\n"
        "p.LIMIT_S = 2.0\n"
        "w = p._take()\n"
        "print(w.process.pid, flush=True)\n"
        f"w.ask({HANGS[0]!r}, {HANGS[1]!r})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 4
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def test_importing_the_grader_starts_nothing_and_loads_no_heavy_library() -> None:
    code = (
        "import sys; import evalsuite.verify.math as m; from evalsuite.verify import sympy_pool as p\n"
        "assert m.judge_math('$\\\\boxed{5}$', '5').flex\n"
        "print(len(p._idle), [n for n in ('sympy', 'torch', 'numpy', 'lm_eval') if n in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "0 []"


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return False
        raise


def test_a_forked_child_gets_a_worker_of_its_own() -> None:
    code = (
        "import os\n"
        "from evalsuite.verify import sympy_pool as p\n"
        "assert p.equal_latex('x+1', '1+x')\n"
        "mine = p._idle[0].process.pid\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    right = p.equal_latex('y+1', '1+y') and p._idle[0].process.pid != mine\n"
        "    p.close_workers()\n"
        "    os._exit(0 if right else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert p.equal_latex('z+1', '1+z') and p._idle[0].process.pid == mine\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
