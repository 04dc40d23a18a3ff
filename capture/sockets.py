"""The sockets that exist, of every network namespace, with their owners (sock_diag(7) and /proc/PID/fd)."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubetape.capture.samplers.netlink import NETLINK_SOCK_DIAG, NamespaceSockets, NetlinkError

_SOCK_DIAG_BY_FAMILY = 20
_INET_DIAG_INFO, _INET_DIAG_SKMEMINFO = 2, 7
_SOCKET = re.compile(r"socket:\[(\d+)\]")
LISTEN, CLOSE = 10, 7


@dataclass(frozen=True)
class Socket:
    """One TCP or UDP socket. Addresses are 16 bytes (IPv4 mapped), in network order; inode 0: no process holds it."""

    netns_id: int
    protocol: int
    family: int
    state: int
    local_ip: bytes
    local_port: int
    remote_ip: bytes
    remote_port: int
    inode: int
    receive_queue_bytes: int
    send_queue_bytes: int
    info: bytes
    drop_count: int


def namespaces() -> dict[int, int]:
    """Network namespace inode -> a process in it."""
    found: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                inode = os.stat(f"/proc/{entry}/ns/net").st_ino
            except OSError:
                continue
            found.setdefault(inode, int(entry))
    return found


def listing() -> tuple[list[Socket], list[str]]:
    """All TCP and UDP sockets of the node; and what could not be read, one line each."""
    sockets: list[Socket] = []
    problems = []
    for netns_id, pid in sorted(namespaces().items()):
        try:
            handles = NamespaceSockets(f"/proc/{pid}/ns/net")
        except NetlinkError as error:
            problems.append(f"the sockets of network namespace {netns_id} could not be listed: {error}")
            continue
        try:
            for family in (socket.AF_INET, socket.AF_INET6):
                for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
                    sockets += _dump(handles, netns_id, family, protocol)
        except OSError as error:
            problems.append(f"the sockets of network namespace {netns_id} could not be listed: {error}")
        finally:
            handles.close()
    return sockets, problems


def _dump(handles: NamespaceSockets, netns_id: int, family: int, protocol: int) -> Iterator[Socket]:
    extensions = 1 << (_INET_DIAG_INFO - 1) | 1 << (_INET_DIAG_SKMEMINFO - 1)
    body = struct.pack("<BBBBI", family, protocol, extensions, 0, 0xFFFFFFFF) + bytes(48)
    for kind, data in handles.dump(NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, body):
        if kind != _SOCK_DIAG_BY_FAMILY or len(data) < 72:
            continue
        family_, state, _, _, local_port, remote_port = struct.unpack_from(">BBBBHH", data)
        receive, send, _, inode = struct.unpack_from("<IIII", data, 56)
        info, drops = b"", 0
        position = 72
        while position + 4 <= len(data):
            size, attribute = struct.unpack_from("<HH", data, position)
            if size < 4:
                break
            if attribute == _INET_DIAG_INFO:
                info = data[position + 4 : position + size]
            elif attribute == _INET_DIAG_SKMEMINFO and size >= 40:
                (drops,) = struct.unpack_from("<I", data, position + 36)
            position += (size + 3) & ~3
        yield Socket(
            netns_id, protocol, family_, state,
            _mapped(family_, data[8:24]), local_port, _mapped(family_, data[24:40]), remote_port,
            inode, receive, send, info, drops,
        )  # fmt: skip


def _mapped(family: int, address: bytes) -> bytes:
    return bytes(10) + b"\xff\xff" + address[:4] if family == socket.AF_INET else bytes(address)


def owners() -> dict[int, int]:
    """Socket inode -> the lowest process id that holds it."""
    found: dict[int, int] = {}
    for pid in sorted(int(e) for e in os.listdir("/proc") if e.isdigit()):
        folder = f"/proc/{pid}/fd"
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        for entry in entries:
            try:
                match = _SOCKET.match(os.readlink(f"{folder}/{entry}"))
            except OSError:
                continue
            if match:
                found.setdefault(int(match[1]), pid)
    return found


# struct tcp_info, include/uapi/linux/tcp.h: name, offset, width. New members are only ever appended.
_TCP_INFO = (
    ("mss_bytes", 16, 4),
    ("unacked_segments", 24, 4),
    ("lost_segments", 32, 4),
    ("rtt_us", 68, 4),
    ("rttvar_us", 72, 4),
    ("ssthresh_segments", 76, 4),
    ("cwnd_segments", 80, 4),
    ("reordering", 88, 4),
    ("retransmit_count", 100, 4),
    ("acked_bytes", 120, 8),
    ("received_bytes", 128, 8),
    ("sent_segments", 136, 4),
    ("received_segments", 140, 4),
    ("min_rtt_us", 148, 4),
    ("sent_data_segments", 156, 4),
    ("delivery_rate_bps", 160, 8),
    ("sent_bytes", 200, 8),
    ("send_window_bytes", 228, 4),
    ("receive_window_bytes", 232, 4),
)


def tcp_info(info: bytes) -> dict[str, int]:
    """The members of a tcp_info that this kernel fills."""
    return {
        name: int.from_bytes(info[offset : offset + width], "little")
        for name, offset, width in _TCP_INFO
        if len(info) >= offset + width
    }


def sample_row(one: Socket) -> dict[str, Any]:
    """A tcp_sample row (without node, time, connection and reason) from sock_diag's numbers."""
    values: dict[str, Any] = dict(tcp_info(one.info))
    rtt, rttvar = values.pop("rtt_us", 0), values.pop("rttvar_us", 0)
    min_rtt, ssthresh = values.pop("min_rtt_us", 0), values.get("ssthresh_segments", 0)
    values.pop("mss_bytes", None)
    values["srtt_ns"] = rtt * 1000 if rtt else None
    values["rttvar_ns"] = rttvar * 1000 if rtt else None
    values["min_rtt_ns"] = min_rtt * 1000 if min_rtt not in (0, 0xFFFFFFFF) else None
    values["ssthresh_segments"] = ssthresh if ssthresh < 0x7FFFFFFF else None
    values["send_queue_bytes"] = one.send_queue_bytes
    values["receive_queue_bytes"] = one.receive_queue_bytes
    return values
