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
from kubetape.analyze.protocols.turns import Block
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
        _mark_tls(results)
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
        # What was decoded needs the bytes no more.
        streams.send.runs, streams.receive.runs = [], []
        results.append((streams, fact, decoded))


_TLS_FACTS = ("version", "cipher", "server_name", "alpn")


def _mark_tls(results: list[tuple[ConnectionStreams, dict[str, Any], Decoded]]) -> None:
    """Rows read from plaintext get what the handshake of their connection said, in attributes.tls.

    The ciphertext of a connection whose plaintext was read is not counted as unreadable.
    """
    handshakes = {
        streams.connection_id: decoded
        for streams, _, decoded in results
        if streams.source != "tls" and "tls" in decoded.protocols
    }
    for streams, _, decoded in results:
        if streams.source != "tls":
            continue
        facts: dict[str, Any] = {}
        if (outside := handshakes.get(streams.connection_id)) is not None:
            outside.opaque_bytes = 0
            for row in outside.rows:
                if row.protocol == "tls" and row.attributes is not None:
                    said = {"server_name": row.resource, **row.attributes}
                    facts = {name: said[name] for name in _TLS_FACTS if said.get(name) is not None}
                    break
        for row in [*decoded.rows, *(row for block in decoded.blocks for row in block.plain.templates)]:
            row.attributes = {**(row.attributes or {}), "tls": facts}


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
        for block in decoded.blocks:
            for row in block.plain.templates:
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
_BLOCK_SPANS = (
    "start_ns",
    "request_end_ns",
    "response_start_ns",
    "end_ns",
    "request_bytes",
    "response_bytes",
    "pid",
    "tid",
    "response_tid",
)
_ENDS = ("client_ip", "client_port", "server_ip", "server_port", "side", "node")


def _request_table(results: list[tuple[ConnectionStreams, dict[str, Any], Decoded]]) -> Any:
    """Rows in the order of their times; `request_id` counts them in the order in which connections were decoded.

    Strategy: a column is an array of what templates say (a single row is its own template) and of what blocks say
    for themselves, and one `take` of it; times and sizes are those of the blocks as they are.
    """
    rows = [row for _, _, decoded in results for row in decoded.rows]
    blocks = [block for _, _, decoded in results for block in decoded.blocks]
    if not rows and not blocks:
        return REQUEST_SCHEMA.empty_table()
    spans = _span_columns(rows, blocks)
    numbers, place = _numbers(results)
    # Connections follow each other in the order they were decoded; rows of the analysis follow in time.
    order = np.lexsort((numbers, spans["start_ns"].to_numpy()))
    taken = pa.array(order)
    columns = {name: _take(values, taken) for name, values in spans.items()}
    columns["request_id"] = pa.array(numbers[order])
    templates = rows + [row for block in blocks for row in block.plain.templates]
    code = _template_codes(len(rows), blocks)
    chosen = pa.array(code[order])
    for name, values in zip(_PLAIN, zip(*map(attrgetter(*_PLAIN), templates), strict=True), strict=True):
        kind = REQUEST_SCHEMA.field(name).type
        said = pa.array(values, pa.string() if pa.types.is_dictionary(kind) else kind)
        if any(name in block.plain.columns for block in blocks):
            said, own = _with_own_values(name, said, blocks, len(rows), code)
            columns[name] = said.take(pa.array(own[order]))
        else:
            columns[name] = _take(_column(said, kind), chosen)
    attributes = [None if row.attributes is None else _json(row.attributes) for row in templates]
    columns["attributes"] = _take(pa.array(attributes, pa.string()), chosen)
    # The ends are the connection's: one value each, taken once for every row.
    ends = zip(*(_ends(fact, decoded) for _, fact, decoded in results), strict=True)
    whose = pa.array(place[order])
    for name, values in zip(_ENDS, ends, strict=True):
        kind = REQUEST_SCHEMA.field(name).type
        plain = pa.string() if pa.types.is_dictionary(kind) else kind
        columns[name] = _column(pa.array(values, plain), kind).take(whose)
    return pa.table([columns[field.name] for field in REQUEST_SCHEMA], schema=REQUEST_SCHEMA)


