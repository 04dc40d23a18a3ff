"""MQTT control packets from bytes (3.1, 3.1.1 and 5.0, chapter 2): type and flags, remaining length, the rest."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.common.trace import CARRIERS
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed
from kubetape.analyze.protocols.mqtt import types as t
from kubetape.analyze.protocols.mqtt.types import Packet

MAX_FILTERS: Final = 256  # of one SUBSCRIBE
MAX_PROPERTIES: Final = 256

# Flags that section 2.1.3 fixes; MQTT 3.1 sets DUP and QoS 1 on more of them.
_FLAGS: Final = {
    t.CONNECT: (0,),
    t.CONNACK: (0,),
    t.PUBLISH: (*range(6), *range(8, 14)),
    t.PUBACK: (0,),
    t.PUBREC: (0,),
    t.PUBREL: (2, 10),
    t.PUBCOMP: (0,),
    t.SUBSCRIBE: (2, 10),
    t.SUBACK: (0,),
    t.UNSUBSCRIBE: (2, 10),
    t.UNSUBACK: (0,),
    t.PINGREQ: (0,),
    t.PINGRESP: (0,),
    t.DISCONNECT: (0,),
    t.AUTH: (0,),
}
_FIRST_BYTES: Final = frozenset(kind << 4 | flags for kind, allowed in _FLAGS.items() for flags in allowed)
# The least and the most bytes that can follow the length; 3.1 knows no properties.
_LEAST: Final = {
    t.CONNECT: 10,
    t.CONNACK: 2,
    t.PUBLISH: 2,
    t.PUBACK: 2,
    t.PUBREC: 2,
    t.PUBREL: 2,
    t.PUBCOMP: 2,
    t.SUBSCRIBE: 5,
    t.SUBACK: 3,
    t.UNSUBSCRIBE: 4,
    t.UNSUBACK: 2,
}
_ENDS_EMPTY: Final = frozenset({t.PINGREQ, t.PINGRESP})
_NEXT: Final = re.compile(b"[" + b"".join(re.escape(bytes([b])) for b in sorted(_FIRST_BYTES)) + b"]")
_CONNECT: Final = re.compile(
    rb"\x10[\x80-\xff]{0,3}[\x00-\x7f](?:\x00\x04MQTT[\x04\x05]|\x00\x06MQIsdp\x03|\x00\x04MQTT\x84)"
)


class Content(NamedTuple):
    """What a PUBLISH says: topic "" where an alias stands for it; carriers: user properties that may carry a trace."""

    topic: str
    packet_id: int
    alias: int
    carriers: dict[str, str]


def parse_packet(data: bytes, offset: int) -> Parsed:
    """The control packet at data[offset]; strict about what the specification fixes."""
    first = data[offset]
    if first not in _FIRST_BYTES:
        return INVALID
    kind = first >> 4
    size = shift = 0
    place = offset + 1
    while True:
        if place >= len(data):
            return CUT
        byte = data[place]
        place += 1
        size |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 21:
            return INVALID
    if size < _LEAST.get(kind, 0) or (size and kind in _ENDS_EMPTY):
        return INVALID
    if not _fits(kind, first & 15, data, place, place + size):
        return INVALID
    return place + size - offset, Packet(kind, first & 15, data, place, place + size)


def _fits(kind: int, flags: int, data: bytes, start: int, end: int) -> bool:
    """Whether what is there of the packet's body can be one."""
    here = min(end, len(data))
    if kind in (t.PUBLISH, t.SUBSCRIBE, t.UNSUBSCRIBE):
        place = start if kind == t.PUBLISH else start + 2
        if place + 2 > here:
            return True
        size = data[place] << 8 | data[place + 1]
        if kind == t.PUBLISH:
            if place + 2 + size + (2 if flags & 6 else 0) > end:
                return False
            # A topic name has no wildcards and no NUL (section 4.7).
            return not any(c in data[place + 2 : min(here, place + 2 + size)] for c in b"\0#+")
        return data[place : place + 1] < b"\x80"
    if kind == t.CONNACK:
        return start >= here or data[start] <= 1
    if kind == t.CONNECT:
        return here - start < 6 or data[start : start + 6] in (b"\0\x04MQTT", b"\0\x06MQIs")
    return True


def find_packet(data: bytes, offset: int) -> int:
    """Where a chain of packets begins, four of them or up to the end of the bytes; -1."""
    for found in _NEXT.finditer(data, offset):
        if chain(data, found.start()) > 0:
            return found.start()
    return -1


def chain(data: bytes, offset: int, need: int = 4) -> int:
    """How many packets stand one behind the other; 0: fewer than `need`, and they do not end with the bytes."""
    place = offset
    count = 0
    while count < need and place < len(data):
        parsed = parse_packet(data, place)
        if not isinstance(parsed, tuple):
            return 0
        count += 1
        place += parsed[0]
    return count if count >= need or place == len(data) else 0


def is_connect(data: bytes) -> bool:
    """Whether the bytes begin with a CONNECT of a known version."""
    return _CONNECT.match(data) is not None


def packet_id(packet: Packet) -> int:
    """The identifier at the beginning of acknowledgements and subscriptions; 0 where it is cut."""
    return int.from_bytes(packet.data[packet.start : min(packet.end, packet.start + 2)], "big")


