"""Pods of real containers: runc starts them, in cgroups of the names a kubelet gives them.

The root folder of a container is made on the spot: the host's /usr, bind-mounted read-only. Every container of
a pod joins the network namespace of the pod's first one (its sandbox), as containerd does it; a pod on the host
network joins none. Cgroup paths are those of the kubelet's cgroupfs and systemd drivers (kubernetes
pkg/kubelet/cm/cgroup_manager_linux.go), below a root of our own, as a nested cluster (kind) has them. runc's own
systemd driver needs a running systemd, so both kinds of names are made by its cgroupfs driver.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.cgroups import CgroupTree
from tests.lab.errors import LabError
from tests.lab.network import Bridge
from tests.lab.shell import run

Object = dict[str, Any]

SANDBOX = "POD"
CREATED = "2026-01-02T03:04:05Z"


@dataclass
class RealContainer:
    """One container as planned. kind: 'app', 'init', 'sidecar'. reported: its status names its id already."""

    name: str
    argv: list[str]
    kind: str = "app"
    port: int | None = None
    reported: bool = True
    container_id: str = field(default_factory=lambda: secrets.token_hex(32))


@dataclass
class RealPod:
    """One pod as planned. config_hash: of a static pod, the uid that the kubelet uses itself, where `uid` is that
    of the mirror pod. ip: of a pod on the host network the node's."""

    namespace: str
    name: str
    owner: tuple[str, str]  # kind and name of the direct owner
    ip: str
    containers: list[RealContainer]
    systemd_names: bool = False
    host_network: bool = False
    config_hash: str | None = None
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    sandbox_id: str = field(default_factory=lambda: secrets.token_hex(32))

    def cgroup(self, container_id: str) -> str:
        uid = self.config_hash or self.uid
        if self.systemd_names:
            slice_ = f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"
            return f"kubepods.slice/kubepods-burstable.slice/{slice_}/cri-containerd-{container_id}.scope"
        return f"kubepods/burstable/pod{uid}/{container_id}"

    def object(self, node: str, node_ip: str) -> Object:
        """The pod as the API has it."""
        annotations: Object = {}
        if self.config_hash:
            annotations = {
                "kubernetes.io/config.hash": self.config_hash,
                "kubernetes.io/config.mirror": self.config_hash,
                "kubernetes.io/config.source": "file",
            }
        kind, name = self.owner
        api = "v1" if kind == "Node" else "apps/v1"
        inits = [c for c in self.containers if c.kind != "app"]
        apps = [c for c in self.containers if c.kind == "app"]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": self.namespace,
                "name": self.name,
                "uid": self.uid,
                "creationTimestamp": CREATED,
                "annotations": annotations,
                "ownerReferences": [{"apiVersion": api, "kind": kind, "name": name, "uid": name, "controller": True}],
            },
            "spec": {
                "nodeName": node,
                "hostNetwork": self.host_network,
                "initContainers": [_declared(c) for c in inits],
                "containers": [_declared(c) for c in apps],
            },
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "startTime": CREATED,
                "hostIP": node_ip,
                "podIP": self.ip,
                "podIPs": [{"ip": self.ip}],
                "initContainerStatuses": [_status(c) for c in inits],
                "containerStatuses": [_status(c) for c in apps],
            },
        }


def _declared(container: RealContainer) -> Object:
    declared: Object = {"name": container.name, "image": f"registry.test/{container.name}:1"}
    if container.port:
        declared["ports"] = [{"containerPort": container.port}]
    if container.kind == "sidecar":
        declared["restartPolicy"] = "Always"
    return declared


def _status(container: RealContainer) -> Object:
    status: Object = {"name": container.name, "ready": True, "restartCount": 0, "started": True}
    if not container.reported:
        return status | {"state": {"waiting": {"reason": "ContainerCreating"}}}
    return status | {
        "containerID": f"containerd://{container.container_id}",
        "state": {"running": {"startedAt": CREATED}},
    }


