"""Landlock: a process gives up every file, TCP port and signal outside a list, for itself and its children.

Interface: Linux Documentation/userspace-api/landlock.rst. Needs no privilege and no package; the numbers are the same
on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Sequence

from evalsuite.sandbox.kernel import PR_SET_NO_NEW_PRIVS, libc, prctl, syscall

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION = 1
PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
# Every right that a kernel of that version knows: thirteen at first, then REFER (2), TRUNCATE (3) and IOCTL_DEV (5).
RIGHTS = {1: REFER - 1, 2: TRUNCATE - 1, 3: IOCTL_DEV - 1, 4: IOCTL_DEV - 1, 5: 2 * IOCTL_DEV - 1}
ON_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
TCP = 3  # bind and connect, since version 4
ABSTRACT_SOCKETS_AND_SIGNALS = 3  # to processes outside, since version 6
SCOPES_SINCE = 6


def version() -> int:
    """The kernel's Landlock version, 0 where it has none or forbids asking."""
    if sys.platform != "linux":
        return 0
    answer = libc.syscall(ctypes.c_long(CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(ASK_VERSION))
    return max(0, int(answer))


def restrict(abi: int, *, read: Sequence[str], listed: Sequence[str], write: Sequence[str]) -> None:
    """From here on only `read` can be read and executed, `listed` be listed by name, and `write` be written as well.

    Paths that do not exist are passed over. No TCP, and nothing is signalled outside this process and its children,
    as far as the kernel's version goes.
    """
    every = RIGHTS[min(abi, 5)]
    scope = ABSTRACT_SOCKETS_AND_SIGNALS if abi >= SCOPES_SINCE else 0
    # The kernel refuses bytes that it does not know, so the length goes with its version.
    attributes = struct.pack("=QQQ", every, TCP if abi >= 4 else 0, scope)[: 24 if scope else 16 if abi >= 4 else 8]
    rules = syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0), what="landlock")
    for rights, paths in ((EXECUTE | READ_FILE | READ_DIR, read), (READ_DIR, listed), (every & ~EXECUTE, write)):
        for path in paths:
            _allow(rules, path, rights & every)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    syscall(RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0), what="landlock")
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= ON_A_FILE
    try:
        rule = struct.pack("=Qi", rights, fd)
        syscall(ADD_RULE, ctypes.c_int(rules), ctypes.c_int(PATH_BENEATH), rule, ctypes.c_uint32(0), what=path)
    finally:
        os.close(fd)
