"""Reassembly of IPv4 and IPv6 fragments (RFC 791 section 3.2, RFC 8200 section 4.5)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

# RFC 791 and RFC 8200 let a receiver wait 60 s; Linux waits 30 s.
WAIT_NS = 30_000_000_000
MAX_PENDING = 4096  # datagrams; beyond, the oldest is given up, so that noise cannot eat memory
MAX_DATAGRAM_BYTES = 65_535


@dataclass
class Fragment:
    """One fragment. addresses: source and target, raw; offset: bytes; size: true length; data: captured part."""

    version: int
    addresses: bytes
    ip_id: int
    protocol: int
    ttl: int
    offset: int
    more: bool
    size: int
    data: bytes
    ts_ns: int


@dataclass
class Whole:
    """A reassembled IP packet with a plain header; `size` is its true length, `packet` may be shorter."""

    packet: bytes
    size: int


@dataclass
class _Pending:
    first_ns: int
    pieces: dict[int, Fragment] = field(default_factory=dict)
    total: int | None = None
    protocol: int = 0


class Reassembler:
    def __init__(self) -> None:
        self._pending: dict[tuple[bytes, int, int], _Pending] = {}
        self.given_up_count = 0

    @property
    def unfinished_count(self) -> int:
        """Datagrams that never became whole."""
        return self.given_up_count + len(self._pending)

    def add(self, fragment: Fragment) -> Whole | None:
        """Take one fragment; the packet, if this one completed it. A piece seen before is ignored."""
        if fragment.size < 0 or fragment.offset + fragment.size > MAX_DATAGRAM_BYTES:
            return None
        # IPv6's next header is that of the first fragment; only IPv4 tells datagrams apart by it.
        kind = fragment.protocol if fragment.version == 4 else -1
        key = (fragment.addresses, fragment.ip_id, kind)
        pending = self._pending.get(key)
        if pending is None or fragment.ts_ns - pending.first_ns > WAIT_NS:
            if pending is not None:
                self.given_up_count += 1
            elif len(self._pending) >= MAX_PENDING:
                del self._pending[next(iter(self._pending))]
                self.given_up_count += 1
            pending = self._pending[key] = _Pending(fragment.ts_ns)
        pending.pieces.setdefault(fragment.offset, fragment)
        if fragment.offset == 0:
            pending.protocol = fragment.protocol
        if not fragment.more:
            pending.total = fragment.offset + fragment.size
        if pending.total is None or 0 not in pending.pieces:
            return None
        whole = _join(pending, fragment)
        if whole is not None:
            del self._pending[key]
        return whole


def _join(pending: _Pending, last: Fragment) -> Whole | None:
    """The packet, if the pieces leave no hole. Bytes that two pieces claim come from the earlier offset."""
    assert pending.total is not None
    data = bytearray()
    reached, intact = 0, True
    for offset in sorted(pending.pieces):
        piece = pending.pieces[offset]
        if offset > reached:
            return None
        fresh = offset + piece.size - reached
        if fresh <= 0:
            continue
        if intact:
            part = piece.data[reached - offset : piece.size]
            data += part
            intact = len(part) == fresh  # a piece cut by the capture limit ends what is known
        reached += fresh
    if reached < pending.total:
        return None
    size = min(reached, MAX_DATAGRAM_BYTES - 40)
    if last.version == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size, last.ip_id, 0, last.ttl, pending.protocol, 0)
    else:
        head = struct.pack(">IHBB", 0x60000000, size, pending.protocol, last.ttl)
    head += last.addresses
    return Whole(head + bytes(data[:size]), len(head) + size)
