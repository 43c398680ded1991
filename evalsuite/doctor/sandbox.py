"""Which means this machine has to run model-written code apart from everything else; found by trying, not by looking.

User namespaces may be switched off although the program that needs them is installed, so bubblewrap is really run.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from typing import Any

LANDLOCK_CREATE_RULESET = 444  # the same number on every Linux architecture
LANDLOCK_ASK_VERSION = 1
# What a sandboxed program gets at least: own namespaces for everything, none to be made inside, nothing writable.
PROBE = (
    "--unshare-user",
    "--unshare-all",
    "--disable-userns",
    "--die-with-parent",
    "--new-session",
    "--cap-drop",
    "ALL",
)
FILES = ("--ro-bind", "/", "/", "--proc", "/proc", "--tmpfs", "/tmp")


def sandbox() -> dict[str, Any]:
    """{level, bwrap, landlock_abi, why, repair}; level is bwrap, landlock or none, `why` what keeps it from bwrap."""
    abi = landlock_abi()
    trouble, repair = bwrap_trouble()
    level = "bwrap" if not trouble else "landlock" if abi else "none"
    return {"level": level, "bwrap": _bwrap_version(), "landlock_abi": abi, "why": trouble, "repair": repair}


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 where it has none or forbids asking."""
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    answer = libc.syscall(
        ctypes.c_long(LANDLOCK_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(LANDLOCK_ASK_VERSION)
    )
    return max(0, int(answer))


def bwrap_trouble() -> tuple[str, str]:
    """(why bubblewrap does not work here, what repairs it); ("", "") when a program ran in it."""
    if sys.platform != "linux":
        return f"{platform.system()} has no bubblewrap", ""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed", "apt-get install bubblewrap"
    try:
        ran = subprocess.run([program, *PROBE, *FILES, "true"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"bubblewrap does not start ({error})", "apt-get install --reinstall bubblewrap"
    if ran.returncode == 0:
        return "", ""
    said = (ran.stderr.strip().splitlines() or [f"exit {ran.returncode}"])[0]
    repair = (
        "sysctl -w kernel.unprivileged_userns_clone=1" if os.geteuid() else "run outside the container, or allow it"
    )
    return f"bubblewrap is installed but does not work ({said})", repair


def _bwrap_version() -> str | None:
    program = shutil.which("bwrap")
    if program is None:
        return None
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return said.strip().removeprefix("bubblewrap ") or None
