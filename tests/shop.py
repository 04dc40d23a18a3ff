"""Small bundles made by hand for unit tests: a shop of pods whose conversations are written out as bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubetape.bundle import ClockAnchor, Manifest, Node
from kubetape.bundle.writer import BundleWriter

NODE = "node-a"
MS = 1_000_000
REALTIME_OFFSET_NS = 1_700_000_000_000_000_000


@dataclass
class Pod:
    name: str
    workload: str
    ip: str
    namespace: str = "shop"
    node: str = NODE

    @property
    def uid(self) -> str:
        return f"uid-{self.name}"


@dataclass
class BundleMaker:
    """Collects rows; `write` makes the bundle. Times are ms since the start of the recording."""

    pods: list[Pod] = field(default_factory=list)
    connections: list[dict[str, Any]] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)
    tcp_events: list[dict[str, Any]] = field(default_factory=list)
    tcp_samples: list[dict[str, Any]] = field(default_factory=list)
    # Rows of other tables, by table.
    more: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    # Each node, and by how many ms its wall clock is ahead.
    nodes: dict[str, float] = field(default_factory=lambda: {NODE: 0.0})
    seconds: float = 10.0

    def connect(
        self,
        client: tuple[str, int],
        server: tuple[str, int],
        side: str,
        transport: str = "tcp",
        from_start: bool = True,
    ) -> int:
        """A connection seen from `side`; its connection_id."""
        local, remote = (server, client) if side == "server" else (client, server)
        connection_id = len(self.connections) + 1
        self.connections.append(
            {
                "node": NODE,
                "connection_id": connection_id,
                "transport": transport,
                "side": side,
                "side_basis": "state",
                "local_ip": local[0],
                "local_port": local[1],
                "remote_ip": remote[0],
                "remote_port": remote[1],
                "existed_before": not from_start,
                "start_ns": 0 if from_start else None,
            }
        )
        return connection_id

    def say(
        self, connection_id: int, at_ms: float, direction: str, payload: bytes, size: int = -1, skip: int = 0
    ) -> None:
        """Bytes of one socket call. size: true size of a cut payload. skip: bytes before it that are missing."""
        before = [
            r["position"] + r["size_bytes"]
            for r in self.data
            if r["connection_id"] == connection_id and r["direction"] == direction
        ]
        wire = self.connections[connection_id - 1]["side"] == "wire"
        self.data.append(
            {
                "node": NODE,
                "ts_ns": round(at_ms * MS),
                "connection_id": connection_id,
                "direction": direction,
                "position": max(before, default=1000) + skip,
                "size_bytes": len(payload) if size < 0 else size,
                "payload": payload,
                "source": "wire" if wire else "socket",
                "call": "packet" if wire else "write",
                "pid": 1,
                "tid": 1,
            }
        )

    def ask(self, connection_ids: list[int], at_ms: float, latency_ms: float, request: bytes, response: bytes) -> None:
        """One exchange on connections that are the two ends of one: the first is the client's or the wire's."""
        for n, connection_id in enumerate(connection_ids):
            is_server = self.connections[connection_id - 1]["side"] == "server"
            shift = 0.1 * n
            self.say(connection_id, at_ms + shift, "receive" if is_server else "send", request)
            self.say(connection_id, at_ms + latency_ms - shift, "send" if is_server else "receive", response)

    def write(self, path: Path) -> Path:
        start, end = 0, int(self.seconds * 1e9)
        nodes = []
        for name, ahead_ms in self.nodes.items():
            offset = REALTIME_OFFSET_NS + round(ahead_ms * MS)
            clock = [ClockAnchor(0, offset), ClockAnchor(end, offset + end)]
            nodes.append(Node(name, clock=clock, start_ns=start, end_ns=end, stop_reason="duration"))
        with BundleWriter(path, Manifest(nodes=nodes)) as bundle:
            bundle.write_rows("connection", self.connections)
            bundle.write_rows("socket_data", self.data)
            bundle.write_rows("tcp_event", self.tcp_events)
            bundle.write_rows("tcp_sample", self.tcp_samples)
            bundle.write_rows("k8s_pod", [self._pod(p) for p in self.pods])
            for table, rows in self.more.items():
                bundle.write_rows(table, rows)
        return path

    @staticmethod
    def _pod(pod: Pod) -> dict[str, Any]:
        return {
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "node": pod.node,
            "phase": "Running",
            "reason": "Running",
            "ip": pod.ip,
            "ips": pod.ip,
            "host_network": False,
            "owner_kind": "Deployment",
            "owner_name": pod.workload,
            "labels": "{}",
            "ready": True,
            "restart_count": 0,
        }


def http(path: str = "/", status: int = 200, body: bytes = b"ok") -> tuple[bytes, bytes]:
    """Bytes of one HTTP/1.1 exchange."""
    request = f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return request, head + body


def mysql(statement: str) -> tuple[bytes, bytes]:
    """(request, response): COM_QUERY and OK (MySQL client/server protocol, "Text Protocol")."""
    body = b"\x03" + statement.encode()
    return len(body).to_bytes(3, "little") + b"\0" + body, b"\x07\0\0\1\0\1\0\2\0\0\0"
