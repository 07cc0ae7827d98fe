"""Denies a sandbox's child what its work does not need: files of other users, the network, other processes.

There are three layers, each if the kernel supports it. A child of root changes to a user of its own, if all users can
read the Python libraries, and always drops root's capabilities. Landlock (Linux 5.13) permits reading the
Python libraries, and no writing. A seccomp filter (x86-64, AArch64) permits the system calls that
decoding and computing need: no sockets, no other processes, no programs.

The layers take effect after the target is loaded, and cannot be undone. The numbers are of Linux' system
calls: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import stat
import struct
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: The layers; :func:`confine` returns the active ones.
FILES: Final = "files"
SYSTEM_CALLS: Final = "system_calls"
LAYERS: Final = (FILES, SYSTEM_CALLS)

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
#: User ids for children of root: each child has its own, far above the ids of people and services.
_FIRST_USER: Final = 0x7000_0000
_NOBODY: Final = 65534
#: From capabilities(7): the newest version of its structures, and the length of the three sets in it.
_CAPABILITY_VERSION: Final = 0x2008_0522
_CAPABILITY_BYTES: Final = 24

# The system calls of landlock(7), the same on all architectures, and its rights and versions.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1
_READ: Final = 1 << 2 | 1 << 3
#: The number of file rights in each version, one bit each.
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
_NEWEST_FILE_RIGHTS: Final = 16
_NETWORK_VERSION: Final = 4
_NETWORK_RIGHTS: Final = 0b11
_SCOPE_VERSION: Final = 6
_SCOPES: Final = 0b11

# seccomp(2) and the classic BPF that it runs.
_LOAD: Final = 0x20
_JUMP_IF_EQUAL: Final = 0x15
_JUMP_IF_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF_0000
_REFUSE: Final = 0x0005_0000 | errno.EPERM
_UNKNOWN: Final = 0x0005_0000 | errno.ENOSYS
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16

_CLONE_THREAD: Final = 0x1_0000
#: Flags that open a file for more than reading: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, and __O_TMPFILE.
_WRITING: Final = 0o1 | 0o2 | 0o100 | 0o1000 | 0o20000000
#: PR_SET_NAME, PR_GET_NAME, and PR_SET_VMA, by which glibc names its memory.
_HARMLESS_PRCTL: Final = (15, 16, 0x5356_4D41)
#: TCGETS, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_HARMLESS_IOCTL: Final = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)
#: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC; not F_SETOWN, which sends signals.
_HARMLESS_FCNTL: Final = (0, 1, 2, 3, 4, 1030)

Instruction = tuple[int, int, int, int]


#: The numbers of system calls on x86-64 and on AArch64, None where there is no such call. These are
#: permitted with any arguments: reading, writing, metadata, memory, the process's own signals, time, threads.
_FREE: Final[dict[str, tuple[int | None, int | None]]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "poll": (7, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "select": (23, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "msync": (26, 227),
    "mincore": (27, 232),
    "madvise": (28, 233),
    "pause": (34, None),
    "nanosleep": (35, 101),
    "getitimer": (36, 102),
    "alarm": (37, None),
    "setitimer": (38, 103),
    "getpid": (39, 172),
    "recvfrom": (45, 207),
    # Its only socket leads to the parent, which sends it open files to read.
    "recvmsg": (47, 212),
    "exit": (60, 93),
    "uname": (63, 160),
    "getcwd": (79, 17),
    "readlink": (89, None),
    "gettimeofday": (96, 169),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "times": (100, 153),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "getppid": (110, 173),
    "getpgrp": (111, None),
    "getgroups": (115, 158),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126),
    "arch_prctl": (158, None),
    "gettid": (186, 178),
    "time": (201, None),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "getdents64": (217, 61),
    "set_tid_address": (218, 96),
    "restart_syscall": (219, 128),
    "fadvise64": (221, 223),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "newfstatat": (262, 79),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "preadv": (295, 69),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "statx": (332, 291),
    "rseq": (334, 293),
    "faccessat2": (439, 439),
    "futex_waitv": (449, 449),
}
#: Calls that are permitted with some arguments.
_SOME: Final[dict[str, tuple[int | None, int | None]]] = {
    "open": (2, None),
    "openat": (257, 56),
    "clone": (56, 220),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prctl": (157, 167),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "sendto": (44, 206),
    "prlimit64": (302, 261),
}
#: Calls that glibc tries first, and replaces by others on a kernel without them.
_NEWER_FORMS: Final = {
    "clone3": (435, 435),
    "openat2": (437, 437),
}
#: For each architecture: its column above, and its id in filters.
_ARCHITECTURES: Final = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}


def confine(*, parent: int, imports_late: bool) -> list[str]:
    """Confine this process, which has one thread, permanently.

    Args:
        parent: the process whose death ends this one.
        imports_late: whether the target may import modules while it works. Without
            Landlock this permits reading all files; otherwise opening files is not permitted.

    Returns:
        the active ones of :data:`LAYERS`.
    """
    # A size limit of zero also prevents writing files.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libraries = _libraries()
    has_landlock = _restrict_files(libc, libraries)
    opens = has_landlock or imports_late
    if not opens or all(map(_is_world_readable, libraries)):
        _change_user()
    _give_up_capabilities(libc)
    # A change of the user clears the death signal.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    is_filtered = _filter_calls(libc, opens=opens)
    held = {FILES: has_landlock or (is_filtered and not opens), SYSTEM_CALLS: is_filtered}
    return [layer for layer in LAYERS if held[layer]]


def hide_environment() -> None:
    """Keep other processes of this user from reading this one's environment and memory.

    As a consequence there are no core files, and only root can attach a debugger or a profiler.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _change_user() -> None:
    """Change from root to a user that owns nothing and runs no other child."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError):
        os.setgroups([])
    # A container may not map the first of them.
    for user in (_FIRST_USER + os.getpid(), _NOBODY):
        with contextlib.suppress(OSError):
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            return


def _is_world_readable(folder: str) -> bool:
    """Whether all users can read the files in a folder; those in root's home are private."""
    path = Path(folder).resolve()
    with contextlib.suppress(OSError):
        return all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.parents))
    return True  # A folder for one platform may not exist on another.


