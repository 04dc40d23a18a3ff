"""cgroup_sample: the cgroups of containers, and the roots above all pods, v1 and v2.

Strategy: the tree is walked once and then every ten seconds; in between only the folders that hold
containers are asked for their link count (kernfs keeps it at 2 + folders), which changes when a container
comes. A container that is gone shows by its files failing, and its parent is read again. On a hybrid node the
unified tree gives the id and the v1 hierarchies of the same path give the numbers.

Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/*.rst, kernel/sched/core.c (cpu.stat).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from kubetape.capture.kubernetes.cgroups import CgroupIdentity, parse_cgroup_path
from kubetape.capture.samplers.files import host_root, key_values, psi_totals, read, read_int
from kubetape.capture.samplers.node import TICK_NS

Row = dict[str, Any]

WALK_EVERY_NS = 10_000_000_000
DEPTH_MAX = 12  # kind in a pod needs 9 levels
# v1 writes "no limit" as the largest multiple of a page (mm/page_counter.c).
_V1_UNLIMITED = 1 << 62
# Which v1 hierarchy names the containers where there is no unified tree, by how surely runtimes use it.
_V1_NAMING = ("memory", "cpu", "cpuacct", "pids", "name=systemd")


@dataclass(frozen=True)
class Hierarchies:
    """Mount points by v1 controller, and that of the unified tree, as this process can open them."""

    v1: dict[str, str] = field(default_factory=dict)
    unified: str | None = None

    @property
    def naming(self) -> tuple[str, str] | None:
        """(hierarchy label, mount point) of the tree to walk: 'v2', else a v1 controller."""
        if self.unified is not None and (not self.v1 or _holds_containers(self.unified)):
            return "v2", self.unified
        for name in _V1_NAMING:
            if name in self.v1:
                return name, self.v1[name]
        return ("v2", self.unified) if self.unified else None


def _holds_containers(mount: str) -> bool:
    """Whether anything below `mount` (three levels) has a container's or pod's name: systemd's hybrid mode
    keeps only services in the unified tree."""
    for folder, names, _ in os.walk(mount):
        path = folder[len(mount) :]
        for name in names:
            identity = parse_cgroup_path(f"{path}/{name}")
            if identity.container_id or identity.pod_uid or name.startswith("kubepods"):
                return True
        if path.count("/") >= 3:
            names.clear()
    return False


def find_hierarchies(proc: str = "/proc") -> Hierarchies:
    """The host's cgroup mounts (of the first process, so that it also works in a pod with hostPID)."""
    prefix = host_root(proc)
    lines = (read(f"{proc}/1/mountinfo") or read(f"{proc}/self/mountinfo") or b"").decode(errors="replace")
    v1: dict[str, str] = {}
    unified = None
    for line in lines.splitlines():
        left, _, right = line.partition(" - ")
        mount, kind = left.split(), right.split()
        if len(mount) < 5 or len(kind) < 3 or mount[3] != "/":
            continue  # a bind mount of a part of the tree would give wrong paths
        point = prefix + mount[4]
        if kind[0] == "cgroup2" and unified is None:
            unified = point
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                if option in ("cpu", "cpuacct", "memory", "blkio", "pids", "name=systemd"):
                    v1.setdefault(option, point)
    return Hierarchies(v1, unified)


@dataclass
class Cgroup:
    """One cgroup that is sampled. path: below the hierarchy's root; root: a level above all pods."""

    cgroup_id: int
    hierarchy: str
    path: str
    identity: CgroupIdentity
    root: bool = False


