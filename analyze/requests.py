"""From streams to the rows of `request`, and the ledger of what was and was not understood.

The result is two Arrow tables: `_request` (rows as the wire told them; names of pods and services are joined in
SQL) and `coverage`.
"""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.analyze.protocols import registry
from kubetape.analyze.protocols.contract import Protocol, Request
from kubetape.analyze.protocols.engine import Decoded, Endpoints, Servers, decode_connection
from kubetape.analyze.streams import ConnectionStreams, StreamIndex

REQUEST_SCHEMA = pa.schema(
    [
        ("request_id", pa.int64()),
        ("node", pa.dictionary(pa.int32(), pa.string())),
        ("connection_id", pa.int64()),
        ("protocol", pa.dictionary(pa.int32(), pa.string())),
        ("side", pa.dictionary(pa.int32(), pa.string())),
        ("start_ns", pa.int64()),
        ("request_end_ns", pa.int64()),
        ("response_start_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("latency_ns", pa.int64()),
        ("ttfb_ns", pa.int64()),
        ("request_bytes", pa.int64()),
        ("response_bytes", pa.int64()),
        ("operation", pa.string()),
        ("resource", pa.string()),
        ("statement", pa.string()),
        ("status", pa.string()),
        ("is_error", pa.bool_()),
        ("error_kind", pa.string()),
        ("outcome", pa.string()),
        ("lost_bytes", pa.int64()),
        ("stream_id", pa.int64()),
        ("pid", pa.int32()),
        ("tid", pa.int32()),
        ("trace_id", pa.string()),
        ("span_id", pa.string()),
        ("parent_span_id", pa.string()),
        ("client_ip", pa.string()),
        ("client_port", pa.int32()),
        ("server_ip", pa.string()),
        ("server_port", pa.int32()),
        # Beyond the contract's columns.
        ("error_message", pa.string()),
        ("rows_sent", pa.int64()),
        ("rows_affected", pa.int64()),
        ("parameters", pa.string()),
        ("attributes", pa.string()),
        ("inferred", pa.string()),
        ("request_position", pa.int64()),
        ("response_position", pa.int64()),
        ("response_tid", pa.int32()),
    ]
)

COVERAGE_SCHEMA = pa.schema(
    [
        ("connection_id", pa.int64()),
        ("source", pa.string()),
        ("protocol", pa.string()),
        ("protocols", pa.string()),
        ("score", pa.float64()),
        ("runner_up", pa.string()),
        ("runner_up_score", pa.float64()),
        ("request_count", pa.int64()),
        ("frame_count", pa.int64()),
        ("total_bytes", pa.int64()),
        ("seen_bytes", pa.int64()),
        ("lost_bytes", pa.int64()),
        ("truncated_bytes", pa.int64()),
        ("encrypted_bytes", pa.int64()),
        ("undecoded_bytes", pa.int64()),
    ]
)


@dataclass
class Requests:
    """request: rows of REQUEST_SCHEMA sorted by start_ns; coverage: rows of COVERAGE_SCHEMA."""

    request: Any
    coverage: Any


def decode_all(connections: Any, data: Any) -> Requests:
    """Decode every connection.

    connections: pyarrow.Table `connection`; data: pyarrow.Table `socket_data`. Times stay the node's monotonic ones.
    """
    protocols = registry()
    shared: dict[str, dict[Any, Any]] = {}
    facts = {row["connection_id"]: row for row in connections.to_pylist()}
    datagram_ids = np.array([i for i, row in facts.items() if row["transport"] == "udp"], np.int64)
    results: list[tuple[ConnectionStreams, dict[str, Any], Decoded]] = []
    # Decoding makes millions of small objects and no cycles: without pauses to look for any it takes a quarter less.
    gc.disable()
    try:
        _decode_connections(data, datagram_ids, facts, protocols, shared, results)
        _resolve(results, shared)
        return Requests(_request_table(results), _coverage_table(results))
    finally:
        gc.enable()


def _decode_connections(
    data: Any,
    datagram_ids: Any,
    facts: dict[int, dict[str, Any]],
    protocols: dict[str, Protocol],
    shared: dict[str, dict[Any, Any]],
    results: list[tuple[ConnectionStreams, dict[str, Any], Decoded]],
) -> None:
    servers: Servers = {}
    for streams in StreamIndex(data, datagram_ids):
        fact = facts.get(streams.connection_id)
        if fact is None:
            continue
        ends, send_is_client = _endpoints(fact)
        from_start = fact["start_ns"] is not None
        decoded = decode_connection(streams, ends, send_is_client, from_start, protocols, shared, servers)
        results.append((streams, fact, decoded))


def _endpoints(fact: dict[str, Any]) -> tuple[Endpoints, bool]:
    """Who is client and who server, and whether `send` carries the client's bytes."""
    local = (fact["local_ip"], fact["local_port"])
    remote = (fact["remote_ip"], fact["remote_port"])
    send_is_client = fact["side"] in ("client", "wire") or (fact["side"] == "unknown" and local[1] > remote[1])
    client, server = (local, remote) if send_is_client else (remote, local)
    known = fact["side_basis"] in ("state", "listener", "packet") and fact["transport"] == "tcp"
    return Endpoints(*client, *server, known), send_is_client


def _resolve(
    results: list[tuple[ConnectionStreams, dict[str, Any], Decoded]], shared: dict[str, dict[Any, Any]]
) -> None:
    by_protocol: dict[str, list[Request]] = {}
    for _, _, decoded in results:
        for row in decoded.rows:
            by_protocol.setdefault(row.protocol or "", []).append(row)
    for protocol in registry().values():
        if protocol.resolve is not None and (rows := by_protocol.get(protocol.name)):
            protocol.resolve(rows, shared.setdefault(protocol.name, {}))


_PLAIN = (
    "protocol",
    "operation",
    "resource",
    "statement",
    "status",
    "is_error",
    "error_kind",
    "stream_id",
    "trace_id",
    "span_id",
    "parent_span_id",
    "error_message",
    "rows_sent",
    "rows_affected",
    "parameters",
    "inferred",
    "connection_id",
)
_SPANS = (
    "start_ns",
    "request_end_ns",
    "response_start_ns",
    "end_ns",
    "latency_ns",
    "ttfb_ns",
    "request_bytes",
    "response_bytes",
    "lost_bytes",
    "pid",
    "tid",
    "response_tid",
    "request_position",
    "response_position",
    "outcome",
)
_ENDS = ("client_ip", "client_port", "server_ip", "server_port", "side", "node")


def _request_table(results: list[tuple[ConnectionStreams, dict[str, Any], Decoded]]) -> Any:
    rows = [row for _, _, decoded in results for row in decoded.rows]
    if not rows:
        return REQUEST_SCHEMA.empty_table()
    columns: dict[str, Any] = dict(zip(_PLAIN, zip(*map(attrgetter(*_PLAIN), rows), strict=True), strict=True))
    columns |= dict(zip(_SPANS, zip(*map(_span_values, rows), strict=True), strict=True))
    columns["attributes"] = [None if row.attributes is None else _json(row.attributes) for row in rows]
    columns["request_id"] = np.arange(1, len(rows) + 1)
    # The ends are the connection's: one value each, taken once for every row.
    place = np.repeat(np.arange(len(results)), [len(decoded.rows) for _, _, decoded in results])
    ends = zip(*(_ends(fact, decoded) for _, fact, decoded in results), strict=True)
    for name, values in zip(_ENDS, ends, strict=True):
        field = REQUEST_SCHEMA.field(name)
        plain = pa.string() if pa.types.is_dictionary(field.type) else field.type
        columns[name] = pa.array(values, plain).take(pa.array(place))
    arrays = [_column(columns[field.name], field.type) for field in REQUEST_SCHEMA]
    table = pa.table(arrays, schema=REQUEST_SCHEMA)
    # Connections follow each other in the order they were decoded; rows of the analysis follow in time.
    order = np.argsort(table.column("start_ns").to_numpy(), kind="stable")
    return table.take(pa.array(order))


def _column(values: Any, kind: Any) -> Any:
    if not pa.types.is_dictionary(kind):
        return values if isinstance(values, pa.Array) else pa.array(values, kind)
    texts = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
    return texts.dictionary_encode()


_json = json.JSONEncoder(sort_keys=True, default=str, separators=(",", ":")).encode


def _ends(fact: dict[str, Any], decoded: Decoded) -> tuple[str, int, str, int, str, str]:
    """Client and server of a connection after detection had its say; who saw it; on which node."""
    known, _ = _endpoints(fact)
    client, server = (known.client_ip, known.client_port), (known.server_ip, known.server_port)
    if decoded.swapped:
        client, server = server, client
    side = fact["side"]
    if side == "unknown":
        side = "client" if (fact["local_ip"], fact["local_port"]) == client else "server"
    return (*client, *server, side, fact["node"])


def _span_values(row: Request) -> tuple[Any, ...]:
    """The columns of _SPANS for one row."""
    request, response = row.request, row.response
    if request is None:
        assert response is not None
        return (
            response.first_ns,
            None,
            response.first_ns,
            response.last_ns,
            None,
            None,
            None,
            response.size,
            response.lost_bytes,
            response.pid or None,
            response.tid or None,
            response.tid or None,
            None,
            response.start,
            row.outcome or "no_request",
        )
    start = request.first_ns
    if response is None:
        return (
            start,
            request.last_ns,
            None,
            None,
            None,
            None,
            request.size,
            None,
            request.lost_bytes,
            request.pid or None,
            request.tid or None,
            None,
            request.start,
            None,
            row.outcome or "no_response",
        )
    lost = request.lost_bytes + response.lost_bytes
    return (
        start,
        request.last_ns,
        response.first_ns,
        response.last_ns,
        # A reply that began before its request was complete (an early error) still counts from the request's start.
        max(0, response.last_ns - start),
        max(0, response.first_ns - start),
        request.size,
        response.size,
        lost,
        request.pid or None,
        request.tid or None,
        response.tid or None,
        request.start,
        response.start,
        row.outcome or ("truncated" if lost else "complete"),
    )


def _coverage_table(results: list[tuple[ConnectionStreams, dict[str, Any], Decoded]]) -> Any:
    rows = []
    for streams, _, decoded in results:
        pair = (streams.send, streams.receive)
        opaque = decoded.opaque_bytes
        rows.append(
            {
                "connection_id": streams.connection_id,
                "source": streams.source,
                "protocol": decoded.protocol,
                "protocols": ",".join(decoded.protocols) or None,
                "score": decoded.score,
                "runner_up": decoded.runner_up,
                "runner_up_score": decoded.runner_up_score,
                "request_count": len(decoded.rows),
                "frame_count": decoded.frame_count,
                "total_bytes": sum(s.total_bytes for s in pair),
                "seen_bytes": sum(s.seen_bytes for s in pair),
                "lost_bytes": sum(s.lost_bytes for s in pair),
                "truncated_bytes": sum(s.cut_bytes for s in pair),
                "encrypted_bytes": opaque,
                "undecoded_bytes": decoded.unread_bytes,
            }
        )
    return pa.Table.from_pylist(rows, schema=COVERAGE_SCHEMA)