def _numbers(results: list[tuple[ConnectionStreams, dict[str, Any], Decoded]]) -> tuple[Any, Any]:
    """Of all single rows and then all rows of blocks: their numbers as decoded, from 1, and whose rows they are."""
    single: list[Any] = []
    many: list[Any] = []
    single_place: list[Any] = []
    many_place: list[Any] = []
    first = 1
    for place, (_, _, decoded) in enumerate(results):
        done = 0
        for block in decoded.blocks:
            single.append(np.arange(first, first + block.at - done))
            first += block.at - done
            done = block.at
            many.append(np.arange(first, first + len(block)))
            many_place.append(np.full(len(block), place))
            first += len(block)
        single.append(np.arange(first, first + len(decoded.rows) - done))
        first += len(decoded.rows) - done
        single_place.append(np.full(len(decoded.rows), place))
    return np.concatenate(single + many), np.concatenate(single_place + many_place)


def _template_codes(row_count: int, blocks: list[Block]) -> Any:
    """For every row its template among the single rows, which are their own, and then the blocks' templates."""
    codes = [np.arange(row_count)]
    first = row_count
    for block in blocks:
        codes.append(block.plain.code + first)
        first += len(block.plain.templates)
    return np.concatenate(codes)


def _with_own_values(name: str, said: Any, blocks: list[Block], row_count: int, code: Any) -> tuple[Any, Any]:
    """The templates' values followed by those that blocks have for each row, and for every row which is its."""
    arrays, which = [said], code.copy()
    first, row = len(said), row_count
    for block in blocks:
        own = block.plain.columns.get(name)
        if own is not None:
            arrays.append(own)
            which[row : row + len(block)] = np.arange(first, first + len(block))
            first += len(block)
        row += len(block)
    return pa.concat_arrays(arrays), which


def _span_columns(rows: list[Request], blocks: list[Block]) -> dict[str, Any]:
    """The columns of _SPANS: single rows first, then those of blocks."""
    single = zip(*map(_span_values, rows), strict=True) if rows else [()] * len(_SPANS)
    columns = {
        name: pa.array(values, REQUEST_SCHEMA.field(name).type) for name, values in zip(_SPANS, single, strict=True)
    }
    if not blocks:
        return columns

    def joined(name: str) -> Any:
        return np.concatenate([getattr(block, name) for block in blocks])

    many: dict[str, Any] = {name: joined(name) for name in _BLOCK_SPANS}
    start = many["start_ns"]
    many["latency_ns"] = np.maximum(0, many["end_ns"] - start)
    many["ttfb_ns"] = np.maximum(0, many["response_start_ns"] - start)
    many["lost_bytes"] = np.zeros(len(start), np.int64)
    many["request_position"], many["response_position"] = joined("request_start"), joined("response_start")
    for name, values in many.items():
        kind = REQUEST_SCHEMA.field(name).type
        # Process and thread 0: not known.
        own = pa.array(values, kind, mask=values == 0 if name in ("pid", "tid", "response_tid") else None)
        columns[name] = pa.concat_arrays([columns[name], own])
    complete = pa.array(["complete"]).take(pa.array(np.zeros(len(start), np.int8)))
    columns["outcome"] = pa.concat_arrays([columns["outcome"], complete])
    return columns


def _take(values: Any, which: Any) -> Any:
    """Most columns of most recordings are NULL from the first row to the last."""
    return pa.nulls(len(which), values.type) if values.null_count == len(values) else values.take(which)


def _column(values: Any, kind: Any) -> Any:
    return values.dictionary_encode() if pa.types.is_dictionary(kind) else values


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
    for streams, fact, decoded in results:
        pair = (streams.send, streams.receive)
        opaque = decoded.opaque_bytes
        outside = 0
        if streams.source != "tls" and not streams.datagrams:
            outside = sum(
                stream.lost_outside(fact.get(f"{name}_from_position"), fact.get(f"{name}_to_position"))
                for stream, name in zip(pair, ("sent", "received"), strict=True)
            )
        rows.append(
            {
                "connection_id": streams.connection_id,
                "source": streams.source,
                "protocol": decoded.protocol,
                "protocols": ",".join(decoded.protocols) or None,
                "score": decoded.score,
                "runner_up": decoded.runner_up,
                "runner_up_score": decoded.runner_up_score,
                "request_count": decoded.row_count,
                "frame_count": decoded.frame_count,
                "total_bytes": sum(s.total_bytes for s in pair) + outside,
                "seen_bytes": sum(s.seen_bytes for s in pair),
                "lost_bytes": sum(s.lost_bytes for s in pair) + outside,
                "truncated_bytes": sum(s.cut_bytes for s in pair),
                "encrypted_bytes": opaque,
                "undecoded_bytes": decoded.unread_bytes,
            }
        )
    return pa.Table.from_pylist(rows, schema=COVERAGE_SCHEMA)
