"""Registries to break: in memory where there is room for that, written to by processes that are killed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evalsuite.registry import Ref, Registry

SHM = Path("/dev/shm")


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder whose fsync is fast, for tests that write thousands of times."""
    parent = SHM if os.access(SHM, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="registry-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def make(root: Path, **options: Any) -> Registry:
    return Registry(root, actor="tester", host="here", **options)


def promote(registry: Registry, expected: int | None, checkpoint: str = "c0ffee", **facts: Any) -> Ref:
    """One promotion with a manifest of its own."""
    manifest = {"checkpoint": {"name": checkpoint, "digest": checkpoint}, "n": expected}
    return registry.promote(
        "champion", checkpoint_id=checkpoint, manifest=manifest, expected_generation=expected, verdict=None, **facts
    )


def in_child(action: Callable[[], object], environment: Mapping[str, str] | None = None) -> int:
    """Runs `action` in a forked process; its exit code, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        try:
            os.environ.update(environment or {})
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def killed_at(point: str, action: Callable[[], object]) -> bool:
    """Runs `action` in a forked process that dies at a point of FAULTS; false when it never came there."""
    code = in_child(action, {"EVALSUITE_FAULT": point})
    assert code in (0, -signal.SIGKILL)
    return code != 0


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a registry that says something, by its name."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}
