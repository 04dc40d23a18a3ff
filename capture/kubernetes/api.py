"""The Kubernetes API, read politely: paged LISTs, watches of one node's pods, single objects of custom kinds.

Strategy: the `kubernetes` client is used for what it does best, finding the cluster and its credentials
(kubeconfig with exec plugins, service account with a token that is replaced while we run); the requests
themselves are plain, so that every outcome is seen: a page that expires (410) restarts its LIST, an
overloaded or slow server (429, 5xx, a timeout, a cut connection) is asked again a bounded number of
times, a refusal (401, 403) or an absent kind (404) becomes a note and the next kind is asked.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/ (chunking, watches, errors).
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from kubetape.capture.kubernetes.kinds import CLUSTER_SCOPED, Kind
from kubetape.errors import CaptureError

Json = dict[str, Any]

PAGE_LIMIT = 500  # what kubectl asks for; larger pages cost the server memory
TRIES_MAX = 4
LIST_RESTARTS_MAX = 3
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
RETRY_WAIT_MAX_S = 5.0
PAGE_BYTES_MAX = 256 << 20
_RETRIED = (429, 500, 502, 503, 504)


class ApiError(Exception):
    """A request that did not succeed in the end. status: HTTP's, 0 where there was no whole answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class ListResult:
    """items may be incomplete where `problem` says why; resource_version is where a watch may begin."""

    items: int = 0
    resource_version: str = ""
    problem: str = ""


