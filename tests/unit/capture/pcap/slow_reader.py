"""A second reading of captures, as plain as can be: one packet after another, one byte after another.

It knows pcap files of Ethernet frames with IPv4 and TCP only, and raises NotOrdinaryError for anything else. What it
says about streams must agree with the importer's.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path

Key = tuple[str, int, str, int]  # source and target of one direction


class NotOrdinaryError(Exception):
    """The capture holds something this reader does not know."""


def streams(path: Path) -> dict[Key, dict[int, int]]:
    """For each direction, the byte seen first at each sequence number. One connection per 5-tuple."""
    data = path.read_bytes()
    if data[:4] != b"\xd4\xc3\xb2\xa1" or data[20:24] != b"\1\0\0\0":
        raise NotOrdinaryError
    packets = []
    at = 24
    while at + 16 <= len(data):
        seconds, micros, captured, original = struct.unpack_from("<IIII", data, at)
        if captured != original:
            raise NotOrdinaryError
        packets.append((seconds, micros, data[at + 16 : at + 16 + captured]))
        at += 16 + captured
    packets.sort(key=lambda p: p[:2])
    found: dict[Key, dict[int, int]] = defaultdict(dict)
    first_numbers: dict[Key, int] = {}
    for _, _, frame in packets:
        if frame[12:14] != b"\x08\0" or frame[14] >> 4 != 4:
            raise NotOrdinaryError
        packet = frame[14:]
        header = (packet[0] & 15) * 4
        if packet[9] in (4, 41, 47) or (packet[9] == 17 and packet[header + 2 : header + 4] == b"\x12\xb5"):
            raise NotOrdinaryError  # tunnels
        if packet[9] != 6:
            continue
        if struct.unpack_from(">H", packet, 6)[0] & 0x3FFF:
            raise NotOrdinaryError
        segment = packet[header : struct.unpack_from(">H", packet, 2)[0]]
        source, target, seq, _, lengths, flags = struct.unpack_from(">HHIIBB", segment)
        key = (".".join(map(str, packet[12:16])), source, ".".join(map(str, packet[16:20])), target)
        if flags & 4:
            continue
        if flags & 2:
            if first_numbers.setdefault(key, seq) != seq or (key in found and key not in first_numbers):
                raise NotOrdinaryError  # the same ports again
            seq += 1
        for offset, byte in enumerate(segment[(lengths >> 4) * 4 :]):
            found[key].setdefault((seq + offset) & 0xFFFFFFFF, byte)
    return dict(found)
