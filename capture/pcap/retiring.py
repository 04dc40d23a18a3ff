"""Rows of `connection`, built while windows pass, so that millions of short connections need little memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.capture.pcap.ending import finish, last_seen_ns
from kubetape.capture.pcap.flows import Connection
from kubetape.capture.pcap.rows_out import connection_columns
from kubetape.capture.pcap.tcp import TcpStreams

# Below this many, connections are simply kept (about 1 KiB each).
KEPT_COUNT = 50_000
# Stragglers of a closed connection come within a minute at most (RFC 9293's two segment lifetimes, as Linux sees it).
CLOSED_NS = 60_000_000_000
# A silent connection, or UDP conversation, that speaks again after this begins a new row, if there are very many.
SILENT_NS = 600_000_000_000


class ConnectionRows:
    """Finished rows as Arrow batches, in no order, and the connections that still live."""

    def __init__(self, streams: TcpStreams) -> None:
        self._streams = streams
        self._batches: list[Any] = []
        self._next_count = KEPT_COUNT

    def retire(self, now_ns: int, labels: list[str]) -> None:
        """Between windows: put the rows of connections aside that are over, if there are many."""
        live = self._streams.flows.live
        if len(live) <= self._next_count:
            return
        self._put_aside([c for c in live.values() if self._is_over(c, now_ns)], now_ns, labels)
        # Whatever is left is looked through again only when as many have come on top.
        self._next_count = len(live) + KEPT_COUNT

    def _is_over(self, connection: Connection, now_ns: int) -> bool:
        if connection.superseded:
            return True
        if connection.end_ns is not None:
            return now_ns - connection.end_ns > CLOSED_NS
        return now_ns - last_seen_ns(connection, self._streams) > SILENT_NS

    def _put_aside(self, over: list[Connection], now_ns: int, labels: list[str]) -> None:
        if not over:
            return
        for connection in over:
            finish(connection, self._streams, now_ns)
            self._streams.flows.retire(connection)
        self._batches.append(pa.RecordBatch.from_pydict(connection_columns(over, labels)))

    def table(self, now_ns: int, labels: list[str]) -> Any:
        """All rows as pyarrow.Table, sorted by connection_id; to be called once, at the end."""
        self._put_aside(list(self._streams.flows.live.values()), now_ns, labels)
        if not self._batches:
            return pa.Table.from_pydict(connection_columns([], labels))
        whole = pa.Table.from_batches(self._batches)
        self._batches.clear()
        order = np.argsort(whole["connection_id"].to_numpy(), kind="stable")
        return whole.take(pa.array(order))

    @staticmethod
    def count_tcp(table: Any) -> int:
        return int(np.sum(table["transport"].to_numpy() == "tcp"))