def read_connect(packet: Packet) -> dict[str, object]:
    """Section 3.1: version, client_id, keep_alive_s, clean, user, will_topic; never the password."""
    data, end = packet.data, min(packet.end, len(packet.data))
    found: dict[str, object] = {}
    name_size = int.from_bytes(data[packet.start : packet.start + 2], "big")
    place = packet.start + 2 + name_size
    if place + 4 > end:
        return found
    version, flags = data[place] & 127, data[place + 1]
    found["version"] = {3: "3.1", 4: "3.1.1", 5: "5.0"}.get(version, str(version))
    found["keep_alive_s"] = int.from_bytes(data[place + 2 : place + 4], "big")
    found["clean"] = bool(flags & 2)
    place += 4
    if version == 5:
        place = _skip_properties(data, place, end)
    value, place = _string(data, place, end)
    if value is None:
        return found
    found["client_id"] = value
    if flags & 4:
        if version == 5:
            place = _skip_properties(data, place, end)
        value, place = _string(data, place, end)
        if value is not None:
            found["will_topic"] = value
        _, place = _string(data, place, end)
    if flags & 0x80:
        value, place = _string(data, place, end)
        if value is not None:
            found["user"] = value
    return found


def read_publish(packet: Packet, version: int) -> Content:
    """Section 3.3 as far as the bytes go."""
    data, end = packet.data, min(packet.end, len(packet.data))
    topic, place = _string(data, packet.start, end)
    number = alias = 0
    carriers: dict[str, str] = {}
    if topic is not None and packet.flags & 6:
        number = int.from_bytes(data[place : place + 2], "big")
        place += 2
    if topic is not None and version == 5:
        alias, carriers = _read_properties(data, place, end)
    return Content(topic or "", number, alias, carriers)


def read_filters(packet: Packet, version: int) -> list[str]:
    """The topic filters of a SUBSCRIBE or UNSUBSCRIBE (sections 3.8 and 3.10)."""
    data, end = packet.data, min(packet.end, len(packet.data))
    place = packet.start + 2
    if version == 5:
        place = _skip_properties(data, place, end)
    found: list[str] = []
    while place < end and len(found) < MAX_FILTERS:
        value, place = _string(data, place, end)
        if value is None:
            break
        found.append(value)
        if packet.kind == t.SUBSCRIBE:
            place += 1
    return found


def read_codes(packet: Packet, version: int) -> list[int]:
    """Return or reason codes of an acknowledgement or DISCONNECT; none written means success."""
    data, end = packet.data, min(packet.end, len(packet.data))
    if packet.kind == t.CONNACK:
        return list(data[packet.start + 1 : min(end, packet.start + 2)])
    if packet.kind in (t.SUBACK, t.UNSUBACK):
        place = packet.start + 2
        if version == 5:
            place = _skip_properties(data, place, end)
        return list(data[place:end])
    if packet.kind in (t.DISCONNECT, t.AUTH):
        return list(data[packet.start : min(end, packet.start + 1)])
    return list(data[packet.start + 2 : min(end, packet.start + 3)])


def _string(data: bytes, place: int, end: int) -> tuple[str | None, int]:
    if place + 2 > end:
        return None, end
    size = data[place] << 8 | data[place + 1]
    if place + 2 + size > end:
        return None, end
    return read_name(data[place + 2 : place + 2 + size]), place + 2 + size


def _length(data: bytes, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while place < end and shift < 28:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    return value, place


def _skip_properties(data: bytes, place: int, end: int) -> int:
    size, place = _length(data, place, end)
    return min(end, place + size)


# Section 2.2.2.2: identifier -> size of the value; 0: a string or bytes.
_SIZES: Final = {
    0x01: 1, 0x02: 4, 0x03: 0, 0x08: 0, 0x09: 0, 0x11: 4, 0x12: 0, 0x13: 2, 0x15: 0, 0x16: 0, 0x17: 1, 0x18: 4,
    0x19: 1, 0x1A: 0, 0x1C: 0, 0x1F: 0, 0x21: 2, 0x22: 2, 0x23: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1,
    0x2A: 1,
}  # fmt: skip


def _read_properties(data: bytes, place: int, end: int) -> tuple[int, dict[str, str]]:
    """(topic alias or 0, user properties whose names are known carriers of traces)."""
    size, place = _length(data, place, end)
    end = min(end, place + size)
    alias = 0
    carriers: dict[str, str] = {}
    for _ in range(MAX_PROPERTIES):
        if place >= end:
            break
        name = data[place]
        place += 1
        if name == 0x26:
            key, place = _string(data, place, end)
            if key is None or place + 2 > end:
                break
            value_size = data[place] << 8 | data[place + 1]
            if key.lower() in CARRIERS and place + 2 + value_size <= end:
                carriers[key.lower()] = read_text(data[place + 2 : place + 2 + value_size])
            place += 2 + value_size
        elif name == 0x0B:
            _, place = _length(data, place, end)
        elif name in _SIZES:
            width = _SIZES[name]
            if name == 0x23:
                alias = int.from_bytes(data[place : place + 2], "big")
            place += width or 2 + int.from_bytes(data[place : place + 2], "big")
        else:
            break
    return alias, carriers
