"""What a recording wants: by process, port, pod, namespace. Filled into the kernel's maps, refreshed each second."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

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

    def apply(self, module: Any) -> None:
        """Fill the maps of the loaded programs."""
        self._module = module
        if self._pids:
            table = module.table("scope_pids")
            for pid in self._pids | _descendants(self._pids):
                table[table.Key(pid)] = table.Leaf(1)
        self.refresh()

    def refresh(self) -> None:
        """Pods come and go."""

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