class RealNode:
    """Starts pods and removes them with all they left; `folder` is for its files."""

    def __init__(self, folder: Path, name: str, bridge: Bridge) -> None:
        self.folder = folder
        self.name = name
        self.bridge = bridge
        self.tree = CgroupTree(f"ktrc{secrets.token_hex(3)}")
        self.pods: list[RealPod] = []
        self._started: list[str] = []

    def __enter__(self) -> RealNode:
        self.bridge.up()
        return self

    def __exit__(self, *_: object) -> None:
        for container_id in reversed(self._started):
            subprocess.run([*self._runc(), "delete", "--force", container_id], capture_output=True, check=False)
        self.tree.kill()
        self.tree.remove()
        # Hierarchies that only runc uses: it makes folders in every one, and leaves the upper ones.
        for mount in Path("/sys/fs/cgroup").glob(f"*/{self.tree.root}"):
            run("find", str(mount), "-depth", "-type", "d", "-delete")
        self.bridge.down()
        shutil.rmtree(self.folder / "bundles", ignore_errors=True)

    def add(self, pod: RealPod) -> None:
        """Start the pod's sandbox, its init containers to their end, then the others."""
        self.pods.append(pod)
        number = len(self.pods)
        pid = self._run(pod, pod.sandbox_id, ["sleep", "infinity"], None)
        if not pod.host_network:
            self.bridge.attach(pid, pod.ip, f"{self.bridge.name}p{number}")
        for container in sorted(pod.containers, key=lambda c: ("init", "sidecar", "app").index(c.kind)):
            if container.kind != "init":
                self._run(pod, container.container_id, container.argv, pid)

    def run_init(self, pod: RealPod, name: str) -> None:
        """Run an init container to its end."""
        container = next(c for c in pod.containers if c.name == name)
        pid = int((self.folder / "bundles" / pod.sandbox_id / "pid").read_text())
        self._run(pod, container.container_id, container.argv, pid, wait=True)

    def exec(self, container: RealContainer, *argv: str) -> str:
        """A further process in a container, as `kubectl exec` starts it."""
        return run(*self._runc(), "exec", container.container_id, *argv, timeout_s=30)

    def write_objects(self, folder: Path, *more: Object) -> None:
        """What `kubectl get -A -o json` prints of this node's pods, and `more`."""
        folder.mkdir(parents=True, exist_ok=True)
        items = [p.object(self.name, self.bridge.node_ip) for p in self.pods]
        (folder / "all.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [*items, *more]}))

    def _runc(self) -> list[str]:
        return ["runc", "--root", str(self.folder / "runc")]

    def _run(self, pod: RealPod, container_id: str, argv: list[str], pid: int | None, wait: bool = False) -> int:
        place = self.folder / "bundles" / container_id
        root = place / "rootfs"
        for name in ("usr", "proc", "dev", "tmp", "etc"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        config = _config(f"/{self.tree.root}/{pod.cgroup(container_id)}", argv)
        if not pod.host_network:
            namespace = {"type": "network"} | ({"path": f"/proc/{pid}/ns/net"} if pid else {})
            config["linux"]["namespaces"].append(namespace)
        (place / "config.json").write_text(json.dumps(config))
        self._started.append(container_id)
        detach = [] if wait else ["--detach"]
        # The container keeps these files open, so they must not be pipes somebody waits on.
        with (place / "log").open("wb") as log:
            done = subprocess.run(
                [*self._runc(), "run", *detach, "--pid-file", str(place / "pid"), "--bundle", str(place), container_id],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, check=False,
            )  # fmt: skip
        if done.returncode != 0:
            raise LabError(f"runc cannot start {argv}: {(place / 'log').read_text(errors='replace')[-400:]}")
        return int((place / "pid").read_text())


def _config(cgroup: str, argv: list[str]) -> Object:
    """The OCI runtime configuration of a container (opencontainers/runtime-spec, config.md)."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": argv,
            "env": ["PATH=/usr/sbin:/usr/bin", "PYTHONDONTWRITEBYTECODE=1"],
            "cwd": "/",
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {},
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
        },
    }