class Api:
    """One cluster. client: a kubernetes.client.ApiClient. deadline: time.monotonic() after which nothing is retried."""

    def __init__(self, client: Any, namespace: str | None = None, deadline: float | None = None) -> None:
        self._client = client
        self._base = str(client.configuration.host).rstrip("/")
        self._pool = client.rest_client.pool_manager
        self.namespace = namespace
        self.deadline = deadline
        self.read_timeout_s = READ_TIMEOUT_S
        self.request_count = 0
        self.received_bytes = 0

    # ---- requests -----------------------------------------------------------------------------------

    @property
    def base(self) -> str:
        """The server's URL."""
        return self._base

    @property
    def settings(self) -> Any:
        """The client's configuration (certificates)."""
        return self._client.configuration

    def headers(self) -> dict[str, str]:
        """Headers every request carries, credentials among them."""
        headers = {"Accept": "application/json", "User-Agent": "kubetape"}
        # Asked for each time: the client reads a service account's token again when it was replaced.
        token = self._client.configuration.auth_settings().get("BearerToken")
        if token and token["value"]:
            headers["Authorization"] = token["value"]
        return headers

    def _open(
        self,
        path: str,
        query: dict[str, Any],
        read_timeout: float,
        stream: bool,
        method: str = "GET",
        body: Json | None = None,
    ) -> Any:
        import urllib3

        headers = self.headers()
        url = f"{self._base}{path}" + (f"?{urlencode(query)}" if query else "")
        self.request_count += 1
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self._pool.request(
            method,
            url,
            body=None if body is None else json.dumps(body).encode(),
            headers=headers,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout),
            retries=False,
            preload_content=not stream,
            redirect=False,
        )

    def get(self, path: str, **query: Any) -> Json:
        """One JSON answer. Raises ApiError after TRIES_MAX tries, or at once where asking again cannot help."""
        from urllib3.exceptions import HTTPError

        wait = 0.2
        problem = ApiError(0, "not asked")
        for attempt in range(TRIES_MAX):
            retry_after = 0.0
            try:
                answer = self._open(path, query, self.read_timeout_s, stream=False)
                self.received_bytes += len(answer.data)
                if answer.status == 200:
                    return dict(json.loads(answer.data))
                problem = ApiError(answer.status, _message(answer.data) or f"HTTP status {answer.status}")
                if answer.status not in _RETRIED:
                    raise problem
                retry_after = _seconds(answer.headers.get("Retry-After"))
            except HTTPError as error:
                problem = ApiError(0, _words(error))
            except ValueError as error:
                # A connection cut inside a chunked answer may look complete.
                problem = ApiError(0, f"the answer is not JSON ({error})")
            pause = min(max(wait, retry_after), RETRY_WAIT_MAX_S)
            wait *= 3
            late = self.deadline is not None and time.monotonic() + pause > self.deadline
            if attempt == TRIES_MAX - 1 or late:
                break
            time.sleep(pause)
        raise problem

    def send(self, method: str, path: str, body: Json | None = None, **query: Any) -> Json:
        """One request that changes something, once: whether to repeat it is the caller's to know. Raises ApiError."""
        from urllib3.exceptions import HTTPError

        try:
            answer = self._open(path, query, self.read_timeout_s, stream=False, method=method, body=body)
        except HTTPError as error:
            raise ApiError(0, _words(error)) from error
        if answer.status >= 300:
            raise ApiError(answer.status, _message(answer.data) or f"HTTP status {answer.status}")
        try:
            return dict(json.loads(answer.data))
        except ValueError:
            return {}

    def text(self, path: str, **query: Any) -> str:
        """One answer that is not JSON (a pod's log). Raises ApiError."""
        from urllib3.exceptions import HTTPError

        try:
            answer = self._open(path, query, self.read_timeout_s, stream=False)
        except HTTPError as error:
            raise ApiError(0, _words(error)) from error
        if answer.status != 200:
            raise ApiError(answer.status, _message(answer.data) or f"HTTP status {answer.status}")
        return str(answer.data.decode(errors="replace"))

    def list(self, kind: Kind, add: Callable[[Json], None], **query: Any) -> ListResult:
        """All objects of a kind to `add`, page by page; never raises ApiError except for 401 and no server at all.

        Where the whole cluster may not be listed, the own namespace is tried.
        """
        result = self._list_path(kind, kind.path, add, query)
        if result.problem.startswith("403") and self.namespace and kind.kind not in CLUSTER_SCOPED:
            smaller = self._list_path(kind, kind.in_namespace(self.namespace), add, query)
            if not smaller.problem:
                smaller.problem = f"only namespace {self.namespace}: {result.problem}"
                return smaller
        return result

    def _list_path(self, kind: Kind, path: str, add: Callable[[Json], None], query: dict[str, Any]) -> ListResult:
        result = ListResult()
        for _ in range(LIST_RESTARTS_MAX):
            token = ""
            result.items = 0
            while True:
                page_query = {**query, "limit": PAGE_LIMIT, **({"continue": token} if token else {})}
                try:
                    page = self.get(path, **page_query)
                except ApiError as problem:
                    if problem.status == 410 and token:
                        result.problem = "its list expired again and again while it was read"
                        break
                    if problem.status == 401 or (problem.status == 0 and self.received_bytes == 0):
                        raise
                    result.problem = f"{problem.status or 'no answer'}: {problem}"
                    return result
                metadata = page.get("metadata") or {}
                for item in page.get("items") or []:
                    # Items of a LIST carry neither kind nor apiVersion.
                    item.setdefault("kind", kind.kind)
                    item.setdefault("apiVersion", kind.api_version)
                    add(item)
                    result.items += 1
                result.resource_version = str(metadata.get("resourceVersion") or result.resource_version)
                token = str(metadata.get("continue") or "")
                if not token:
                    result.problem = ""
                    return result
        return result

    def find(self, api_version: str, kind: str, namespace: str, name: str) -> Json | None:
        """One object of a kind known only from an owner reference; None where it cannot be read."""
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            resources = self.get(root).get("resources") or []
            found = next((r for r in resources if r.get("kind") == kind and "/" not in r.get("name", "")), None)
            if found is None or found["name"] in ("secrets", "configmaps"):
                return None
            place = f"/namespaces/{namespace}" if found.get("namespaced") else ""
            return self.get(f"{root}{place}/{found['name']}/{name}")
        except ApiError:
            return None

    def watch(self, path: str, resource_version: str, timeout_s: int, **query: Any) -> Iterator[Json]:
        """Events of one watch until the server ends it. Raises ApiError (410: list again)."""
        from urllib3.exceptions import HTTPError

        query = {
            **query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": timeout_s,
        }
        answer = None
        try:
            answer = self._open(path, query, timeout_s + self.read_timeout_s, stream=True)
            if answer.status != 200:
                raise ApiError(answer.status, _message(answer.read(1 << 16)) or f"HTTP status {answer.status}")
            rest = b""
            for chunk in answer.stream(1 << 16, decode_content=True):
                self.received_bytes += len(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > PAGE_BYTES_MAX:
                    raise ApiError(0, "a watch event larger than any object")
                for line in filter(None, lines):
                    yield _event(line)
        except HTTPError as error:
            raise ApiError(0, _words(error)) from error
        finally:
            if answer is not None:
                answer.close()


def _event(line: bytes) -> Json:
    try:
        event = json.loads(line)
    except ValueError as error:
        raise ApiError(0, f"a watch event is not JSON ({error})") from error
    if event.get("type") == "ERROR":
        status = event.get("object") or {}
        raise ApiError(int(status.get("code") or 0), str(status.get("message") or "error"))
    return dict(event)


def _message(data: bytes) -> str:
    """The message of a Status object; a short piece of any other text."""
    try:
        status = json.loads(data)
        return str(status.get("message") or "") if isinstance(status, dict) else ""
    except ValueError:
        return data[:200].decode(errors="replace").strip()


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isdigit() else 0.0


def _words(error: Exception) -> str:
    """urllib3's exceptions name their objects; keep the reason."""
    from urllib3 import exceptions

    if isinstance(error, exceptions.ReadTimeoutError):
        return "no answer in time"
    # From the narrow to the wide: each of these is also the one below.
    if isinstance(error, exceptions.NameResolutionError):
        return "its name cannot be resolved"
    if isinstance(error, exceptions.NewConnectionError):
        return "connection refused or unreachable"
    if isinstance(error, exceptions.ConnectTimeoutError):
        return f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
    cause: BaseException = error.__cause__ or error
    if isinstance(cause, ssl.SSLError) or isinstance(error, exceptions.SSLError):
        return f"TLS: {cause}"
    return f"the connection was cut ({type(error).__name__})"


def connect(kubeconfig: str | None = None, context: str | None = None) -> Api:
    """The cluster of a kubeconfig, or of the pod we run in. Raises CaptureError where there is neither."""
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise CaptureError("no Kubernetes client: pip install 'kubetape[capture]'") from error
    namespace: str | None = None
    if kubeconfig is None and context is None:
        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)
            with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="ascii") as file:
                namespace = file.read().strip()
            return Api(client.ApiClient(settings), namespace)
        except (config.ConfigException, OSError):
            pass  # not in a pod: the user's kubeconfig
    settings = client.Configuration()
    try:
        config.load_kube_config(kubeconfig, context, settings)
        _, active = config.list_kube_config_contexts(kubeconfig)
        chosen = active
        if context:
            contexts, _ = config.list_kube_config_contexts(kubeconfig)
            chosen = next((c for c in contexts if c["name"] == context), active)
        namespace = ((chosen or {}).get("context") or {}).get("namespace")
    except config.ConfigException as error:
        raise CaptureError(f"no Kubernetes API: {error}") from error
    except (OSError, ValueError) as error:
        raise CaptureError(f"no Kubernetes API: {kubeconfig or 'the kubeconfig'} is not usable ({error})") from error
    return Api(client.ApiClient(settings), namespace)


