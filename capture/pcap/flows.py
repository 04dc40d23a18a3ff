"""5-tuples and connections: which packets belong together, and which end is the client."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass, field

import numpy as np

from kubetape.capture.pcap.grow import Growing
from kubetape.capture.pcap.packets import Bytes, Ints
from kubetape.capture.pcap.transport import TCP, Layer4

EPHEMERAL_FIRST = 32_768  # Linux's ip_local_port_range begins here, IANA's dynamic ports at 49152
WELL_KNOWN_LAST = 1023


Ends = tuple[tuple[str, int], tuple[str, int]]  # (address, port) of end 0 and of end 1
Bounds = tuple[int | None, int | None]  # positions of a direction's first byte and after its last; None: not known


@dataclass(slots=True)
class Connection:
    """One row of `connection` in the making. Ends are numbered 0 and 1 by their flow; client is one of them."""

    number: int
    flow: int
    protocol: int
    ends: Ends
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
    answered: int | None = None  # acknowledgement of the SYN-ACK
    established_ns: int | None = None
    superseded: bool = False
    last_control: tuple[int, ...] = ()
    bounds: tuple[Bounds, Bounds] = ((None, None), (None, None))  # of what end 0 and end 1 sent

    @property
    def closed(self) -> bool:
        return self.end_ns is not None


class FlowTable:
    """5-tuples as small numbers, each with the connection it carries at the moment.

    live: connections by number, until they are retired; `client_of.values[number]` stays.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._flows: dict[int, tuple[int, int, Ends]] = {}  # key in _numbers, protocol, ends
        self._flow_count = 0
        self.current: dict[int, Connection] = {}
        self.live: dict[int, Connection] = {}
        self.connection_count = 0
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
                i = int(first[k])
                number = self._new(keys[k].item(), packets, i, int(sender[i]), buffers)
            numbers[k] = number
        return numbers[local], sender

    def _new(self, key: int, packets: Layer4, i: int, sender: int, buffers: list[Bytes]) -> int:
        data, at = buffers[int(packets.buffer[i])], int(packets.ip_at[i])
        if data[at] >> 4 == 4:
            family, start, size = socket.AF_INET, at + 12, 4
        else:
            family, start, size = socket.AF_INET6, at + 8, 16
        source = sys.intern(socket.inet_ntop(family, data[start : start + size].tobytes()))
        target = sys.intern(socket.inet_ntop(family, data[start + size : start + 2 * size].tobytes()))
        ends = ((source, int(packets.source_port[i])), (target, int(packets.target_port[i])))
        number = self._numbers[key] = self._flow_count
        self._flow_count += 1
        self._flows[number] = (key, int(packets.protocol[i]), ends if sender == 0 else (ends[1], ends[0]))
        return number

    def connect(self, flow: int, ts_ns: int, label: int, client: int | None, sender: int) -> Connection:
        """A new connection of a flow; `client` None: by the ports, or by who sent first (UDP)."""
        basis = "packet"
        _, protocol, ends = self._flows[flow]
        if client is None:
            by_port = _client_by_port(ends)
            if protocol == TCP:
                client, basis = (by_port, "port") if by_port is not None else (sender, "none")
            # A capture may begin between question and answer: then the first sender is the server.
            elif by_port == 1 - sender and ends[sender][1] <= WELL_KNOWN_LAST:
                client, basis = by_port, "port"
            else:
                client = sender
        number = self.connection_count
        connection = Connection(number, flow, protocol, ends, client, basis, ts_ns, label)
        before = self.current.get(flow)
        if before is not None and not before.closed:
            before.superseded = True
        self.connection_count += 1
        self.live[number] = self.current[flow] = connection
        self.client_of.reserve(self.connection_count)
        self.client_of.values[number] = client
        return connection

    def retire(self, connection: Connection) -> None:
        """Forget a connection, and its 5-tuple if it is the one carried at the moment."""
        del self.live[connection.number]
        if self.current.get(connection.flow) is connection:
            del self.current[connection.flow]
            key, _, _ = self._flows.pop(connection.flow)
            del self._numbers[key]

    def set_client(self, connection: Connection, client: int) -> None:
        connection.client, connection.basis = client, "packet"
        self.client_of.values[connection.number] = client


def _client_by_port(ends: Ends) -> int | None:
    """The end that is not the server, by port alone; None where the ports do not tell."""
    a, b = ends[0][1], ends[1][1]
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
