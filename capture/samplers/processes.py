"""process_sample, and what the other samplers need of the processes: namespaces and their members."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from typing import Any

from kubetape.capture.samplers.files import read
from kubetape.capture.samplers.node import TICK_NS

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TOP_COUNT = 30
# Before Linux 6.2 open files can only be counted by listing them; a process with more is not listed again.
_LISTED_FILES_MAX = 2000

Row = dict[str, Any]


class Processes:
    """The processes alive. `scan` reads the list; `busiest` samples those that used most CPU since last time.

    pids: only these (and what is asked of them); None for all.
    """

    def __init__(self, proc: str = "/proc", pids: Collection[int] | None = None) -> None:
        self.proc = proc
        self.only = pids
        self.alive: set[int] = set()
        self.netns: dict[int, int] = {}
        self._ticks: dict[int, tuple[int, int]] = {}
        self._unlistable: set[int] = set()

    def scan(self, refresh: bool = False) -> None:
        """Read the pids alive, and the network namespace of new ones (of all with `refresh`)."""
        try:
            alive = {int(name) for name in os.listdir(self.proc) if name.isdigit()}
        except OSError:
            return
        if self.only is not None:
            alive &= set(self.only)
        self.alive = alive
        for gone in self.netns.keys() - alive:
            del self.netns[gone]
        for pid in alive if refresh else alive - self.netns.keys():
            # "net:[4026531833]"; kernel threads and processes not ours to read have none.
            with contextlib.suppress(OSError, ValueError):
                self.netns[pid] = int(os.readlink(f"{self.proc}/{pid}/ns/net")[5:-1])

    def by_netns(self) -> dict[int, list[int]]:
        """Network namespace -> its processes, lowest pid first (the likeliest to live long)."""
        found: dict[int, list[int]] = {}
        for pid in sorted(self.netns):
            found.setdefault(self.netns[pid], []).append(pid)
        return found

    def busiest(self, count: int = TOP_COUNT) -> list[Row]:
        """process_sample rows without node and ts_ns of the `count` processes that used most CPU since the
        call before (the first call: since they began). Processes that used none are left out."""
        used = []
        ticks: dict[int, tuple[int, int]] = {}
        for pid in self.alive:
            data = read(f"{self.proc}/{pid}/stat")
            if not data:
                continue
            # The command may hold blanks and brackets: the fields begin after the last ")".
            fields = data[data.rfind(b")") + 2 :].split()
            if len(fields) < 22:
                continue
            total, start = int(fields[11]) + int(fields[12]), int(fields[19])
            ticks[pid] = (start, total)
            before = self._ticks.get(pid)
            # Another start time: the number was given to a new process.
            delta = total - before[1] if before and before[0] == start else total
            if delta > 0:
                used.append((delta, pid, total, data, fields))
        self._ticks = ticks
        used.sort(key=lambda u: (-u[0], u[1]))
        rows = []
        for _, pid, total, data, fields in used[:count]:
            rows.append(
                {
                    "pid": pid,
                    "command": data[data.find(b"(") + 1 : data.rfind(b")")].decode(errors="replace"),
                    "cpu_ns": total * TICK_NS,
                    "memory_bytes": int(fields[21]) * PAGE_BYTES,
                    "thread_count": int(fields[17]),
                    "file_count": self._file_count(pid),
                }
            )
        return rows

    def _file_count(self, pid: int) -> int | None:
        folder = f"{self.proc}/{pid}/fd"
        try:
            # Since Linux 6.2 the size of the folder is the number of open files (fs/proc/fd.c).
            if size := os.stat(folder).st_size:
                return size
            if pid in self._unlistable:
                return None
            count = len(os.listdir(folder))
        except OSError:
            return None
        if count > _LISTED_FILES_MAX:
            self._unlistable.add(pid)
        return count
