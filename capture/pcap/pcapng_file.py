"""The pcapng format (draft-ietf-opsawg-pcapng): sections, interfaces, enhanced, simple and obsolete packet blocks.

Names, statistics and system descriptions are kept as facts; secrets and everything else are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kubetape.capture.pcap.file_input import MAX_RECORD_BYTES, FileInput
from kubetape.capture.pcap.packets import FileFacts, Ints, Packets, gather_rows
from kubetape.errors import ImportFileError

SECTION, INTERFACE, PACKET, SIMPLE, STATISTICS, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 5, 6
BYTE_ORDER_MAGIC = b"\x1a\x2b\x3c\x4d"
# Option codes, section 4 of the draft.
SHB_OS, SHB_APPLICATION, IF_NAME, IF_TSRESOL, IF_TSOFFSET, ISB_IFDROP = 3, 4, 2, 9, 14, 5


@dataclass
class _Interface:
    number: int  # over all sections of the file
    link: int
    snap_bytes: int
    resolution: int = 6  # as in if_tsresol: power of ten, or of two with the upper bit set
    offset_s: int = 0
    dropped: int | None = None


class _Section:
    def __init__(self, order: str) -> None:
        self.order = order
        self.interfaces: list[_Interface] = []


def read_pcapng(source: FileInput, facts: FileFacts) -> Iterator[Packets]:
    """The packets of a pcapng file, a window at a time. Damage ends the reading with a note in `facts`.

    Raises ImportFileError where the file ends inside its first block.
    """
    facts.format = "pcapng"
    section = _Section("<")
    interfaces: list[_Interface] = []
    used, last_ts_ns, whole_block = 0, 0, False
    while True:
        at = used
        found: dict[int, list[int]] = {ENHANCED: [], PACKET: [], SIMPLE: []}
        need, problem, boundary = 12, "", False
        data = memoryview(source.data)[: source.size]  # type: ignore[arg-type]
        head = struct.Struct(section.order + "II").unpack_from
        end = source.size
        while at + 12 <= end:
            kind, length = head(data, at)
            if kind == SECTION:
                if found[ENHANCED] or found[PACKET] or found[SIMPLE]:
                    boundary = True  # another byte order may follow: finish what was found first
                    break
                order = "<" if data[at + 8 : at + 12] == BYTE_ORDER_MAGIC[::-1] else ">"
                if order == ">" and data[at + 8 : at + 12] != BYTE_ORDER_MAGIC:
                    problem = "a section without its byte-order magic"
                    break
                section = _Section(order)
                head = struct.Struct(order + "II").unpack_from
                kind, length = head(data, at)
            if length < 12 or length > MAX_RECORD_BYTES:
                problem = "a block of impossible length"
                break
            following = at + (length + 3 & ~3)
            if following > end:
                need = following - at
                break
            if kind == ENHANCED:
                found[ENHANCED].append(at)
            elif kind in found:
                found[kind].append(at)
            elif kind in (SECTION, INTERFACE, STATISTICS):
                _describe(kind, data[at : at + length], section, interfaces, facts)
            whole_block = True
            at = following
        packets = _packets(source, found, section, last_ts_ns, facts)
        if packets is not None:
            facts.packet_count += len(packets)
            last_ts_ns = int(packets.ts_ns[-1])
            yield packets
        used = at
        if problem:
            facts.note(f"damaged at byte {source.position + at}: {problem}; what follows was left out")
            return
        if boundary:
            continue
        if not source.advance(used, need):
            if not whole_block:
                raise ImportFileError(f"{source.path} ends inside its first block; it holds no packet")
            if source.size:
                facts.note(f"cut off inside its last block, at byte {source.position}")
            return
        used = 0


def _describe(kind: int, block: memoryview, section: _Section, interfaces: list[_Interface], facts: FileFacts) -> None:
    """Take over what a section, interface or statistics block says."""
    order = section.order
    if kind == SECTION:
        options = _options(block[24:-4], order)
        facts.system = facts.system or _text(options.get(SHB_OS))
        facts.application = facts.application or _text(options.get(SHB_APPLICATION))
    elif kind == INTERFACE and len(block) >= 20:
        link, _, snap_bytes = struct.unpack_from(order + "HHI", block, 8)
        options = _options(block[16:-4], order)
        interface = _Interface(len(interfaces), link, snap_bytes)
        if resolution := options.get(IF_TSRESOL):
            interface.resolution = resolution[0]
        if len(offset := options.get(IF_TSOFFSET, b"")) >= 8:
            interface.offset_s = struct.unpack_from(order + "q", offset)[0]
        section.interfaces.append(interface)
        interfaces.append(interface)
        facts.links.add(link)
        facts.interfaces.append(_text(options.get(IF_NAME)))
    elif kind == STATISTICS and len(block) >= 24:
        number = struct.unpack_from(order + "I", block, 8)[0]
        dropped = _options(block[20:-4], order).get(ISB_IFDROP, b"")
        if len(dropped) >= 8 and number < len(section.interfaces):
            # Counters run from the beginning: the last block of an interface counts.
            section.interfaces[number].dropped = struct.unpack_from(order + "Q", dropped)[0]
            facts.dropped_count = sum(i.dropped or 0 for i in interfaces)


def _options(data: memoryview, order: str) -> dict[int, bytes]:
    """Options by code; the first of each. Stops at the end mark, or where one reaches past the block."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from(order + "HH", data, at)
        if code == 0 or at + 4 + length > len(data):
            break
        found.setdefault(code, bytes(data[at + 4 : at + 4 + length]))
        at += 4 + (length + 3 & ~3)
    return found


