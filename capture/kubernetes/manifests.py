"""The objects a cluster recording creates; deploy/ shows them as YAML."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import kubetape

Json = dict[str, Any]

LABEL = "app.kubernetes.io/name"
RUN_LABEL = "kubetape.dev/run"
NODE_ANNOTATION = "kubetape.dev/node"
FOLDER = "/kubetape"
DEFAULT_IMAGE = f"kubetape:{kubetape.__version__}"


@dataclass
class PodSettings:
    """What may be chosen about a recorder's pod. deadline_s: after it the kubelet ends the pod by itself."""

    image: str = DEFAULT_IMAGE
    namespace: str = "kubetape"
    cpu_limit: str = "1"
    memory_limit: str = "1Gi"
    disk_limit: str = "8Gi"
    pull_secret: str | None = None
    deadline_s: int = 3600
    arguments: list[str] = field(default_factory=list)


def pod_name(run: str, node: str) -> str:
    """A name that is valid whatever the node is called."""
    return f"kubetape-{run}-{hashlib.sha256(node.encode()).hexdigest()[:10]}"


def namespace_manifest(name: str, run: str) -> Json:
    """The namespace; Pod Security must let privileged pods in."""
    labels = {LABEL: "kubetape", RUN_LABEL: run, "pod-security.kubernetes.io/enforce": "privileged"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod_manifest(run: str, node: str, settings: PodSettings) -> Json:
    """The recorder's pod on one node.

    nodeName is set, so neither a full nor a cordoned node keeps the pod away. No service account token: the
    recorder asks the API nothing.
    """
    spec: Json = {
        "nodeName": node,
        "hostPID": True,
        "hostNetwork": True,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "activeDeadlineSeconds": settings.deadline_s,
        "terminationGracePeriodSeconds": 5,
        "tolerations": [{"operator": "Exists"}],
        "containers": [
            {
                "name": "recorder",
                "image": settings.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python3", "-m", "kubetape.capture.kubernetes.agent", FOLDER, *settings.arguments],
                "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                "resources": {
                    "requests": {"cpu": "50m", "memory": "128Mi"},
                    "limits": {"cpu": settings.cpu_limit, "memory": settings.memory_limit},
                },
                "securityContext": {"privileged": True, "runAsUser": 0},
                "volumeMounts": [{"name": "sys", "mountPath": "/sys"}, {"name": "out", "mountPath": FOLDER}],
            }
        ],
        "volumes": [
            {"name": "sys", "hostPath": {"path": "/sys", "type": "Directory"}},
            {"name": "out", "emptyDir": {"sizeLimit": settings.disk_limit}},
        ],
    }
    if settings.pull_secret:
        spec["imagePullSecrets"] = [{"name": settings.pull_secret}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(run, node),
            "namespace": settings.namespace,
            "labels": {LABEL: "kubetape", RUN_LABEL: run},
            "annotations": {NODE_ANNOTATION: node},
        },
        "spec": spec,
    }
