"""One recording of many nodes: a pod on each, all stopped together, one bundle, nothing left behind.

Strategy: pods are created on all nodes and record as soon as their probes are attached; the recording's time counts
from the moment the last one does, and all are told to stop at once, so every node covers that time. Progress is
read from the pods' logs, bundles are fetched through exec and checked against the SHA-256 in the log. A node
that fails is a note, not the end. Whatever happens, what this run created is removed in the end; should that
fail too (no connection), the pods end by themselves at their deadline and `clean` removes them.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubetape.capture.kubernetes import agent, manifests
from kubetape.capture.kubernetes.api import Api, ApiError
from kubetape.capture.kubernetes.bundle import write_snapshot
from kubetape.capture.kubernetes.kinds import KINDS, Kind
from kubetape.capture.kubernetes.remote import execute
from kubetape.capture.kubernetes.snapshot import Session, SnapshotOptions
from kubetape.errors import CaptureError

Json = dict[str, Any]

PARALLEL = 8  # connections to the API server at once
TRIES = 4
RETRY_WAIT_S = 1.0
POLL_S = 1.0
CONVERT_TIMEOUT_S = 600.0
REMOVE_TRIES = 6
# What a waiting container says when waiting longer does not help.
_HOPELESS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
)


@dataclass
class ClusterOptions:
    """nodes: by name; selector: a label selector of nodes; neither: every ready node."""

    output: str
    duration_s: float = 60.0
    nodes: tuple[str, ...] = ()
    selector: str = ""
    start_timeout_s: float = 180.0
    pod: manifests.PodSettings = field(default_factory=manifests.PodSettings)
    record_arguments: tuple[str, ...] = ()
    snapshot: bool = True


@dataclass
class _Recorder:
    """One node's pod. waiting: what its pod said last that it waits for; problem: why the node is not in the bundle."""

    node: str
    pod: str
    state: str = "created"
    waiting: str = ""
    bytes: int = 0
    sha256: str = ""
    problem: str = ""
    path: str = ""


