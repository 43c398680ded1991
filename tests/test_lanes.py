"""Two lanes run every test once, and neither's failure is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULE = """
import os
from pathlib import Path

def note():
    with Path(__file__).with_suffix(".ran").open("a") as file:
        file.write(f"{os.getpid()}\\n")

def test_first():
    note()

def test_second():
    note()
"""


@pytest.fixture
def modules(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"test_{n}.py" for n in range(6)]
    for path in paths:
        path.write_text(MODULE)
    return paths


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.lanes", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_test_is_run_once_and_a_module_stays_in_one_lane(modules: list[Path], tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
    for module in modules:
        pids = module.with_suffix(".ran").read_text().split()
        assert len(pids) == 2
        assert len(set(pids)) == 1
    assert "12 of 12 tests were run" in done.stdout


@pytest.mark.parametrize("n", [0, 5])
def test_a_failure_in_any_module_is_the_exit_code_and_is_printed(n: int, modules: list[Path], tmp_path: Path) -> None:
    modules[n].write_text(MODULE + "    assert 'the reason' == ''\n")
    done = run(tmp_path)
    assert done.returncode == 1
    assert "the reason" in done.stdout
    assert "12 of 12 tests were run" in done.stdout


def test_a_lane_that_ends_early_is_no_success(modules: list[Path], tmp_path: Path) -> None:
    modules[0].write_text(MODULE + "    os._exit(0)\n")
    assert run(tmp_path).returncode == 1


def test_no_test_at_all_is_no_success(tmp_path: Path) -> None:
    assert run(tmp_path).returncode == 1
