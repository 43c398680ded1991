"""The outer confinement of a zygote, done once: unprivileged uid, namespaces, bubblewrap. Runs as the first code there.

Inside, per program, come Landlock, seccomp and the limits (candidate.py). As root the uid is given up first: the limit
on the number of processes does not hold for root, and root's files would be the program's.
"""

from __future__ import annotations

import os
import resource
from typing import Any, NoReturn

from evalsuite.sandbox import kernel

OUTER_NAMESPACES = (
    kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWNS
)


def main(setting: dict[str, Any]) -> None:
    """Confines this process as the setting says and serves; with bubblewrap this runs twice, outside and inside."""
    if setting["stage"] == "outer":
        _be_the_first_to_die()
        if setting["uid"]:
            _expose(setting["hidden"])
            _become(setting["uid"])
        if setting["level"] == "bwrap":
            _bubblewrap(setting)
        if setting["nested"]:
            _namespaces()
    from evalsuite.sandbox import zygote

    zygote.serve(setting)


def _be_the_first_to_die() -> None:
    """When memory runs out, the kernel takes what runs under test first."""
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:
        pass  # a kernel setting, not a part of the isolation
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _expose(hidden: dict[str, list[str]]) -> None:
    """Makes folders reachable that lie behind one of root's own, in a mount namespace of ours.

    `hidden` maps the closed folder to what is needed in it; the rest of it disappears.
    """
    if not hidden:
        return
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    for closed, needed in hidden.items():
        held = [(path, os.open(path, os.O_PATH)) for path in needed]
        kernel.mount("tmpfs", closed, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
        for path, fd in held:
            os.makedirs(path, mode=0o755, exist_ok=True)
            kernel.mount(f"/proc/self/fd/{fd}", path, None, kernel.MS_BIND)
            os.close(fd)


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # a changed uid closes /proc/self, which the maps are written to
    os.chdir("/")


def _bubblewrap(setting: dict[str, Any]) -> NoReturn:
    os.execv(setting["bwrap"][0], setting["bwrap"])


def _namespaces() -> None:
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(OUTER_NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    # Landlock leaves modes, owners and times open: without a uid of its own a program could close the user's files.
    kernel.make_read_only()
