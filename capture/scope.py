"""What a recording wants: by process, port, pod, namespace. Filled into the kernel's maps, refreshed each second."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from kubetape.capture.host import CgroupIds
from kubetape.errors import CaptureError

if TYPE_CHECKING:
    from kubetape.capture.recorder import Options
    from kubetape.capture.sockets import Socket


class Scope:
    """The filters of one recording."""

    def __init__(self, options: Options) -> None:
        self._pids = set(options.pids)
        self._ports = set(options.ports)
        self._options = options
        self.by_pod = bool(options.namespaces or options.pods)
        self._module: Any = None
        for pid in self._pids:
            if not os.path.exists(f"/proc/{pid}"):
                raise CaptureError(f"there is no process {pid}")
        self._cgroups: set[int] = set()
        self._netns: set[int] = set()
        self._pod_uids: set[str] = set()
        self._ids = CgroupIds()

    def apply(self, module: Any) -> None:
        """Fill the maps of the loaded programs."""
        self._module = module
        if self._pids:
            table = module.table("scope_pids")
            for pid in self._pids | _descendants(self._pids):
                table[pid] = 1
        self.refresh()

    def set_pods(self, pods: list[dict[str, Any]]) -> None:
        """The pods known now (`k8s_pod` rows). Raises CaptureError where none of them is meant."""
        wanted = set(self._options.namespaces)
        names = set(self._options.pods)
        self._pod_uids = {
            pod["uid"]
            for pod in pods
            if (not wanted or pod["namespace"] in wanted)
            and (not names or pod["name"] in names or f"{pod['namespace']}/{pod['name']}" in names)
        }
        if self.by_pod and not self._pod_uids:
            meant = " ".join([*self._options.namespaces, *self._options.pods])
            raise CaptureError(
                f"no pod known matches {meant}: recording some pods only needs the Kubernetes API or --from-dir, "
                "and their names as `kubectl get pods -A` shows them"
            )

    def refresh(self) -> None:
        """Containers come and go: bring the maps of cgroups and network namespaces up to date."""
        if not self.by_pod or self._module is None:
            return
        cgroups: set[int] = set()
        netns: set[int] = set()
        for row in self._ids.rows():
            if row["pod_uid"] in self._pod_uids:
                cgroups.add(row["cgroup_id"])
                netns |= _network_namespaces(self._ids.mount + row["path"])
        # A pod on the host's network is told apart by its cgroup alone.
        netns.discard(os.stat("/proc/self/ns/net").st_ino)
        self._update("scope_cgroups", self._cgroups, cgroups)
        self._update("scope_netns", self._netns, netns)

    def _update(self, name: str, before: set[int], now: set[int]) -> None:
        table = self._module.table(name)
        for one in now - before:
            table[one] = 1
        for one in before - now:
            with contextlib.suppress(KeyError):
                del table[one]
        before.clear()
        before.update(now)

    def contains(self, pid: int | None, cgroup_id: int | None, socket: Socket) -> bool:
        """Is a socket that was only listed wanted?"""
        if self._ports and not {socket.local_port, socket.remote_port} & self._ports:
            return False
        if not self._pids and not self.by_pod:
            return pid != os.getpid()
        return pid in self._pids or cgroup_id in self._cgroups or socket.netns_id in self._netns


def _descendants(pids: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    stat = file.read()
            except OSError:
                continue
            children.setdefault(int(stat[stat.rindex(")") + 2 :].split()[1]), []).append(int(entry))
    found: set[int] = set()
    stack = list(pids)
    while stack:
        for child in children.get(stack.pop(), []):
            if child not in found:
                found.add(child)
                stack.append(child)
    return found


def _network_namespaces(folder: str) -> set[int]:
    found: set[int] = set()
    try:
        with open(f"{folder}/cgroup.procs") as file:
            pids = file.read().split()
    except OSError:
        return found  # it is gone
    for pid in pids:
        try:
            found.add(os.stat(f"/proc/{pid}/ns/net").st_ino)
        except OSError:
            continue
    return found
