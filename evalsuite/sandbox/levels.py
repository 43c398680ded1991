"""Which isolation works on this machine, found by running a program in it, and whether the policy accepts it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from evalsuite.sandbox import candidate, landlock, launch
from evalsuite.sandbox.launch import Means, Zygote
from evalsuite.sandbox.types import Level, Policy, Program, SandboxError

ORDER: tuple[Level, ...] = ("none", "landlock", "bwrap")
INSTALL = "apt-get install bubblewrap"
TRIAL = ("--ro-bind", "/", "/", "--proc", "/proc", "--tmpfs", "/tmp")

# Tries what a program must not be able to do, and lists what it could.
PROBE = """
import os, resource, socket
def changes_a_mode(path):
    os.chmod(path, 0o640)
    assert os.stat(path).st_mode & 0o777 == 0o640
def leaks(folder, port, pid):
    found = []
    def attempt(what, work):
        try:
            work()
        except BaseException:
            return
        found.append(what)
    attempt("reads a file", lambda: open(folder + "/secret").read())
    attempt("writes a file", lambda: open(folder + "/left", "w"))
    attempt("reads /etc/passwd", lambda: open("/etc/passwd").read())
    attempt("lists processes", lambda: os.listdir("/proc"))
    attempt("connects", lambda: socket.create_connection(("127.0.0.1", port), 1))
    attempt("signals", lambda: os.kill(pid, 0))
    attempt("sees the limits of another process", lambda: resource.prlimit(pid, resource.RLIMIT_CPU))
    attempt("changes a file's mode", lambda: changes_a_mode(folder + "/secret"))
    return found
"""

_policy = Policy()


def use(policy: Policy) -> None:
    """Sets the rules for the whole process."""
    global _policy
    _policy = policy


def policy() -> Policy:
    return _policy


def require(rules: Policy | None = None) -> Means:
    """The strongest means that work here; SandboxError, with what to type next, when they are not strong enough."""
    rules = rules or _policy
    lowest: Level = rules.lowest
    wanted = [rules.level] if rules.level else [level for level in reversed(ORDER) if level != "none"]
    reasons = []
    for level in wanted:
        means, why = probe(level)
        if means is None:
            reasons.append(f"{level}: {why}")
        elif ORDER.index(means.level) >= ORDER.index(lowest):
            return means
        else:
            reasons.append(f"only {means.level!r} works")
    if lowest == "none" and not rules.level:
        return Means("none", nested=False)
    told = "; ".join(reasons)
    if lowest == "bwrap":
        raise SandboxError(f"the sandbox level 'bwrap' is required and does not work here ({told}); type: {INSTALL}")
    otherwise = "" if rules.require else ", or add --unsafe-exec to run it without isolation"
    raise SandboxError(f"nothing here isolates model-written code ({told}); type: {INSTALL}{otherwise}")


@cache
def probe(level: Level) -> tuple[Means | None, str]:
    """The means of that level that a program was really held by, or None and why not. Runs it once per process."""
    if sys.platform != "linux":
        return None, f"{sys.platform} has none of its means"
    if level == "none":
        return Means("none", nested=False), ""
    if level == "bwrap" and (trouble := bwrap_trouble()[0]):
        return None, trouble
    if level == "landlock" and not landlock.version():
        return None, "this kernel has no Landlock, or forbids it"
    reasons = []
    for nested in (True, False):
        means = Means(level, nested)
        if not (why := held_by(means)):
            return means, ""
        reasons.append(why)
    return None, "; ".join(dict.fromkeys(reasons))


def held_by(means: Means) -> str:
    """ "" when the probe could do nothing in there, else what it could, or why it did not run."""
    with _outside() as (folder, port):
        tests = f"found = leaks({folder!r}, {port}, {os.getpid()})\nassert found == [], found"
        program = Program(PROBE, 10.0, tests=tests, calls=("leaks",))
        try:
            zygote = launch.start(means)
        except SandboxError as error:
            return str(error)
        try:
            said = _ask(zygote, program)
        finally:
            zygote.close()
    return said


def _ask(zygote: Zygote, program: Program) -> str:
    try:
        zygote.ask(program)
        said = zygote.answer()
    except (EOFError, OSError):
        return "it died over the probe"
    return str(said.get("broken") or said["why"])


@contextlib.contextmanager
def _outside() -> Iterator[tuple[str, int]]:
    """A folder with a file that anybody may read and a port that listens: none of them is for the program."""
    with tempfile.TemporaryDirectory(prefix="evalsuite-probe-") as folder, socket.socket() as listening:
        os.chmod(folder, 0o777)
        Path(folder, "secret").write_text("secret")
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        yield folder, listening.getsockname()[1]


def bwrap_trouble() -> tuple[str, str]:
    """(why bubblewrap does not work here, what repairs it); ("", "") when a program ran in it."""
    if sys.platform != "linux":
        return f"{sys.platform} has no bubblewrap", ""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed", INSTALL
    command = [program, *launch.bwrap_flags(), *TRIAL, "true"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"bubblewrap does not start ({error})", "apt-get install --reinstall bubblewrap"
    if ran.returncode == 0:
        return "", ""
    said = (ran.stderr.strip().splitlines() or [f"exit {ran.returncode}"])[0]
    allow = "sysctl -w kernel.unprivileged_userns_clone=1" if os.geteuid() else "run outside the container, or allow it"
    return f"bubblewrap is installed but does not work ({said})", allow


def describe(rules: Policy | None = None) -> dict[str, str]:
    """What holds programs here, for a scorecard: level, versions of its parts, limits."""
    means = require(rules)
    if means.level == "none":
        return {"sandbox": "none", "isolation": "unsandboxed (--unsafe-exec)", "limits": _limits(means)}
    parts: dict[str, str] = {"sandbox": means.level}
    if means.level == "bwrap":
        parts["bubblewrap"] = ".".join(map(str, launch.bwrap_version()))
    parts["landlock"] = f"version {means.landlock}" if means.landlock else "no"
    parts["seccomp"] = "yes" if means.seccomp else "no"
    parts["namespaces"] = "of each program" if means.nested else "no" if means.level == "landlock" else "of the worker"
    return parts | {"limits": _limits(means)}


def _limits(means: Means) -> str:
    # A program without a file system of its own writes to the machine's.
    own_files = means.nested or (means.level == "bwrap" and launch.bwrap_version() >= (0, 8))
    files = f"{launch.SCRATCH_MIB} MiB of files" if own_files else "any number of files"
    return (
        f"{candidate.FILE_BYTES >> 20} MiB a file, {files}, {candidate.OPEN_FILES} open files, "
        f"{launch.PROCESSES} processes; time and memory as the benchmark says"
    )
