"""All objects of a snapshot on their way to rows: the newest state of each, what changed, and who owns whom.

Objects come from any source (the API's LISTs and watches, files, the kubelet) in any order. Each is cleaned of
secrets first, turned to rows, kept as JSON text, and forgotten as an object: 5,000 pods then take tens of
megabytes, not hundreds.
"""

from __future__ import annotations

import json
from typing import Any

from kubetape.capture.kubernetes import objects, pods
from kubetape.capture.kubernetes.kinds import KIND_NAMES, WORKLOAD_KINDS
from kubetape.capture.kubernetes.scrub import scrub

Json = dict[str, Any]
Row = dict[str, Any]
Key = tuple[str, str, str, str]  # kind, namespace, name, uid
Name = tuple[str, str, str]  # kind, namespace, name

K8S_TABLES = (
    "k8s_object",
    "k8s_pod",
    "k8s_container",
    "k8s_service",
    "k8s_endpoint",
    "k8s_node",
    "k8s_workload",
    "k8s_event",
)
# A person knows these by name; the owner above them, if any, is how they were installed (an operator's object).
_KNOWN_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "CronJob", "Rollout", "Node")
_OWNER_DEPTH_MAX = 8


class Store:
    """add() what is seen, rows() at the end."""

    def __init__(self) -> None:
        self._versions: dict[Key, str] = {}
        self._objects: list[Row] = []
        self._last: dict[Key, int] = {}
        self._rows: dict[Key, tuple[str, list[Row]]] = {}
        self._containers: dict[Key, list[Row]] = {}
        self._earlier_pods: list[Row] = []
        self._owners: dict[Name, tuple[str, str, str]] = {}
        self._slices: dict[Key, tuple[str, str]] = {}
        self.changed_count = 0

    def add(self, obj: Json, taken: str, observed_ns: int, deleted: bool = False) -> None:
        """One object as seen at `observed_ns` (realtime). taken: 'start', 'end', 'watch' or 'file'.

        An object whose resourceVersion is already here adds nothing. Secrets and unknown kinds of no owner's
        interest are the caller's to leave out; a Secret that comes anyway is refused.
        """
        kind = str(obj.get("kind") or "")
        if kind in ("Secret", "ConfigMap", ""):
            return
        obj = scrub(obj, known_kind=kind in KIND_NAMES)
        metadata = obj.get("metadata") or {}
        name = (kind, str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))
        key = (*name, str(metadata.get("uid") or ""))
        version = str(metadata.get("resourceVersion") or "")
        known = self._versions.get(key)
        if known is not None and not deleted and version and known == version:
            return
        if known is not None:
            self.changed_count += 1
        self._versions[key] = version
        if kind == "Event":
            self._rows[key] = ("k8s_event", [objects.event_row(obj)])
            return
        self._last[key] = len(self._objects)
        self._objects.append(
            {
                "kind": kind,
                "api_version": str(obj.get("apiVersion") or ""),
                "namespace": name[1] or None,
                "name": name[2],
                "uid": key[3] or None,
                "taken": taken,
                "observed_ns": observed_ns,
                "deleted": deleted,
                "object": json.dumps(obj, sort_keys=True, separators=(",", ":")),
            }
        )
        api_version, owner_kind, owner_name = pods.controller(metadata)
        if owner_kind and owner_name:
            self._owners[name] = (api_version or "", owner_kind, owner_name)
        self._add_rows(kind, key, obj, observed_ns, deleted)

    def delete(self, key: Key, observed_ns: int, taken: str = "end") -> None:
        """An object that was here is gone, without a last state of it (it is missing from a later LIST)."""
        if key not in self._versions or key[0] == "Event":
            return  # events expire; what they said stays true
        self.changed_count += 1
        last = self._objects[self._last[key]]
        if last["deleted"]:
            return
        self._last[key] = len(self._objects)
        self._objects.append({**last, "taken": taken, "observed_ns": observed_ns, "deleted": True})
        if key[0] == "Pod":
            self._end_pod(self._rows[key][1][0], observed_ns)

    def keys(self, kind: str) -> list[Key]:
        """Objects of a kind seen so far, deleted ones included."""
        return [key for key in self._versions if key[0] == kind]

    def node_of(self, key: Key) -> str | None:
        """The node of a pod seen."""
        return self._rows[key][1][0]["node"] if key in self._rows and key[0] == "Pod" else None

    def unknown_owners(self) -> list[tuple[str, str, str, str]]:
        """(apiVersion, kind, namespace, name) of owners of custom kinds that were not themselves seen."""
        seen = {key[:3] for key in self._versions}
        wanted = {
            (api_version, kind, namespace, name)
            for (_, namespace, _), (api_version, kind, name) in self._owners.items()
            if kind not in KIND_NAMES and (kind, namespace, name) not in seen
        }
        return sorted(wanted)

    def _add_rows(self, kind: str, key: Key, obj: Json, observed_ns: int, deleted: bool) -> None:
        if kind == "Pod":
            row = pods.pod_row(obj)
            before = self._rows.get(key)
            if before is not None:
                self._keep_earlier_address(before[1][0], row, observed_ns)
            if deleted:
                self._end_pod(row, observed_ns)
            self._rows[key] = ("k8s_pod", [row])
            self._containers[key] = pods.container_rows(obj)
        elif kind == "Service":
            self._rows[key] = ("k8s_service", objects.service_rows(obj))
        elif kind == "EndpointSlice":
            self._rows[key] = ("k8s_endpoint", objects.slice_rows(obj))
            rows = self._rows[key][1]
            service = (obj["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
            self._slices[key] = (key[1], service or (rows[0]["service"] if rows else ""))
        elif kind == "Endpoints":
            self._rows[key] = ("k8s_endpoint", objects.endpoints_rows(obj))
        elif kind == "Node":
            self._rows[key] = ("k8s_node", [objects.node_row(obj)])
        elif kind in WORKLOAD_KINDS or kind not in KIND_NAMES:
            self._rows[key] = ("k8s_workload", [objects.workload_row(obj)])

    @staticmethod
    def _end_pod(row: Row, observed_ns: int) -> None:
        row["deleted_ns"] = row["deleted_ns"] or observed_ns
        row["valid_to_ns"] = row["valid_to_ns"] or observed_ns

    def _keep_earlier_address(self, before: Row, now: Row, observed_ns: int) -> None:
        """A pod whose sandbox was made anew got another address: the one before stays as a row of its own."""
        if before["ip"] and now["ip"] and before["ip"] != now["ip"]:
            self._earlier_pods.append({**before, "valid_to_ns": observed_ns})
            now["valid_from_ns"] = observed_ns

    def rows(self) -> dict[str, list[Row]]:
        """Rows of K8S_TABLES."""
        found: dict[str, list[Row]] = {name: [] for name in K8S_TABLES}
        found["k8s_object"] = list(self._objects)
        sliced = set(self._slices.values())
        for key, (table, rows) in self._rows.items():
            # Slices mirror what Endpoints says; only a service without them needs the old object.
            if key[0] == "Endpoints" and (key[1], key[2]) in sliced:
                continue
            found[table] += rows
        for rows in self._containers.values():
            found["k8s_container"] += rows
        found["k8s_pod"] += self._earlier_pods
        for row in found["k8s_pod"]:
            row["owner_kind"], row["owner_name"] = self._workload_of(row)
        return found

    def _workload_of(self, pod: Row) -> tuple[str | None, str | None]:
        """The workload a person knows: up the chain of owners, until a kind that people name or the top."""
        kind, name = pod["controller_kind"], pod["controller_name"]
        if kind == "Node":
            # A static pod belongs to no workload but is one, of the same name on every node: the kubelet calls it
            # by its manifest's name, a dash and the node (pkg/kubelet/config/common.go).
            return kind, pod["name"].removesuffix(f"-{name}")
        for _ in range(_OWNER_DEPTH_MAX):
            if kind is None or name is None or kind in _KNOWN_WORKLOADS:
                break
            above = self._owners.get((kind, pod["namespace"], name))
            if above is None:
                return _deployment_of(kind, name, pod["labels"]) or (kind, name)
            kind, name = above[1], above[2]
        return kind, name


def _deployment_of(kind: str, name: str, labels: str) -> tuple[str, str] | None:
    """The Deployment of a ReplicaSet that was not itself seen: its name is the Deployment's, a dash and the
    pod-template-hash (kubernetes pkg/controller/deployment/sync.go)."""
    template_hash = json.loads(labels).get("pod-template-hash")
    if kind == "ReplicaSet" and template_hash and name.endswith(f"-{template_hash}"):
        return "Deployment", name.removesuffix(f"-{template_hash}")
    return None
