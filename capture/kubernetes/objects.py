"""Services, endpoints, nodes, workloads and events as rows of their tables. Pure functions from JSON."""

from __future__ import annotations

import json
from typing import Any

from kubetape.capture.kubernetes.pods import controller, quantity, quantity_bytes, time_ns

Json = dict[str, Any]
Row = dict[str, Any]


def _text(value: Any) -> str | None:
    """JSON of something that is there; None for nothing."""
    return json.dumps(value, sort_keys=True) if value else None


def service_rows(service: Json) -> list[Row]:
    """One k8s_service row per port; one row where there are no ports."""
    metadata, spec = service.get("metadata") or {}, service.get("spec") or {}
    ips = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip]
    headless = ips == ["None"]
    balancer = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    external = [*(spec.get("externalIPs") or []), *(i.get("ip") or i.get("hostname") for i in balancer)]
    kind = spec.get("type") or "ClusterIP"
    common = {
        "namespace": metadata.get("namespace") or "",
        "name": metadata.get("name") or "",
        "uid": metadata.get("uid") or "",
        "type": kind,
        "cluster_ips": None if headless or kind == "ExternalName" else " ".join(ips) or None,
        "external_ips": " ".join(dict.fromkeys(e for e in external if e)) or None,
        "external_name": spec.get("externalName"),
        "headless": headless,
        "selector": _text(spec.get("selector")),
    }
    rows = []
    for port in spec.get("ports") or [{}]:
        target = port.get("targetPort")
        rows.append(
            {
                **common,
                "protocol": (port.get("protocol") or "TCP") if port else None,
                "port": port.get("port"),
                "port_name": port.get("name"),
                "target_port": None if target is None else str(target),
                "node_port": port.get("nodePort"),
                "app_protocol": port.get("appProtocol"),
            }
        )
    return rows


def slice_rows(endpoint_slice: Json) -> list[Row]:
    """One k8s_endpoint row per address and port of an EndpointSlice."""
    metadata = endpoint_slice.get("metadata") or {}
    service = (metadata.get("labels") or {}).get("kubernetes.io/service-name") or controller(metadata)[2]
    rows = []
    for endpoint in endpoint_slice.get("endpoints") or []:
        conditions = endpoint.get("conditions") or {}
        target = endpoint.get("targetRef") or {}
        for ip in endpoint.get("addresses") or []:
            for port in endpoint_slice.get("ports") or [{}]:
                ready = conditions.get("ready")
                rows.append(
                    {
                        "namespace": metadata.get("namespace") or "",
                        "service": service or metadata.get("name") or "",
                        "slice": metadata.get("name") or "",
                        "ip": ip,
                        "port": port.get("port"),
                        "port_name": port.get("name") or None,
                        "protocol": (port.get("protocol") or "TCP") if port else None,
                        "pod_name": target.get("name") if target.get("kind") == "Pod" else None,
                        "node": endpoint.get("nodeName"),
                        # Unknown readiness counts as ready (discovery/v1, EndpointConditions).
                        "ready": ready is None or bool(ready),
                        "serving": conditions.get("serving"),
                        "terminating": conditions.get("terminating"),
                        "zone": endpoint.get("zone"),
                    }
                )
    return rows


def endpoints_rows(endpoints: Json) -> list[Row]:
    """One k8s_endpoint row per address and port of an Endpoints object (before EndpointSlices)."""
    metadata = endpoints.get("metadata") or {}
    rows = []
    for subset in endpoints.get("subsets") or []:
        for group, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(group) or []:
                target = address.get("targetRef") or {}
                for port in subset.get("ports") or [{}]:
                    rows.append(
                        {
                            "namespace": metadata.get("namespace") or "",
                            "service": metadata.get("name") or "",
                            "slice": metadata.get("name") or "",
                            "ip": address.get("ip") or "",
                            "port": port.get("port"),
                            "port_name": port.get("name") or None,
                            "protocol": (port.get("protocol") or "TCP") if port else None,
                            "pod_name": target.get("name") if target.get("kind") == "Pod" else None,
                            "node": address.get("nodeName"),
                            "ready": ready,
                        }
                    )
    return rows


def _label(labels: Json, *names: str) -> str | None:
    return next((str(labels[n]) for n in names if labels.get(n)), None)


