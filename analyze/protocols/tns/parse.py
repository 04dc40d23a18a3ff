"""TNS packets from bytes.

Oracle publishes no specification; header and connect data as in Wireshark's packet-tns and in Oracle's error
documentation. Of the two-task interface inside DATA packets only function codes, statement texts and errors
are read: they can be found without knowing the many versions of its fields.
"""

from __future__ import annotations

import re
from typing import Final

from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed, Sample
from kubetape.analyze.protocols.tns.types import ACCEPT, CONNECT, DATA, REDIRECT, REFUSE, TYPES, Packet

PORTS: Final = frozenset({1521, 1522, 2484})
HEADER_BYTES: Final = 8
MAX_PACKET_BYTES: Final = 2_097_152  # the largest session data unit
BODY_BYTES: Final = 1 << 15

_STATEMENT: Final = re.compile(
    rb"(?:select|insert|update|delete|merge|with|begin|declare|create|alter|drop|truncate|call|explain|lock|grant|set)"
    rb"[ \t\r\n(][\x09\x0a\x0d\x20-\x7e\x80-\xff]+",
    re.I,
)
_ERROR: Final = re.compile(rb"ORA-(\d{5}): ?([\x20-\x7e\x80-\xff]*)")
_SERVICE: Final = re.compile(rb"\((?:SERVICE_NAME|SID)=([^()]*)\)", re.I)
_REFUSAL: Final = re.compile(rb"\(ERR=(\d+)\)", re.I)
_CONNECT_DATA: Final = re.compile(rb"\((?:DESCRIPTION|CONNECT_DATA|ADDRESS)=.*", re.I | re.S)
_NEXT: Final = re.compile(
    rb"(?=(?:[\x00-\x7f][\x00-\xff]\x00\x00|\x00[\x00-\x1f][\x00-\xff]{2})[\x01-\x0e]\x00\x00\x00)"
)


def parse_packet(data: bytes, offset: int) -> Parsed:
    """The packet at data[offset]: 16 bits of length and a zero checksum, or since version 315 32 bits of length."""
    if len(data) - offset < HEADER_BYTES:
        return CUT
    kind = data[offset + 4]
    if kind not in TYPES or data[offset + 6] or data[offset + 7]:
        return INVALID
    size = int.from_bytes(data[offset : offset + 2], "big")
    if not size:
        size = int.from_bytes(data[offset : offset + 4], "big")
    elif data[offset + 2] or data[offset + 3]:
        return INVALID
    if not HEADER_BYTES <= size <= MAX_PACKET_BYTES or (kind == DATA and size < HEADER_BYTES + 2):
        return INVALID
    start = offset + HEADER_BYTES
    return size, Packet(kind, size, data[start : min(len(data), offset + size, start + BODY_BYTES)])


def find_packet(data: bytes, offset: int) -> int:
    """Where a packet stands that is followed by another or by the end of the bytes; -1."""
    for found in _NEXT.finditer(data, offset):
        if is_chain(data, found.start()):
            return found.start()
    return -1


def is_chain(data: bytes, offset: int) -> bool:
    parsed = parse_packet(data, offset)
    if not isinstance(parsed, tuple):
        return False
    following = offset + parsed[0]
    return following == len(data) or (following < len(data) and isinstance(parse_packet(data, following), tuple))


def read_connect(packet: Packet) -> tuple[int, str]:
    """(version, connect descriptor) of a CONNECT packet."""
    body = packet.body
    found = _CONNECT_DATA.search(body)
    return int.from_bytes(body[:2], "big"), read_text(found[0]) if found else ""


def read_service(text: str) -> str | None:
    """SERVICE_NAME or SID of a connect descriptor."""
    found = _SERVICE.search(text.encode())
    return read_name(found[1]) if found else None


def read_refusal(packet: Packet) -> str | None:
    """Error number of a REFUSE packet."""
    found = _REFUSAL.search(packet.body)
    return found[1].decode("ascii") if found else None


def read_statement(body: bytes) -> str | None:
    """The SQL text in a call. A length byte of chunked texts may stand inside a long one; it is cut there."""
    found = _STATEMENT.search(body)
    return read_text(found[0].rstrip()) if found and len(found[0]) >= 8 else None


def read_error(body: bytes) -> tuple[str, str] | None:
    """(number, text) of an Oracle error."""
    found = _ERROR.search(body)
    return (str(int(found[1])), read_text(found[0], 1024).rstrip()) if found else None


def is_connect(data: bytes) -> bool:
    """Whether a direction begins with CONNECT: version 300 to 330, and a descriptor."""
    parsed = parse_packet(data, 0) if data else INVALID
    if not isinstance(parsed, tuple) or parsed[1].kind != CONNECT:
        return False
    version = int.from_bytes(parsed[1].body[:2], "big")
    return 290 <= version <= 340


def detect(sample: Sample) -> float:
    """CONNECT and what answers it; mid-stream chains of DATA packets on both sides."""
    answers = (ACCEPT, REFUSE, REDIRECT, 11)
    answered = len(sample.server) > 4 and sample.server[4] in answers and is_chain(sample.server, 0)
    if is_connect(sample.client):
        return 0.97 if answered else 0.85 if not sample.server else 0.6
    if sample.from_start:
        return 0.0
    chains = [
        any(len(head) > HEADER_BYTES and head[4] == DATA and is_chain(head, 0) for head in heads)
        for heads in ([sample.client, *sample.client_runs], [sample.server, *sample.server_runs])
    ]
    return 0.8 if all(chains) else 0.3 if any(chains) else 0.0
