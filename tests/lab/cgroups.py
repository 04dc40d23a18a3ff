"""Cgroups of the form a kubelet makes, in every hierarchy mounted on this machine.

The kernel's files: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/. Paths are those of the kubelet's
cgroupfs driver below a root of our own, as a nested cluster (kind) has them:
`/<root>/kubepods/burstable/pod<uid>/<container id>`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from tests.lab.errors import LabError

# Controllers a fault may set limits with; the others do not matter to a pod.
CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio", "io")
GONE_TIMEOUT_S = 10.0


def mounted() -> dict[str, Path]:
    """Mount point by controller name; the unified hierarchy has the name ''."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            found[""] = Path(left.split()[4])
        elif kind == "cgroup":
            found.update({c: Path(left.split()[4]) for c in options.split(",") if c in CONTROLLERS})
    return found


class CgroupTree:
    """All cgroups of one lab, below the folder `root` of each hierarchy."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.mounts = mounted()
        if "" not in self.mounts:
            raise LabError("no cgroup2 tree is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup")

    def make(self, path: str) -> list[Path]:
        """Make the cgroup `path` (relative to the root) everywhere; the `cgroup.procs` files to join it."""
        for mount in set(self.mounts.values()):
            (mount / self.root / path).mkdir(parents=True, exist_ok=True)
        self._enable_controllers(path)
        return sorted({mount / self.root / path / "cgroup.procs" for mount in self.mounts.values()})

    def file(self, path: str, controller: str, name: str) -> Path:
        """The control file `name` of a cgroup, in the hierarchy that holds `controller`."""
        return self.mounts.get(controller, self.mounts[""]) / self.root / path / name

    def _enable_controllers(self, path: str) -> None:
        unified = self.mounts[""]
        wanted = set(CONTROLLERS) & set((unified / "cgroup.controllers").read_text().split())
        folders = [unified, unified / self.root]
        for part in Path(path).parts[:-1]:
            folders.append(folders[-1] / part)
        for folder in folders if wanted else ():
            (folder / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in sorted(wanted)))

    def processes(self, path: str = "") -> list[int]:
        """All processes in the tree, or below one path of it."""
        top = self.mounts[""] / self.root / path
        files = [Path(d) / "cgroup.procs" for d, _, _ in os.walk(top)]
        return [int(pid) for file in files if file.exists() for pid in file.read_text().split()]

    def kill(self, path: str = "") -> None:
        """Kill every process in the tree, or below one path of it, and wait until they are gone."""
        deadline = time.monotonic() + GONE_TIMEOUT_S
        while pids := self.processes(path):
            if time.monotonic() > deadline:
                raise LabError(f"processes {pids} of cgroup {self.root} do not die")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def remove(self) -> None:
        """Remove the (empty) tree from every hierarchy."""
        for mount in set(self.mounts.values()):
            for folder, _, _ in os.walk(mount / self.root, topdown=False):
                _rmdir_when_empty(Path(folder))


def _rmdir_when_empty(folder: Path) -> None:
    # A zombie counts until its parent has collected it.
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
