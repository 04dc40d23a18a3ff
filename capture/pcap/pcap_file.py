"""The pcap format (draft-ietf-opsawg-pcap): micro- and nanosecond files, Kuznetsov's modified one, both byte orders."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from kubetape.capture.pcap.file_input import MAX_RECORD_BYTES, FileInput
from kubetape.capture.pcap.packets import FileFacts, Packets, gather_rows
from kubetape.errors import ImportFileError

HEADER_BYTES = 24
# magic as read little-endian -> (byte order, ns per unit of the fraction, bytes of a record header, name).
# The modified format (libpcap's savefile.c calls it KUZNETZOV) adds ifindex, protocol and packet type.
MAGICS = {
    0xA1B2C3D4: ("<", 1000, 16, "pcap"),
    0xD4C3B2A1: (">", 1000, 16, "pcap"),
    0xA1B23C4D: ("<", 1, 16, "pcap (ns)"),
    0x4D3CB2A1: (">", 1, 16, "pcap (ns)"),
    0xA1B2CD34: ("<", 1000, 24, "pcap (modified)"),
    0x34CDB2A1: (">", 1000, 24, "pcap (modified)"),
}


def read_pcap(source: FileInput, facts: FileFacts) -> Iterator[Packets]:
    """The packets of a pcap file, a window at a time. Damage ends the reading with a note in `facts`.

    Raises ImportFileError where the file header is cut off.
    """
    if source.size < HEADER_BYTES:
        raise ImportFileError(f"{source.path} ends inside its file header; it holds no packet")
    magic = int.from_bytes(source.data[:4].tobytes(), "little")
    order, unit_ns, record_bytes, facts.format = MAGICS[magic]
    network = struct.unpack_from(order + "I", source.data.data, 20)[0]
    # The upper bits say whether frames end in a checksum (and its length); the IP length leaves that out.
    link = network & 0x03FFFFFF
    facts.links.add(link)
    facts.interfaces.append("")
    used = HEADER_BYTES
    while True:
        starts, used, damaged = _walk(source, used, order, record_bytes)
        if len(starts):
            yield _packets(source, starts, order, unit_ns, record_bytes, link)
            facts.packet_count += len(starts)
        position = source.position + used
        if damaged:
            facts.note(f"damaged at byte {position}: a record of impossible length; what follows was left out")
            return
        need = record_bytes
        if source.size - used >= record_bytes:
            need += struct.unpack_from(order + "I", source.data.data, used + 8)[0]
        if not source.advance(used, need):
            if source.size:
                facts.note(f"cut off inside its last packet, at byte {position}")
            return
        used = 0


def _walk(source: FileInput, start: int, order: str, record_bytes: int) -> tuple[list[int], int, bool]:
    """Offsets of the whole records from `start` on, the offset after them, and whether damage follows."""
    length_at = struct.Struct(order + "I").unpack_from
    data = memoryview(source.data)[: source.size]  # type: ignore[arg-type]
    starts: list[int] = []
    append = starts.append
    end, at = source.size, start
    last = end - record_bytes
    while at <= last:
        captured = length_at(data, at + 8)[0]
        following = at + record_bytes + captured
        if following > end:
            return starts, at, captured > MAX_RECORD_BYTES
        append(at)
        at = following
    return starts, at, False


def _packets(source: FileInput, starts: list[int], order: str, unit_ns: int, record_bytes: int, link: int) -> Packets:
    at = np.array(starts, np.int64)
    head = gather_rows(source.data, at, 16).view(order + "u4").astype(np.int64)
    count = len(at)
    return Packets(
        buffer=source.data,
        offset=at + record_bytes,
        captured=head[:, 2],
        original=np.maximum(head[:, 3], head[:, 2]),
        ts_ns=head[:, 0] * 1_000_000_000 + head[:, 1] * unit_ns,
        link=np.full(count, link, np.int64),
        interface=np.zeros(count, np.int64),
        buffer_position=source.position,
    )