def _text(value: bytes | None) -> str:
    return (value or b"").split(b"\0")[0].decode("utf-8", "replace")


def _packets(
    source: FileInput, found: dict[int, list[int]], section: _Section, last_ts_ns: int, facts: FileFacts
) -> Packets | None:
    """The packet blocks at the offsets found, of all three kinds, in file order; None where there is none."""
    parts: list[tuple[Ints, ...]] = []
    for kind, header_bytes in ((ENHANCED, 28), (PACKET, 28), (SIMPLE, 12)):
        if not found[kind]:
            continue
        at = np.array(found[kind], np.int64)
        words = gather_rows(source.data, at, 28).view(section.order + "u4").astype(np.int64)
        if kind == SIMPLE:
            number = np.zeros(len(at), np.int64)
            snap = section.interfaces[0].snap_bytes if section.interfaces else 0
            original = words[:, 2]
            captured = np.minimum(original, snap) if snap else original
            ticks = np.full(len(at), -1, np.int64)
        else:
            number, captured, original = words[:, 2], words[:, 5], words[:, 6]
            ticks = words[:, 3] << 32 | words[:, 4]
            if kind == PACKET:  # interface number and drop counter share a word, the former first in the file
                number = number & 0xFFFF if section.order == "<" else number >> 16
        room = words[:, 1] - header_bytes - 4
        good = (number < len(section.interfaces)) & (captured <= room) & (room >= 0)
        if not good.all():
            facts.note(f"{int((~good).sum())} packet blocks with an unknown interface or length were left out")
        columns = (at, number, captured, np.maximum(original, captured), ticks, at + header_bytes)
        parts.append(tuple(c[good] for c in columns))
    if not parts or not sum(len(p[0]) for p in parts):
        return None
    at, number, captured, original, ticks, offset = (np.concatenate(c) for c in zip(*parts, strict=True))
    if len(parts) > 1:
        order = np.argsort(at, kind="stable")
        number, captured, original, ticks, offset = (c[order] for c in (number, captured, original, ticks, offset))
    return Packets(
        buffer=source.data,
        offset=offset,
        captured=captured,
        original=original,
        ts_ns=_times(ticks, number, section, last_ts_ns),
        link=np.array([i.link for i in section.interfaces], np.int64)[number],
        interface=np.array([i.number for i in section.interfaces], np.int64)[number],
        buffer_position=source.position,
    )


def _times(ticks: Ints, number: Ints, section: _Section, last_ts_ns: int) -> Ints:
    """Realtime ns; a packet without a time (simple packet block) gets that of the packet before it."""
    ts_ns = np.empty(len(ticks), np.int64)
    for index in np.unique(number).tolist():
        interface = section.interfaces[index]
        mine = number == index
        value = ticks[mine]
        exponent = interface.resolution & 0x7F
        if interface.resolution & 0x80:
            exponent = min(exponent, 62)
            whole, part = value >> exponent, value & (1 << exponent) - 1
            if exponent > 32:  # keep the product within 64 bits
                part, exponent = part >> exponent - 32, 32
            value_ns = whole * 1_000_000_000 + (part * 1_000_000_000 >> exponent)
        elif exponent <= 9:
            value_ns = value * 10 ** (9 - exponent)
        else:
            value_ns = value // 10 ** min(exponent - 9, 18)
        ts_ns[mine] = value_ns + interface.offset_s * 1_000_000_000
    timeless = ticks < 0
    if timeless.any():
        known = np.where(timeless, -1, np.arange(len(ticks)))
        before = np.maximum.accumulate(known)
        ts_ns[timeless] = np.where(before >= 0, ts_ns[before], last_ts_ns)[timeless]
    return ts_ns
