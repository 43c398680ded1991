"""Starts a zygote: which interpreter, what it may read, bubblewrap's command line, and the sources that run inside."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from evalsuite.sandbox import kernel, landlock, seccomp
from evalsuite.sandbox.empty import empty
from evalsuite.sandbox.types import Level, Program, SandboxError
from evalsuite.sandbox.wire import receive, send

# In the order in which they import one another. They are sent as text: the folder they lie in need not be readable
# for the uid that runs them.
INSIDE = ("kernel", "landlock", "seccomp", "wire", "candidate", "judge", "empty", "zygote", "confine")
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache")
FLAGS = ("-I", "-S", "-B", "-c")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SCRATCH_MIB = 64
PROCESSES = 64
CLOSING_S = 2.0
UIDS = range(62000, 65000)  # nobody's: no account has them, and a worker shares its own with nobody
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "MPLBACKEND": "Agg",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}
BOOT = """
import json, os, sys, types
def read(n):
    parts = b""
    while len(parts) < n:
        parts += os.read(0, n - len(parts)) or os._exit(3)
    return parts
sent = json.loads(read(int.from_bytes(read(4), sys.byteorder)))
for name, source in sent["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    exec(compile(source, name, "exec"), module.__dict__)
sys.modules["evalsuite.sandbox.confine"].main(sent["setting"])
"""

_started = itertools.count()


@dataclass(frozen=True, slots=True)
class Means:
    """How programs are isolated. `nested`: every program in pid, mount and ipc namespaces of its own."""

    level: Level
    nested: bool
    landlock: int = field(default_factory=landlock.version)
    seccomp: bool = field(default_factory=seccomp.available)


@dataclass(slots=True)
class Zygote:
    """A running zygote and the folder that its programs write to when they have no file system of their own."""

    process: subprocess.Popen[bytes]
    scratch: str | None
    packages: tuple[str, ...]
    python: str = ""

    @property
    def output(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def answer(self) -> dict[str, Any]:
        """The next message; raises EOFError when the zygote is gone."""
        return dict(json.loads(receive(self.output)))

    def ask(self, program: Program) -> None:
        """Sends a program; raises OSError when the zygote is gone."""
        assert self.process.stdin is not None
        parts = [text.encode("utf-8", "surrogatepass") for text in (program.source, program.setup, program.tests)]
        rules = {"timeout_s": program.timeout_s, "memory_mib": program.memory_mib, "calls": program.calls}
        rules |= {"tests": bool(program.tests), "sizes": [len(part) for part in parts]}
        out = self.process.stdin.fileno()
        send(out, json.dumps(rules).encode())
        for part in parts:
            _write(out, part)

    def close(self) -> None:
        """Ends it with the program that it runs, and removes what programs left."""
        if self.process.stdin is not None:
            self.process.stdin.close()  # upon which it ends its program: without namespaces only it knows all of that
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(CLOSING_S)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        if self.scratch is not None:
            empty(self.scratch)
            with contextlib.suppress(OSError):  # a folder in /tmp that stays is no reason to stop
                os.rmdir(self.scratch)


def start(means: Means, packages: tuple[str, ...] = ()) -> Zygote:
    """A zygote that is ready. Raises SandboxError with the last line that it said when it does not get there."""
    setting, python = _setting(means, packages)
    process = subprocess.Popen(
        [python, *FLAGS, BOOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd="/",
        start_new_session=True,
        bufsize=0,
    )
    zygote = Zygote(process, None if setting["nested"] or means.level == "bwrap" else setting["scratch"], packages)
    try:
        assert process.stdin is not None
        for stage in ("outer", "inner")[: 2 if means.level == "bwrap" else 1]:
            send(process.stdin.fileno(), _boot(setting | {"stage": stage}))
        zygote.python = str(zygote.answer()["ready"])
    except (EOFError, OSError):
        process.kill()
        said = (process.stderr.read() if process.stderr else b"").decode("utf-8", "replace").strip().splitlines()
        zygote.close()
        raise SandboxError(said[-1] if said else "it ended without a word") from None
    return zygote


def _setting(means: Means, packages: Sequence[str]) -> tuple[dict[str, Any], str]:
    uid = UIDS[(os.getpid() * 64 + next(_started) % 64) % len(UIDS)] if os.geteuid() == 0 else 0
    libraries = {name: _installed(name) for name in _with_dependencies(tuple(packages))}
    python, prefix = _interpreter(bool(uid), bool(packages))
    needed = [prefix, *(path for found in libraries.values() for path in found)]
    own_tmp = means.nested or means.level == "bwrap"
    scratch = _mount_point(needed) if own_tmp else tempfile.mkdtemp(prefix="evalsuite-sandbox-")
    if uid and not own_tmp:
        os.chown(scratch, uid, uid)
    folders = sorted({str(Path(path).parent) for found in libraries.values() for path in found})
    setting: dict[str, Any] = {
        "level": means.level,
        "nested": means.nested,
        "landlock": means.landlock if means.level != "none" else 0,
        "seccomp": means.seccomp and means.level != "none",
        "uid": uid,
        "owns_files": not uid and means.level == "landlock",
        "hidden": _hidden(needed) if uid else {},
        "readable": [*SYSTEM, *needed],
        "listed": folders,
        "importable": sorted(libraries),
        "packages": list(packages),
        "scratch": scratch,
        "scratch_mib": SCRATCH_MIB,
        "processes": PROCESSES + (0 if uid or means.nested or means.level == "bwrap" else _running()),
        "environment": ENVIRONMENT | dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), scratch),
    }
    if means.level == "bwrap":
        setting["bwrap"] = bwrap_command(needed, python, scratch)
    return setting, python


def _mount_point(needed: Sequence[str]) -> str:
    """Where a program's scratch folder is mounted: /tmp, unless the interpreter or a library lies below it."""
    for place in ("/tmp", "/var/tmp", "/mnt", "/srv"):
        if os.path.isdir(place) and not any(path.startswith(f"{place}/") for path in needed):
            return place
    raise SandboxError("the libraries that programs need lie in /tmp, /var/tmp, /mnt and /srv; move the environment")


def bwrap_command(needed: Sequence[str], python: str, scratch: str = "/tmp") -> list[str]:
    """The command line of bubblewrap: nothing of the machine but what an interpreter and its libraries need, read-only.

    Our process in there keeps one capability, for the namespaces of each program; programs lose it.
    """
    command = [str(shutil.which("bwrap")), *bwrap_flags(), "--cap-add", "CAP_SYS_ADMIN", "--clearenv"]
    for path in sorted({*SYSTEM, *needed}):
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif not any(path.startswith(f"{other}/") for other in SYSTEM):
            command += ["--ro-bind-try", path, path]
    for device in DEVICES:
        command += ["--dev-bind-try", device, device]
    command += ["--size", str(SCRATCH_MIB << 20)] if bwrap_version() >= (0, 8) else []
    command += ["--tmpfs", scratch, "--remount-ro", "/", "--chdir", scratch]
    return [*command, python, *FLAGS, BOOT]


def bwrap_flags() -> list[str]:
    """Namespaces of everything, none to be made inside (0.8 on; seccomp forbids it too), no capability."""
    flags = ["--unshare-user", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    return flags + (["--disable-userns"] if bwrap_version() >= (0, 8) else [])


def bwrap_version() -> tuple[int, ...]:
    """(0, 8, 0); () when it is not installed or does not say."""
    program = shutil.which("bwrap")
    return _version_of(program, os.stat(program).st_mtime_ns) if program else ()


@cache
def _version_of(program: str, changed_ns: int) -> tuple[int, ...]:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=5, check=False).stdout
        return tuple(int(part) for part in said.split()[-1].split("."))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return ()


def _boot(setting: dict[str, Any]) -> bytes:
    return json.dumps({"modules": _modules(), "setting": setting}).encode()


@cache
def _modules() -> tuple[tuple[str, str], ...]:
    folder = Path(__file__).parent
    texts = [(f"evalsuite.sandbox.{name}", (folder / f"{name}.py").read_text(encoding="utf-8")) for name in INSIDE]
    return (("evalsuite", ""), ("evalsuite.sandbox", ""), *texts)


def _interpreter(drops_uid: bool, own_version: bool) -> tuple[str, str]:
    """(binary, the folder that it and its library lie in). The one that runs us, else the system's."""
    own = os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)
    if not drops_uid or _reachable(own[1]) or kernel.can_administer():
        return own
    system = "/usr/bin/python3"
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    asked = [system, "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    if os.path.exists(system):
        found = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
        if found == wanted or not own_version:
            return os.path.realpath(system), "/usr"
    raise SandboxError(
        f"the interpreter in {own[1]!r} is closed to other users, and there is no /usr/bin/python3 {wanted}; "
        "run as a user that is not root"
    )


def _reachable(path: str) -> bool:
    """Whether any user may enter the folder."""
    return not _closed_above(path)


def _closed_above(path: str) -> str:
    """The topmost folder on the way to a path, or itself, that only its owner may enter; "" when there is none."""
    for folder in reversed([Path(path), *Path(path).parents]):
        if folder.is_dir() and not folder.stat().st_mode & 0o001:
            return str(folder)
    return ""


def _hidden(needed: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in needed:
        if closed := _closed_above(path):
            found.setdefault(closed, []).append(path)
    return found


@cache
def _with_dependencies(packages: tuple[str, ...]) -> tuple[str, ...]:
    """Import names of the libraries and of everything that their distributions require."""
    if not any(map(_requires, packages)):
        return packages  # without the second that the list of all installed modules takes
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    modules: dict[str, list[str]] = {}
    for module, owners in metadata.packages_distributions().items():
        for owner in owners:
            modules.setdefault(canonicalize_name(owner), []).append(module)
    found = set(packages)
    todo = [owner for owner, names in modules.items() if found.intersection(names)]
    seen = set(todo)
    while todo:
        owner = todo.pop()
        found.update(modules[owner])
        needed = {canonicalize_name(Requirement(line).name) for line in _requires(owner)}
        todo += (needed & modules.keys()) - seen
        seen |= needed
    return tuple(sorted(name for name in found if name in packages or importlib.util.find_spec(name)))


def _requires(distribution: str) -> list[str]:
    """What it declares to need, optional extras left out; a name that no distribution has counts as one that does."""
    try:
        return [line for line in metadata.requires(distribution) or () if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        return [distribution]


def _installed(name: str) -> list[str]:
    """Folders and files of an importable library, with the shared libraries that its wheel brought."""
    spec = importlib.util.find_spec(name)
    if spec is None or not (spec.submodule_search_locations or spec.origin):
        raise SandboxError(f"the library {name!r} is not installed here; type: pip install {name}")
    place = Path(next(iter(spec.submodule_search_locations or [str(spec.origin)])))
    bundled = place.with_name(f"{place.name}.libs")
    return [str(place), *([str(bundled)] if bundled.is_dir() else [])]


def _running() -> int:
    """How many threads this user runs by now: the limit on processes counts them all."""
    own, n = os.getuid(), 0
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and entry.stat().st_uid == own:
                n += len(os.listdir(f"/proc/{entry.name}/task"))
        except OSError:
            continue
    return n


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
