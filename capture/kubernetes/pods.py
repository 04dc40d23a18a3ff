"""Pods and their containers: one Pod object to rows of k8s_pod and k8s_container. Pure functions.

The STATUS column follows what `kubectl get pods` computes (kubernetes pkg/printers/internalversion/printers.go,
printPod), so that a reader finds the word they know.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

Json = dict[str, Any]
Row = dict[str, Any]

_SUFFIXES = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
    "Ei": 2.0**60,
}


def quantity(text: Any) -> float | None:
    """A Kubernetes quantity (`250m`, `64Mi`, `1e3`) as a number; None where it is none."""
    if text is None:
        return None
    text = str(text)
    number = text.rstrip("numkKMGTPEi")
    # "1E3" and "12e6" end in digits, so only true suffixes are cut off.
    try:
        return float(number) * _SUFFIXES[text[len(number) :]]
    except (ValueError, KeyError):
        return None


def quantity_bytes(text: Any) -> int | None:
    value = quantity(text)
    return None if value is None else int(value)


def time_ns(text: Any) -> int | None:
    """RFC 3339 to nanoseconds since 1970, without rounding; None where it is not given."""
    if not text:
        return None
    whole, dot, rest = str(text).partition(".")
    fraction = 0
    if dot:
        digits = rest.rstrip("Z").partition("+")[0]
        fraction = int(digits[:9].ljust(9, "0")) if digits.isdigit() else 0
        whole += "Z" if rest.endswith("Z") else rest[len(digits) :]
    try:
        return int(datetime.fromisoformat(whole).timestamp()) * 1_000_000_000 + fraction
    except ValueError:
        return None


def controller(metadata: Json) -> tuple[str | None, str | None, str | None]:
    """(apiVersion, kind, name) of the owner that controls an object; of the first owner where none says so."""
    owners = metadata.get("ownerReferences") or []
    for owner in [o for o in owners if o.get("controller")] or owners:
        return owner.get("apiVersion"), owner.get("kind"), owner.get("name")
    return None, None, None


def _condition(status: Json, name: str) -> Json:
    return next((c for c in status.get("conditions") or [] if c.get("type") == name), {})


def _ended(terminated: Json) -> str:
    """The word for a terminated container: its reason, else its signal or exit code."""
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _init_reason(pod: Json) -> str | None:
    """`Init:...` of the first init container that is not done; None where all are."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    inits = spec.get("initContainers") or []
    sidecars = {c.get("name") for c in inits if c.get("restartPolicy") == "Always"}
    for i, container in enumerate(status.get("initContainerStatuses") or []):
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated and terminated.get("exitCode") == 0:
            continue
        if container.get("name") in sidecars and container.get("started"):
            continue
        if terminated:
            return f"Init:{_ended(terminated)}"
        if waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{i}/{len(inits)}"
    return None


def status_reason(pod: Json) -> str:
    """The STATUS column of `kubectl get pods`."""
    status = pod.get("status") or {}
    phase = str(status.get("phase") or "Unknown")
    reason = str(status.get("reason") or phase)
    if _condition(status, "PodScheduled").get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    init = _init_reason(pod)
    if init is not None:
        reason = init
    if init is None or _condition(status, "Initialized").get("status") == "True":
        running = False
        for container in reversed(status.get("containerStatuses") or []):
            state = container.get("state") or {}
            terminated = state.get("terminated")
            if (state.get("waiting") or {}).get("reason"):
                reason = state["waiting"]["reason"]
            elif terminated:
                reason = _ended(terminated)
            elif container.get("ready") and "running" in state:
                running = True
        if reason == "Completed" and running:
            reason = "Running" if _condition(status, "Ready").get("status") == "True" else "NotReady"
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if phase not in ("Succeeded", "Failed"):
            return "Terminating"
    return reason


def image_tag(image: str | None) -> str | None:
    """`1.4.2` of `registry:5000/shop/app:1.4.2`; the first 12 digits of a digest; None without either."""
    if not image:
        return None
    name, at, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if tag:
        return tag
    return digest.partition(":")[2][:12] or None if at else None


_VERSION_LABELS = ("pod-template-hash", "rollouts-pod-template-hash", "controller-revision-hash")


def version(pod: Json) -> str | None:
    """What tells two generations of a workload apart: the template's hash, else the first image's tag."""
    labels = (pod.get("metadata") or {}).get("labels") or {}
    for name in _VERSION_LABELS:
        if labels.get(name):
            return str(labels[name])
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    return image_tag(containers[0].get("image"))


def _statuses(status: Json) -> list[Json]:
    return [
        c
        for group in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
        for c in status.get(group) or []
    ]


def _freed_ns(status: Json) -> int | None:
    """When a finished pod's address went back: its last container ended."""
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    ends = [time_ns(((c.get("state") or {}).get("terminated") or {}).get("finishedAt")) for c in _statuses(status)]
    return max((e for e in ends if e), default=None)


