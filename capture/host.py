"""Facts of the node: names, clocks, processes, cgroups."""

from __future__ import annotations

import os
import platform
import socket
import time
from typing import Any

from kubetape.bundle.manifest import ClockAnchor
from kubetape.capture.kubernetes.cgroups import parse_cgroup_path
from kubetape.capture.samplers.cgroups import find_hierarchies

Row = dict[str, Any]
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def clock_anchor() -> ClockAnchor:
    """Both clocks at one moment; the best of five readings."""
    best: ClockAnchor | None = None
    for _ in range(5):
        before = time.monotonic_ns()
        realtime = time.time_ns()
        after = time.monotonic_ns()
        error = (after - before + 1) // 2
        if best is None or error < best.error_ns:
            best = ClockAnchor((before + after) // 2, realtime, error)
    assert best is not None
    return best


def _first_line(path: str) -> str:
    try:
        with open(path) as file:
            return file.readline().strip()
    except OSError:
        return ""


def node_values(name: str | None = None) -> dict[str, Any]:
    """Values of manifest.Node that describe the machine. name: NODE_NAME, else the host's name."""
    distribution = ""
    try:
        release = platform.freedesktop_os_release()
        distribution = release.get("PRETTY_NAME", "")
    except OSError:
        distribution = "unknown"
    return {
        "name": name or os.environ.get("NODE_NAME") or socket.gethostname(),
        "kernel": os.uname().release,
        "distribution": distribution,
        "architecture": platform.machine(),
        "cpu_count": os.cpu_count() or 1,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "boot_id": _first_line("/proc/sys/kernel/random/boot_id"),
    }


class CgroupIds:
    """Ids of cgroups by path, in the hierarchy that names the containers here ('v2' or a v1 controller)."""

    def __init__(self) -> None:
        naming = find_hierarchies().naming
        self.hierarchy, self.mount = naming or ("v2", "")
        self._ids: dict[str, int | None] = {}

    def id_of(self, path: str) -> int | None:
        if path not in self._ids:
            try:
                self._ids[path] = os.stat(self.mount + path).st_ino
            except OSError:
                self._ids[path] = None
        return self._ids[path]

    def of_process(self, pid: int | str) -> tuple[int | None, str]:
        """(id, path) of a process's cgroup; path "" where it cannot be read."""
        try:
            with open(f"/proc/{pid}/cgroup") as file:
                lines = file.read().splitlines()
        except OSError:
            return None, ""
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if (self.hierarchy == "v2" and not controllers) or self.hierarchy in controllers.split(","):
                return self.id_of(path), path
        return None, ""

    def rows(self, made: dict[str, int] | None = None) -> list[Row]:
        """`cgroup` rows, without node, of the whole tree as it stands, and before them those of `made` (path ->
        id), which may be gone."""
        found: list[Row] = []
        if not self.mount:
            return found
        ids = dict(made or {})
        for folder, _, _ in os.walk(self.mount):
            path = folder[len(self.mount) :] or "/"
            try:
                inode = os.stat(folder).st_ino
            except OSError:
                continue
            ids[path] = inode
        for path, inode in ids.items():
            identity = parse_cgroup_path(path)
            found.append(
                {
                    "cgroup_id": inode,
                    "hierarchy": self.hierarchy,
                    "path": path,
                    "container_id": identity.container_id,
                    "pod_uid": identity.pod_uid,
                    "runtime": identity.runtime,
                }
            )
        return found


def process_rows(
    cgroups: CgroupIds, existed_before: bool, with_threads: bool = True, arguments: bool = True
) -> list[Row]:
    """`process` rows, without node, from /proc; each with `threads` as (tid, comm) pairs.

    arguments: False leaves command lines out (`--no-arguments`).
    """
    offset = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    rows = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            row = _process_row(int(entry), cgroups, offset, with_threads)
            if row is not None:
                if not arguments:
                    row["arguments"] = None
                rows.append({**row, "existed_before": existed_before})
    return rows


def _process_row(pid: int, cgroups: CgroupIds, offset: int, with_threads: bool) -> Row | None:
    folder = f"/proc/{pid}"
    try:
        with open(f"{folder}/stat") as file:
            stat = file.read()
        with open(f"{folder}/status") as file:
            status = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
        with open(f"{folder}/cmdline", "rb") as file:
            arguments = file.read(4096)
    except OSError:
        return None
    command = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    executable = None
    netns_id = None
    try:
        executable = os.readlink(f"{folder}/exe")
        netns_id = os.stat(f"{folder}/ns/net").st_ino
    except OSError:
        pass  # a kernel thread has no program, a process just ending no namespaces
    row: Row = {
        "pid": pid,
        "start_ns": int(fields[19]) * _TICK_NS - offset,
        "parent_pid": int(fields[1]) or None,
        "command": command,
        "executable": executable.removesuffix(" (deleted)") if executable else None,
        "executable_deleted": executable.endswith(" (deleted)") if executable else None,
        "arguments": arguments.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace") or None,
        "uid": int(status.get("Uid", "0").split()[0]),
        "cgroup_id": cgroups.of_process(pid)[0],
        "netns_id": netns_id,
        "namespace_pid": int(status.get("NSpid", str(pid)).split()[-1]),
    }
    if with_threads:
        row["threads"] = _threads(folder)
    return row


def _threads(folder: str) -> list[tuple[int, str]]:
    found = []
    try:
        for tid in os.listdir(f"{folder}/task"):
            found.append((int(tid), _first_line(f"{folder}/task/{tid}/comm")))
    except OSError:
        return found
    return found


def kernel_symbols(addresses: set[int]) -> dict[int, str]:
    """Names of kernel functions that hold these addresses, from /proc/kallsyms; empty where it is closed."""
    if not addresses:
        return {}
    import bisect

    table: list[tuple[int, str]] = []
    try:
        with open("/proc/kallsyms") as file:
            for line in file:
                parts = line.split()
                if parts[1] in "tTwW" and parts[0] != "0" * len(parts[0]):
                    table.append((int(parts[0], 16), parts[2]))
    except OSError:
        return {}
    table.sort()
    starts = [a for a, _ in table]
    found = {}
    for address in addresses:
        at = bisect.bisect_right(starts, address) - 1
        if at >= 0:
            found[address] = table[at][1]
    return found
