"""Pulsar's frames from bytes (binary protocol): total size, size of the command, command; a message behind some."""

from __future__ import annotations

import re
from typing import Final

from kubetape.analyze.protocols.common.protobuf import iterate_fields, read_fields, read_varint
from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.common.trace import CARRIERS
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed
from kubetape.analyze.protocols.pulsar.types import KINDS, MESSAGE, SEND, Frame

MAX_FRAME_BYTES: Final = 1 << 27  # maxMessageSize is 5 MiB by default; chunks and batches stay below
MAX_COMMAND_BYTES: Final = 1 << 20
CHECKSUM_MAGIC: Final = b"\x0e\x01"
BROKER_ENTRY_MAGIC: Final = b"\x0e\x02"

# Total size below 128 MiB, size of the command below 16 MiB, then field 1 (the type) as a varint.
_NEXT: Final = re.compile(rb"(?=[\x00-\x07][\x00-\xff]{3}\x00[\x00-\xff]{3}\x08[\x02-\x44])")


def parse_frame(data: bytes, offset: int) -> Parsed:
    """The frame at data[offset]."""
    if len(data) - offset < 10:
        return CUT
    size = int.from_bytes(data[offset : offset + 4], "big")
    length = int.from_bytes(data[offset + 4 : offset + 8], "big")
    kind = data[offset + 9]
    if not 2 <= length <= min(MAX_COMMAND_BYTES, size - 4) or size > MAX_FRAME_BYTES:
        return INVALID
    if data[offset + 8] != 8 or kind not in KINDS:
        return INVALID
    start, body, end = offset + 10, offset + 8 + length, offset + 4 + size
    here = min(body, len(data))
    fields: dict[int, int | bytes] | None = {}
    # The command is one more field, whose number is that of the type.
    key, place = read_varint(data, start, here)
    if place > 0:
        if key != kind << 3 | 2:
            return INVALID
        inner, place = read_varint(data, place, here)
        if place > 0:
            if place + inner > body:
                return INVALID
            fields = read_fields(data, place, min(place + inner, here))
            if fields is None:
                return INVALID
    elif body <= len(data):
        return INVALID
    if kind not in (SEND, MESSAGE):
        return (size + 4, Frame(kind, fields or {}, data, (0, 0), end)) if body == end else INVALID
    return size + 4, Frame(kind, fields or {}, data, _metadata(data, body, end), end)


def _metadata(data: bytes, place: int, end: int) -> tuple[int, int]:
    """Where the message's metadata is: behind the broker's entry metadata and a checksum, if there are any."""
    if data[place : place + 2] == BROKER_ENTRY_MAGIC:
        place += 6 + int.from_bytes(data[place + 2 : place + 6], "big")
    if data[place : place + 2] == CHECKSUM_MAGIC:
        place += 6
    size = int.from_bytes(data[place : place + 4], "big")
    if place + 4 > len(data) or place + 4 + size > end:
        return 0, 0
    return place + 4, place + 4 + size


def find_frame(data: bytes, offset: int) -> int:
    """Where a frame stands that ends with the bytes or is followed by another; -1."""
    for found in _NEXT.finditer(data, offset):
        place = found.start()
        if is_frame(data, place):
            return place
    return -1


def is_frame(data: bytes, offset: int) -> bool:
    parsed = parse_frame(data, offset)
    if not isinstance(parsed, tuple):
        return False
    behind = offset + parsed[0]
    return behind >= len(data) or not len(data) - behind >= 10 or isinstance(parse_frame(data, behind), tuple)


def read_message(frame: Frame) -> tuple[int, dict[str, str]]:
    """(messages in the batch, properties that may carry a trace) of a SEND or MESSAGE; of a batch the first's."""
    start, end = frame.metadata
    data = frame.data
    here = min(end, len(data))
    carriers: dict[str, str] = {}
    count = 1
    batched = compressed = False
    for number, value, low, high in iterate_fields(data, start, here):
        if number == 4:
            _read_property(data, low, min(high, here), carriers)
        elif number == 8:
            compressed = value > 0
        elif number == 11:
            count, batched = value, True
    if batched and not compressed and not carriers and end + 4 <= len(data):
        # SingleMessageMetadata of the first message; field 1 are its properties.
        stop = min(len(data), frame.end, end + 4 + int.from_bytes(data[end : end + 4], "big"))
        for number, _, low, high in iterate_fields(data, end + 4, stop):
            if number == 1:
                _read_property(data, low, min(high, stop), carriers)
    return count, carriers


def _read_property(data: bytes, start: int, end: int, carriers: dict[str, str]) -> None:
    pair = read_fields(data, start, end) or {}
    key, value = pair.get(1), pair.get(2)
    if isinstance(key, bytes) and isinstance(value, bytes):
        name = key.decode("latin-1").lower()
        if name in CARRIERS:
            carriers[name] = read_text(value)