def pod_row(pod: Json) -> Row:
    """One k8s_pod row; owner_kind and owner_name are those of the direct owner until `owners` lifts them."""
    metadata, spec, status = pod.get("metadata") or {}, pod.get("spec") or {}, pod.get("status") or {}
    ips = [i["ip"] for i in status.get("podIPs") or [] if i.get("ip")] or [i for i in [status.get("podIP")] if i]
    _, kind, name = controller(metadata)
    grace_ns = int(metadata.get("deletionGracePeriodSeconds") or 0) * 1_000_000_000
    deletion = time_ns(metadata.get("deletionTimestamp"))
    started = time_ns(status.get("startTime"))
    return {
        "namespace": metadata.get("namespace") or "",
        "name": metadata.get("name") or "",
        "uid": metadata.get("uid") or "",
        "node": spec.get("nodeName"),
        "phase": status.get("phase") or "Unknown",
        "reason": status_reason(pod),
        "ip": ips[0] if ips else None,
        "ips": " ".join(ips) or None,
        "host_ip": status.get("hostIP"),
        "host_network": bool(spec.get("hostNetwork")),
        "service_account": spec.get("serviceAccountName"),
        "owner_kind": kind,
        "owner_name": name,
        "controller_kind": kind,
        "controller_name": name,
        "version": version(pod),
        "labels": json.dumps(metadata.get("labels") or {}, sort_keys=True),
        "qos_class": status.get("qosClass"),
        "ready": _condition(status, "Ready").get("status") == "True",
        "restart_count": sum(int(c.get("restartCount") or 0) for c in _restarting(spec, status)),
        "created_ns": time_ns(metadata.get("creationTimestamp")),
        "started_ns": started,
        # The stamp is when the grace period ends (apimachinery, ObjectMeta.DeletionTimestamp).
        "deleted_ns": deletion - grace_ns if deletion else None,
        "valid_from_ns": started if ips else None,
        "valid_to_ns": _freed_ns(status),
    }


def _restarting(spec: Json, status: Json) -> list[Json]:
    """The containers that kubectl counts restarts of: the app's, and sidecars; init ones while they run."""
    sidecars = {c.get("name") for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"}
    inits = status.get("initContainerStatuses") or []
    if (
        _init_reason({"spec": spec, "status": status}) is not None
        and _condition(status, "Initialized").get("status") != "True"
    ):
        return inits
    return [c for c in inits if c.get("name") in sidecars] + list(status.get("containerStatuses") or [])


def container_rows(pod: Json) -> list[Row]:
    """One k8s_container row per container the pod declares."""
    metadata, spec, status = pod.get("metadata") or {}, pod.get("spec") or {}, pod.get("status") or {}
    by_name = {c.get("name"): c for c in _statuses(status)}
    rows = []
    for group, kind in (("initContainers", "init"), ("containers", "app"), ("ephemeralContainers", "ephemeral")):
        for declared in spec.get(group) or []:
            if kind == "init" and declared.get("restartPolicy") == "Always":
                rows.append(_container_row(metadata, declared, by_name.get(declared.get("name")) or {}, "sidecar"))
            else:
                rows.append(_container_row(metadata, declared, by_name.get(declared.get("name")) or {}, kind))
    return rows


def split_container_id(text: str | None) -> tuple[str | None, str | None]:
    """(runtime, id) of `containerd://5f0a...`."""
    runtime, separator, container_id = (text or "").partition("://")
    return (runtime, container_id) if separator and container_id else (None, None)


def _container_row(metadata: Json, declared: Json, status: Json, kind: str) -> Row:
    runtime, container_id = split_container_id(status.get("containerID"))
    states: Json = status.get("state") or {}
    state_name = next(iter(states), None)
    state: Json = states.get(state_name or "") or {}
    last = (status.get("lastState") or {}).get("terminated") or {}
    resources = declared.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    ports = [
        f"{p['containerPort']}/{p.get('protocol') or 'TCP'}"
        for p in declared.get("ports") or []
        if "containerPort" in p
    ]
    return {
        "namespace": metadata.get("namespace") or "",
        "pod_name": metadata.get("name") or "",
        "pod_uid": metadata.get("uid") or "",
        "name": declared.get("name") or "",
        "kind": kind,
        "container_id": container_id,
        "runtime": runtime,
        "image": declared.get("image") or status.get("image"),
        "image_id": status.get("imageID") or None,
        "ready": bool(status.get("ready")),
        "state": state_name,
        "reason": state.get("reason"),
        "exit_code": state.get("exitCode") if state_name == "terminated" else None,
        "restart_count": int(status.get("restartCount") or 0),
        "last_reason": last.get("reason"),
        "last_exit_code": last.get("exitCode"),
        "last_finished_ns": time_ns(last.get("finishedAt")),
        "started_ns": time_ns(state.get("startedAt")) if state_name == "running" else None,
        "cpu_request_cores": quantity(requests.get("cpu")),
        "cpu_limit_cores": quantity(limits.get("cpu")),
        "memory_request_bytes": quantity_bytes(requests.get("memory")),
        "memory_limit_bytes": quantity_bytes(limits.get("memory")),
        "ports": " ".join(ports) or None,
    }
