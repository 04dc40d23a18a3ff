"""A stand-in for a cluster that runs recorders: pods are created, log, take commands, and are deleted."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
PODS = "/api/v1/namespaces/kubetape/pods"
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CHUNK = 1000


class Cluster:
    """nodes: name -> ready. faults: what -> outcomes of the next requests of that sort, in order.

    Sorts: 'nodes', 'namespace', 'create', 'list', 'log', 'stop', 'fetch', 'delete'. Outcomes: an HTTP status, 'ok',
    'drop' (the connection ends without an answer), 'lost' (done, but without an answer), 'cut' and 'damage'
    (of a fetch), 'fail' (of a command).
    """

    def __init__(self, nodes: dict[str, bool]) -> None:
        self.nodes = nodes
        self.namespaces: dict[str, Json] = {}
        self.pods: dict[str, Json] = {}
        self.faults: dict[str, list[Any]] = {}
        self.states: dict[str, str] = {}
        self.stuck: set[str] = set()
        self.failing: dict[str, str] = {}
        self.waiting: dict[str, str] = {}
        self.created: list[Json] = []
        self.stopped: list[str] = []
        self.on: dict[str, Any] = {}
        self.lock = threading.Lock()

    def bundle(self, node: str) -> bytes:
        """What the node's recorder made."""
        return f"bundle of {node} ".encode() * 500

    def fault(self, sort: str) -> Any:
        if hook := self.on.get(sort):
            hook()
        with self.lock:
            outcomes = self.faults.get(sort) or []
            return outcomes.pop(0) if outcomes else "ok"

    def node_of(self, pod: str) -> str:
        return str(self.pods[pod]["spec"]["nodeName"])

    def status(self, pod: Json) -> Json:
        node = pod["spec"]["nodeName"]
        if node in self.waiting:
            return {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": self.waiting[node]}}}]}
        return {"phase": "Running"}

    def log(self, pod: str) -> str:
        """One state further with every look."""
        node = self.node_of(pod)
        data = self.bundle(node)
        if node in self.failing:
            return json.dumps({"kubetape": "failed", "reason": self.failing[node]})
        if node in self.stopped:
            state: Json = {"kubetape": "done", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        elif self.states.get(node) is None or node in self.stuck:
            self.states[node] = "starting"
            state = {"kubetape": "starting"}
        else:
            state = {"kubetape": "recording"}
        return f"some other line\n{json.dumps(state)}\n"


def _matches(labels: Json, term: str) -> bool:
    name, equals, value = term.partition("=")
    return labels.get(name) == value if equals else name in labels


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def _sent(self, sort: str, code: int, body: Any, outcome: Any = None) -> None:
            outcome = cluster.fault(sort) if outcome is None else outcome
            if outcome in ("drop", "lost"):
                self.close_connection = True
                return
            if isinstance(outcome, int):
                code, body = outcome, {"kind": "Status", "message": f"fault {outcome}", "code": outcome}
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            path = parts.path
            if path == "/api/v1/nodes":
                ready = {True: "True", False: "Unknown"}
                items = [
                    {"metadata": {"name": n}, "status": {"conditions": [{"type": "Ready", "status": ready[r]}]}}
                    for n, r in cluster.nodes.items()
                ]
                self._sent("nodes", 200, {"items": items, "metadata": {}})
            elif path == PODS:
                wanted = query.get("labelSelector", [""])[0].split(",")
                items = [
                    {**pod, "metadata": {**pod["metadata"], "name": name}, "status": cluster.status(pod)}
                    for name, pod in list(cluster.pods.items())
                    if all(_matches(pod["metadata"]["labels"], term) for term in wanted)
                ]
                self._sent("list", 200, {"items": items, "metadata": {}})
            elif path.startswith(PODS) and path.endswith("/log"):
                pod = path.split("/")[-2]
                self._sent("log", 200 if pod in cluster.pods else 404, cluster.log(pod) if pod in cluster.pods else "")
            elif path.startswith(PODS) and path.endswith("/exec"):
                self._exec(path.split("/")[-2], query["command"])
            elif path.startswith("/api/v1/namespaces/"):
                name = path.rpartition("/")[2]
                found = cluster.namespaces.get(name)
                self._sent("get", 200 if found else 404, found or {"message": "not found"})
            else:
                self._sent("get", 404, {"message": "not found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = body["metadata"]["name"]
            sort, place = ("namespace", cluster.namespaces) if body["kind"] == "Namespace" else ("create", cluster.pods)
            outcome = cluster.fault(sort)
            if isinstance(outcome, int) or outcome == "drop":
                self._sent(sort, 201, {}, outcome)
                return
            code = 409 if name in place else 201
            place.setdefault(name, body)
            if sort == "create":
                cluster.created.append(body)
            self._sent(sort, code, body, outcome)

        def do_DELETE(self) -> None:
            path = urlsplit(self.path).path
            name = path.rpartition("/")[2]
            outcome = cluster.fault("delete")
            if not isinstance(outcome, int) and outcome != "drop":
                (cluster.pods if path.startswith(PODS) else cluster.namespaces).pop(name, None)
            self._sent("delete", 200, {}, outcome)

        # ---- exec -----------------------------------------------------------------------------------

        def _exec(self, pod: str, command: list[str]) -> None:
            sort = "stop" if command[0] == "touch" else "fetch"
            outcome = cluster.fault(sort)
            if isinstance(outcome, int) or outcome == "drop":
                self._sent(sort, 200, {}, outcome)
                return
            accept = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + _GUID).encode()).digest())
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", accept.decode())
            self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
            self.end_headers()
            self.close_connection = True
            self._frame(1, b"")  # the API server opens with empty frames
            if outcome == "fail":
                self._frame(2, b"touch: no space left\n")
                self._frame(3, b'{"status": "Failure", "message": "command terminated with exit code 1"}')
                return
            if sort == "stop":
                cluster.stopped.append(cluster.node_of(pod))
            else:
                data = cluster.bundle(cluster.node_of(pod))[int(command[2][1:]) - 1 :]
                if outcome == "damage":
                    data = b"X" * len(data)
                for i in range(0, len(data), CHUNK):
                    if outcome == "cut" and i >= 3 * CHUNK:
                        self.wfile.flush()
                        self.connection.close()
                        return
                    self._frame(1, data[i : i + CHUNK])
            self._frame(3, b'{"status": "Success"}')

        def _frame(self, channel: int, data: bytes) -> None:
            body = bytes([channel]) + data
            head = b"\x82" + (bytes([len(body)]) if len(body) < 126 else b"\x7e" + struct.pack(">H", len(body)))
            self.wfile.write(head + body)
            self.wfile.flush()

    return Handler


@contextmanager
def running(cluster: Cluster) -> Iterator[str]:
    """The URL of the cluster's API while it runs."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
