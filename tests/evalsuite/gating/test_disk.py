"""A disk that is full or read-only: one line that names the step, nothing half-written, and later it goes on."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import EvalsuiteError, JournalError, RegistryError
from tests.evalsuite.gating.world import POLICY, Checkpoint, World


def refuse(patch: pytest.MonkeyPatch, call: str, part: str, code: int) -> None:
    """Makes a call of `os` fail for paths that have `part` in them, where it would write."""
    real = getattr(os, call)

    def refused(path: Any, *arguments: Any, **options: Any) -> Any:
        writes = call != "open" or (arguments and arguments[0] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR))
        if writes and part in str(path):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *arguments, **options)

    patch.setattr(os, call, refused)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("call", ["open", "replace", "mkdir"])
def test_a_verdict_that_cannot_be_written_leaves_nothing_and_comes_later(
    world: World, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    mine, theirs = Checkpoint("new"), Checkpoint("old")
    with monkeypatch.context() as patch:
        refuse(patch, call, "/gates", code)
        words = rf"writing the verdict failed \({os.strerror(code)}\); every answer is kept: .* the same command again"
        with pytest.raises(RegistryError, match=words) as failed:
            world.gate(mine, theirs)
    assert failed.value.exit_code == 2
    assert world.written() == {}
    assert world.events("verdict") == []
    again = world.gate(mine, theirs)
    assert again.n_asked == {"candidate": 0, "champion": 0}
    assert [event.verdict for event in world.events("verdict")] == [again.digest]


@pytest.mark.parametrize("part", ["/journal", "/registry", "/results"])
def test_read_only_results_are_one_line_for_a_person(world: World, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    mine = Checkpoint("new")
    with monkeypatch.context() as patch:
        for call in ("open", "mkdir"):
            refuse(patch, call, part, errno.EROFS)
        with pytest.raises((JournalError, RegistryError), match=r"Read-only file system.*--results") as failed:
            world.gate(mine, Checkpoint("old"))
    assert failed.value.exit_code == 2
    assert "\n" not in str(failed.value)
    assert mine.asked == []
    assert world.gate(mine, Checkpoint("old")).verdict.outcome == "promote"


def test_a_registry_that_fills_up_keeps_the_verdicts_file_for_the_next_try(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = Checkpoint("new"), Checkpoint("old")
    with monkeypatch.context() as patch:
        refuse(patch, "replace", "/objects", errno.ENOSPC)
        with pytest.raises(EvalsuiteError, match="No space left on device"):
            world.gate(mine, theirs)
    assert len(world.written()) == 1
    assert world.events("verdict") == []
    assert world.registry.verify(pause_s=0) == ()
    assert world.gate(mine, theirs).digest is not None


def test_the_verdict_that_was_asked_for_last_is_the_newest_one(world: World) -> None:
    mine, theirs = Checkpoint("new"), Checkpoint("old")
    other = replace(POLICY, method=replace(POLICY.method, looks=5))
    first, second, third = (world.gate(mine, theirs, policy) for policy in (POLICY, other, POLICY))
    assert first.digest == third.digest != second.digest
    assert [event.verdict for event in world.events("verdict")] == [first.digest, second.digest, first.digest]
    found = world.registry.verdict_of(mine.digest)
    assert found is not None
    assert found[0] == first.digest


def test_a_results_folder_that_is_a_file_is_named(world: World, tmp_path: Path) -> None:
    (world.results).write_text("not a folder")
    with pytest.raises(EvalsuiteError, match="results"):
        world.gate(Checkpoint("new"), Checkpoint("old"), registry=None)
