"""One pod: a pause process that holds its namespaces, and containers that join it."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.cgroups import CgroupTree
from tests.lab.errors import LabError
from tests.lab.network import Bridge, in_network_of
from tests.lab.shell import run

# "unchanged" and then the attempt: in a chroot "/" is no mount point and cannot be made private.
_PAUSE = """
mount --make-rprivate / 2>/dev/null
mount --bind "$1" /etc/resolv.conf && hostname "$2" && touch "$3" && exec sleep infinity
"""
_JOIN_CGROUPS = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1" || exit 125; shift; n=$((n - 1)); done; exec "$@"'
START_TIMEOUT_S = 20.0


def new_id() -> str:
    """64 hexadecimal digits, the form of a container id."""
    return secrets.token_hex(32)


@dataclass
class Pod:
    """A pod as planned (first fields) and as running (pause process, containers)."""

    name: str
    namespace: str
    app: str
    kind: str  # of the workload: Deployment or StatefulSet
    ip: str
    port: int | None  # the port it serves on
    image: str
    template_hash: str
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    container_id: str = field(default_factory=new_id)
    sandbox_id: str = field(default_factory=new_id)
    pause: subprocess.Popen[bytes] | None = None
    container: subprocess.Popen[bytes] | None = None

    @property
    def cgroup(self) -> str:
        """Path of the pod's cgroup below the lab's root."""
        return f"kubepods/burstable/pod{self.uid}"

    @property
    def container_cgroup(self) -> str:
        return f"{self.cgroup}/{self.container_id}"

    @property
    def pause_pid(self) -> int:
        if self.pause is None:
            raise LabError(f"pod {self.name} is not running")
        return self.pause.pid

    def sandbox(self, tree: CgroupTree, bridge: Bridge, port: str, folder: Path, resolv_conf: Path) -> None:
        """Make the pod's namespaces and its network."""
        ready = folder / f"{self.name}.ready"
        self.pause = _spawn(
            ["unshare", "--net", "--uts", "--mount", "--propagation", "unchanged", "--",
             "sh", "-c", _PAUSE, "pause", str(resolv_conf), self.name, str(ready)],
            tree.make(f"{self.cgroup}/{self.sandbox_id}"),
            folder / f"{self.name}.pause.log",
        )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready.exists():
            if self.pause.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"pod {self.name} has no sandbox: {_tail(folder / f'{self.name}.pause.log')}")
            time.sleep(0.002)
        bridge.attach(self.pause.pid, self.ip, port)

    def start(self, tree: CgroupTree, argv: Sequence[str], folder: Path) -> None:
        """Start the pod's container."""
        self.container = self.spawn(tree, argv, folder / f"{self.name}.log")

    def spawn(self, tree: CgroupTree, argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """A further process in the pod's container, as `kubectl exec` would start it."""
        return _spawn([*self.enter(), *argv], tree.make(self.container_cgroup), log)

    def enter(self) -> list[str]:
        """The beginning of a command line that runs in the pod's namespaces."""
        # --root: where the lab itself runs in a chroot, entering the mount namespace would leave it.
        target = f"--target={self.pause_pid}"
        return ["nsenter", target, "--net", "--uts", "--mount", "--root", "--wd", "--"]

    def run(self, *argv: str, timeout_s: float = 60.0) -> str:
        """Run a program in the pod's namespaces (outside its cgroup) to its end."""
        return run(*self.enter(), *argv, timeout_s=timeout_s)

    def nft(self, rules: str) -> None:
        """Load firewall rules into the pod's network namespace."""
        run(*in_network_of(self.pause_pid), "nft", "-f", "-", stdin=rules)

    def wait_for_port(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Until the pod accepts connections. Raises LabError with the end of its log when it does not."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                socket.create_connection((self.ip, self.port or 0), timeout=1).close()
                return
            except OSError as error:
                dead = self.container is not None and self.container.poll() is not None
                if dead or time.monotonic() > deadline:
                    raise LabError(f"pod {self.name} does not listen on {self.ip}:{self.port}: {error}") from error
                time.sleep(0.02)


def _spawn(argv: list[str], procs: list[Path], log: Path) -> subprocess.Popen[bytes]:
    """Start a program that joins its cgroups before its first own instruction."""
    with log.open("ab") as out:
        return subprocess.Popen(
            ["sh", "-c", _JOIN_CGROUPS, "sh", str(len(procs)), *map(str, procs), *argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def _tail(path: Path) -> str:
    return " ".join(path.read_text(errors="replace").split())[-300:] if path.exists() else "no log"