class PodWatch:
    """Watches the pods of one node in a thread, from a LIST's resourceVersion until `stop`.

    seen(object, deleted) is called in that thread. After 410 the pods are listed again and `relisted`
    gets the uids that are there, so that the owner can tell which went away meanwhile.
    """

    PATH = "/api/v1/pods"

    def __init__(
        self,
        api: Api,
        node: str,
        resource_version: str,
        seen: Callable[[Json, bool], None],
        relisted: Callable[[set[str]], None],
    ) -> None:
        self._api, self._version = api, resource_version
        self._query = {"fieldSelector": f"spec.nodeName={node}"}
        self._seen, self._relisted = seen, relisted
        self._stopping = threading.Event()
        self.problem = ""
        self.event_count = 0
        self._thread = threading.Thread(target=self._run, name="kubetape-pod-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch. Its thread may go on waiting for the server; nothing it sees counts any more."""
        self._stopping.set()
        self._thread.join(timeout=0.2)

    def _run(self) -> None:
        pause = 0.2
        while not self._stopping.is_set():
            try:
                for event in self._api.watch(self.PATH, self._version, timeout_s=240, **self._query):
                    if self._stopping.is_set():
                        return
                    pause = 0.2
                    obj = event.get("object") or {}
                    self._version = str((obj.get("metadata") or {}).get("resourceVersion") or self._version)
                    if event.get("type") != "BOOKMARK":
                        obj.setdefault("kind", "Pod")
                        self.event_count += 1
                        self._seen(obj, event.get("type") == "DELETED")
            except ApiError as problem:
                if problem.status in (401, 403):
                    self.problem = f"pods of this node were not watched: {problem.status}: {problem}"
                    return
                if problem.status == 410:
                    self._list_again()
                elif self._stopping.wait(pause):
                    return
                pause = min(pause * 2, RETRY_WAIT_MAX_S)
            else:
                # The server ends every watch after its timeout; one that ends at once must not be a busy loop.
                if self._stopping.wait(min(pause, 1.0)):
                    return

    def _list_again(self) -> None:
        uids: set[str] = set()

        def add(pod: Json) -> None:
            uids.add(str((pod.get("metadata") or {}).get("uid")))
            self._seen(pod, False)

        try:
            result = self._api.list(Kind("Pod", self.PATH), add, **self._query)
        except ApiError as problem:
            self._stopping.wait(RETRY_WAIT_MAX_S)
            self.problem = f"pods of this node were not watched all the time: {problem}"
            return
        if result.resource_version and not result.problem:
            self._version = result.resource_version
            self._relisted(uids)
