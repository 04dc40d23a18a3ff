"""What happened to connections, collected while windows pass, and handed out in time order at the end.

About 70 bytes per event are held: a ZIP is written one table at a time, and socket_data comes first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kubetape.capture.pcap.packets import Ints

KINDS = (
    "state",
    "retransmit",
    "reset_sent",
    "reset_received",
    "connect",
    "zero_window",
    "out_of_order",
    "duplicate_ack",
    "keep_alive",
    "lost_segment",
)
DETAILS = (
    "",
    "SYN_SENT>ESTABLISHED",
    "ESTABLISHED>CLOSE",
    "SYN_SENT>CLOSE",
    "syn",
    "synack",
    "fast",
    "timeout",
    "other",
    "ok",
    "refused",
    "acked",
    "skipped",
)
KIND = {name: code for code, name in enumerate(KINDS)}
DETAIL = {name: code for code, name in enumerate(DETAILS)}
PART_ROWS = 131_072  # a row group of the bundle
NONE = -(1 << 62)  # NULL, in columns whose values are never this


class EventLog:
    """Events as columns: ts_ns, connection, kind, detail, sender (0 or 1, -1 for none), position, size, duration.

    `sender` is the end whose packet or data the event is about, as numbered by the flow table.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int, int, int, int, int]] = []
        self._blocks: list[Ints] = []
        self.count = 0

    def add(
        self,
        kind: str,
        ts_ns: int,
        connection: int,
        sender: int = -1,
        detail: str = "",
        position: int = NONE,
        size: int = NONE,
        duration_ns: int = NONE,
    ) -> None:
        self._rows.append((ts_ns, connection, KIND[kind], DETAIL[detail], sender, position, size, duration_ns))
        self.count += 1
        if len(self._rows) >= 8_192:
            self._blocks.append(np.array(self._rows, np.int64))
            self._rows.clear()

    def add_many(
        self, kind: str, ts_ns: Ints, connection: Ints, sender: Ints, position: Ints, detail: str = ""
    ) -> None:
        if not len(ts_ns):
            return
        block = np.full((len(ts_ns), 8), NONE, np.int64)
        block[:, 0], block[:, 1], block[:, 4], block[:, 5] = ts_ns, connection, sender, position
        block[:, 2], block[:, 3] = KIND[kind], DETAIL[detail]
        self._blocks.append(block)
        self.count += len(ts_ns)

    def parts(self) -> Iterator[Ints]:
        """(n, 8) each, sorted by time, then connection; empties the log."""
        self._blocks.append(np.array(self._rows, np.int64).reshape(-1, 8))
        self._rows.clear()
        return _in_time_order(self._blocks)


class SampleLog:
    """Round-trip times: ts_ns of the acknowledgement, connection, sender of the acknowledged data, RTT in ns."""

    def __init__(self) -> None:
        self._blocks: list[Ints] = []

    def add_many(self, ts_ns: Ints, connection: Ints, sender: Ints, rtt_ns: Ints) -> None:
        if len(ts_ns):
            self._blocks.append(np.stack([ts_ns, connection, sender, rtt_ns], axis=1))

    def parts(self) -> Iterator[Ints]:
        """(n, 4) each, sorted by time, then connection; empties the log."""
        self._blocks.append(np.zeros((0, 4), np.int64))
        return _in_time_order(self._blocks)


def _in_time_order(blocks: list[Ints]) -> Iterator[Ints]:
    """The rows of all blocks, whose first two fields are time and connection, sorted by these, in parts."""
    table = np.concatenate(blocks)
    blocks.clear()
    order = None if (np.diff(table[:, 0]) > 0).all() else np.lexsort((table[:, 1], table[:, 0]))
    for start in range(0, len(table), PART_ROWS):
        part = slice(start, start + PART_ROWS)
        yield table[part] if order is None else table[order[part]]
