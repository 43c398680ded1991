"""A seccomp filter: system calls that a program under test has no business with fail with EPERM.

Files, processes and the network are closed off by other means as well; this closes what those leave open (sockets other
than a pair, reading another process's memory, keyrings, io_uring, shared memory that outlives its maker) and most of
the kernel's attack surface. Written for x86-64 and ARM64; elsewhere there is no filter, and the probe says so.
"""

from __future__ import annotations

import ctypes
import platform
import struct

from evalsuite.sandbox.kernel import CLONE_NEWNS, PR_SET_NO_NEW_PRIVS, checked, libc, prctl

PR_SET_SECCOMP, MODE_FILTER = 22, 2
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = 1, 38
LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
X32 = 0x40000000  # the same calls under other numbers
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Every CLONE_NEW*: time, mount, cgroup, uts, ipc, user, pid, net.
NAMESPACES = 0x80 | CLONE_NEWNS | 0x7E000000
STREAM, TYPE_BITS = 1, 0xF

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
memfd_create 319 279, memfd_secret 447 447
"""
CLONE, CLONE3, SOCKETPAIR = (56, 220), (435, 435), (53, 199)
# Without a pid namespace a program would see us: it may signal itself only, and not leave the group that is killed.
LEAVING = "setsid 112 157, setpgid 109 154, tkill 200 130, pidfd_send_signal 424 424"
SIGNALS = "kill 62 129, tgkill 234 131, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240"

_Line = tuple[int, int, int, int]


def available() -> bool:
    return platform.machine() in ARCHITECTURES


def build(only_pid: int | None = None) -> bytes:
    """The filter as the kernel reads it. With `only_pid` signals go to that process only, and groups are not left."""
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
    lines += _when(SOCKETPAIR[column], [_argument(1), (AND, 0, 0, TYPE_BITS), (EQUAL, 1, 0, STREAM), _deny()])
    if only_pid is not None:
        for number in _numbers(SIGNALS, column):
            lines += _when(number, [_argument(0), (EQUAL, 1, 0, only_pid), _deny()])
    lines.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _numbers(table: str, column: int) -> list[int]:
    rows = [row.split() for row in table.replace("\n", " ").split(",") if row.strip()]
    return [int(row[1 + column]) for row in rows if row[1 + column] != "-"]


def _deny(code: int = EPERM) -> _Line:
    return RETURN, 0, 0, ERRNO | code


def _argument(n: int) -> _Line:
    """The low half of an argument; the flags and numbers that are looked at fit into it."""
    return LOAD, 0, 0, ARGUMENTS + 8 * n


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
