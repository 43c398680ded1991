"""Where the registry may live, and leases: nobody is robbed while alive, nobody waits for the dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evalsuite.errors import RegistryError
from evalsuite.registry import lock as locks
from evalsuite.registry.lock import check_place, held, mount_type
from tests.evalsuite.registry.places import in_child, make, promote

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /data rw shared:5 - nfs4 server:/data rw
31 27 0:41 / /data/fast rw - xfs /dev/vdb rw
32 27 0:42 / /my\040disk rw - fuse.sshfs host:/ rw
33 27 0:43 / /twice rw - ext4 /dev/vdc rw
34 33 0:44 / /twice rw - lustre mds@tcp:/ rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/results/registry", "ext4"),
        ("/data", "nfs4"),
        ("/data/results/registry", "nfs4"),
        ("/database", "ext4"),
        ("/data/fast/results", "xfs"),
        ("/my disk/results", "fuse.sshfs"),
        ("/twice/x", "lustre"),
    ],
)
def test_the_mount_of_a_path_is_the_innermost_and_latest(tmp_path: Path, path: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert mount_type(Path(path), mounts) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "9p", "fuse.sshfs", "lustre", "gpfs"])
def test_shared_mounts_are_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(locks, "mount_type", lambda path: kind)
    with pytest.raises(RegistryError, match=rf"on a {kind} mount.*--lock lease") as caught:
        promote(make(tmp_path / "registry"), 0)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "registry").exists()
    assert promote(make(tmp_path / "registry", lock="lease"), 0).generation == 1


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "btrfs", "overlay", ""])
def test_local_mounts_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(locks, "mount_type", lambda path: kind)
    check_place(tmp_path)


def silent(line: str) -> None:
    pass


def elsewhere(beat: int) -> bytes:
    """A lease of a process on another machine."""
    return json.dumps({"host": "other", "where": "another boot", "pid": 1, "beat": beat, "released": False}).encode()


def test_a_released_lease_is_taken_at_once(tmp_path: Path) -> None:
    for _ in range(3):
        started = time.monotonic()
        with held(tmp_path, "lease", silent, 30.0):
            pass
        assert time.monotonic() - started < 5
    assert [path.name for path in (tmp_path / "lease").iterdir()] == ["3"]


def test_the_lease_of_a_killed_process_of_this_machine_is_taken_at_once(tmp_path: Path) -> None:
    def take_and_die() -> None:
        with held(tmp_path, "lease", silent, 30.0):
            os.kill(os.getpid(), 9)

    assert in_child(take_and_die) == -9
    started = time.monotonic()
    with held(tmp_path, "lease", silent, 30.0):
        assert time.monotonic() - started < 5


def test_the_silent_lease_of_another_machine_is_taken_after_its_term(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir(parents=True)
    (tmp_path / "lease" / "7").write_bytes(elsewhere(0))
    started = time.monotonic()
    with held(tmp_path, "lease", silent, 0.4):
        assert 0.4 <= time.monotonic() - started < 5
    assert [path.name for path in (tmp_path / "lease").iterdir()] == ["8"]


def test_a_lease_that_beats_is_waited_for_and_its_owner_named(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir(parents=True)
    said: list[str] = []
    got = threading.Event()

    def wait() -> None:
        with held(tmp_path, "lease", said.append, 0.5):
            got.set()

    (tmp_path / "lease" / "1").write_bytes(elsewhere(0))
    thread = threading.Thread(target=wait)
    thread.start()
    for beat in range(1, 13):  # 1.2 s, more than two terms
        time.sleep(0.1)
        part = tmp_path / "lease" / ".beat"
        part.write_bytes(elsewhere(beat))
        os.replace(part, tmp_path / "lease" / "1")
    assert not got.is_set()
    assert "held by process 1 on other" in said[0]
    thread.join(10)
    assert got.is_set()


def test_a_process_that_lost_its_lease_changes_nothing(tmp_path: Path) -> None:
    registry = make(tmp_path, lock="lease")
    promote(registry, 0)
    before = registry.events()

    def held_up() -> None:
        number = max(int(path.name) for path in (tmp_path / "lease").glob("[0-9]*"))
        (tmp_path / "lease" / str(number + 1)).write_bytes(elsewhere(0))

    with pytest.raises(RegistryError, match="lost the lease; nothing was changed"):
        promote(registry, 1, check=held_up)
    assert registry.events() == before
    assert registry.refs()["champion"].generation == 1


def test_a_holder_beats_while_it_works(tmp_path: Path) -> None:
    with held(tmp_path, "lease", silent, 0.2):
        (path,) = (tmp_path / "lease").glob("[0-9]*")
        first = json.loads(path.read_bytes())
        deadline = time.monotonic() + 5
        while json.loads(path.read_bytes())["beat"] < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert json.loads(path.read_bytes())["beat"] >= 2
    assert first["pid"] == os.getpid()
    assert json.loads(path.read_bytes())["released"] is True


def test_a_second_writer_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom evalsuite.registry.lock import held\n"
        "with held(Path(sys.argv[1]), 'flock', print):\n    print('held', flush=True)\n    time.sleep(1.5)\n"
    )
    first = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    said: list[str] = []
    with held(tmp_path, "flock", said.append):
        pass
    assert "in use by another evalsuite process" in said[0]
    assert first.wait() == 0
