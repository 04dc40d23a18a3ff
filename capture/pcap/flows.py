"""5-tuples and connections: which packets belong together, and which end is the client."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import numpy as np

from kubetape.capture.pcap.grow import Growing
from kubetape.capture.pcap.packets import Bytes, Ints
from kubetape.capture.pcap.transport import TCP, Layer4

EPHEMERAL_FIRST = 32_768  # Linux's ip_local_port_range begins here, IANA's dynamic ports at 49152
WELL_KNOWN_LAST = 1023


@dataclass(slots=True)
class Connection:
    """One row of `connection` in the making. Ends are numbered 0 and 1 by their flow; client is one of them."""

    number: int
    flow: int
    client: int
    basis: str
    first_ns: int
    label: int
    start_ns: int | None = None
    end_ns: int | None = None
    close_reason: str | None = "open"
    isn: list[int | None] = field(default_factory=lambda: [None, None])
    fin: list[bool] = field(default_factory=lambda: [False, False])
    syn_ns: int | None = None
    syn_count: int = 0
    established_ns: int | None = None
    superseded: bool = False
    last_control: tuple[int, ...] = ()

    @property
    def closed(self) -> bool:
        return self.end_ns is not None


class FlowTable:
    """5-tuples as small numbers. `ends[f]` are the two (address, port) of flow f, `protocol[f]` is 6 or 17."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self.ends: list[tuple[tuple[str, int], tuple[str, int]]] = []
        self.protocol: list[int] = []
        self.current: list[Connection | None] = []
        self.connections: list[Connection] = []
        self.client_of = Growing(0)

    def assign(self, packets: Layer4, buffers: list[Bytes]) -> tuple[Ints, Ints]:
        """Flow and sender (0 or 1) of every packet; both directions of a 5-tuple are one flow.

        5-tuples are told apart by 64 scattered bits: a million of them collide with a chance of 3 in 10**8.
        """
        source = _end(packets.source_key, packets.source_port)
        target = _end(packets.target_key, packets.target_port)
        sender = (source > target).astype(np.int64)
        key = source + target + packets.protocol
        keys, first, local = np.unique(key, return_index=True, return_inverse=True)
        numbers = np.empty(len(keys), np.int64)
        known = self._numbers
        for k in np.argsort(first).tolist():
            number = known.get(keys[k].item())
            if number is None:
                number = known[keys[k].item()] = self._new(packets, int(first[k]), int(sender[first[k]]), buffers)
            numbers[k] = number
        return numbers[local], sender

    def _new(self, packets: Layer4, i: int, sender: int, buffers: list[Bytes]) -> int:
        data, at = buffers[int(packets.buffer[i])], int(packets.ip_at[i])
        if data[at] >> 4 == 4:
            family, start, size = socket.AF_INET, at + 12, 4
        else:
            family, start, size = socket.AF_INET6, at + 8, 16
        source = socket.inet_ntop(family, data[start : start + size].tobytes())
        target = socket.inet_ntop(family, data[start + size : start + 2 * size].tobytes())
        ends = ((source, int(packets.source_port[i])), (target, int(packets.target_port[i])))
        self.ends.append(ends if sender == 0 else (ends[1], ends[0]))
        self.protocol.append(int(packets.protocol[i]))
        self.current.append(None)
        return len(self.ends) - 1

    def connect(self, flow: int, ts_ns: int, label: int, client: int | None, sender: int) -> Connection:
        """A new connection of a flow; `client` None: by the ports, or by who sent first (UDP)."""
        basis = "packet"
        if client is None:
            by_port = self._client_by_port(flow)
            if self.protocol[flow] == TCP:
                client, basis = (by_port, "port") if by_port is not None else (sender, "none")
            # A capture may begin between question and answer: then the first sender is the server.
            elif by_port == 1 - sender and self.ends[flow][sender][1] <= WELL_KNOWN_LAST:
                client, basis = by_port, "port"
            else:
                client = sender
        connection = Connection(len(self.connections), flow, client, basis, ts_ns, label)
        before = self.current[flow]
        if before is not None and not before.closed:
            before.superseded = True
        self.connections.append(connection)
        self.current[flow] = connection
        self.client_of.reserve(len(self.connections))
        self.client_of.values[connection.number] = client
        return connection

    def set_client(self, connection: Connection, client: int) -> None:
        connection.client, connection.basis = client, "packet"
        self.client_of.values[connection.number] = client

    def _client_by_port(self, flow: int) -> int | None:
        """The end that is not the server, by port alone; None where the ports do not tell."""
        a, b = self.ends[flow][0][1], self.ends[flow][1][1]
        if a == b:
            return None
        for limit in (WELL_KNOWN_LAST, EPHEMERAL_FIRST - 1):
            if (a <= limit) != (b <= limit):
                return 1 if a <= limit else 0
        return 1 if a < b else 0


def _end(address: Ints, port: Ints) -> Ints:
    mixed = (address ^ (port * np.int64(0x1E3779B97F4A7C15))).view(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed ^ (mixed >> np.uint64(32))).view(np.int64)
