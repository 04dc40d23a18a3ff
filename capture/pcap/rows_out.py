"""Arrow columns of the bundle's tables from the importer's arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.capture.pcap.events import DETAILS, KINDS, NONE, EventLog, SampleLog
from kubetape.capture.pcap.flows import Connection, FlowTable
from kubetape.capture.pcap.packets import Bytes, Ints
from kubetape.capture.pcap.tcp import StreamRows
from kubetape.capture.pcap.transport import TCP, Layer4


@dataclass
class Labels:
    """A constant label column of any length."""

    value: str

    def column(self, count: int) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([self.value]))


def coded(codes: Ints, names: tuple[str, ...] | list[str], null_code: int | None = None) -> Any:
    """A label column from numbers into `names`; `null_code` becomes NULL."""
    mask = None if null_code is None else codes == null_code
    indices = pa.array(codes.astype(np.int32), mask=mask)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(names), pa.string()))


def nullable(values: Ints) -> Any:
    """An int64 column with NONE as NULL."""
    return pa.array(values, mask=values == NONE)


def payload_column(packets: Layer4, buffers: list[Bytes], rows: StreamRows) -> Any:
    """The captured bytes of each row, copied once, in C, out of the window's buffers.

    An Arrow array over a buffer whose odd elements are the gaps between payloads costs nothing; `take` of its
    even elements copies the payloads together.
    """
    start = packets.payload_at[rows.packet] + rows.skip
    length = np.clip(packets.captured[rows.packet] - rows.skip, 0, rows.size)
    source = packets.buffer[rows.packet]
    arrays: list[Any] = []
    index = np.empty(len(start), np.int64)
    offset = 0
    for number in np.unique(source).tolist():
        mine = np.nonzero(source == number)[0]
        order = mine[np.argsort(start[mine], kind="stable")]
        bounds = np.empty(2 * len(order), np.int64)
        bounds[0::2] = np.minimum(start[order], len(buffers[number]))
        bounds[1::2] = np.minimum(start[order] + length[order], len(buffers[number]))
        index[order] = offset + 2 * np.arange(len(order))
        arrays.append(
            pa.LargeBinaryArray.from_buffers(
                pa.large_binary(),
                len(bounds) - 1,
                [None, pa.py_buffer(bounds), pa.py_buffer(buffers[number])],
            )
        )
        offset += len(bounds) - 1
    if not arrays:
        return pa.array([], pa.large_binary())
    whole = arrays[0] if len(arrays) == 1 else pa.chunked_array(arrays)
    taken = whole.take(pa.array(index))
    return taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken


def socket_data(packets: Layer4, buffers: list[Bytes], rows: StreamRows, flows: FlowTable, node: str) -> dict[str, Any]:
    """Columns of socket_data in time order; rows of one segment in the order of their bytes."""
    if (np.diff(rows.packet) <= 0).any():
        order = np.lexsort((rows.position, rows.packet))
        rows = rows.take(order)
    count = len(rows.packet)
    from_client = rows.sender == flows.client_of.values[rows.connection]
    return {
        "node": Labels(node).column(count),
        "ts_ns": packets.ts_ns[rows.packet],
        "connection_id": rows.connection + 1,
        "direction": coded(np.where(from_client, 0, 1), ("send", "receive")),
        "position": rows.position,
        "size_bytes": rows.size,
        "payload": payload_column(packets, buffers, rows),
        "source": Labels("wire").column(count),
        "call": Labels("packet").column(count),
        "retransmitted_bytes": nullable(rows.retransmitted),
    }


def tcp_events(log: EventLog, flows: FlowTable, connections: Any, node: str) -> Iterator[dict[str, Any]]:
    """Parts of tcp_event; `connections`: the connection table, whose row i is connection i + 1."""
    for part in log.parts():
        ts_ns, connection, kind, detail, sender, position, size, duration_ns = part.T
        client = flows.client_of.values[connection]
        direction = np.where(sender < 0, 2, np.where(sender == client, 0, 1))
        row = pa.array(connection)
        yield {
            "node": Labels(node).column(len(ts_ns)),
            "ts_ns": ts_ns,
            "connection_id": connection + 1,
            "kind": coded(kind, KINDS),
            "detail": coded(detail, DETAILS, 0),
            "direction": coded(direction, ("send", "receive", ""), 2),
            "position": nullable(position),
            "size_bytes": nullable(size),
            "duration_ns": nullable(duration_ns),
            **{name: connections[name].take(row) for name in ("local_ip", "local_port", "remote_ip", "remote_port")},
        }


def tcp_samples(log: SampleLog, flows: FlowTable, node: str) -> Iterator[dict[str, Any]]:
    for part in log.parts():
        ts_ns, connection, sender, rtt_ns = part.T
        from_client = sender == flows.client_of.values[connection]
        yield {
            "node": Labels(node).column(len(ts_ns)),
            "ts_ns": ts_ns,
            "connection_id": connection + 1,
            "reason": Labels("wire").column(len(ts_ns)),
            "direction": coded(np.where(from_client, 0, 1), ("send", "receive")),
            "srtt_ns": rtt_ns,
        }


def connection_columns(connections: list[Connection], labels: list[str]) -> dict[str, Any]:
    """Columns of `connection`, but for `node` and `side`, which are the same everywhere."""
    local = [c.ends[c.client] for c in connections]
    remote = [c.ends[1 - c.client] for c in connections]
    sent = [c.bounds[c.client] for c in connections]
    received = [c.bounds[1 - c.client] for c in connections]
    columns: dict[str, tuple[list[Any], Any]] = {
        "connection_id": ([c.number + 1 for c in connections], pa.int64()),
        "transport": (["tcp" if c.protocol == TCP else "udp" for c in connections], pa.string()),
        "side_basis": ([c.basis for c in connections], pa.string()),
        "local_ip": ([end[0] for end in local], pa.string()),
        "local_port": ([end[1] for end in local], pa.int32()),
        "remote_ip": ([end[0] for end in remote], pa.string()),
        "remote_port": ([end[1] for end in remote], pa.int32()),
        "start_ns": ([c.start_ns for c in connections], pa.int64()),
        "end_ns": ([c.end_ns for c in connections], pa.int64()),
        "existed_before": ([c.start_ns is None for c in connections], pa.bool_()),
        "close_reason": ([c.close_reason for c in connections], pa.string()),
        "sent_from_position": ([first for first, _ in sent], pa.int64()),
        "sent_to_position": ([end for _, end in sent], pa.int64()),
        "received_from_position": ([first for first, _ in received], pa.int64()),
        "received_to_position": ([end for _, end in received], pa.int64()),
        "encapsulation": ([labels[c.label] or None for c in connections], pa.string()),
    }
    return {name: pa.array(values, kind) for name, (values, kind) in columns.items()}
