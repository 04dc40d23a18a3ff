"""Small reads of kernel files that may vanish at any moment."""

from __future__ import annotations

import os
from pathlib import Path

_READ_BYTES = 1 << 17  # most files come in one read; the second read only confirms the end


def read(path: str) -> bytes | None:
    """The whole file, or None where it is absent, went away or may not be read.

    A cgroup's files answer ENODEV after its removal, those of a process ESRCH after its exit.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(handle, _READ_BYTES)
        while data and (more := os.read(handle, _READ_BYTES)):
            data += more
        return data
    except OSError:
        return None
    finally:
        os.close(handle)


def read_int(path: str) -> int | None:
    """The number a file holds; None where it is absent or says `max`."""
    data = read(path)
    try:
        return int(data) if data else None
    except ValueError:
        return None


def key_values(data: bytes | None) -> dict[bytes, int]:
    """`name value` lines as a dict; further fields (units) are left out."""
    found = {}
    for line in (data or b"").splitlines():
        fields = line.split()
        if len(fields) >= 2 and fields[1].isdigit():
            found[fields[0].rstrip(b":")] = int(fields[1])
    return found


def psi_totals(data: bytes | None) -> tuple[int | None, int | None]:
    """(some, full) totals of a pressure file in ns; the kernel writes microseconds
    (Documentation/accounting/psi.rst)."""
    some = full = None
    for line in (data or b"").splitlines():
        total = line.rpartition(b"total=")[2]
        if not total.isdigit():
            continue
        if line.startswith(b"some"):
            some = int(total) * 1000
        elif line.startswith(b"full"):
            full = int(total) * 1000
    return some, full


def host_root(proc: str = "/proc") -> str:
    """What to put before a path of the host: "" in the host's own mount namespace, else `/proc/1/root`.

    In a pod with hostPID the first process is the host's, and its root is the host's file system.
    """
    try:
        if os.readlink(f"{proc}/1/ns/mnt") == os.readlink(f"{proc}/self/ns/mnt"):
            return ""
        return f"{proc}/1/root" if Path(f"{proc}/1/root").is_dir() else ""
    except OSError:
        return ""
