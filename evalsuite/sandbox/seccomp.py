"""A seccomp filter: system calls that a program under test has no business with fail with EPERM.

Files, processes and the network are closed off by other means as well; this closes what those leave open (sockets other
than a pair, another process's memory, limits and priority, keyrings, io_uring, shared memory that outlives its maker)
and most of the kernel's attack surface. Written for x86-64 and ARM64; elsewhere there is no filter, and the probe says
so.
"""

from __future__ import annotations

import ctypes
import platform
import struct

from evalsuite.sandbox.kernel import CLONE_NEWNS, PR_SET_NO_NEW_PRIVS, checked, libc, prctl

PR_SET_SECCOMP, MODE_FILTER = 22, 2
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
DONE, EPERM, ENOSYS = 0, 1, 38
LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
X32 = 0x40000000  # the same calls under other numbers
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Every CLONE_NEW*: time, mount, cgroup, uts, ipc, user, pid, net.
NAMESPACES = 0x80 | CLONE_NEWNS | 0x7E000000
AF_UNIX, STREAM, TYPE_BITS = 1, 1, 0xF

# Name, number on x86-64, number on ARM64 (where it exists).
FORBIDDEN = """
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, kcmp 312 272, pidfd_getfd 438 438,
process_madvise 440 440, userfaultfd 323 282, bpf 321 280, perf_event_open 298 241, unshare 272 97,
setns 308 268, mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, open_tree 428 428,
move_mount 429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433, mount_setattr 442 442,
add_key 248 217, request_key 249 218, keyctl 250 219, io_uring_setup 425 425, io_uring_enter 426 426,
io_uring_register 427 427, kexec_load 246 104, kexec_file_load 320 294, init_module 175 105,
finit_module 313 273, delete_module 176 106, reboot 169 142, swapon 167 224, swapoff 168 225, acct 163 89,
quotactl 179 60, iopl 172 -, ioperm 173 -, syslog 103 116, settimeofday 164 170, clock_settime 227 112,
adjtimex 159 171, sethostname 170 161, setdomainname 171 162, vhangup 153 58, personality 135 92,
open_by_handle_at 304 265, name_to_handle_at 303 264, socket 41 198, connect 42 203, bind 49 200,
listen 50 201, accept 43 202, accept4 288 242, mq_open 240 180, shmget 29 194, msgget 68 186, semget 64 190,
memfd_create 319 279, memfd_secret 447 447, ioprio_set 251 30, migrate_pages 256 238, move_pages 279 239,
setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16,
setxattrat 463 463, removexattrat 466 466, file_setattr 469 469
"""
CLONE, CLONE3, SOCKETPAIR = (56, 220), (435, 435), (53, 199)
# Their first argument is a process, 0 the caller itself.
OF_ITSELF = """
prlimit64 302 261, sched_setaffinity 203 122, sched_setscheduler 144 119, sched_setparam 142 118,
sched_setattr 314 274
"""
SETPRIORITY = (141, 140)  # of a process (0), a group or a user, as the first argument says; the second is its number
# Signals to any process of the same user when a descriptor is ready; Landlock forbids them since its version 6.
FCNTL, IOCTL = (72, 25), (16, 29)
SET_OWNER = {FCNTL: (8, 10, 15), IOCTL: (0x8901, 0x8902)}  # F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP
# Without a pid namespace a program would see us: it may signal itself only, and not leave the group that is killed.
LEAVING = "setsid 112 157, setpgid 109 154, tkill 200 130, pidfd_send_signal 424 424"
SIGNALS = "kill 62 129, tgkill 234 131, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240"
# What Landlock leaves open about the user's own files. Modes, owners and times are answered as changed and are not:
# copying a file ends with that. The old calls for times may fail.
MODES = """
chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54
"""
TIMES = "utime 132 -, utimes 235 -, futimesat 261 -"
UTIMENSAT = (280, 88)

_Line = tuple[int, int, int, int]


def available() -> bool:
    return platform.machine() in ARCHITECTURES


def build(only_pid: int | None = None, owns_files: bool = False) -> bytes:
    """The filter as the kernel reads it. With `only_pid` signals go to that process only, and groups are not left.

    `owns_files`: the user has files that can be reached, and their modes, owners and times stay.
    """
    column = 0 if platform.machine() == "x86_64" else 1
    lines: list[_Line] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, ARCHITECTURES[platform.machine()]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    if column == 0:
        lines += [(AT_LEAST, 0, 1, X32), _deny()]
    for number in _numbers(FORBIDDEN + ("" if only_pid is None else f", {LEAVING}"), column):
        lines += [(EQUAL, 0, 1, number), _deny()]
    lines += [(EQUAL, 0, 1, CLONE3[column]), _deny(ENOSYS)]  # its flags are behind a pointer; libc falls back to clone
    lines += _when(CLONE[column], [_argument(0), (ANY_BIT, 0, 1, NAMESPACES), _deny()])
    stream = [_argument(1), (AND, 0, 0, TYPE_BITS), (EQUAL, 1, 0, STREAM), _deny()]
    lines += _when(SOCKETPAIR[column], [*_must_be(0, AF_UNIX), *stream])
    for number in _numbers(OF_ITSELF, column):
        lines += _when(number, _must_be(0, 0))
    lines += _when(SETPRIORITY[column], [*_must_be(0, 0), *_must_be(1, 0)])
    for numbers, requests in SET_OWNER.items():
        lines += _when(numbers[column], [line for request in requests for line in _must_not_be(1, request)])
    if only_pid is not None:
        for number in _numbers(SIGNALS, column):
            lines += _when(number, _must_be(0, only_pid))
    if owns_files:
        lines += _leave_files_alone(column)
    lines.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _leave_files_alone(column: int) -> list[_Line]:
    lines: list[_Line] = []
    for table, code in ((MODES, DONE), (TIMES, EPERM)):
        for number in _numbers(table, column):
            lines += [(EQUAL, 0, 1, number), _deny(code)]
    # With no times given (both halves of the pointer are zero) it needs the right to write, as writing does.
    given = [(LOAD, 0, 0, ARGUMENTS + 8 * 2 + 4), (EQUAL, 1, 0, 0), _deny(DONE), *_must_be(2, 0, DONE)]
    return lines + _when(UTIMENSAT[column], given)


def _numbers(table: str, column: int) -> list[int]:
    rows = [row.split() for row in table.replace("\n", " ").split(",") if row.strip()]
    return [int(row[1 + column]) for row in rows if row[1 + column] != "-"]


def _deny(code: int = EPERM) -> _Line:
    return RETURN, 0, 0, ERRNO | code


def _argument(n: int) -> _Line:
    """The low half of an argument; the flags and numbers that are looked at fit into it."""
    return LOAD, 0, 0, ARGUMENTS + 8 * n


def _must_be(n: int, value: int, otherwise: int = EPERM) -> list[_Line]:
    return [_argument(n), (EQUAL, 1, 0, value), _deny(otherwise)]


def _must_not_be(n: int, value: int) -> list[_Line]:
    return [_argument(n), (EQUAL, 0, 1, value), _deny()]


def _when(number: int, body: list[_Line]) -> list[_Line]:
    """`body` is run for that call only; it may load something else, so the number is loaded again after it."""
    return [(EQUAL, 0, len(body) + 1, number), *body, (RETURN, 0, 0, ALLOW)]


def install(program: bytes) -> None:
    """From here on the filter holds for this process and all its children."""
    lines = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(lines)))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    zero = ctypes.c_ulong(0)
    checked(libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(MODE_FILTER), header, zero, zero), "seccomp")
