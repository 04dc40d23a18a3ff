"""The same packet captured twice: on both sides of a bridge or a tunnel, or by `tcpdump -i any`."""

from __future__ import annotations

import numpy as np

from kubetape.capture.pcap.packets import Bools, Bytes, Ints
from kubetape.capture.pcap.transport import Layer4

# With an IP identification of its own a copy is known for sure; it only must not be a number used again.
COPY_WITHIN_NS = 1_000_000_000
# Without (IPv6, identification 0), a copy must have come another way, and sooner than anybody repeats himself.
UNMARKED_COPY_WITHIN_NS = 20_000_000


def find_copies(packets: Layer4, identity: tuple[Ints, ...], buffers: list[Bytes]) -> Bools:
    """Which packets are second copies. `identity`: columns that two copies share, beyond the IP identification."""
    keys = (packets.ts_ns, packets.ip_id, *identity)
    order = np.lexsort(keys)
    same = np.ones(max(len(order) - 1, 0), bool)
    for column in keys[1:]:
        values = column[order]
        same &= values[1:] == values[:-1]
    same &= np.diff(packets.ts_ns[order]) <= COPY_WITHIN_NS
    copies = np.zeros(len(order), bool)
    for k in np.nonzero(same)[0].tolist():
        first, second = int(order[k]), int(order[k + 1])
        if packets.ip_id[second] > 0 or (
            packets.ts_ns[second] - packets.ts_ns[first] <= UNMARKED_COPY_WITHIN_NS
            and _way(packets, first, buffers) != _way(packets, second, buffers)
        ):
            copies[second] = True
    return copies


def _way(packets: Layer4, i: int, buffers: list[Bytes]) -> tuple[int, bytes, int]:
    """What tells on which way a packet came by: encapsulation, link-layer header, hop limit."""
    data, at = buffers[int(packets.buffer[i])], int(packets.ip_at[i])
    hops = data[at + 8] if data[at] >> 4 == 4 else data[at + 7]
    return int(packets.label[i]), data[int(packets.frame_at[i]) : at].tobytes(), int(hops)
