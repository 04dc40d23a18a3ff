"""Which container and pod a cgroup path names.

Strategy: a path is walked level by level. The innermost pod level wins (a cluster inside a pod: the inner
pod is the one whose API a person asks), and the first container level below that pod is the container,
whatever the container nests below itself (Docker in a pod, systemd in a container). Without a pod level
the innermost container level wins. Nothing is guessed from a name that only looks like an id: a level
counts as a container by its runtime's own prefix or by 64 hex digits.

Sources: kubelet pkg/kubelet/cm/cgroup_manager_linux.go (kubepods names, `-` written as `_` in slices),
containerd internal/cri and runc (`slice:prefix:name`), CRI-O internal/config/cgmgr (`crio-`, `crio-conmon-`),
moby daemon/oci_linux.go (`docker-`, `/docker/`), podman (`libpod-`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class CgroupIdentity:
    """container_id (64 hex digits as a rule); pod_uid as the kubelet names it (static pods: the config
    hash, which is the `kubernetes.io/config.hash` annotation of the mirror pod, not its uid);
    runtime: 'containerd', 'cri-o', 'docker', 'podman'. None where the path does not tell."""

    container_id: str | None = None
    pod_uid: str | None = None
    runtime: str | None = None


NO_IDENTITY = CgroupIdentity()

_RUNTIMES = {
    "cri-containerd": "containerd",
    "containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "docker": "docker",
    "libpod": "podman",
    "crun": None,
    "kata": None,
    "runc": None,
}
# containerd's namespace folders and Docker's, above a bare id.
_PARENTS = {
    "k8s.io": "containerd",
    "moby": "docker",
    "docker": "docker",
    "libpod_parent": "podman",
    "ecs": "docker",
}

_ID = r"[0-9a-f]{64}|[0-9a-f]{32}-[0-9]{6,12}"  # the second form: tasks of ECS on Fargate
_BARE = re.compile(rf"({_ID})(?:\.scope)?$")
_PREFIXED = re.compile(rf"({'|'.join(_RUNTIMES)})[-_]({_ID})(?:\.scope)?$")
_CONMON = re.compile(rf"(crio|libpod)-conmon-(?:{_ID})(?:\.scope)?$")
_COLON = re.compile(rf"([^:]*):([^:]*):({_ID})$")

_UUID = r"[0-9a-f]{8}([-_])[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12}"
# A slice carries its whole ancestry in its name; any prefix may stand before kubepods (kubelet's cgroupRoot).
_POD_SLICE = re.compile(r"(?:.+-)?kubepods(?:-(?:burstable|besteffort|guaranteed))?-pod([0-9A-Za-z_.]+?)(?:\.slice)?$")
_POD_FOLDER = re.compile(rf"pod({_UUID}|[0-9a-f]{{32}})$")
_POD_BELOW_KUBEPODS = re.compile(r"pod([0-9A-Za-z_.-]+)$")
_QOS = {"burstable", "besteffort", "guaranteed"}


def _pod_of(level: str, above: str) -> str | None:
    """The pod uid that `level` names, given the level above it."""
    if match := _POD_SLICE.match(level):
        return match[1].replace("_", "-")
    if match := _POD_FOLDER.match(level):
        return match[1].replace("_", "-")
    if above in _QOS or above.endswith("kubepods"):
        match = _POD_BELOW_KUBEPODS.match(level)
        return match[1] if match else None
    return None


def _container_of(level: str, above: str) -> tuple[str | None, str | None] | None:
    """(container id, runtime) where `level` is a container or a runtime's helper, else None."""
    if match := _CONMON.match(level):
        return None, _RUNTIMES[match[1]]
    if match := _PREFIXED.match(level):
        return match[2], _RUNTIMES[match[1]]
    if match := _BARE.match(level):
        return match[1], _PARENTS.get(above)
    return None


def _levels(path: str) -> list[str]:
    levels: list[str] = []
    for level in path.removesuffix(" (deleted)").split("/"):
        # runc without the systemd driver makes one folder of "slice:prefix:name".
        if match := _COLON.match(level):
            levels += [match[1], f"{match[2]}-{match[3]}" if match[2] in _RUNTIMES else match[3]]
        else:
            levels.append(level)
    return levels


@lru_cache(maxsize=8192)
def parse_cgroup_path(path: str) -> CgroupIdentity:
    """The container, pod and runtime that a cgroup path names; all None for host processes.

    `path` is one hierarchy's path as the third field of /proc/PID/cgroup shows it, or a folder below the
    mount point; cgroup v1, v2 and hybrid, cgroupfs and systemd drivers alike. Never raises.
    """
    levels = _levels(path)
    pod_uid = None
    pod_at = -1
    for i, level in enumerate(levels):
        if found := _pod_of(level, levels[i - 1] if i else ""):
            pod_uid, pod_at = found, i
    container: tuple[str | None, str | None] | None = None
    for i in range(pod_at + 1, len(levels)):
        if inner := _container_of(levels[i], levels[i - 1] if i else ""):
            container = inner
            if pod_uid is not None:
                break
    if container is None:
        return CgroupIdentity(pod_uid=pod_uid) if pod_uid else NO_IDENTITY
    return CgroupIdentity(container[0], pod_uid, container[1])


def parse_proc_cgroup(text: str) -> CgroupIdentity:
    """The identity told by a whole /proc/PID/cgroup: the hierarchy that tells most wins.

    On a hybrid node the unified line may name only a service while the v1 lines name the container.
    """
    best = NO_IDENTITY
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3:
            continue
        found = parse_cgroup_path(fields[2])
        if _told(found) > _told(best):
            best = found
    return best


def _told(identity: CgroupIdentity) -> int:
    return 4 * (identity.container_id is not None) + 2 * (identity.pod_uid is not None) + (identity.runtime is not None)