class ClusterRecording:
    """`run` does it all and returns the notes. say: progress in words."""

    def __init__(self, api: Api, options: ClusterOptions, say: Callable[[str], None] = lambda text: None) -> None:
        self.api, self.options, self._say = api, options, say
        self.run_id = secrets.token_hex(4)
        self.notes: list[str] = []
        self._recorders: list[_Recorder] = []
        self._interrupted = threading.Event()

    @property
    def _pods_path(self) -> str:
        return f"/api/v1/namespaces/{self.options.pod.namespace}/pods"

    @property
    def _alive(self) -> list[_Recorder]:
        return [r for r in self._recorders if not r.problem]

    def run(self) -> list[str]:
        """Record, fetch, merge, clean up. Raises CaptureError where not one node could be recorded."""
        check_merge()
        nodes = self._choose_nodes()
        folder = os.path.dirname(os.path.abspath(self.options.output))
        with tempfile.TemporaryDirectory(prefix=".kubetape-cluster-", dir=folder) as temporary:
            session: Session | None = None
            try:
                self._create(nodes)
                if self.options.snapshot:
                    session = Session(SnapshotOptions(), self.api)
                self._wait_for("recording", self.options.start_timeout_s)
                self._say(f"{len(self._alive)} nodes are recording")
                self._sleep(self.options.duration_s)
                self._each(self._stop)
                self._wait_for("done", CONVERT_TIMEOUT_S)
                self._each(lambda recorder: self._fetch(recorder, temporary))
            finally:
                self._remove()
            self._require_some()
            parts = [r.path for r in self._alive]
            for recorder in self._recorders:
                if recorder.problem:
                    self.notes.append(f"node {recorder.node} was not recorded: {recorder.problem}")
            if session is not None:
                parts.append(self._write_snapshot(session, temporary))
            merge(parts, self.options.output)
        return self.notes

    # ---- steps --------------------------------------------------------------------------------------

    def _choose_nodes(self) -> list[str]:
        found: dict[str, str] = {}

        def add(node: Json) -> None:
            found[node["metadata"]["name"]] = why_not(node)

        query = {"labelSelector": self.options.selector} if self.options.selector else {}
        try:
            result = self.api.list(KINDS[0], add, **query)
        except ApiError as error:
            raise CaptureError(f"no Kubernetes API: {error}") from error
        if result.problem and not found:
            raise CaptureError(f"the nodes could not be listed: {result.problem}")
        unknown = [name for name in self.options.nodes if name not in found]
        if unknown:
            raise CaptureError(f"no node {', '.join(unknown)}; there are {', '.join(sorted(found)) or 'none'}")
        chosen = [name for name in found if not self.options.nodes or name in self.options.nodes]
        for name in [n for n in chosen if found[n]]:
            self.notes.append(f"node {name} was not recorded: {found[name]}")
        ready = sorted(name for name in chosen if not found[name])
        if not ready:
            raise CaptureError("no ready node to record" + (f" with labels {self.options.selector}" if query else ""))
        return ready

    def _create(self, nodes: list[str]) -> None:
        settings = self.options.pod
        safety_s = self.options.duration_s + self.options.start_timeout_s + 30
        settings.deadline_s = int(safety_s + CONVERT_TIMEOUT_S)
        settings.arguments = ["--duration", f"{safety_s:.0f}s", "--no-kubernetes", *self.options.record_arguments]
        self._make_namespace()
        self._recorders = [_Recorder(node, manifests.pod_name(self.run_id, node)) for node in nodes]
        self._each(self._create_pod)
        self._require_some()

    def _make_namespace(self) -> None:
        name = self.options.pod.namespace
        try:
            self._change("POST", "/api/v1/namespaces", manifests.namespace_manifest(name, self.run_id))
        except ApiError as error:
            if error.status == 409 or self._namespace_exists():
                return  # whoever may not make namespaces uses one that is there
            raise CaptureError(
                f"namespace {name} could not be made: {error}; make it, or choose --namespace"
            ) from error

    def _namespace_exists(self) -> bool:
        try:
            self.api.get(f"/api/v1/namespaces/{self.options.pod.namespace}")
        except ApiError:
            return False
        return True

    def _create_pod(self, recorder: _Recorder) -> None:
        manifest = manifests.pod_manifest(self.run_id, recorder.node, self.options.pod)
        try:
            self._change("POST", self._pods_path, manifest)
        except ApiError as error:
            # 409: an answer that got lost had created it.
            if error.status != 409:
                recorder.problem = f"its pod could not be created: {error}"
                if "PodSecurity" in str(error):
                    recorder.problem += f"; {_let_in(self.options.pod.namespace)}"

    def _change(self, method: str, path: str, body: Json | None = None, **query: Any) -> Json:
        """A change that may be repeated: creating by name (then 409) or deleting (then 404)."""
        for attempt in range(TRIES):
            try:
                return self.api.send(method, path, body, **query)
            except ApiError as error:
                if attempt == TRIES - 1 or error.status in (400, 401, 403, 404, 409, 422):
                    raise
                time.sleep(RETRY_WAIT_S * (attempt + 1))
        raise AssertionError("the last attempt returns or raises")

    def _wait_for(self, state: str, timeout_s: float) -> None:
        """Until every recorder that is not given up is in `state` or beyond."""
        end = time.monotonic() + timeout_s
        while True:
            statuses = self._pod_statuses()
            waiting = [r for r in self._alive if not _reached(r.state, state)]
            if statuses is not None:
                with ThreadPoolExecutor(PARALLEL) as pool:
                    list(pool.map(self._look, waiting, [statuses.get(r.pod) for r in waiting]))
                waiting = [r for r in self._alive if not _reached(r.state, state)]
            self._require_some()
            if not waiting:
                return
            if time.monotonic() > end:
                for recorder in waiting:
                    recorder.problem = f"it was still {recorder.state} after {timeout_s:.0f} s"
                    if recorder.state == "created" and recorder.waiting:
                        recorder.problem += f" ({recorder.waiting})"
                self._require_some()
                return
            time.sleep(POLL_S)

    def _pod_statuses(self) -> dict[str, Json] | None:
        """Pods of this run by name; None where the API does not answer now."""
        found: dict[str, Json] = {}
        with suppress(ApiError):
            result = self.api.list(
                Kind("Pod", self._pods_path),
                lambda pod: found.update({pod["metadata"]["name"]: pod}),
                labelSelector=f"{manifests.RUN_LABEL}={self.run_id}",
            )
            return None if result.problem else found
        return None

    def _look(self, recorder: _Recorder, pod: Json | None) -> None:
        """Bring a recorder's state up to date from its pod and its log."""
        if pod is None:
            recorder.problem = "its pod was removed by somebody"
            return
        status = pod.get("status") or {}
        if status.get("phase") in ("Running", "Failed", "Succeeded"):
            try:
                log = self.api.text(f"{self._pods_path}/{recorder.pod}/log", tailLines=20)
            except ApiError:
                log = ""  # the next look may have it
            found = agent.last_state(log)
            recorder.state = str(found.get("kubetape") or recorder.state)
            if recorder.state == "done":
                recorder.bytes, recorder.sha256 = int(found["bytes"]), str(found["sha256"])
            elif recorder.state == "failed":
                recorder.problem = str(found.get("reason"))
        if recorder.problem or recorder.state == "done":
            return
        if status.get("phase") in ("Failed", "Succeeded"):
            recorder.problem = f"its pod ended: {status.get('reason') or status.get('message') or status['phase']}"
        for container in status.get("containerStatuses") or []:
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason"):
                recorder.waiting = ": ".join(str(waiting[k]) for k in ("reason", "message") if waiting.get(k))
            if waiting.get("reason") in _HOPELESS:
                recorder.problem = f"{waiting['reason']}: {waiting.get('message') or self.options.pod.image}"

    def _sleep(self, seconds: float) -> None:
        """The recording's time; Ctrl-C ends it early and the bundle is made all the same."""
        try:
            self._interrupted.wait(seconds)
        except KeyboardInterrupt:
            self._say("stopping; press Ctrl-C again to give up")
            self.notes.append("the recording was ended early")

    def _stop(self, recorder: _Recorder) -> None:
        self._execute(recorder, ["touch", f"{manifests.FOLDER}/{agent.STOP}"], "could not be stopped")

    def _execute(self, recorder: _Recorder, command: list[str], problem: str) -> None:
        for attempt in range(TRIES):
            try:
                execute(self.api, self.options.pod.namespace, recorder.pod, command)
                return
            except ApiError as error:
                if attempt == TRIES - 1:
                    recorder.problem = f"it {problem}: {error}"
                else:
                    time.sleep(RETRY_WAIT_S * (attempt + 1))

    def _fetch(self, recorder: _Recorder, folder: str) -> None:
        """The bundle, continued where a cut connection left off, and checked."""
        path = Path(folder, f"{recorder.pod}.ktape")
        problem = ""
        for attempt in range(TRIES):
            size = path.stat().st_size if path.exists() else 0
            if size < recorder.bytes:
                tail = ["tail", "-c", f"+{size + 1}", f"{manifests.FOLDER}/{agent.BUNDLE}"]
                try:
                    with path.open("ab") as file:
                        execute(self.api, self.options.pod.namespace, recorder.pod, tail, file.write)
                except ApiError as error:
                    problem = str(error)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == recorder.sha256:
                recorder.path = str(path)
                return
            if path.stat().st_size >= recorder.bytes:
                problem = "what arrived is not what was sent"
                path.unlink()
            time.sleep(RETRY_WAIT_S * (attempt + 1))
        recorder.problem = f"its bundle could not be fetched: {problem}"

    def _each(self, step: Callable[[_Recorder], None]) -> None:
        """A step for every recorder not given up, several at once."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(step, self._alive))

    def _require_some(self) -> None:
        if not self._alive:
            reasons = dict.fromkeys(r.problem for r in self._recorders)
            raise CaptureError("no node could be recorded: " + "; ".join(reasons))

    def _write_snapshot(self, session: Session, folder: str) -> str:
        snapshot = session.end()
        self.notes += snapshot.notes
        path = os.path.join(folder, "kubernetes.ktape")
        write_snapshot(path, snapshot, "cluster")
        return path

    # ---- cleaning up --------------------------------------------------------------------------------

    def _remove(self) -> None:
        """Everything this run created. Neither raises nor lets Ctrl-C stop it half-way."""
        self._say("removing the recorders")
        with _uninterrupted():
            problem = remove(self.api, self.options.pod.namespace, f"{manifests.RUN_LABEL}={self.run_id}")
            problem = problem or remove_namespace(self.api, self.options.pod.namespace, self.run_id)
        if problem:
            text = (
                f"the recorders could not be removed ({problem}): run `kubetape cluster clean "
                f"--namespace {self.options.pod.namespace}`; they end by themselves {self.options.pod.deadline_s} s "
                "after their start"
            )
            self.notes.append(text)
            self._say(text)


# Nodes that are somebody's service instead of a kernel that can be asked, by the label that says so.
_VIRTUAL_NODES = {"type": "virtual-kubelet", "eks.amazonaws.com/compute-type": "fargate"}


def why_not(node: Json) -> str:
    """Why nothing can be recorded on a node, as far as its object tells; "" where it can."""
    status, labels = node.get("status") or {}, node["metadata"].get("labels") or {}
    system = (status.get("nodeInfo") or {}).get("operatingSystem") or labels.get("kubernetes.io/os") or "linux"
    if system != "linux":
        return f"its operating system is {system}"
    if any(labels.get(name) == value for name, value in _VIRTUAL_NODES.items()):
        return "it is a virtual node without a kernel of its own"
    conditions = status.get("conditions") or []
    ready: Json = next((c for c in conditions if c.get("type") == "Ready"), {})
    if ready.get("status") == "True":
        return ""
    return "it is not ready" + (f" ({ready['message']})" if ready.get("message") else "")


def _let_in(namespace: str) -> str:
    """What to do where Pod Security keeps the recorders out of a namespace that was there before."""
    return f"run `kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged`, or choose another"


_ORDER = ("created", "starting", "recording", "stopping", "done")


def _reached(state: str, wanted: str) -> bool:
    return state in _ORDER and _ORDER.index(state) >= _ORDER.index(wanted)


def _pod_names(api: Api, namespace: str, selector: str) -> tuple[list[str], str]:
    """(names of the pods with these labels, why not all could be listed). Raises ApiError."""
    names: list[str] = []
    kind = Kind("Pod", f"/api/v1/namespaces/{namespace}/pods")
    result = api.list(kind, lambda pod: names.append(pod["metadata"]["name"]), labelSelector=selector)
    return names, result.problem


def remove(api: Api, namespace: str, selector: str) -> str:
    """Delete the pods with these labels, until none is left; why not, or ""."""
    problem = ""
    for attempt in range(REMOVE_TRIES):
        try:
            left, problem = _pod_names(api, namespace, selector)
            if problem.startswith("404") or (not problem and not left):
                return ""
            for name in left:
                with suppress_missing():
                    api.send("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", gracePeriodSeconds=1)
            problem = problem or f"{len(left)} pods are still there"
        except ApiError as error:
            problem = str(error)
        time.sleep(RETRY_WAIT_S * (attempt + 1))
    return problem


def remove_namespace(api: Api, name: str, run: str = "") -> str:
    """Delete a namespace that kubetape made (in this `run`) and nobody else records in; why not, or ""."""
    problem = ""
    path = f"/api/v1/namespaces/{name}"
    for attempt in range(TRIES):
        try:
            with suppress_missing():
                labels = (api.get(path).get("metadata") or {}).get("labels") or {}
                others, problem = _pod_names(api, name, f"{manifests.LABEL}=kubetape")
                ours = manifests.RUN_LABEL in labels and (not run or labels[manifests.RUN_LABEL] == run)
                if ours and not others and not problem:
                    api.send("DELETE", path)
            return problem
        except ApiError as error:
            problem = str(error)
            time.sleep(RETRY_WAIT_S * (attempt + 1))
    return problem


def clean(api: Api, namespace: str) -> int:
    """Remove what earlier runs left in a namespace, and the namespace where kubetape made it; the number of pods.

    Raises CaptureError where something is left.
    """
    found: list[str] = []
    selector = f"{manifests.LABEL}=kubetape,{manifests.RUN_LABEL}"
    try:
        found, _ = _pod_names(api, namespace, selector)
        problem = remove(api, namespace, selector) or remove_namespace(api, namespace)
    except ApiError as error:
        problem = str(error)
    if problem:
        raise CaptureError(f"not all could be removed from namespace {namespace}: {problem}")
    return len(found)


@contextmanager
def suppress_missing() -> Iterator[None]:
    """What is gone already need not be deleted."""
    try:
        yield
    except ApiError as error:
        if error.status != 404:
            raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait, where we may say so (only the main thread may)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _merge_function() -> Callable[[list[str], str], Any]:
    found: Callable[[list[str], str], Any] = importlib.import_module("kubetape.capture.merge").merge
    return found


def check_merge() -> None:
    """Before anything is recorded: can the bundles be merged afterwards? Raises CaptureError."""
    try:
        _merge_function()
    except (ImportError, AttributeError) as error:
        raise CaptureError("this kubetape cannot merge bundles; record single nodes with `kubetape record`") from error


def merge(paths: list[str], output: str) -> None:
    """Several bundles into one."""
    _merge_function()(paths, output)
