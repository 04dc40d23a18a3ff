"""Containers as the node's own files tell them, so that pods have names even with no API.

Sources: containerd keeps each task's OCI config below its state folder, with annotations `io.kubernetes.cri.*`
(internal/cri/annotations); CRI-O and podman in userdata/config.json of containers/storage
(`io.kubernetes.*`, `io.podman.*`); Docker in config.v2.json with labels `io.kubernetes.*` (cri-dockerd). What
no runtime explains is still a container by its cgroup.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kubetape.capture.kubernetes.cgroups import parse_proc_cgroup

Row = dict[str, Any]

_CONTAINERD_STATES = (
    "run/containerd",
    "run/k3s/containerd",
    "run/k0s/containerd",
    "var/snap/microk8s/common/run/containerd",
    "run/docker/containerd",
)
_STORAGE = ("run/containers/storage", "var/lib/containers/storage")
_DOCKER = ("var/lib/docker/containers",)
_CONFIG_BYTES_MAX = 8 << 20
SANDBOX_NAME = "POD"  # what Docker's users know the pause container by


@dataclass
class Container:
    """One `container` row without node. name is SANDBOX_NAME for a pod's pause container."""

    container_id: str
    name: str | None = None
    pod_uid: str | None = None
    pod_name: str | None = None
    namespace: str | None = None
    image: str | None = None
    pid: int | None = None
    cgroup_path: str | None = None
    netns_id: int | None = None
    source: str = "runtime"


def containers(root: str = "/", proc: str = "/proc") -> list[Container]:
    """Every container the runtimes' files and the cgroups of living processes name.

    root: the host's file system (`/proc/1/root` in a pod). Files that cannot be read are passed over: which
    runtimes a node has is not known beforehand.
    """
    found: dict[str, Container] = {}
    for reader in (_containerd, _storage, _docker):
        for container in reader(Path(root)):
            found.setdefault(container.container_id, container)
    _from_processes(found, proc)
    return list(found.values())


def rows(node: str, found: list[Container]) -> list[Row]:
    """`container` rows."""
    return [{"node": node, **asdict(container)} for container in found]


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _CONFIG_BYTES_MAX:
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(p for p in path.iterdir() if p.is_dir())
    except OSError:
        return []


def _containerd(root: Path) -> list[Container]:
    found = []
    for state in _CONTAINERD_STATES:
        for namespace in _folders(root / state / "io.containerd.runtime.v2.task"):
            for folder in _folders(namespace):
                config = _json(folder / "config.json")
                if config:
                    found.append(from_containerd(folder.name, config, _number(folder / "init.pid")))
    return found


def from_containerd(container_id: str, config: dict[str, Any], pid: int | None = None) -> Container:
    """A container from its OCI config with the CRI plugin's annotations."""
    notes = config.get("annotations") or {}
    prefix = "io.kubernetes.cri."
    sandbox = notes.get(f"{prefix}container-type") == "sandbox"
    return Container(
        container_id,
        SANDBOX_NAME if sandbox else notes.get(f"{prefix}container-name"),
        notes.get(f"{prefix}sandbox-uid"),
        notes.get(f"{prefix}sandbox-name"),
        notes.get(f"{prefix}sandbox-namespace"),
        notes.get(f"{prefix}image-name") or notes.get(f"{prefix}podsandbox.image-name"),
        pid,
        (config.get("linux") or {}).get("cgroupsPath"),
    )


def _storage(root: Path) -> list[Container]:
    found = []
    for storage in _STORAGE:
        for driver in ("overlay-containers", "vfs-containers", "btrfs-containers"):
            for folder in _folders(root / storage / driver):
                config = _json(folder / "userdata" / "config.json")
                if config:
                    found.append(from_storage(folder.name, config, _number(folder / "userdata" / "pidfile")))
    return found


def from_storage(container_id: str, config: dict[str, Any], pid: int | None = None) -> Container:
    """A container of CRI-O or podman from its OCI config."""
    notes = config.get("annotations") or {}
    sandbox = notes.get("io.kubernetes.cri-o.ContainerType") == "sandbox"
    return Container(
        container_id,
        SANDBOX_NAME if sandbox else notes.get("io.kubernetes.container.name") or config.get("hostname"),
        notes.get("io.kubernetes.pod.uid"),
        notes.get("io.kubernetes.pod.name"),
        notes.get("io.kubernetes.pod.namespace"),
        notes.get("io.kubernetes.cri-o.ImageName") or notes.get("io.kubernetes.cri-o.Image"),
        pid,
        (config.get("linux") or {}).get("cgroupsPath"),
    )


def _docker(root: Path) -> list[Container]:
    found = []
    for place in _DOCKER:
        for folder in _folders(root / place):
            config = _json(folder / "config.v2.json")
            if config:
                found.append(from_docker(folder.name, config))
    return found


def from_docker(container_id: str, config: dict[str, Any]) -> Container:
    """A container of Docker, of a pod (cri-dockerd's labels) or by itself."""
    settings = config.get("Config") or {}
    labels = settings.get("Labels") or {}
    sandbox = labels.get("io.kubernetes.docker.type") == "podsandbox"
    name = labels.get("io.kubernetes.container.name") or str(config.get("Name") or "").lstrip("/") or None
    return Container(
        container_id,
        SANDBOX_NAME if sandbox else name,
        labels.get("io.kubernetes.pod.uid"),
        labels.get("io.kubernetes.pod.name"),
        labels.get("io.kubernetes.pod.namespace"),
        settings.get("Image"),
        (config.get("State") or {}).get("Pid") or None,
    )


def _from_processes(found: dict[str, Container], proc: str) -> None:
    """Cgroup path, first process and network namespace of living containers; those no file named."""
    try:
        pids = sorted(int(name) for name in os.listdir(proc) if name.isdigit())
    except OSError:
        return
    seen: set[str] = set()
    for pid in pids:
        try:
            text = Path(proc, str(pid), "cgroup").read_text(errors="replace")
        except OSError:
            continue
        identity = parse_proc_cgroup(text)
        if identity.container_id is None or identity.container_id in seen:
            continue
        seen.add(identity.container_id)
        container = found.setdefault(identity.container_id, Container(identity.container_id, source="cgroup"))
        container.pod_uid = container.pod_uid or identity.pod_uid
        container.cgroup_path = _path_of(text, identity.container_id)
        container.pid = container.pid or pid
        try:
            container.netns_id = int(os.readlink(f"{proc}/{pid}/ns/net")[5:-1])
        except (OSError, ValueError):
            container.netns_id = None


def _path_of(text: str, container_id: str) -> str | None:
    """The unified path that names the container, else the first v1 one."""
    paths = [
        (line.split(":", 2)[0] != "0", line.split(":", 2)[2]) for line in text.splitlines() if container_id in line
    ]
    return min(paths)[1] if paths else None
