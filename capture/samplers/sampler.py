"""All samplers of a node and the thread that runs them.

Strategy: what costs the same on every node (the node, its CPUs and disks, the host's network) is read every
second. What grows with the node (processes, cgroups, network namespaces) is read in turn within a
time budget per second, each continuing where it stopped: on a small node everything is read every
second, on a node of 200 pods each cgroup every few seconds, and the recorder's cost stays the same. Nearly
all columns count since a beginning, so a longer interval loses resolution, not totals.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from kubetape.bundle import ProbeStatus
from kubetape.capture.samplers import node as node_files
from kubetape.capture.samplers.cgroups import Cgroups, Hierarchies
from kubetape.capture.samplers.files import read
from kubetape.capture.samplers.network import Namespace
from kubetape.capture.samplers.processes import Processes
from kubetape.capture.samplers.tables import RowBuffer

Row = dict[str, Any]

TABLE_NAMES = (
    "cgroup_sample",
    "conntrack",
    "conntrack_sample",
    "cpu_sample",
    "disk_sample",
    "filesystem_sample",
    "interface_sample",
    "listener",
    "neighbour",
    "node_sample",
    "process_sample",
    "protocol_counter",
    "route",
)

CGROUP_BUDGET_NS = 3_000_000
NAMESPACE_BUDGET_NS = 3_000_000
# The process list is all or nothing; a scan that costs more than this is done more seldom.
PROCESS_BUDGET_NS = 2_000_000
NAMESPACE_REFRESH_NS = 10_000_000_000
OWNER_SCAN_EVERY_NS = 5_000_000_000


class Samplers:
    """One node's samplers. `sample` reads once; `start` and `stop` run it in a thread.

    pids: only these processes' namespaces and process rows; None for the whole node.
    """

    def __init__(
        self,
        node_name: str,
        pids: Collection[int] | None = None,
        proc: str = "/proc",
        sys: str = "/sys",
        hierarchies: Hierarchies | None = None,
    ) -> None:
        self.node_name, self.proc = node_name, proc
        self.notes: dict[str, str] = {}
        self.round_count = 0
        self.cpu_ns = 0
        self.longest_ns = 0
        self.cost_ns: dict[str, int] = {}
        self._buffers = {name: RowBuffer(name) for name in TABLE_NAMES}
        self._processes = Processes(proc, pids)
        self._cgroups = Cgroups(proc, hierarchies)
        self._disks = node_files.Disks(proc, sys)
        self._namespaces: dict[int, Namespace] = {}
        self._host_netns = self._read_host_netns()
        self._turn: dict[str, int] = {}
        self._now_ns = 0
        self._next_process_ns = 0
        self._next_refresh_ns = 0
        self._owners: dict[int, int] = {}
        self._next_owner_scan_ns = 0
        self._cgroup_ids: dict[str, int | None] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- thread -------------------------------------------------------------------------------------

    def start(self, interval_s: float = 1.0) -> Samplers:
        """The first, complete reading now, then one every `interval_s` in a thread until `stop`."""
        self.sample(time.monotonic_ns(), first=True)
        self._thread = threading.Thread(target=self._run, args=(interval_s,), name="kubetape-samplers", daemon=True)
        self._thread.start()
        return self

    def _run(self, interval_s: float) -> None:
        begin = time.monotonic()
        count = 1
        while not self._stopping.wait(max(0.0, begin + count * interval_s - time.monotonic())):
            self.sample(time.monotonic_ns())
            # After a suspended machine or a stall, go on from now instead of catching up.
            count = max(count + 1, int((time.monotonic() - begin) / interval_s) + 1)

    def stop(self) -> None:
        """End the thread and take the last, complete reading. Calling it again does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.sample(time.monotonic_ns(), final=True)
        for namespace in self._namespaces.values():
            namespace.close()

    # ---- results ------------------------------------------------------------------------------------

    def tables(self) -> dict[str, Any]:
        """Table name -> pyarrow.Table with the bundle's schema, sorted by node and ts_ns."""
        return {name: buffer.table() for name, buffer in self._buffers.items()}

    def rows(self) -> dict[str, list[Row]]:
        """The same as dicts."""
        return {name: table.to_pylist() for name, table in self.tables().items()}

    def cgroup_rows(self) -> list[Row]:
        """`cgroup` rows of every cgroup sampled (the recorder has its own; they agree on cgroup_id)."""
        return [{"node": self.node_name, **row} for row in self._cgroups.cgroup_rows()]

    def status(self) -> ProbeStatus:
        """For the manifest: rows written, CPU used, and what could not be read."""
        return ProbeStatus(
            "samplers",
            mechanism="proc",
            reason="; ".join(self.notes.values()),
            event_count=sum(b.row_count for b in self._buffers.values()),
            run_count=self.round_count,
            run_ns=self.cpu_ns,
        )

    # ---- sampling -----------------------------------------------------------------------------------

    def sample(self, now_ns: int, first: bool = False, final: bool = False) -> None:
        """One reading; its rows carry `now_ns` (CLOCK_MONOTONIC). first, final: read also what is read only
        at the two ends, and everything without regard to the time budget."""
        cpu_begin, begin = time.thread_time_ns(), time.monotonic_ns()
        self._now_ns = now_ns
        edge = first or final
        steps: list[tuple[str, Callable[[], None]]] = [
            ("node", self._sample_node),
            ("processes", lambda: self._sample_processes(edge)),
            ("cgroups", lambda: self._sample_cgroups(edge)),
            ("network", lambda: self._sample_network(edge, final)),
        ]
        if edge:
            steps.append(("filesystems", self._sample_filesystems))
        for name, step in steps:
            step_begin = time.thread_time_ns()
            try:
                step()
            except (ValueError, IndexError, OSError) as error:
                # A file of a form we do not know must not end the other samplers.
                self._note(name, f"sampler {name}: {type(error).__name__}: {error}")
            if not edge:
                self.cost_ns[name] = self.cost_ns.get(name, 0) + time.thread_time_ns() - step_begin
        self.round_count += 1
        self.cpu_ns += time.thread_time_ns() - cpu_begin
        if not edge:
            self.longest_ns = max(self.longest_ns, time.monotonic_ns() - begin)

    def _note(self, key: str, text: str) -> None:
        self.notes.setdefault(key, text)

    def _emit(self, table: str, row: Row) -> None:
        row["node"], row["ts_ns"] = self.node_name, self._now_ns
        if table == "listener":
            self._name_owner(row)
        self._buffers[table].add(row)

    def _in_turn(self, name: str, items: list[Any], budget_ns: int) -> Iterator[Any]:
        """As many of `items` as the budget allows, at least one, continuing where the call before stopped."""
        if not items:
            return
        place = self._turn.get(name, 0) % len(items)
        begin = time.monotonic_ns()
        done = 0
        while done < len(items):
            yield items[(place + done) % len(items)]
            done += 1
            if time.monotonic_ns() - begin > budget_ns:
                break
        self._turn[name] = (place + done) % len(items)

    def _sample_node(self) -> None:
        if (row := node_files.node_row(self.proc)) is not None:
            self._emit("node_sample", row)
        for row in node_files.cpu_rows(self.proc):
            self._emit("cpu_sample", row)
        for row in self._disks.rows():
            self._emit("disk_sample", row)

    def _sample_filesystems(self) -> None:
        for row in node_files.filesystem_rows(self.proc):
            self._emit("filesystem_sample", row)

    def _sample_processes(self, edge: bool) -> None:
        if not edge and self._now_ns < self._next_process_ns:
            return
        begin = time.thread_time_ns()
        refresh = edge or self._now_ns >= self._next_refresh_ns
        if refresh:
            self._next_refresh_ns = self._now_ns + NAMESPACE_REFRESH_NS
        self._processes.scan(refresh)
        for row in self._processes.busiest():
            self._emit("process_sample", row)
        cost = time.thread_time_ns() - begin
        if not edge:
            # Slightly less than whole seconds, so that the next round is not missed by a hair.
            self._next_process_ns = self._now_ns + (cost // PROCESS_BUDGET_NS) * 1_000_000_000 + 500_000_000

    def _sample_cgroups(self, edge: bool) -> None:
        self._cgroups.refresh(self._now_ns)
        everything = list(self._cgroups.known.values())
        budget = 1 << 62 if edge else CGROUP_BUDGET_NS
        for cgroup in self._in_turn("cgroups", everything, budget):
            if (row := self._cgroups.row(cgroup)) is not None:
                self._emit("cgroup_sample", row)

    def _sample_network(self, edge: bool, final: bool) -> None:
        members = self._processes.by_netns()
        members.setdefault(self._host_netns, [])
        for gone in self._namespaces.keys() - members.keys():
            self._namespaces.pop(gone).close()
        for netns_id in members.keys() - self._namespaces.keys():
            is_host = netns_id == self._host_netns
            self._namespaces[netns_id] = Namespace(netns_id, is_host, self._emit, self._note, self.proc)
        host = self._namespaces[self._host_netns]
        self._sample_namespace(host, members[self._host_netns], final)
        others = [n for netns_id, n in sorted(self._namespaces.items()) if netns_id != self._host_netns]
        for namespace in self._in_turn("network", others, 1 << 62 if edge else NAMESPACE_BUDGET_NS):
            self._sample_namespace(namespace, members[namespace.netns_id], final)

    def _sample_namespace(self, namespace: Namespace, pids: list[int], final: bool) -> None:
        # We are a process of our own namespace that surely lives.
        if namespace.netns_id == self._own_netns:
            pids = [os.getpid(), *pids]
        for pid in pids:
            if namespace.sample(pid, self._now_ns, final):
                return

    @property
    def _own_netns(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(os.readlink(f"{self.proc}/self/ns/net")[5:-1])
        return 0

    def _read_host_netns(self) -> int:
        """The first process's namespace; our own where that may not be read."""
        with contextlib.suppress(OSError, ValueError):
            return int(os.readlink(f"{self.proc}/1/ns/net")[5:-1])
        return self._own_netns

    # ---- who listens --------------------------------------------------------------------------------

    def _name_owner(self, row: Row) -> None:
        inode = row.pop("inode")
        if inode not in self._owners and self._now_ns >= self._next_owner_scan_ns:
            self._next_owner_scan_ns = self._now_ns + OWNER_SCAN_EVERY_NS
            self._owners = self._scan_owners()
        pid = self._owners.get(inode)
        row["pid"] = pid
        row["cgroup_id"] = self._cgroup_id_of(pid) if pid is not None else None

    def _scan_owners(self) -> dict[int, int]:
        """Socket inode -> lowest pid that has it open: parents listen for their children."""
        owners: dict[int, int] = {}
        for pid in sorted(self._processes.alive | {os.getpid()}, reverse=True):
            folder = f"{self.proc}/{pid}/fd"
            with contextlib.suppress(OSError):
                for name in os.listdir(folder):
                    with contextlib.suppress(OSError):
                        target = os.readlink(f"{folder}/{name}")
                        if target.startswith("socket:["):
                            owners[int(target[8:-1])] = pid
        return owners

    def _cgroup_id_of(self, pid: int) -> int | None:
        """The id in the tree that names the containers (the unified one where there is one)."""
        mount = self._cgroups.hierarchies.unified
        data = read(f"{self.proc}/{pid}/cgroup") or b""
        path = next((line[3:].decode(errors="replace") for line in data.splitlines() if line.startswith(b"0::")), None)
        if mount is None or path is None:
            return None
        if path not in self._cgroup_ids:
            try:
                self._cgroup_ids[path] = os.stat(mount + path).st_ino
            except OSError:
                self._cgroup_ids[path] = None
        return self._cgroup_ids[path]


def start(node_name: str, interval_s: float = 1.0, pids: Collection[int] | None = None) -> Samplers:
    """Samplers of this node, running; see Samplers."""
    return Samplers(node_name, pids).start(interval_s)
