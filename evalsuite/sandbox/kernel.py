"""The system calls that the sandbox needs and Python lacks, through ctypes. A call that fails raises OSError."""

from __future__ import annotations

import ctypes
import os
import platform

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
SIGCHLD = 17
SYS_CLONE = {"x86_64": 56, "aarch64": 220}
SYS_MOUNT_SETATTR = 442  # on every architecture
HERE, AT_RECURSIVE, MOUNT_ATTR_RDONLY = -100, 0x8000, 1
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
CAPABILITY_VERSION_3 = 0x20080522

# PyDLL keeps the interpreter lock: a child made by a raw clone must not wait for a thread that it does not have.
libc = ctypes.PyDLL(None, use_errno=True)


def checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def syscall(number: int, *arguments: object, what: str) -> int:
    return checked(int(libc.syscall(ctypes.c_long(number), *arguments)), what)


def prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    checked(libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), f"prctl {option}")


def unshare(flags: int) -> None:
    checked(libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    named = None if kind is None else kind.encode()
    result = libc.mount(source.encode(), target.encode(), named, ctypes.c_ulong(flags), options.encode() or None)
    checked(result, f"mount {target}")


def make_read_only() -> None:
    """Every file system of this mount namespace, modes and times included; device files are written to all the same."""
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY)
    recursive, size = ctypes.c_uint(AT_RECURSIVE), ctypes.c_size_t(ctypes.sizeof(attributes))
    syscall(SYS_MOUNT_SETATTR, ctypes.c_int(HERE), b"/", recursive, attributes, size, what="mount_setattr")


def fork_into(flags: int) -> int:
    """os.fork whose child is in new namespaces. `unshare` would not do: a process may ask for a pid namespace once."""
    if not flags:
        return os.fork()
    number = SYS_CLONE[platform.machine()]
    ctypes.pythonapi.PyOS_BeforeFork()
    zero = ctypes.c_ulong(0)
    pid = int(libc.syscall(ctypes.c_long(number), ctypes.c_ulong(flags | SIGCHLD), zero, zero, zero, zero))
    code = ctypes.get_errno()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, f"clone: {os.strerror(code)}")
    return pid


def drop_capabilities() -> None:
    """Gives up every capability, the inheritable ones included, and with them the ambient ones."""
    number = SYS_CAPSET.get(platform.machine())
    if number is not None:
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        syscall(number, header, (ctypes.c_uint32 * 6)(), what="capset")


def can_administer() -> bool:
    """Whether this process holds CAP_SYS_ADMIN, which mounting needs."""
    try:
        with open("/proc/self/status") as status:
            held = next(line for line in status if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return False
    return bool(int(held.split()[1], 16) >> 21 & 1)
