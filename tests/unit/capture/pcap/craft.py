"""Packets and capture files by hand, byte by byte, so that the tests share no code with what they test."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path
from typing import Any

from kubetape.bundle.reader import Bundle
from kubetape.capture.pcap import import_pcap

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)
Record = tuple[int, bytes]  # time in ns, frame
_identification = 0


def ip(
    source: str, target: str, protocol: int, payload: bytes, *, fragment: int = 0, ip_id: int | None = None
) -> bytes:
    """An IP packet; IPv4 packets get a new identification each unless told."""
    global _identification
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(target)
    if a.version == 6:
        return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + a.packed + b.packed + payload
    if ip_id is None:
        _identification = _identification % 65535 + 1
        ip_id = _identification
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), ip_id, fragment, 64, protocol, 0)
    return head + a.packed + b.packed + payload


def tcp_header(source: int, target: int, seq: int, ack: int, flags: int, window: int = 500) -> bytes:
    return struct.pack(">HHIIBBHHH", source, target, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, window, 0, 0)


def tcp(
    source: tuple[str, int],
    target: tuple[str, int],
    seq: int,
    ack: int,
    flags: int = ACK,
    payload: bytes = b"",
    *,
    window: int = 500,
    ip_id: int | None = None,
) -> bytes:
    """A whole IP packet with one TCP segment."""
    segment = tcp_header(source[1], target[1], seq, ack, flags, window) + payload
    return ip(source[0], target[0], 6, segment, ip_id=ip_id)


def udp(source: tuple[str, int], target: tuple[str, int], payload: bytes, *, ip_id: int | None = None) -> bytes:
    return ip(source[0], target[0], 17, udp_datagram(source[1], target[1], payload), ip_id=ip_id)


def udp_datagram(source: int, target: int, payload: bytes) -> bytes:
    return struct.pack(">HHHH", source, target, 8 + len(payload), 0) + payload


def ethernet(packet: bytes, kind: int | None = None) -> bytes:
    if kind is None:
        kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    return b"\x02\0\0\0\0\1\x02\0\0\0\0\2" + kind.to_bytes(2, "big") + packet


def pcap(
    records: list[Record], *, link: int = 101, order: str = "<", kind: str = "micro", snap: int = 1 << 18
) -> bytes:
    """A pcap file; kind: 'micro', 'nano' or 'modified'. Link type 101 is raw IP."""
    magic = {"micro": 0xA1B2C3D4, "nano": 0xA1B23C4D, "modified": 0xA1B2CD34}[kind]
    unit_ns = 1 if kind == "nano" else 1000
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap, link)
    for ts_ns, frame in records:
        seconds, rest_ns = divmod(ts_ns, 1_000_000_000)
        kept = frame[:snap]
        data += struct.pack(order + "IIII", seconds, rest_ns // unit_ns, len(kept), len(frame))
        if kind == "modified":
            data += struct.pack(order + "IHBB", 3, 0x0800, 0, 0)
        data += kept
    return data


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block."""
    body += b"\0" * (-len(body) % 4)
    length = 12 + len(body)
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", length)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int, order: str = "<", options: bytes = b"") -> bytes:
    return block(1, struct.pack(order + "HHI", link, 0, 0) + options, order)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def enhanced(number: int, ticks: int, frame: bytes, order: str = "<") -> bytes:
    words = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(6, words + frame, order)


def imported(folder: Path, *files: bytes) -> Bundle:
    """The bundle that comes of these capture files."""
    paths = []
    for number, data in enumerate(files):
        path = folder / f"capture{number}.pcap"
        path.write_bytes(data)
        paths.append(str(path))
    import_pcap(paths, str(folder / "out.ktape"))
    return Bundle(folder / "out.ktape")


def rows(bundle: Bundle, table: str, *columns: str) -> list[Any]:
    """Rows of a table as tuples of the columns named (of one: the values)."""
    found = bundle.table(table).to_pylist()
    if len(columns) == 1:
        return [row[columns[0]] for row in found]
    return [tuple(row[c] for c in columns) for row in found]
