"""Names of system calls by number."""

from __future__ import annotations

import platform

# bcc's table ends here; from 424 on every architecture has the same numbers (include/uapi/asm-generic/unistd.h).
_COMMON = {
    424: "pidfd_send_signal", 425: "io_uring_setup", 426: "io_uring_enter", 427: "io_uring_register", 434: "pidfd_open",
    435: "clone3", 436: "close_range", 437: "openat2", 438: "pidfd_getfd", 439: "faccessat2", 441: "epoll_pwait2",
    449: "futex_waitv", 454: "futex_wake", 455: "futex_wait", 456: "futex_requeue",
}  # fmt: skip

# arm64: the calls in which threads sleep (the same file).
_ARM64 = {
    22: "epoll_pwait", 25: "fcntl", 29: "ioctl", 32: "flock", 47: "fallocate", 56: "openat", 57: "close", 62: "lseek",
    63: "read", 64: "write", 65: "readv", 66: "writev", 67: "pread64", 68: "pwrite64", 69: "preadv", 70: "pwritev",
    71: "sendfile", 72: "pselect6", 73: "ppoll", 75: "vmsplice", 76: "splice", 82: "fsync", 83: "fdatasync",
    84: "sync_file_range", 93: "exit", 94: "exit_group", 95: "waitid", 98: "futex", 101: "nanosleep",
    115: "clock_nanosleep", 124: "sched_yield", 133: "rt_sigsuspend", 137: "rt_sigtimedwait", 202: "accept",
    203: "connect", 206: "sendto", 207: "recvfrom", 211: "sendmsg", 212: "recvmsg", 220: "clone", 221: "execve",
    222: "mmap", 227: "msync", 242: "accept4", 243: "recvmmsg", 260: "wait4", 269: "sendmmsg",
}  # fmt: skip


def syscall_names(known: dict[int, str]) -> dict[int, str]:
    """Number -> name on this machine. known: on x86-64 bcc's table; of arm64 the calls that can sleep are ours."""
    if platform.machine() == "aarch64":
        return _ARM64 | _COMMON
    return known | _COMMON
