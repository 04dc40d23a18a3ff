"""The netlink dumps the samplers need, without a library: links, addresses, neighbours, routes, queueing
disciplines (rtnetlink(7)) and listening sockets (sock_diag(7)).

A netlink socket belongs to the network namespace of the thread that made it and stays there, so a
short-lived thread enters the namespace, makes the sockets and ends; any thread may use them afterwards.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
RTM_NEWLINK, RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETNEIGH, RTM_GETQDISC = 16, 18, 22, 26, 30, 38
_SOCK_DIAG_BY_FAMILY = 20
_CLONE_NEWNET = 0x40000000
_TCP_LISTEN_STATE, _UDP_UNCONNECTED_STATE = 10, 7

_NEIGHBOUR_STATES = {
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
    0x40: "noarp",
    0x80: "permanent",
}


class NetlinkError(OSError):
    """The kernel refused a request, or the namespace could not be entered."""


class NamespaceSockets:
    """The netlink sockets of one network namespace. Close them when its last process is gone: an open
    socket keeps the namespace alive."""

    def __init__(self, netns_path: str) -> None:
        """netns_path: `/proc/PID/ns/net`. Raises NetlinkError."""
        self._sockets: dict[int, socket.socket] = {}
        problem: list[OSError] = []

        def enter() -> None:
            try:
                handle = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(handle, _CLONE_NEWNET):
                        code = ctypes.get_errno()
                        raise OSError(code, os.strerror(code))
                finally:
                    os.close(handle)
                for protocol in (NETLINK_ROUTE, NETLINK_SOCK_DIAG):
                    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
                    made.settimeout(1.0)
                    self._sockets[protocol] = made
            except OSError as error:
                problem.append(error)

        thread = threading.Thread(target=enter, name="kubetape-setns")
        thread.start()
        thread.join()
        if problem:
            self.close()
            raise NetlinkError(problem[0].errno, f"{netns_path}: {problem[0].strerror}")

    def close(self) -> None:
        for made in self._sockets.values():
            made.close()
        self._sockets.clear()

    def dump(self, protocol: int, kind: int, body: bytes) -> Iterator[tuple[int, bytes]]:
        """(message type, message body) of every answer. Raises NetlinkError, TimeoutError."""
        link = self._sockets[protocol]
        header = struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
        link.send(header + body)
        while True:
            data = link.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, got = struct.unpack_from("=IH", data, offset)
                if length < 16:
                    return
                if got == _NLMSG_DONE:
                    return
                if got == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", data, offset + 16)[0]
                    raise NetlinkError(code, os.strerror(code))
                yield got, data[offset + 16 : offset + length]
                offset += (length + 3) & ~3


def _attributes(data: bytes, offset: int) -> dict[int, bytes]:
    found = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _text(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode(errors="replace")


def _mac(data: bytes | None) -> str | None:
    """Six bytes as text; None for other lengths (tunnels use addresses of IP here) and for all zeros (lo)."""
    return data.hex(":") if data and len(data) == 6 and any(data) else None


def _ip(data: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)


@dataclass
class Link:
    """One interface as rtnetlink tells it."""

    index: int
    name: str
    mac: str | None
    mtu_bytes: int | None
    is_up: bool
    addresses: list[str]
    queue_drops: int | None = None


def links(sockets: NamespaceSockets) -> dict[str, Link]:
    """Interfaces by name, with addresses and the drops of their root queueing discipline."""
    by_index: dict[int, Link] = {}
    for kind, body in sockets.dump(NETLINK_ROUTE, RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)):
        if kind != RTM_NEWLINK:
            continue
        _, _, index, flags, _ = struct.unpack_from("=BxHiII", body)
        found = _attributes(body, 16)
        mtu = struct.unpack("=I", found[4])[0] if 4 in found else None
        # IFF_UP and IFF_RUNNING: the kernel computes RUNNING from the operational state (dev_get_flags).
        up = flags & 0x41 == 0x41
        by_index[index] = Link(index, _text(found.get(3)), _mac(found.get(1)), mtu, up, [])
    for _, body in sockets.dump(NETLINK_ROUTE, RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        _, prefix, _, _, index = struct.unpack_from("=BBBBI", body)
        found = _attributes(body, 8)
        # IFA_LOCAL is this end; IFA_ADDRESS the other end on point-to-point links.
        address = found.get(2) or found.get(1)
        if address and len(address) in (4, 16) and index in by_index:
            by_index[index].addresses.append(f"{_ip(address)}/{prefix}")
    for _, body in sockets.dump(NETLINK_ROUTE, RTM_GETQDISC, struct.pack("=BxxxiIII", 0, 0, 0, 0, 0)):
        _, index, _, parent, _ = struct.unpack_from("=BxxxiIII", body)
        drops = _queue_drops(_attributes(body, 20))
        # Only the root's count: those below are part of it (TC_H_ROOT is all ones).
        if parent == 0xFFFFFFFF and drops is not None and index in by_index:
            by_index[index].queue_drops = drops
    return {link.name: link for link in by_index.values()}


def _queue_drops(found: dict[int, bytes]) -> int | None:
    # TCA_STATS2 (7) / TCA_STATS_QUEUE (3): qlen, backlog, drops, requeues, overlimits.
    if 7 in found:
        queue = _attributes(found[7], 0).get(3)
        if queue and len(queue) >= 12:
            return int(struct.unpack_from("=III", queue)[2])
    return None


def neighbours(sockets: NamespaceSockets) -> list[tuple[str, str | None, int, str]]:
    """(ip, mac, interface index, state); entries that need no resolution are left out."""
    rows = []
    for _, body in sockets.dump(NETLINK_ROUTE, RTM_GETNEIGH, struct.pack("=BxxxiHBB", 0, 0, 0, 0, 0)):
        family, index, state, _, kind = struct.unpack_from("=BxxxiHBB", body)
        found = _attributes(body, 12)
        if family not in (socket.AF_INET, socket.AF_INET6) or state & 0x40 or 1 not in found or kind == 5:
            continue
        rows.append((_ip(found[1]), _mac(found.get(2)), index, _NEIGHBOUR_STATES.get(state, str(state))))
    return rows


def routes(sockets: NamespaceSockets) -> list[tuple[str, str | None, int | None, int | None]]:
    """(destination prefix, gateway, interface index, metric) of unicast routes, without the local table."""
    rows = []
    for _, body in sockets.dump(NETLINK_ROUTE, RTM_GETROUTE, struct.pack("=BBBBBBBBI", *[0] * 9)):
        family, length, _, _, table, _, _, kind, flags = struct.unpack_from("=BBBBBBBBI", body)
        # RTN_UNICAST only; 255 is the local table; RTM_F_CLONED entries are a cache.
        if family not in (socket.AF_INET, socket.AF_INET6) or kind != 1 or table == 255 or flags & 0x200:
            continue
        found = _attributes(body, 12)
        anything = bytes(4 if family == socket.AF_INET else 16)
        destination = f"{_ip(found.get(1, anything))}/{length}"
        metric = struct.unpack("=I", found[6])[0] if 6 in found else None
        hops = list(_next_hops(found))
        for gateway, index in hops:
            rows.append((destination, gateway, index, metric))
    return rows


def _next_hops(found: dict[int, bytes]) -> Iterator[tuple[str | None, int | None]]:
    if 9 not in found:  # RTA_MULTIPATH
        index = struct.unpack("=i", found[4])[0] if 4 in found else None
        gateway = found.get(5)
        if gateway is None and 18 in found:  # RTA_VIA: family, then an address of the other family
            gateway = found[18][2:]
        yield (_ip(gateway) if gateway and len(gateway) in (4, 16) else None), index
        return
    data, offset = found[9], 0
    while offset + 8 <= len(data):
        length, _, _, index = struct.unpack_from("=HBBi", data, offset)
        if length < 8:
            return
        gateway = _attributes(data[offset : offset + length], 8).get(5)
        yield (_ip(gateway) if gateway else None), index
        offset += (length + 3) & ~3


@dataclass(frozen=True)
class Listening:
    """One listening TCP or unconnected UDP socket. backlog: accept queue now; backlog_max: its limit."""

    transport: str
    ip: str
    port: int
    inode: int
    backlog: int | None
    backlog_max: int | None


def listening(sockets: NamespaceSockets, transport: str = "tcp") -> list[Listening]:
    """Sockets that wait for peers. In LISTEN rqueue is the accept queue and wqueue its limit
    (net/ipv4/tcp_diag.c, tcp_diag_get_info)."""
    tcp = transport == "tcp"
    states = 1 << (_TCP_LISTEN_STATE if tcp else _UDP_UNCONNECTED_STATE)
    protocol = socket.IPPROTO_TCP if tcp else socket.IPPROTO_UDP
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("=BBBxI48x", family, protocol, 0, states)
        for _, body in sockets.dump(NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, request):
            (port,) = struct.unpack_from(">H", body, 4)
            address = body[8 : 8 + (4 if body[0] == socket.AF_INET else 16)]
            _, waiting, limit, _, inode = struct.unpack_from("=IIIII", body, 52)
            if port:
                found.append(
                    Listening(transport, _ip(address), port, inode, waiting if tcp else None, limit if tcp else None)
                )
    return found
