"""What is mapped where in the processes that were sampled, taken down while they live.

A process is looked at as soon as the sampler tells of its address space, again at growing intervals, and once more at
the end: programs load libraries and compile code meanwhile. For each mount namespace a descriptor of its root folder
is held, so that files of a container are found even when it has ended. Mappings go through the spool too.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from kubetape.capture.compilation import Module
from kubetape.capture.spool import SpoolReader, SpoolWriter

_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) \S+ (\d+) *(.*)")
MAX_ROOTS = 512  # mount namespaces whose files are kept within reach
MAX_JIT_BYTES = 64 << 20  # of one /tmp/perf-PID.map
_AGAIN_NS, _SLOWER = 250_000_000, 4  # the second look at a process, and how much longer each further one waits
_DELETED = " (deleted)"

Mapping = tuple[int, int, int, int, str]  # start, end, offset in the file, inode, path or ""


@dataclass
class Space:
    """One address space: of process `pid` from since_ns on. mappings: executable ones, the newest state first."""

    pid: int
    since_ns: int
    namespace_pid: int
    mount_namespace: int
    mappings: list[list[Mapping]] = field(default_factory=list)
    again_ns: int = 0  # when to look next
    jit: str = ""  # what the program wrote into /tmp/perf-PID.map

    def mapping_of(self, address: int) -> Mapping | None:
        for state in self.mappings:
            for mapping in state:
                if mapping[0] <= address < mapping[1]:
                    return mapping
        return None


def read_mappings(pid: int) -> list[Mapping]:
    """Executable mappings of a process now. Raises OSError."""
    with open(f"/proc/{pid}/maps", errors="replace") as file:
        found = [_LINE.match(line) for line in file]
    return [(int(m[1], 16), int(m[2], 16), int(m[3], 16), int(m[4]), m[5].rstrip("\n")) for m in found if m]


class Spaces:
    """The address spaces of one recording."""

    def __init__(self) -> None:
        self.spaces: list[Space] = []
        self._roots: dict[int, int] = {}  # mount namespace -> descriptor of its root folder
        self._last: dict[int, Space] = {}
        self._late = False

    def look(self, module: Module, spool: SpoolWriter) -> None:
        """Read the mappings of what the sampler saw for the first time since the call before."""
        table = module.table("stack_new")
        for key, value in list(table.items()):
            with contextlib.suppress(KeyError):
                del table[key]
            _, pid, _ = struct.unpack("=QII", key)  # struct stack_space of stack.c
            # A process that is gone already leaves a space without mappings: its frames are addresses only.
            space = self._space(pid, int.from_bytes(value, sys.byteorder))
            with contextlib.suppress(OSError):
                space.mappings = [read_mappings(space.pid)]
            space.again_ns = space.since_ns + _AGAIN_NS
            self.spaces.append(space)
            self._last[space.pid] = space
            spool.json("mappings", **_plain(space))
        now = time.monotonic_ns()
        for space in [s for s in self._last.values() if s.again_ns <= now]:
            space.again_ns = now + (now - space.since_ns) * (_SLOWER - 1)
            if self._look_again(space):
                spool.json("mappings", **_plain(space))

    def _space(self, pid: int, since_ns: int) -> Space:
        namespace_pid, mounts = pid, 0
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{pid}/status") as file:
                line = next((line for line in file if line.startswith("NSpid")), f"NSpid: {pid}")
            namespace_pid = int(line.split()[-1])
            mounts = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if mounts not in self._roots and len(self._roots) < MAX_ROOTS:
                self._roots[mounts] = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return Space(pid, since_ns, namespace_pid, mounts)

    def finish(self) -> None:
        """The last look at all processes that still live, and what compilers wrote about their code."""
        for space in self._last.values():
            self._look_again(space)
        for space in self.spaces:
            space.jit = self._jit(space)

    def _look_again(self, space: Space) -> bool:
        """Whether there is anything new."""
        try:
            now = read_mappings(space.pid)
        except OSError:
            return False
        before = space.mappings[0] if space.mappings else []
        # The same program still: its own file is mapped as before. What was mapped and is not any more stays known.
        if not now or now == before or (before and now[0] != before[0]):
            return False
        space.mappings = [now, [m for state in space.mappings for m in state if m not in now]]
        return True

    def _jit(self, space: Space) -> str:
        descriptor = self.open(space, f"/tmp/perf-{space.namespace_pid}.map")
        if descriptor is None:
            return ""
        with os.fdopen(descriptor, "rb") as file:
            return file.read(MAX_JIT_BYTES).decode(errors="replace")

    def open(self, space: Space, path: str, inode: int = 0) -> int | None:
        """A descriptor of a regular file as the process sees it; None where it is not to be had.

        inode: of the file that was mapped. It counts where the file is looked for long after (`recover`); while the
        process lives the kernel marks a replaced file as deleted, and overlay file systems show other numbers.
        """
        root = self._roots.get(space.mount_namespace)
        if root is None or path.endswith(_DELETED):
            return None
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO of that name must not stop us
        try:
            descriptor = os.open(path.lstrip("/"), flags, dir_fd=root)
        except OSError:
            return None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or (self._late and inode and found.st_ino != inode):
            os.close(descriptor)
            return None
        return descriptor

    def hold_own_root(self) -> None:
        """After the recording: files of the mount namespace this process is in."""
        self._late = True
        with contextlib.suppress(OSError):
            mounts = os.stat("/proc/self/ns/mnt").st_ino
            self._roots[mounts] = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        for descriptor in self._roots.values():
            os.close(descriptor)
        self._roots.clear()


def _plain(space: Space) -> dict[str, Any]:
    return {name: value for name, value in vars(space).items() if name not in ("jit", "again_ns")}


def from_spool(spool: SpoolReader, boot_id: str) -> Spaces:
    """What a killed recorder left; files are looked for only while the machine runs that it ran on."""
    found = Spaces()
    here = ""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        here = file.read().strip()
    latest: dict[tuple[int, int], Space] = {}
    for one in spool.objects("mappings"):
        mappings = [[(int(a), int(b), int(c), int(d), str(e)) for a, b, c, d, e in s] for s in one["mappings"]]
        space = Space(one["pid"], one["since_ns"], one["namespace_pid"], one["mount_namespace"], mappings)
        latest[space.pid, space.since_ns] = space
    found.spaces = list(latest.values())
    if boot_id and boot_id == here:
        found.hold_own_root()
    return found