def node_row(node: Json) -> Row:
    """One k8s_node row."""
    metadata, spec, status = node.get("metadata") or {}, node.get("spec") or {}, node.get("status") or {}
    labels = metadata.get("labels") or {}
    info = {k: v for k, v in (status.get("nodeInfo") or {}).items() if v}
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    capacity, allocatable = status.get("capacity") or {}, status.get("allocatable") or {}
    pods = quantity(capacity.get("pods"))
    cidrs = spec.get("podCIDRs") or [c for c in [spec.get("podCIDR")] if c]

    def holds(name: str) -> bool:
        return (conditions.get(name) or {}).get("status") == "True"

    return {
        "name": metadata.get("name") or "",
        "uid": metadata.get("uid") or "",
        "ips": " ".join(
            dict.fromkeys(
                a["address"]
                for a in status.get("addresses") or []
                if a.get("type") in ("InternalIP", "ExternalIP") and a.get("address")
            )
        ),
        "pod_cidrs": " ".join(cidrs) or None,
        "zone": _label(labels, "topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
        "region": _label(labels, "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
        "instance_type": _label(labels, "node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"),
        "provider": (spec.get("providerID") or "").partition("://")[0] or None,
        "kernel": info.get("kernelVersion"),
        "os_image": info.get("osImage"),
        "runtime": info.get("containerRuntimeVersion"),
        "kubelet": info.get("kubeletVersion"),
        "ready": holds("Ready"),
        "ready_reason": (conditions.get("Ready") or {}).get("reason"),
        "unschedulable": bool(spec.get("unschedulable")),
        "memory_pressure": holds("MemoryPressure"),
        "disk_pressure": holds("DiskPressure"),
        "pid_pressure": holds("PIDPressure"),
        "network_unavailable": holds("NetworkUnavailable"),
        "conditions": json.dumps(list(conditions.values()), sort_keys=True),
        "taints": _text(spec.get("taints")),
        "cpu_cores": quantity(capacity.get("cpu")) or 0.0,
        "memory_bytes": quantity_bytes(capacity.get("memory")) or 0,
        "cpu_allocatable_cores": quantity(allocatable.get("cpu")) or 0.0,
        "memory_allocatable_bytes": quantity_bytes(allocatable.get("memory")) or 0,
        "pod_capacity": int(pods or 0),
    }


def _counts(kind: str, spec: Json, status: Json) -> tuple[Any, Any, Any, Any]:
    """(desired, ready, available, updated) under the names each kind uses."""
    if kind == "DaemonSet":
        return (
            status.get("desiredNumberScheduled"),
            status.get("numberReady"),
            status.get("numberAvailable", 0),
            status.get("updatedNumberScheduled", 0),
        )
    if kind == "Job":
        return spec.get("completions", spec.get("parallelism")), status.get("ready"), status.get("succeeded", 0), None
    if kind == "CronJob":
        return None, None, None, None
    replicas = spec.get("replicas")
    if replicas is None:
        return None, status.get("readyReplicas"), status.get("availableReplicas"), status.get("updatedReplicas")
    # A count of zero is left out of the status.
    updated = None if kind in ("ReplicaSet", "ReplicationController") else status.get("updatedReplicas", 0)
    return replicas, status.get("readyReplicas", 0), status.get("availableReplicas", 0), updated


def workload_row(workload: Json) -> Row:
    """One k8s_workload row of any kind that owns pods, custom kinds included."""
    metadata, spec, status = workload.get("metadata") or {}, workload.get("spec") or {}, workload.get("status") or {}
    kind = workload.get("kind") or ""
    _, owner_kind, owner_name = controller(metadata)
    template = spec.get("template") or ((spec.get("jobTemplate") or {}).get("spec") or {}).get("template") or {}
    pod_spec = template.get("spec") or {} if isinstance(template, dict) else {}
    containers = [*(pod_spec.get("initContainers") or []), *(pod_spec.get("containers") or [])]
    images = dict.fromkeys(c.get("image") for c in containers if c.get("image"))
    desired, ready, available, updated = _counts(kind, spec, status)
    paused = spec.get("paused", spec.get("suspend"))
    return {
        "kind": kind,
        "namespace": metadata.get("namespace") or "",
        "name": metadata.get("name") or "",
        "uid": metadata.get("uid") or "",
        "owner_kind": owner_kind,
        "owner_name": owner_name,
        "desired_count": desired,
        "ready_count": ready,
        "available_count": available,
        "updated_count": updated,
        "images": " ".join(images) or None,
        "selector": _text(spec.get("selector")),
        "paused": bool(paused) if paused is not None or kind in ("Deployment", "CronJob") else None,
        "conditions": _text(status.get("conditions")),
        "created_ns": time_ns(metadata.get("creationTimestamp")),
    }


def event_row(event: Json) -> Row:
    """One k8s_event row, of v1 or events.k8s.io/v1."""
    metadata = event.get("metadata") or {}
    about = event.get("involvedObject") or event.get("regarding") or {}
    source = event.get("source") or event.get("deprecatedSource") or {}
    series = event.get("series") or {}
    first = event.get("firstTimestamp") or event.get("deprecatedFirstTimestamp") or event.get("eventTime")
    last = (
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("deprecatedLastTimestamp")
        or event.get("eventTime")
        or metadata.get("creationTimestamp")
    )
    return {
        "namespace": about.get("namespace") or metadata.get("namespace") or "",
        "kind": about.get("kind") or "",
        "name": about.get("name") or "",
        "type": event.get("type") or "Normal",
        "reason": event.get("reason") or "",
        "message": event.get("message") or event.get("note") or "",
        "count": int(series.get("count") or event.get("count") or event.get("deprecatedCount") or 1),
        "first_ns": time_ns(first or metadata.get("creationTimestamp")),
        "last_ns": time_ns(last),
        "component": event.get("reportingComponent")
        or event.get("reportingController")
        or source.get("component")
        or None,
        "host": source.get("host") or None,
    }
