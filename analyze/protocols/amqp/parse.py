"""AMQP 0-9-1 frames from bytes (specification, sections 2.3 and 4.2): type, channel, size, payload, 0xCE."""

from __future__ import annotations

import re
from struct import Struct
from typing import Final

from kubetape.analyze.protocols.amqp.types import BODY, HEADER, HEARTBEAT, METHOD, METHODS, Frame
from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.common.trace import CARRIERS
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed

MAX_FRAME_BYTES: Final = 1 << 27  # RabbitMQ's default frame_max is 128 KiB; 0 means no limit
MAX_TABLE_FIELDS: Final = 256
FRAME_END: Final = 0xCE

_HEAD: Final = Struct(">BHI")
_TWO: Final = Struct(">HH")
_KINDS: Final = frozenset({METHOD, HEADER, BODY, HEARTBEAT})
# Behind the end of a frame, the head of one with a payload below 16 MiB.
_NEXT: Final = re.compile(rb"\xce(?=[\x01\x02\x03\x08][\x00-\xff]{2}\x00)")
# "AMQP", then 0-9-1; 0-9, 0-8 and 0-10 write their version elsewhere (section 2.2.4 and its history).
_PREAMBLE: Final = re.compile(rb"AMQP(?:\x00\x00\x09\x01|\x01\x01[\x00-\x09][\x00-\x0a])")


def parse_frame(data: bytes, offset: int) -> Parsed:
    """The frame or protocol header at data[offset]."""
    here = len(data) - offset
    if data.startswith(b"AMQP"[: min(4, here)], offset):
        if here < 8:
            return CUT
        return (8, Frame(0, 0, data, offset + 4, offset + 8)) if _PREAMBLE.match(data, offset) else INVALID
    if here < 7:
        return CUT if data[offset] in _KINDS else INVALID
    kind, channel, size = _HEAD.unpack_from(data, offset)
    if kind not in _KINDS or size > MAX_FRAME_BYTES:
        return INVALID
    end = offset + 7 + size
    if end < len(data):
        if data[end] != FRAME_END:
            return INVALID
    elif kind == METHOD and here >= 11 and method_id(data, offset + 7) not in METHODS:
        return INVALID
    if (kind == METHOD and size < 4) or (kind == HEADER and size < 14) or (kind == HEARTBEAT and size > 0):
        return INVALID
    return size + 8, Frame(kind, channel, data, offset + 7, end)


def method_id(data: bytes, start: int) -> tuple[int, int]:
    """(class id, method id) of a method's payload; (0, 0) where it is cut."""
    if start + 4 > len(data):
        return 0, 0
    ids: tuple[int, int] = _TWO.unpack_from(data, start)
    return ids


def find_frame(data: bytes, offset: int) -> int:
    """Where a frame stands that is followed by another, or that ends the bytes and is a known method; -1."""
    if chains(data, offset):
        return offset
    for found in _NEXT.finditer(data, offset):
        if chains(data, found.end()):
            return found.end()
    return -1


def chains(data: bytes, offset: int) -> bool:
    """Whether a frame stands there, with its end mark, and a second one or a known method."""
    parsed = parse_frame(data, offset)
    if not isinstance(parsed, tuple) or offset + parsed[0] > len(data):
        return False
    frame = parsed[1]
    if frame.kind == METHOD:
        return method_id(data, frame.start) in METHODS
    follower = offset + parsed[0]
    return len(data) - follower >= 8 and isinstance(parse_frame(data, follower), tuple)


def read_arguments(layout: str, data: bytes, place: int, end: int) -> dict[str, int | str]:
    """The named arguments of a method as far as the bytes go (section 4.2.5)."""
    found: dict[str, int | str] = {}
    end = min(end, len(data))
    for word in layout.split():
        what, _, name = word.partition("=")
        if what in "248":
            size = int(what)
            if place + size > end:
                break
            value: int | str = int.from_bytes(data[place : place + size], "big")
        elif what == "s":
            if place >= end or place + 1 + data[place] > end:
                break
            size = 1 + data[place]
            value = read_name(data[place + 1 : place + size])
        elif what[0] == "b":
            if place >= end:
                break
            size = 1
            value = data[place] >> int(what[1:] or 0) & 1
        else:
            if place + 4 > end:
                break
            size = 4 + int.from_bytes(data[place : place + 4], "big")
            value = read_name(data[place + 4 : min(end, place + size)]) if what == "l" else ""
        if name:
            found[name] = value
        place += size
    return found


# Section 4.2.6.1: bits from the highest down; each property is there or not.
_PROPERTIES: Final = (
    ("content_type", "s"),
    ("content_encoding", "s"),
    ("headers", "t"),
    ("delivery_mode", "1"),
    ("priority", "1"),
    ("correlation_id", "s"),
    ("reply_to", "s"),
    ("expiration", "s"),
    ("message_id", "s"),
    ("timestamp", "8"),
    ("type", "s"),
    ("user_id", "s"),
    ("app_id", "s"),
    ("cluster_id", "s"),
)


def read_header(data: bytes, start: int, end: int) -> tuple[int, dict[str, int | str], dict[str, str]]:
    """(body size, properties, headers that may carry a trace) of a content header as far as the bytes go."""
    end = min(end, len(data))
    if start + 14 > end:
        return 0, {}, {}
    body_size = int.from_bytes(data[start + 4 : start + 12], "big")
    flags = int.from_bytes(data[start + 12 : start + 14], "big")
    place = start + 14
    properties: dict[str, int | str] = {}
    carriers: dict[str, str] = {}
    for number, (name, kind) in enumerate(_PROPERTIES):
        if not flags >> 15 - number & 1:
            continue
        if place >= end:
            break
        if kind == "s":
            size = 1 + data[place]
            if place + size > end:
                break
            properties[name] = read_name(data[place + 1 : place + size])
        elif kind == "t":
            size = 4 + int.from_bytes(data[place : place + 4], "big")
            carriers = _read_table(data, place + 4, min(end, place + size))
        else:
            size = int(kind)
            if place + size > end:
                break
            properties[name] = int.from_bytes(data[place : place + size], "big")
        place += size
    return body_size, properties, carriers


# Sizes of field values (section 4.2.5.5, as RabbitMQ and all clients write them).
_SIZES: Final = {
    "t": 1, "b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "l": 8, "L": 8, "f": 4, "d": 8, "D": 5, "T": 8, "V": 0,
}  # fmt: skip


def _read_table(data: bytes, place: int, end: int) -> dict[str, str]:
    """The text values of a field table whose names are known carriers of traces."""
    found: dict[str, str] = {}
    for _ in range(MAX_TABLE_FIELDS):
        if place >= end:
            break
        name_end = place + 1 + data[place]
        if name_end >= end:
            break
        name = data[place + 1 : name_end].decode("latin-1").lower()
        kind = chr(data[name_end])
        place = name_end + 1
        if kind in "SxAF":
            if place + 4 > end:
                break
            size = 4 + int.from_bytes(data[place : place + 4], "big")
            if kind in "Sx" and name in CARRIERS and place + size <= end:
                found[name] = read_text(data[place + 4 : place + size])
            place += size
        elif kind in _SIZES:
            place += _SIZES[kind]
        else:
            break
    return found
