"""socket_data from the spool, window by window, and the connections of unconnected datagram sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.capture import columns, convert_tls
from kubetape.capture.layouts import Layout, defines
from kubetape.capture.records import Array, Window

CALLS = (
    "other", "read", "write", "readv", "writev", "sendto", "recvfrom", "sendmsg", "recvmsg",
    "sendmmsg", "recvmmsg", "sendfile", "splice", "io_uring", "kernel",
)  # fmt: skip
_HIDDEN_CALL = CALLS.index("splice")

# Kernel ids stay far below: count << 16. Every id stays below 2**53, so that JSON readers keep it exact.
DATAGRAM_ID_BASE = 1 << 50

# Events of different CPUs reach the ring within microseconds of their time stamp; a window's newest wait for the next.
_REORDER_NS = 20_000_000


class DataConverter:
    """Turns windows into sorted socket_data tables; remembers peers of datagram sockets and what was cut.

    ties: where the plaintext of TLS libraries belongs, None where none was recorded.
    """

    def __init__(
        self,
        node: str,
        layouts: dict[str, Layout],
        start_ns: int,
        end_ns: int,
        ties: convert_tls.Ties | None = None,
    ) -> None:
        self._node, self._layouts, self._ties = node, layouts, ties
        # Probes are attached and detached one after another: outside of the time in which all were, a request
        # may be there without its response, and would be paired with the next one's.
        self._start_ns, self._end_ns = start_ns, end_ns
        self._carry: Any = None
        self._peers: dict[bytes, int] = {}
        # (socket id, ip, port, connection id, first ts, first direction, pid) of each datagram peer
        self.datagram_connections: list[tuple[int, bytes, int, int, int, int, int]] = []
        self.row_count = self.cut_count = self.fault_count = self.hidden_bytes = 0
        self.tls_cut_count = 0
        self.io_uring_pids: set[int] = set()
        # connection id of a datagram socket -> sent and received count, sent and received bytes
        self.datagram_totals: dict[int, list[int]] = {}

    def feed(self, window: Window) -> Iterator[Any]:
        """Tables ready to be written."""
        parts = [self._table(window, "data_event"), self._table(window, "datagram_event")]
        if self._ties is not None:
            plain, cut = convert_tls.table(self._node, window, self._layouts["tls_event"], self._ties)
            parts.append(plain)
            self.tls_cut_count += cut
        if self._carry is not None:
            parts.append(self._carry)
        table = _unified(parts)
        times = table.column("ts_ns").to_numpy()
        inside = (times >= self._start_ns) & (times <= self._end_ns)
        if not inside.all():
            table = table.filter(pa.array(inside))
            times = times[inside]
        if not len(times):
            return
        order = np.argsort(times, kind="stable")
        ready = int(np.searchsorted(times[order], times.max() - _REORDER_NS, "right"))
        self._carry = table.take(pa.array(order[ready:]))
        if ready:
            yield table.take(pa.array(order[:ready]))

    def rest(self) -> Iterator[Any]:
        if self._carry is not None and self._carry.num_rows:
            yield self._carry
        self._carry = None

    def _table(self, window: Window, name: str) -> Any:
        offsets = window.offsets(name)
        events = window.events(name)
        count = len(events)
        marks = defines()
        self.row_count += count
        self.cut_count += int(((events["flags"] & marks["DATA_CUT"]) != 0).sum())
        self.fault_count += int(((events["flags"] & marks["DATA_PAYLOAD_FAULT"]) != 0).sum())
        on_ring = events["call"] == CALLS.index("io_uring")
        if on_ring.any():
            self.io_uring_pids.update(int(p) for p in np.unique(events["pid"][on_ring]))
        ids = events["socket_id"].astype(np.int64)
        if name == "datagram_event" and count:
            ids = self._datagram_ids(events)
        self._add_totals(events, ids)
        captured = events["captured_bytes"].astype(np.int64)
        size = self._layouts[name].dtype.itemsize
        # An empty datagram has an empty payload; without policy or readable memory there is none.
        null = (captured == 0) & (events["size_bytes"] > 0)
        table = self._rows(events, ids)
        table["payload"] = columns.payload(window.data, offsets + size, captured, null)
        table["source"] = columns.labels(
            ((events["flags"] & marks["DATA_ULP"]) != 0).astype(np.int32), ["socket", "tls"]
        )
        result = pa.table(table)
        hidden = events["hidden_bytes"].astype(np.int64)
        # A gap of more than 1 GB is a position misread, not a splice.
        chosen = np.flatnonzero((hidden > 0) & (hidden < 1 << 30))
        if len(chosen):
            result = _unified([result, self._hidden(events[chosen], ids[chosen], hidden[chosen])])
        return result

    def _rows(self, events: Array, ids: Array) -> dict[str, Any]:
        return {
            "node": columns.constant(self._node, len(events)),
            "ts_ns": columns.integers(events["ts_ns"]),
            "connection_id": pa.array(ids),
            "direction": columns.labels(events["direction"].astype(np.int32), ["send", "receive"]),
            "position": columns.integers(events["position"]),
            "size_bytes": columns.integers(events["size_bytes"]),
            "call": columns.labels(np.minimum(events["call"], len(CALLS) - 1).astype(np.int32), CALLS),
            "pid": columns.integers(events["pid"], kind=pa.int32()),
            "tid": columns.integers(events["tid"], kind=pa.int32()),
        }

    def _hidden(self, events: Array, ids: Array, sizes: Array) -> Any:
        """Bytes the kernel moved between two events of a stream without a probe running: length only."""
        self.hidden_bytes += int(sizes.sum())
        table = self._rows(events, ids)
        table["position"] = pa.array(events["position"].astype(np.int64) - sizes)
        table["size_bytes"] = pa.array(sizes)
        table["call"] = columns.constant(CALLS[_HIDDEN_CALL], len(events))
        table["payload"] = pa.nulls(len(events), pa.large_binary())
        table["source"] = columns.constant("socket", len(events))
        return pa.table(table)

    def _add_totals(self, events: Array, ids: Array) -> None:
        """Count what moved on datagram sockets; a stream's position is never 0."""
        for direction in (0, 1):
            chosen = (events["position"] == 0) & (events["direction"] == direction)
            unique, inverse, counts = np.unique(ids[chosen], return_inverse=True, return_counts=True)
            sizes = np.zeros(len(unique), np.int64)
            np.add.at(sizes, inverse.reshape(-1), events["size_bytes"][chosen].astype(np.int64))
            for one, count, size in zip(unique.tolist(), counts.tolist(), sizes.tolist(), strict=True):
                totals = self.datagram_totals.setdefault(one, [0, 0, 0, 0])
                totals[direction] += count
                totals[2 + direction] += size

    def _datagram_ids(self, events: Array) -> Array:
        """A connection id for each (socket, peer); the loop is per peer, not per event."""
        key = np.zeros(len(events), np.dtype([("socket", "<u8"), ("ip", "u1", 16), ("port", "<u2"), ("pad", "u1", 6)]))
        key["socket"], key["ip"], key["port"] = events["socket_id"], events["remote_ip"], events["remote_port"]
        _, first, inverse = np.unique(key.view("V32"), return_index=True, return_inverse=True)
        ids = np.zeros(len(first), np.int64)
        for index, at in enumerate(first.tolist()):
            raw = key[at].tobytes()
            known = self._peers.get(raw)
            if known is None:
                known = self._peers[raw] = DATAGRAM_ID_BASE + len(self._peers)
                event = events[at]
                self.datagram_connections.append(
                    (
                        int(event["socket_id"]), event["remote_ip"].tobytes(), int(event["remote_port"]), known,
                        int(event["ts_ns"]), int(event["direction"]), int(event["pid"]),
                    )
                )  # fmt: skip
            ids[index] = known
        return ids[inverse.reshape(-1)]


def _unified(tables: list[Any]) -> Any:
    """The tables in one, their dictionaries made one."""
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