class Cgroups:
    """The containers' cgroups; `refresh` finds them, `rows` samples them."""

    def __init__(self, proc: str = "/proc", hierarchies: Hierarchies | None = None) -> None:
        self.hierarchies = hierarchies or find_hierarchies(proc)
        self.known: dict[str, Cgroup] = {}
        self.all_seen: dict[int, Cgroup] = {}
        self._parents: dict[str, int] = {}
        self._next_walk_ns = 0
        naming = self.hierarchies.naming
        self.hierarchy, self.mount = naming if naming else ("", "")

    def refresh(self, now_ns: int) -> None:
        """Find new containers and forget removed ones."""
        if not self.mount:
            return
        if now_ns >= self._next_walk_ns:
            self._next_walk_ns = now_ns + WALK_EVERY_NS
            self._parents.clear()
            found: dict[str, Cgroup] = {}
            self._walk("", found, 0)
            self.known = found
            return
        for path, links in list(self._parents.items()):
            if self._links(path) != links:
                self._rescan(path)

    def _links(self, path: str) -> int:
        try:
            return os.stat(self.mount + path).st_nlink
        except OSError:
            return -1

    def _rescan(self, path: str) -> None:
        below = f"{path}/"
        for old in [p for p in self.known if p.startswith(below)]:
            del self.known[old]
        for old in [p for p in self._parents if p.startswith(below) or p == path]:
            del self._parents[old]
        if os.path.isdir(self.mount + path):
            self._walk(path, self.known, path.count("/"))

    def _walk(self, path: str, found: dict[str, Cgroup], depth: int) -> None:
        try:
            with os.scandir(self.mount + path) as entries:
                folders = [(e.name, e.inode()) for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            return
        holds = False
        for name, inode in folders:
            child = f"{path}/{name}"
            identity = parse_cgroup_path(child)
            is_root = identity.pod_uid is None and name.removesuffix(".slice").endswith("kubepods")
            if identity.container_id or is_root:
                cgroup = self._identified(child, inode, identity, is_root)
                found[child] = self.all_seen[cgroup.cgroup_id] = cgroup
            holds = holds or bool(identity.container_id or identity.pod_uid or "kubepods" in child)
            # Below a container only another cluster's pods are of interest; their own levels name them.
            nested = identity.container_id is not None and not _may_nest(name, self.mount + child)
            if not nested and depth < DEPTH_MAX:
                self._walk(child, found, depth + 1)
        if holds or "kubepods" in path:
            self._parents[path] = self._links(path)

    def _identified(self, path: str, inode: int, identity: CgroupIdentity, is_root: bool) -> Cgroup:
        """With the unified tree's inode where that tree has the folder: the id that eBPF programs see."""
        if self.hierarchy != "v2" and self.hierarchies.unified is not None:
            try:
                unified_inode = os.stat(self.hierarchies.unified + path).st_ino
            except FileNotFoundError:
                return Cgroup(inode, self.hierarchy, path, identity, is_root)
            return Cgroup(unified_inode, "v2", path, identity, is_root)
        return Cgroup(inode, self.hierarchy, path, identity, is_root)

    def cgroup_rows(self) -> list[Row]:
        """`cgroup` rows without node of everything sampled."""
        return [
            {
                "cgroup_id": c.cgroup_id,
                "hierarchy": c.hierarchy,
                "path": c.path,
                "container_id": c.identity.container_id,
                "pod_uid": c.identity.pod_uid,
                "runtime": c.identity.runtime,
            }
            for c in self.all_seen.values()
        ]

    def row(self, cgroup: Cgroup) -> Row | None:
        """One cgroup_sample row without node and ts_ns; None where the cgroup is gone."""
        row = _v1_row(self.hierarchies.v1, cgroup.path) if self.hierarchies.v1 else None
        if self.hierarchies.unified is not None:
            unified = _v2_row(self.hierarchies.unified + cgroup.path)
            if unified is not None:
                row = {**unified, **{k: v for k, v in (row or {}).items() if v is not None}}
        if row is None:
            self._parents[os.path.dirname(cgroup.path)] = -1  # read the parent again
            return None
        row["cgroup_id"] = cgroup.cgroup_id
        return row


def _may_nest(name: str, folder: str) -> bool:
    """Whether a container has folders below it worth a walk: a node in a container has kubelet's."""
    try:
        return any(
            n.removesuffix(".slice").endswith(("kubepods", "kubelet", "system", "docker")) for n in os.listdir(folder)
        )
    except OSError:
        return False


def _limit(data: bytes | None) -> int | None:
    text = (data or b"").strip()
    value = int(text) if text.isdigit() else None
    return None if value is None or value >= _V1_UNLIMITED else value


def _cpu_max(data: bytes | None) -> tuple[int | None, int | None]:
    """(quota, period) in ns from `max 100000` or `50000 100000`; (None, None) without a limit."""
    fields = (data or b"").split()
    if len(fields) < 2 or not fields[0].isdigit():
        return None, None
    return int(fields[0]) * 1000, int(fields[1]) * 1000


_PSI_FILES = (("psi_cpu_some_ns", "cpu"), ("psi_memory_some_ns", "memory"), ("psi_io_some_ns", "io"))


def _v2_row(folder: str) -> Row | None:
    cpu = key_values(read(f"{folder}/cpu.stat"))
    if not cpu and not os.path.isdir(folder):
        return None
    quota, period = _cpu_max(read(f"{folder}/cpu.max"))
    row: Row = {}
    # Without the cpu controller cpu.stat still shows usage, since Linux 4.20 or so.
    for column, name in (
        ("cpu_usage_ns", b"usage_usec"),
        ("cpu_user_ns", b"user_usec"),
        ("cpu_system_ns", b"system_usec"),
    ):
        row[column] = cpu[name] * 1000 if name in cpu else None
    row["cpu_quota_ns"], row["cpu_period_ns"] = quota, period
    if quota is not None:
        row["period_count"] = cpu.get(b"nr_periods")
        row["throttled_count"] = cpu.get(b"nr_throttled")
        row["throttled_ns"] = cpu[b"throttled_usec"] * 1000 if b"throttled_usec" in cpu else None
    current = read_int(f"{folder}/memory.current")
    row["memory_bytes"] = current
    if current is not None:
        row["memory_limit_bytes"] = _limit(read(f"{folder}/memory.max"))
        inactive = key_values(read(f"{folder}/memory.stat")).get(b"inactive_file", 0)
        row["memory_working_set_bytes"] = max(0, current - inactive)
        events = key_values(read(f"{folder}/memory.events"))
        row["memory_high_count"] = events.get(b"high")
        row["memory_max_count"] = events.get(b"max")
        row["oom_count"] = events.get(b"oom")
        row["oom_kill_count"] = events.get(b"oom_kill")
    row["process_count"] = read_int(f"{folder}/pids.current")
    row["process_limit"] = read_int(f"{folder}/pids.max")
    io = read(f"{folder}/io.stat")
    if io is not None:
        row["io_read_bytes"] = row["io_write_bytes"] = 0
        for word in io.split():
            counter, _, value = word.partition(b"=")
            if counter in (b"rbytes", b"wbytes") and value.isdigit():
                row["io_read_bytes" if counter == b"rbytes" else "io_write_bytes"] += int(value)
    for column, resource in _PSI_FILES:
        row[column] = psi_totals(read(f"{folder}/{resource}.pressure"))[0]
    return row


def _v1_row(mounts: dict[str, str], path: str) -> Row | None:
    row: Row = {}
    folders = {name: mount + path for name, mount in mounts.items()}
    present = False
    if folder := folders.get("cpuacct"):
        usage = read_int(f"{folder}/cpuacct.usage")
        present = present or usage is not None
        times = key_values(read(f"{folder}/cpuacct.stat"))
        row["cpu_usage_ns"] = usage
        row["cpu_user_ns"] = times[b"user"] * TICK_NS if b"user" in times else None
        row["cpu_system_ns"] = times[b"system"] * TICK_NS if b"system" in times else None
    if folder := folders.get("cpu"):
        quota = read_int(f"{folder}/cpu.cfs_quota_us")
        if quota is not None:
            present = True
        if quota is not None and quota > 0:
            stat = key_values(read(f"{folder}/cpu.stat"))
            period = read_int(f"{folder}/cpu.cfs_period_us")
            row["cpu_quota_ns"] = quota * 1000
            row["cpu_period_ns"] = period * 1000 if period else None
            row["period_count"] = stat.get(b"nr_periods")
            row["throttled_count"] = stat.get(b"nr_throttled")
            row["throttled_ns"] = stat.get(b"throttled_time")  # already ns in v1
    if folder := folders.get("memory"):
        current = read_int(f"{folder}/memory.usage_in_bytes")
        if current is not None:
            present = True
            row["memory_bytes"] = current
            row["memory_limit_bytes"] = _limit(read(f"{folder}/memory.limit_in_bytes"))
            inactive = key_values(read(f"{folder}/memory.stat")).get(b"total_inactive_file", 0)
            row["memory_working_set_bytes"] = max(0, current - inactive)
            row["memory_max_count"] = read_int(f"{folder}/memory.failcnt")
            row["oom_kill_count"] = key_values(read(f"{folder}/memory.oom_control")).get(b"oom_kill")
    if folder := folders.get("pids"):
        row["process_count"] = read_int(f"{folder}/pids.current")
        present = present or row["process_count"] is not None
        row["process_limit"] = read_int(f"{folder}/pids.max")
    if folder := folders.get("blkio"):
        data = read(f"{folder}/blkio.throttle.io_service_bytes_recursive") or read(
            f"{folder}/blkio.throttle.io_service_bytes"
        )
        if data is not None:
            present = True
            row["io_read_bytes"] = row["io_write_bytes"] = 0
            for line in data.splitlines():
                fields = line.split()
                if len(fields) == 3 and fields[1] in (b"Read", b"Write"):
                    row["io_read_bytes" if fields[1] == b"Read" else "io_write_bytes"] += int(fields[2])
    return row if present else None
