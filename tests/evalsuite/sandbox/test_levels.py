"""The level is what a program was really held by, and a policy that asks for more is an error in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from evalsuite.sandbox import (
    Policy,
    Program,
    SandboxError,
    describe,
    landlock,
    launch,
    levels,
    pool,
    require,
    run_many,
    use,
)
from evalsuite.sandbox.launch import Means

REPOSITORY = Path(__file__).resolve().parents[3]
NONE = Means("none", nested=False)


@pytest.fixture(autouse=True)
def _probe_anew() -> Iterator[None]:
    levels.probe.cache_clear()
    yield
    levels.probe.cache_clear()
    use(Policy())


@pytest.fixture
def _no_bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def _no_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)


def test_the_probe_sees_what_an_unconfined_program_reaches() -> None:
    told = levels.held_by(NONE)
    assert "reads a file" in told
    assert "writes a file" in told
    assert "connects" in told


def test_the_strongest_level_is_taken_and_described() -> None:
    try:
        means = require()
    except SandboxError as error:
        pytest.skip(str(error))
    assert levels.held_by(means) == ""
    told = describe()
    assert told["sandbox"] == means.level
    assert all(isinstance(value, str) for value in told.values())
    assert "64 processes" in told["limits"]


@pytest.mark.usefixtures("_no_bwrap")
def test_without_bubblewrap_landlock_is_next_and_a_policy_for_bubblewrap_an_error() -> None:
    if not landlock.version():
        pytest.skip("this kernel has no Landlock")
    assert require().level == "landlock"
    with pytest.raises(SandboxError) as refused:
        require(Policy(require="bwrap"))
    assert str(refused.value) == (
        "the sandbox level 'bwrap' is required and does not work here "
        "(bwrap: bubblewrap is not installed; only 'landlock' works); type: apt-get install bubblewrap"
    )
    assert refused.value.exit_code == 2


@pytest.mark.usefixtures("_no_bwrap", "_no_landlock")
def test_where_nothing_isolates_nothing_runs_unless_that_was_said() -> None:
    with pytest.raises(
        SandboxError, match=r"nothing here isolates .* or add --unsafe-exec to run it without isolation"
    ):
        run_many([Program("pass", 1.0)])
    assert require(Policy(unsafe=True)).level == "none"
    assert require(Policy(require="none-accepted")).level == "none"
    use(Policy(unsafe=True))
    assert describe() == {
        "sandbox": "none",
        "isolation": "unsandboxed (--unsafe-exec)",
        "limits": describe()["limits"],
    }


@pytest.mark.usefixtures("_no_bwrap", "_no_landlock")
def test_without_isolation_programs_are_judged_and_a_warning_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_warned", False)
    daemon = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\nos._exit(0)"
    programs = [Program("x = 1", 10.0), Program("raise ValueError('no')", 10.0), Program(daemon, 1.0)]
    outcomes = dict(run_many(programs, Policy(unsafe=True)))
    pool.close_all()
    assert [outcomes[i].passed for i in range(3)] == [True, False, False]
    assert outcomes[1].why == "ValueError: no"
    assert "WITHOUT isolation (--unsafe-exec)" in capsys.readouterr().err


@pytest.mark.usefixtures("_no_bwrap", "_no_landlock")
@pytest.mark.parametrize("level", ["bwrap", "landlock"])
def test_a_level_that_was_asked_for_holds_against_unsafe(level: Literal["bwrap", "landlock"]) -> None:
    with pytest.raises(SandboxError) as refused:
        require(Policy(require=level, unsafe=True))
    assert str(refused.value).endswith("type: apt-get install bubblewrap")


def test_a_program_that_writes_to_the_machine_is_not_said_to_have_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "require", lambda rules=None: Means("landlock", nested=False))
    assert "any number of files" in describe()["limits"]
    monkeypatch.setattr(levels, "require", lambda rules=None: Means("landlock", nested=True))
    assert "64 MiB of files" in describe()["limits"]


def test_unsafe_still_isolates_where_that_is_possible() -> None:
    if levels.probe("landlock")[0] is None:
        pytest.skip("Landlock does not work here")
    assert require(Policy(unsafe=True)).level != "none"


AS_ANOTHER_USER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from evalsuite.sandbox import levels
from evalsuite.sandbox.launch import Means
kinds = [("bwrap", True), ("bwrap", False), ("landlock", True), ("landlock", False)]
print(json.dumps({f"{level} {nested}": levels.held_by(Means(level, nested)) for level, nested in kinds}))
"""


def test_every_level_works_for_a_user_that_is_not_root_as_well() -> None:
    python = "/usr/bin/python3"
    if os.geteuid() != 0 or not os.path.exists(python) or sys.platform != "linux":
        pytest.skip("needs root, to become somebody else, and a system interpreter")
    command = [python, "-c", AS_ANOTHER_USER, str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, user=65533, group=65533, cwd="/")
    if done.returncode:
        pytest.skip(f"another user cannot run it here: {done.stderr.strip().splitlines()[-1]}")
    held = json.loads(done.stdout)
    # Root found these to work or not to; what works for root works for a user, bubblewrap's absence excepted.
    for kind, why in held.items():
        level, nested = kind.split()
        if not levels.held_by(Means(level, nested == "True")):
            assert why == "", kind


def test_the_scratch_folder_never_hides_the_libraries() -> None:
    assert launch._mount_point(["/usr", "/opt/env/numpy"]) == "/tmp"
    assert launch._mount_point(["/usr", "/tmp/env/lib/numpy"]) == "/var/tmp"
    with pytest.raises(SandboxError, match="move the environment"):
        launch._mount_point(["/tmp/a", "/var/tmp/b", "/mnt/c", "/srv/d"])
