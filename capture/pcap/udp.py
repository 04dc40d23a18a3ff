"""UDP datagrams: one row each, a connection per 5-tuple."""

from __future__ import annotations

import numpy as np

from kubetape.capture.pcap.copies import find_copies
from kubetape.capture.pcap.events import NONE
from kubetape.capture.pcap.flows import FlowTable
from kubetape.capture.pcap.grow import Growing
from kubetape.capture.pcap.packets import Bytes, Ints
from kubetape.capture.pcap.tcp import StreamRows
from kubetape.capture.pcap.transport import Layer4


def datagrams(
    packets: Layer4, flow: Ints, sender: Ints, flows: FlowTable, last_ns: Growing, buffers: list[Bytes]
) -> tuple[StreamRows, int]:
    """Rows of one window of time-ordered datagrams, and how many were second copies of others."""
    unique, first, local = np.unique(flow, return_index=True, return_inverse=True)
    number = np.empty(len(unique), np.int64)
    for k in np.argsort(first).tolist():
        i = int(first[k])
        connection = flows.current.get(int(unique[k]))
        if connection is None:
            connection = flows.connect(
                int(unique[k]), int(packets.ts_ns[i]), int(packets.label[i]), None, int(sender[i])
            )
            connection.start_ns = int(packets.ts_ns[i])
        number[k] = connection.number
    last_ns.reserve(2 * flows.connection_count)
    # In time order: of several datagrams of one connection, the last one's time stays.
    last_ns.values[2 * number[local]] = packets.ts_ns
    copies = find_copies(packets, (packets.seq, packets.size, flow * 2 + sender), buffers)
    kept = np.nonzero(~copies)[0]
    zero = np.zeros(len(kept), np.int64)
    rows = StreamRows(
        packet=kept,
        connection=number[local][kept],
        sender=sender[kept],
        position=zero,
        size=packets.size[kept],
        skip=zero,
        retransmitted=np.full(len(kept), NONE, np.int64),
    )
    return rows, int(copies.sum())
