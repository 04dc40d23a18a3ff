"""A snapshot of what Kubernetes knows: `take` once, or `begin` ... `end` around a recording.

Strategy: the sources complete each other. The API knows everything; a folder of its answers knows what was
asked; the kubelet knows this node's pods; the runtime's files and /proc know this node's containers and
the names of their pods, always. What a source could not give is said in the notes, in words.
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from kubetape.capture.kubernetes import api as kubernetes_api
from kubetape.capture.kubernetes import files, kubelet, runtime
from kubetape.capture.kubernetes.kinds import KINDS, Kind
from kubetape.capture.kubernetes.local import pods_of_containers
from kubetape.capture.kubernetes.store import Store
from kubetape.errors import CaptureError

Json = dict[str, Any]
Row = dict[str, Any]

CUSTOM_OWNERS_MAX = 200
DEADLINE_S = 60.0


@dataclass
class SnapshotOptions:
    """node: the node we run on, whose pods are watched and whose containers are listed; None elsewhere.

    from_dir excludes the API. kubelet: its URL. runtime_root: the host's file system as we see it, None for
    no look at it. deadline_s: how long the reading of the API may take at each end.
    """

    node: str | None = None
    use_api: bool = True
    kubeconfig: str | None = None
    context: str | None = None
    from_dir: str | None = None
    kubelet: str | None = None
    runtime_root: str | None = None
    proc: str = "/proc"
    deadline_s: float = DEADLINE_S


@dataclass
class Snapshot:
    """rows: table name -> rows of the k8s_* tables and `container`. notes: what is missing, in words.
    facts: request_count, received_bytes, seconds, changed_count."""

    rows: dict[str, list[Row]]
    notes: list[str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not any(self.rows.values())


class Session:
    """A snapshot that lasts. Never raises for what a source cannot give, except a folder that holds nothing."""

    def __init__(self, options: SnapshotOptions, api: kubernetes_api.Api | None = None) -> None:
        self._options = options
        self._store = Store()
        self._lock = threading.Lock()  # the pod watch adds while nobody else does, but `end` may come any time
        self._notes: list[str] = []
        self._listed: dict[str, set[str]] = {}
        self._api = api
        self._watch: kubernetes_api.PodWatch | None = None
        self._containers: dict[str, runtime.Container] = {}
        begin = time.monotonic()
        self._pod_version = ""
        if options.from_dir:
            self._notes += files.read_folder(options.from_dir, lambda obj, ns: self._store.add(obj, "file", ns))
        elif options.use_api or api is not None:
            self._connect()
            self._list_all("start")
        self._from_kubelet()
        self._look_at_runtime()
        self.seconds = time.monotonic() - begin

    def watch(self) -> Session:
        """Watch this node's pods until `end`. Does nothing where the pods could not be listed."""
        if self._api is not None and self._options.node and self._pod_version:
            node = self._options.node

            def seen(pod: Json, deleted: bool) -> None:
                with self._lock:
                    self._store.add(pod, "watch", time.time_ns(), deleted)

            def relisted(uids: set[str]) -> None:
                with self._lock:
                    for key in self._store.keys("Pod"):
                        if key[3] not in uids and self._store.node_of(key) == node:
                            self._store.delete(key, time.time_ns(), "watch")

            self._watch = kubernetes_api.PodWatch(self._api, node, self._pod_version, seen, relisted)
        return self

    def end(self, again: bool = True) -> Snapshot:
        """The rows. again: list once more and keep what changed since the beginning."""
        begin = time.monotonic()
        if self._watch is not None:
            self._watch.stop()
            if self._watch.problem:
                self._note(self._watch.problem)
        with self._lock:
            if again and self._api is not None:
                self._list_all("end")
            if again:
                self._look_at_runtime()
            rows = self._store.rows()
        rows["container"] = self._container_rows(rows)
        if not rows["k8s_pod"]:
            rows["k8s_pod"], rows["k8s_container"] = pods_of_containers(
                self._options.node or "", list(self._containers.values()), self._options.proc
            )
            if rows["k8s_pod"]:
                self._note("pods are known from the container runtime alone: no labels, owners or readiness")
        facts = {
            "seconds": round(self.seconds + time.monotonic() - begin, 3),
            "changed_count": self._store.changed_count,
        }
        if self._api is not None:
            facts |= {"request_count": self._api.request_count, "received_bytes": self._api.received_bytes}
        return Snapshot(rows, list(dict.fromkeys(self._notes)), facts)

    def _note(self, text: str) -> None:
        self._notes.append(text)

    # ---- sources ------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._api is None:
            try:
                self._api = kubernetes_api.connect(self._options.kubeconfig, self._options.context)
            except CaptureError as error:
                self._note(str(error))

    def _list_all(self, taken: str) -> None:
        """Every kind. At the end only those that could be listed whole at the start, to tell what is gone."""
        api = self._api
        if api is None:
            return
        api.deadline = time.monotonic() + self._options.deadline_s
        wanted = KINDS if taken == "start" else tuple(k for k in KINDS if k.kind in self._listed)
        for kind in wanted:
            if time.monotonic() > api.deadline:
                self._note(f"the API was too slow: {kind.plural} and what follows were not read at the {taken}")
                break
            try:
                self._list(api, kind, taken)
            except kubernetes_api.ApiError as problem:
                self._note(f"no Kubernetes API: {problem}")
                if taken == "start":
                    self._api = None
                return
        if taken == "start":
            self._custom_owners(api)

    def _list(self, api: kubernetes_api.Api, kind: Kind, taken: str) -> None:
        uids: set[str] = set()

        def add(obj: Json) -> None:
            uids.add(str((obj.get("metadata") or {}).get("uid") or ""))
            self._store.add(obj, taken, time.time_ns())

        result = api.list(kind, add)
        if result.problem:
            if not (kind.optional and result.problem.startswith("404")):
                self._note(f"{kind.plural}: {_plain(result.problem)}")
            if not result.items:
                return
        if kind.kind == "Pod":
            self._pod_version = result.resource_version
        if taken == "start":
            self._listed[kind.kind] = uids
        elif not result.problem:
            for key in self._store.keys(kind.kind):
                if key[3] not in uids:
                    self._store.delete(key, time.time_ns())

    def _custom_owners(self, api: kubernetes_api.Api) -> None:
        """Owners of kinds we do not list (Rollouts, operators' kinds), then theirs."""
        asked = 0
        missing: set[str] = set()
        for _ in range(3):
            wanted = [w for w in self._store.unknown_owners() if w[1] not in missing]
            if not wanted or asked >= CUSTOM_OWNERS_MAX:
                break
            for api_version, kind, namespace, name in wanted[: CUSTOM_OWNERS_MAX - asked]:
                asked += 1
                if kind in missing:
                    continue
                found = api.find(api_version, kind, namespace, name)
                if found is None:
                    # Without permission for one of them there is none for the others.
                    missing.add(kind)
                    self._note(f"{kind} {namespace}/{name} owns pods but could not be read; it is known by name only")
                else:
                    found.setdefault("kind", kind)
                    self._store.add(found, "start", time.time_ns())

    def _from_kubelet(self) -> None:
        if self._options.kubelet is None:
            return
        if self._store.keys("Pod"):
            return  # the API's objects are the same pods, and newer
        try:
            found = kubelet.pods(self._options.kubelet)
        except CaptureError as error:
            self._note(str(error))
            return
        for pod in found:
            self._store.add(pod, "start", time.time_ns())

    def _look_at_runtime(self) -> None:
        if self._options.runtime_root is not None:
            for container in runtime.containers(self._options.runtime_root, self._options.proc):
                self._containers.setdefault(container.container_id, container)

    def _container_rows(self, rows: dict[str, list[Row]]) -> list[Row]:
        """This node's containers: the runtime's, completed with what the pods say."""
        node = self._options.node
        if node is None:
            return []
        here = {(p["namespace"], p["name"]) for p in rows["k8s_pod"] if p["node"] == node}
        for declared in rows["k8s_container"]:
            container_id = declared["container_id"]
            if container_id is None or (declared["namespace"], declared["pod_name"]) not in here:
                continue
            known = self._containers.setdefault(container_id, runtime.Container(container_id, source="kubernetes"))
            known.name = known.name or declared["name"]
            known.pod_uid = known.pod_uid or declared["pod_uid"]
            known.pod_name = known.pod_name or declared["pod_name"]
            known.namespace = known.namespace or declared["namespace"]
            known.image = known.image or declared["image"]
        return runtime.rows(node, list(self._containers.values()))


def _plain(problem: str) -> str:
    status, _, text = problem.partition(": ")
    if status == "403":
        return f"not permitted ({text})"
    if status == "404":
        return "this cluster does not have them"
    return problem


def begin(options: SnapshotOptions) -> Session:
    """The first reading now; `end` gives the rows."""
    return Session(options).watch()


def take(options: SnapshotOptions) -> Snapshot:
    """One reading."""
    return Session(options).end(again=False)


def this_node() -> str:
    """The name this node most likely has in Kubernetes: what the pod was told, else the host's name."""
    import os

    return os.environ.get("NODE_NAME") or socket.gethostname()
