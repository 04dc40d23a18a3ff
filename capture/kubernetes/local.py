"""Pods as far as the node itself knows them, for when neither API nor kubelet answers."""

from __future__ import annotations

import os
from typing import Any

from kubetape.capture.kubernetes.pods import image_tag
from kubetape.capture.kubernetes.runtime import SANDBOX_NAME, Container
from kubetape.capture.samplers import netlink

Row = dict[str, Any]


def pods_of_containers(node: str, containers: list[Container], proc: str = "/proc") -> tuple[list[Row], list[Row]]:
    """(k8s_pod rows, k8s_container rows) of the pods that the containers name."""
    by_pod: dict[tuple[str, str, str], list[Container]] = {}
    for container in containers:
        if container.pod_name and container.namespace:
            key = (container.namespace, container.pod_name, container.pod_uid or "")
            by_pod.setdefault(key, []).append(container)
    host_netns = _netns(proc, "1") or _netns(proc, "self")
    pod_rows, container_rows = [], []
    for (namespace, name, uid), members in sorted(by_pod.items()):
        alive = [c for c in members if c.netns_id is not None]
        host_network = bool(alive) and alive[0].netns_id == host_netns
        ips = [] if host_network or not alive else _addresses(proc, alive)
        apps = [c for c in members if c.name != SANDBOX_NAME]
        pod_rows.append(
            {
                "namespace": namespace,
                "name": name,
                "uid": uid,
                "node": node or None,
                "phase": "Running" if alive else "Unknown",
                "reason": "Running" if alive else "Unknown",
                "ip": ips[0] if ips else None,
                "ips": " ".join(ips) or None,
                "host_network": host_network,
                "version": image_tag(apps[0].image) if apps else None,
                "labels": "{}",
            }
        )
        for container in apps:
            container_rows.append(
                {
                    "namespace": namespace,
                    "pod_name": name,
                    "pod_uid": uid,
                    "name": container.name or "",
                    "kind": "app",
                    "container_id": container.container_id,
                    "image": container.image,
                    "state": "running" if container.netns_id is not None else None,
                }
            )
    return pod_rows, container_rows


def _netns(proc: str, pid: str) -> int | None:
    try:
        return int(os.readlink(f"{proc}/{pid}/ns/net")[5:-1])
    except (OSError, ValueError):
        return None


def _addresses(proc: str, containers: list[Container]) -> list[str]:
    """Addresses of the pod's network namespace, without loopback and link-local ones."""
    for container in containers:
        try:
            sockets = netlink.NamespaceSockets(f"{proc}/{container.pid}/ns/net")
        except OSError:
            continue
        try:
            found = [a.partition("/")[0] for link in netlink.links(sockets).values() for a in link.addresses]
        except OSError:
            continue
        finally:
            sockets.close()
        return [a for a in found if not a.startswith(("127.", "fe80:", "169.254.")) and a != "::1"]
    return []
