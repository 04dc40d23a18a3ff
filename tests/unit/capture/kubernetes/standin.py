"""A stand-in for an API server: real objects, real paging, and faults on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


class StandIn:
    """lists: path -> objects. faults: path -> what its next requests get, in order; a fault is an HTTP
    status, 'cut' (half the answer, then the end), 'slow' (no answer for a second), or 'ok'.

    objects: path -> a single object. watches: bodies of the next watches, each a list of events; the last one
    stays open until the server stops.
    """

    def __init__(self) -> None:
        self.lists: dict[str, list[Json]] = {}
        self.objects: dict[str, Json] = {}
        self.faults: dict[str, list[Any]] = {}
        self.watches: list[list[Json]] = []
        self.requests: list[tuple[str, dict[str, str], str]] = []
        self.page_limit = 1000
        self.version = 1000
        self.stopping = threading.Event()

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]


def status(code: int, message: str, reason: str = "") -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


_MESSAGES = {
    401: "Unauthorized",
    403: 'pods is forbidden: User "system:serviceaccount:shop:web" cannot list resource "pods"',
    404: "the server could not find the requested resource",
    410: "The provided continue parameter is too old to display a consistent list result.",
    429: "Too many requests, please try again later.",
    504: "Timeout: Too large resource version",
}


def _handler(server: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet; else every answer waits for a delayed acknowledgement

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(parts.query).items()}
            server.requests.append((parts.path, query, self.headers.get("Authorization", "")))
            faults = server.faults.get(parts.path) or []
            fault = faults.pop(0) if faults else "ok"
            if isinstance(fault, int):
                self._send(fault, status(fault, _MESSAGES.get(fault, "fault")))
                return
            if fault == "slow":
                server.stopping.wait(1.0)
            if query.get("watch"):
                self._watch()
                return
            if parts.path in server.objects:
                self._send(200, server.objects[parts.path])
            elif parts.path in server.lists:
                self._page(parts.path, query, cut=fault == "cut")
            else:
                self._send(404, status(404, _MESSAGES[404]))

        def _page(self, path: str, query: dict[str, str], cut: bool) -> None:
            items = server.lists[path]
            if selector := query.get("fieldSelector"):
                node = selector.partition("spec.nodeName=")[2]
                items = [i for i in items if i["spec"].get("nodeName") == node]
            begin = int(query.get("continue", "0"))
            size = min(int(query.get("limit", "500")), server.page_limit)
            metadata: Json = {"resourceVersion": str(server.version)}
            if begin + size < len(items):
                metadata["continue"] = str(begin + size)
            bare = [
                {k: v for k, v in i.items() if k not in ("kind", "apiVersion")} for i in items[begin : begin + size]
            ]
            self._send(200, {"kind": "List", "metadata": metadata, "items": bare}, cut)

        def _send(self, code: int, body: Json, cut: bool = False) -> None:
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if code == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.wfile.flush()
            if cut:
                self.close_connection = True

        def _watch(self) -> None:
            events = server.watches.pop(0) if server.watches else []
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in events:
                line = json.dumps(event).encode() + b"\n"
                # In two chunks: an event may be split anywhere.
                for piece in (line[:7], line[7:]):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()
            self.wfile.flush()
            if not server.watches:
                server.stopping.wait(20)
            self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

    return Handler


@contextmanager
def running(server: StandIn) -> Iterator[str]:
    """The URL of the stand-in while it runs."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        server.stopping.set()
        http.shutdown()
        thread.join()
        http.server_close()


def until(condition: Any, seconds: float = 10.0) -> bool:
    """Whether `condition()` came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())
