"""A disk that is full, read-only or broken: the step is named, nothing was changed, and later it goes on."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import RegistryError
from tests.evalsuite.registry.places import contents, in_child, make, memory_folder, promote

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


def state(root: Path) -> tuple[object, ...]:
    registry = make(root)
    return registry.refs(), registry.events()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "mkdir"])
def test_whatever_call_fails_nothing_was_changed_and_the_step_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    registry = make(root)
    before = state(root)
    steps = set()
    for nth in range(30):
        with monkeypatch.context() as patch:
            left = fail(patch, call, nth, code)
            message = refusal(lambda: promote(make(root), 0, "aa"))
        if message:
            steps.add(message.partition(": ")[2].partition(" failed")[0])
            assert os.strerror(code) in message
        if left():
            break  # fewer than `nth` such calls: it went through
        assert registry.verify(pause_s=0) == ()
        if state(root) != before:
            # The one step after which there is no way back: the rename is done and only its sync failed.
            assert registry.refs()["champion"].generation == 1
            break
    assert steps
    assert state(root) != before
    assert promote(registry, 1, "bb").generation == 2
    assert registry.verify(pause_s=0) == ()


def refusal(action: Callable[[], object]) -> str:
    """What a RegistryError says; any other exception is a failure of the test."""
    try:
        action()
    except RegistryError as error:
        return str(error)
    return ""


def fail(patch: pytest.MonkeyPatch, call: str, nth: int, code: int) -> Callable[[], bool]:
    """Lets the `nth` call fail; the returned function says whether it was never made."""
    real, left = getattr(os, call), [nth]

    def failing(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            raise OSError(code, os.strerror(code))
        return real(*args, **options)

    patch.setattr(os, call, failing)
    return lambda: left[0] >= 0


def test_a_line_that_fits_only_in_part_is_taken_back(root: Path) -> None:
    registry = make(root)
    promote(registry, 0, "aa")
    log = root / "log" / "audit.jsonl"
    before = contents(root)

    def write_a_little() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = log.stat().st_size + 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(RegistryError, match=r"writing the event failed .*nothing was changed"):
            make(root).record("attempt", reason="x" * 1000)

    assert in_child(write_a_little) == 0
    assert contents(root) == before
    assert registry.record("attempt").seq == 2


def in_a_namespace(program: str) -> str:
    """Runs a Python program as root of a user namespace, where it may mount; skips where that is not allowed."""
    try:
        subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "x", "/mnt"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount in a user namespace here ({error})")
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_on_a_full_disk_of_64_kib_every_promotion_happens_or_does_not() -> None:
    out = in_a_namespace(
        """
        import subprocess
        from pathlib import Path
        from evalsuite.errors import RegistryError
        from tests.evalsuite.registry.places import contents, make, promote

        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "x", "/mnt"], check=True)
        root, filler = Path("/mnt/registry"), Path("/mnt/filler")
        page, failed, generation = 4096, [], 0
        promote(make(root), 0, "aa", reason="r" * 3000)
        generation = 1
        for free in range(6):
            with open(filler, "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(page))
                except OSError:
                    pass
                file.truncate(max(0, file.tell() // page * page - free * page))
            before = contents(root)
            try:
                promote(make(root), generation, "bb", reason="r" * 1500)
                generation += 1
            except RegistryError as error:
                assert "No space left on device" in str(error) and "nothing was changed" in str(error), error
                failed.append(str(error).split(": ")[1].split(" failed")[0])
                after = contents(root)
                assert {k: v for k, v in after.items() if not k.startswith("objects")} == {
                    k: v for k, v in before.items() if not k.startswith("objects")
                }
            assert make(root).verify(pause_s=0) == ()
            filler.unlink()
        promote(make(root), generation, "cc")
        assert make(root).verify(pause_s=0) == ()
        print(generation, sorted(set(failed)))
        """
    )
    generation, _, steps = out.partition(" ")
    assert int(generation) > 1  # with enough pages left it went through
    assert "writing an object" in steps  # with none left it did not


def test_on_a_read_only_disk_writing_is_refused_and_reading_works() -> None:
    in_a_namespace(
        """
        import subprocess
        from pathlib import Path
        from evalsuite.errors import RegistryError
        from tests.evalsuite.registry.places import contents, make, promote

        subprocess.run(["mount", "-t", "tmpfs", "x", "/mnt"], check=True)
        root = Path("/mnt/registry")
        promote(make(root), 0, "aa")
        subprocess.run(["mount", "-o", "remount,ro", "/mnt"], check=True)
        before = contents(root)
        for lock in ("flock", "lease"):
            for action in (
                lambda r: promote(r, 1, "bb"),
                lambda r: r.record("attempt"),
                lambda r: r.rollback("champion", to=None, reason="x"),
                lambda r: r.put({}),
            ):
                try:
                    action(make(root, lock=lock))
                except RegistryError as error:
                    assert "taking the l" in str(error) and "Read-only file system" in str(error), error
                else:
                    raise AssertionError("written to a read-only disk")
        assert make(root).refs()["champion"].id == "aa"
        assert make(root).verify() == ()
        assert contents(root) == before
        """
    )


def test_a_folder_without_permission_is_named() -> None:
    in_a_namespace(
        """
        import os, tempfile
        from pathlib import Path
        from evalsuite.errors import RegistryError
        from tests.evalsuite.registry.places import make, promote

        import evalsuite.registry.chain  # before permissions are given up
        folder = Path(tempfile.mkdtemp())
        promote(make(folder), 0, "aa")
        os.chmod(folder / "lock", 0o400)
        os.chmod(folder, 0o500)
        import ctypes
        # Drop the right to override permissions: prctl(PR_CAPBSET_DROP) does not touch the present set, capset does.
        class Header(ctypes.Structure):
            _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
        data = (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None, use_errno=True).capset(ctypes.byref(Header(0x20080522, 0)), data) == 0
        try:
            promote(make(folder), 1, "bb")
        except RegistryError as error:
            assert "taking the lock failed (Permission denied)" in str(error), error
        else:
            raise AssertionError("written without permission")
        assert make(folder).refs()["champion"].generation == 1
        """
    )
