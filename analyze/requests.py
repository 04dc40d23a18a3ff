"""From streams to the rows of `request`, and the ledger of what was and was not understood.

The result is two Arrow tables: `_request` (rows as the wire told them; names of pods and services are joined in
SQL) and `coverage`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.analyze.protocols import registry
from kubetape.analyze.protocols.contract import Request
from kubetape.analyze.protocols.engine import Decoded, Endpoints, decode_connection
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
    for streams in StreamIndex(data, datagram_ids):
        fact = facts.get(streams.connection_id)
        if fact is None:
            continue
        ends, send_is_client = _endpoints(fact)
        from_start = fact["start_ns"] is not None
        decoded = decode_connection(streams, ends, send_is_client, from_start, protocols, shared)
        results.append((streams, fact, decoded))
    _resolve(results, shared)
    return Requests(_request_table(results), _coverage_table(results))


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


def _request_table(results: list[tuple[ConnectionStreams, dict[str, Any], Decoded]]) -> Any:
    rows = [row for _, _, decoded in results for row in decoded.rows]
    ends: dict[int, tuple[str, int, str, int, str, str]] = {}
    for _, fact, decoded in results:
        known, _ = _endpoints(fact)
        client, server = (known.client_ip, known.client_port), (known.server_ip, known.server_port)
        side = fact["side"]
        if decoded.swapped:
            client, server = server, client
        if side == "unknown":
            side = "client" if (fact["local_ip"], fact["local_port"]) == client else "server"
        ends[fact["connection_id"]] = (*client, *server, side, fact["node"])
    columns: dict[str, list[Any]] = {name: [] for name in REQUEST_SCHEMA.names if name != "request_id"}
    plain = [
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
    ]
    for name in plain:
        columns[name] = [getattr(row, name) for row in rows]
    for row in rows:
        _append_spans(columns, row)
        end = ends[row.connection_id]
        columns["client_ip"].append(end[0])
        columns["client_port"].append(end[1])
        columns["server_ip"].append(end[2])
        columns["server_port"].append(end[3])
        columns["side"].append(end[4])
        columns["node"].append(end[5])
        columns["attributes"].append(
            None if row.attributes is None else json.dumps(row.attributes, sort_keys=True, default=str)
        )
    columns["request_id"] = list(range(1, len(rows) + 1))
    arrays = [
        pa.array(columns[f.name], pa.string()).dictionary_encode()
        if pa.types.is_dictionary(f.type)
        else pa.array(columns[f.name], f.type)
        for f in REQUEST_SCHEMA
    ]
    table = pa.table(arrays, schema=REQUEST_SCHEMA)
    return table.sort_by([("start_ns", "ascending"), ("request_id", "ascending")])


def _append_spans(columns: dict[str, list[Any]], row: Request) -> None:
    request, response = row.request, row.response
    first = request or response
    assert first is not None
    start = request.first_ns if request else None
    end = response.last_ns if response else None
    lost = (request.lost_bytes if request else 0) + (response.lost_bytes if response else 0)
    columns["start_ns"].append(first.first_ns)
    columns["request_end_ns"].append(request.last_ns if request else None)
    columns["response_start_ns"].append(response.first_ns if response else None)
    columns["end_ns"].append(end)
    # A reply seen before its request was complete (early error, streaming) still counts from the request's start.
    columns["latency_ns"].append(max(0, end - start) if start is not None and end is not None else None)
    columns["ttfb_ns"].append(max(0, response.first_ns - start) if start is not None and response is not None else None)
    columns["request_bytes"].append(request.size if request else None)
    columns["response_bytes"].append(response.size if response else None)
    columns["lost_bytes"].append(lost)
    columns["pid"].append(first.pid or None)
    columns["tid"].append(first.tid or None)
    columns["response_tid"].append((response.tid or None) if response else None)
    columns["request_position"].append(request.start if request else None)
    columns["response_position"].append(response.start if response else None)
    outcome = row.outcome
    if outcome is None:
        if request is None:
            outcome = "no_request"
        elif response is None:
            outcome = "no_response"
        else:
            outcome = "truncated" if lost else "complete"
    columns["outcome"].append(outcome)


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
