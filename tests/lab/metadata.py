"""The lab's pods as Kubernetes objects, written as `kubectl get KIND -A -o json` prints them."""

from __future__ import annotations

import hashlib
import json
import platform
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.lab.pods import Pod

Object = dict[str, Any]


def uid_of(*parts: str) -> str:
    """A stable uid for an object that exists only on paper."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(parts)))


def _meta(namespace: str | None, name: str, created: str, *, app: str | None = None, **more: Any) -> Object:
    meta: Object = {"name": name, "uid": uid_of(namespace or "", name, created), "creationTimestamp": created}
    if namespace:
        meta["namespace"] = namespace
    if app:
        meta["labels"] = {"app": app}
    return meta | more


def _owner(kind: str, name: str, uid: str) -> list[Object]:
    return [{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}]


def replica_set_name(pod: Pod) -> str:
    return f"{pod.app}-{pod.template_hash}"


def _controller(pod: Pod) -> tuple[str, str]:
    return ("ReplicaSet", replica_set_name(pod)) if pod.kind == "Deployment" else ("StatefulSet", pod.app)


def _conditions(created: str, *types: str) -> list[Object]:
    return [{"type": t, "status": "True", "lastTransitionTime": created} for t in types]


def pod_object(pod: Pod, node: str, node_ip: str, created: str) -> Object:
    """The pod, running and ready."""
    kind, name = _controller(pod)
    version = "pod-template-hash" if pod.kind == "Deployment" else "controller-revision-hash"
    labels = {"app": pod.app, version: pod.template_hash}
    ports = [{"containerPort": pod.port, "protocol": "UDP" if pod.port == 53 else "TCP"}] if pod.port else []
    resources = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    status = {
        "name": pod.app,
        "containerID": f"containerd://{pod.container_id}",
        "image": pod.image,
        "imageID": f"{pod.image.partition(':')[0]}@sha256:{hashlib.sha256(pod.image.encode()).hexdigest()}",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": created}},
        "lastState": {},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": pod.uid,
            "creationTimestamp": created,
            "labels": labels,
            "ownerReferences": _owner(kind, name, uid_of(pod.namespace, name, created)),
        },
        "spec": {
            "nodeName": node,
            "serviceAccountName": "default",
            "containers": [{"name": pod.app, "image": pod.image, "ports": ports, "resources": resources}],
        },
        "status": {
            "phase": "Running",
            "qosClass": "Burstable",
            "startTime": created,
            "hostIP": node_ip,
            "podIP": pod.ip,
            "podIPs": [{"ip": pod.ip}],
            "conditions": _conditions(created, "Initialized", "Ready", "ContainersReady", "PodScheduled"),
            "containerStatuses": [status],
        },
    }


def workload_objects(pods: list[Pod], created: str) -> list[Object]:
    """The Deployment and ReplicaSet, or the StatefulSet, that these pods of one app belong to."""
    first, count = pods[0], len(pods)
    selector = {"matchLabels": {"app": first.app}}
    containers = [{"name": first.app, "image": first.image}]
    template = {"metadata": {"labels": {"app": first.app}}, "spec": {"containers": containers}}
    common = {
        "apiVersion": "apps/v1",
        "spec": {"replicas": count, "selector": selector, "template": template},
        "status": {"replicas": count, "readyReplicas": count, "availableReplicas": count, "updatedReplicas": count},
    }
    meta = _meta(first.namespace, first.app, created, app=first.app)
    top = common | {"kind": first.kind, "metadata": meta}
    if first.kind != "Deployment":
        return [top]
    owner = _owner("Deployment", first.app, meta["uid"])
    replica_meta = _meta(first.namespace, replica_set_name(first), created, app=first.app, ownerReferences=owner)
    return [top, common | {"kind": "ReplicaSet", "metadata": replica_meta}]


def service_objects(pods: list[Pod], node: str, created: str, cluster_ip: str) -> list[Object]:
    """The Service of these pods of one app, and its EndpointSlice."""
    first = pods[0]
    protocol = "UDP" if first.port == 53 else "TCP"
    port = {"name": "main", "port": first.port, "protocol": protocol}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(first.namespace, first.app, created, app=first.app),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "selector": {"app": first.app},
            "ports": [port | {"targetPort": first.port}],
        },
    }
    endpoints = [
        {
            "addresses": [pod.ip],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": node,
            "targetRef": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
        }
        for pod in pods
    ]
    endpoint_slice = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": _meta(first.namespace, f"{first.app}-lab", created)
        | {"labels": {"kubernetes.io/service-name": first.app}},
        "endpoints": endpoints,
        "ports": [port],
    }
    return [service, endpoint_slice]


def node_object(node: str, node_ip: str, pod_cidr: str, created: str) -> Object:
    """This machine as a node."""
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    size = {"cpu": str(len(_cpus())), "memory": f"{memory_kib}Ki", "pods": "110"}
    info = {"kernelVersion": platform.release(), "osImage": _os_name(), "containerRuntimeVersion": "containerd://lab"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": _meta(None, node, created) | {"labels": {"topology.kubernetes.io/zone": "lab-1"}},
        "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": node_ip}, {"type": "Hostname", "address": node}],
            "capacity": size,
            "allocatable": size,
            "conditions": _conditions(created, "Ready"),
            "nodeInfo": info,
        },
    }


def _cpus() -> list[str]:
    return [line for line in Path("/proc/stat").read_text().splitlines() if line[:3] == "cpu" and line[3] != " "]


def _os_name() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def empty_service_objects(pod: Pod, node: str, created: str, cluster_ip: str) -> list[Object]:
    """The Service of an app that has no pod, as it is planned in `pod`, and its EndpointSlice with nothing in it."""
    service, endpoint_slice = service_objects([pod], node, created, cluster_ip)
    return [service, endpoint_slice | {"endpoints": []}]


def write(folder: Path, pods: list[Pod], node: str, node_ip: str, pod_cidr: str, more: Iterable[Object] = ()) -> None:
    """Write one list for each kind into `folder` (pods.json, services.json, ...); more: objects beside the pods'."""
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    objects = [node_object(node, node_ip, pod_cidr, created)]
    for name in sorted({pod.namespace for pod in pods}):
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": _meta(None, name, created)}
        objects.append(space | {"status": {"phase": "Active"}})
    objects += [pod_object(pod, node, node_ip, created) for pod in pods]
    for app in sorted({pod.app for pod in pods}):
        members = [pod for pod in pods if pod.app == app]
        objects += workload_objects(members, created)
        if members[0].port:
            # Names resolve straight to the pods, as those of a headless service do.
            objects += service_objects(members, node, created, "None")
    objects += more
    folder.mkdir(parents=True, exist_ok=True)
    for kind in sorted({o["kind"] for o in objects}):
        _write_list(folder / f"{kind.lower()}s.json", (o for o in objects if o["kind"] == kind))


def _write_list(path: Path, items: Iterable[Object]) -> None:
    listing = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": list(items)}
    path.write_text(json.dumps(listing, indent=1))
