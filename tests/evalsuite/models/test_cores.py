"""Threads follow what the container grants, not what the host has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evalsuite.models.cores import usable_cores


def machine(folder: Path, siblings: dict[int, str], **files: str) -> tuple[Path, Path]:
    """Folders like /sys/devices/system/cpu and /sys/fs/cgroup."""
    for cpu, shared in siblings.items():
        file = folder / "cpu" / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(f"{shared}\n")
    for name, content in files.items():
        file = folder / "cgroup" / name.replace("__", "/").replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return folder / "cpu", folder / "cgroup"


@pytest.mark.parametrize(
    ("siblings", "files", "expected"),
    [
        ({0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"}, {}, 2),  # four hardware threads on two cores
        ({0: "0", 1: "1", 4: "4", 5: "5"}, {"cpu_max": "max 100000"}, 4),
        ({0: "0", 1: "1", 4: "4", 5: "5"}, {"cpu_max": "150000 100000"}, 2),  # 1.5 CPUs: the second one half the time
        ({0: "0", 1: "1", 4: "4", 5: "5"}, {"cpu_max": "20000 100000"}, 1),
        ({0: "0", 1: "1", 4: "4", 5: "5"}, {"cpu__cpu_cfs_quota_us": "300000", "cpu__cpu_cfs_period_us": "100000"}, 3),
        ({0: "0", 1: "1", 4: "4", 5: "5"}, {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"}, 4),
        ({}, {}, 4),  # no topology: every hardware thread counts
    ],
)
def test_cores_are_physical_allowed_and_within_the_quota(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    siblings: dict[int, str],
    files: dict[str, str],
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5})
    assert usable_cores(*machine(tmp_path, siblings, **files)) == expected