def _give_up_capabilities(libc: ctypes.CDLL) -> None:
    """Drop all capabilities, also when the process stays root."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    libc.capset(header, bytes(_CAPABILITY_BYTES))


def _restrict_files(libc: ctypes.CDLL, libraries: Iterable[str]) -> bool:
    """Permit this process to read the Python libraries and no other file. False: the kernel does not support it."""
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if version < 1:
        return False
    rights = (1 << _FILE_RIGHTS.get(version, _NEWEST_FILE_RIGHTS)) - 1
    handled = [rights]
    if version >= _NETWORK_VERSION:
        handled.append(_NETWORK_RIGHTS)
    if version >= _SCOPE_VERSION:
        handled.append(_SCOPES)
    attributes = struct.pack(f"={len(handled)}Q", *handled)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for folder in libraries:
            _permit_reading(libc, ruleset, folder)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _libraries() -> set[str]:
    """Return the folders for later imports, without the working directory and a checkout."""
    return {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}


def _permit_reading(libc: ctypes.CDLL, ruleset: int, folder: str) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", _READ, handle)
            libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        finally:
            os.close(handle)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _filter_calls(libc: ctypes.CDLL, *, opens: bool) -> bool:
    """Permit this process only the system calls that it needs. False: the kernel does not support it."""
    machine = os.uname().machine
    if machine not in _ARCHITECTURES or sys.maxsize <= 2**32:
        return False
    instructions = _filter(machine, own=os.getpid(), opens=opens)
    packed = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    program = _Program(len(instructions), packed)
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def _filter(machine: str, *, own: int, opens: bool) -> list[Instruction]:
    """Return the filter's program for an architecture.

    Args:
        machine: one of the architectures above.
        own: the id of the process, which may send signals to itself.
        opens: whether files may be opened for reading.
    """
    place, audit = _ARCHITECTURES[machine]
    rules = {
        "clone": _if_any_bit(0, _CLONE_THREAD),
        "kill": _if_among(0, [own]),
        "tgkill": _if_among(0, [own]),
        "prctl": _if_among(0, _HARMLESS_PRCTL),
        "ioctl": _if_among(1, _HARMLESS_IOCTL),
        "fcntl": _if_among(1, _HARMLESS_FCNTL),
        # Without an address, so only on the connection to the parent.
        "sendto": _if_zero(4),
        # The process may read its own limits but not change them.
        "prlimit64": _if_zero(2),
    }
    if opens:
        rules |= {"open": _unless_any_bit(1, _WRITING), "openat": _unless_any_bit(2, _WRITING)}
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for numbers in _FREE.values():
        program += _when(numbers[place], [(_RETURN, 0, 0, _ALLOW)])
    for numbers in _NEWER_FORMS.values():
        program += _when(numbers[place], [(_RETURN, 0, 0, _UNKNOWN)])
    for name, rule in rules.items():
        program += _when(_SOME[name][place], rule)
    return [*program, (_RETURN, 0, 0, _REFUSE)]


def _when(number: int | None, then: list[Instruction]) -> list[Instruction]:
    """Return the instructions for one call, if it exists; the call's number stays loaded for the next check."""
    return [] if number is None else [(_JUMP_IF_EQUAL, 0, len(then), number), *then]


def _low(argument: int) -> Instruction:
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)


def _high(argument: int) -> Instruction:
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * argument + 4)


def _if_among(argument: int, values: Iterable[int]) -> list[Instruction]:
    tests: list[Instruction] = []
    for value in values:
        tests += [(_JUMP_IF_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [_low(argument), *tests, (_RETURN, 0, 0, _REFUSE)]


def _if_zero(argument: int) -> list[Instruction]:
    return [
        _low(argument),
        (_JUMP_IF_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _REFUSE),
        _high(argument),
        (_JUMP_IF_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _if_any_bit(argument: int, bits: int) -> list[Instruction]:
    return [
        _low(argument),
        (_JUMP_IF_ANY_BIT, 0, 1, bits),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _unless_any_bit(argument: int, bits: int) -> list[Instruction]:
    return [
        _low(argument),
        (_JUMP_IF_ANY_BIT, 0, 1, bits),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
