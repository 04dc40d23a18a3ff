"""TDS packets and what is read of their contents."""

from __future__ import annotations

import re
from typing import Final

from kubetape.analyze.protocols.common.text import cut_text, read_name, read_text
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed, Sample
from kubetape.analyze.protocols.tds.types import (
    ATTENTION,
    END_OF_MESSAGE,
    LOGIN7,
    OLD_LOGIN,
    OPERATIONS,
    PRELOGIN,
    PROCEDURES,
    RESULT,
    SQL_BATCH,
    Answer,
    Packet,
)

PORTS: Final = frozenset({1433, 5000})
HEADER_BYTES: Final = 8
MAX_PACKET_BYTES: Final = 32767  # [MS-TDS] 2.2.3.1.2
_KINDS: Final = frozenset({*OPERATIONS, RESULT, ATTENTION})
_NVARCHAR: Final = 0xE7
_LANGUAGE: Final = 0x21  # TDS 5: a statement
_DONE_COUNT: Final = 0x10
_NEXT: Final = re.compile(rb"(?=[\x01-\x07\x0e-\x12][\x00\x01\x09][\x00-\x7f][\x00-\xff]{3}[\x00-\xff]\x00)", re.S)


def parse_packet(data: bytes, offset: int) -> Parsed:
    """The packet at data[offset]: type, status, length (big-endian), SPID, number, window."""
    if len(data) - offset < HEADER_BYTES:
        return CUT
    kind, status = data[offset], data[offset + 1]
    size = int.from_bytes(data[offset + 2 : offset + 4], "big")
    if kind not in _KINDS or status & ~0x1F or not HEADER_BYTES <= size <= MAX_PACKET_BYTES or data[offset + 7]:
        return INVALID
    end = offset + size
    body = data[offset + HEADER_BYTES : end]
    return size, Packet(kind, bool(status & END_OF_MESSAGE), body, end <= len(data))


def find_packet(data: bytes, offset: int) -> int:
    """Where a packet stands that another follows, or the end of the bytes; -1."""
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


def _headers_bytes(body: bytes) -> int:
    """Size of ALL_HEADERS, which TDS 7.2 and newer put before a batch or a call; 0 where there are none."""
    total = int.from_bytes(body[:4], "little")
    first = int.from_bytes(body[4:8], "little")
    return total if 4 <= total <= min(len(body), 512) and 6 <= first <= total - 4 else 0


def _wide(raw: bytes) -> str:
    return cut_text(raw[: len(raw) // 2 * 2].decode("utf-16-le", "replace").replace("\x00", ""))


def read_batch(body: bytes) -> str:
    """SQL text of a batch: UTF-16 since TDS 7, bytes before."""
    text = body[_headers_bytes(body) :]
    return _wide(text) if text[1:2] == b"\x00" or text[3:4] == b"\x00" else read_text(text)


def read_query5(body: bytes) -> str | None:
    """SQL text of the LANGUAGE token of a TDS 5 query: token, length (32 bits), status, text. None for others."""
    if body[:1] != bytes([_LANGUAGE]):
        return None
    size = int.from_bytes(body[1:5], "little")
    return read_text(body[6 : 5 + size])


def read_call(body: bytes) -> tuple[str, str | None]:
    """(procedure, SQL text among its parameters) of an RPC."""
    place = _headers_bytes(body)
    length = int.from_bytes(body[place : place + 2], "little")
    if length == 0xFFFF:
        number = int.from_bytes(body[place + 2 : place + 4], "little")
        name, place = PROCEDURES.get(number, str(number)), place + 4
    else:
        name, place = _wide(body[place + 2 : place + 2 + 2 * length]), place + 2 + 2 * length
    return name, _first_text(body, place + 2) if name in PROCEDURES.values() else None


def _first_text(body: bytes, place: int) -> str | None:
    """The first parameter of type nvarchar that looks like a statement: sp_prepare's follows its handle."""
    while (place := body.find(_NVARCHAR, place)) >= 0 and place + 10 <= len(body):
        most = int.from_bytes(body[place + 1 : place + 3], "little")
        start = place + 8  # behind type, size and collation
        if most == 0xFFFF:
            # PLP: total (64 bits), then chunks with 32 bits of length; a statement is seldom in two.
            size = int.from_bytes(body[start + 8 : start + 12], "little")
            raw = body[start + 12 : start + 12 + size]
        else:
            size = int.from_bytes(body[start : start + 2], "little")
            raw = body[start + 2 : start + 2 + size] if size != 0xFFFF else b""
        if len(raw) >= 8 and raw[1] == 0 and size % 2 == 0:
            text = _wide(raw)
            if " " in text.strip() and not text.startswith("@"):
                return text
        place += 1
    return None


def read_login7(body: bytes) -> tuple[str, str, str]:
    """(user, database, program) of LOGIN7: offsets and lengths in characters ([MS-TDS] 2.2.6.4)."""

    def field(place: int) -> str:
        start, count = (int.from_bytes(body[p : p + 2], "little") for p in (place, place + 2))
        return _wide(body[start : start + 2 * count])

    return field(40), field(68), field(48)


def read_login5(body: bytes) -> tuple[str, str]:
    """(user, program) of the login record of TDS 5: fixed fields of 30 bytes, each followed by its length."""

    def field(place: int) -> str:
        return read_name(body[place : place + min(30, body[place + 30] if place + 30 < len(body) else 0)])

    return field(31), field(140)


def read_prelogin(body: bytes) -> int | None:
    """The encryption option of PRELOGIN (token 1): 0 login only, 1 on, 2 not supported, 3 required. None: absent."""
    place = 0
    while place + 5 <= len(body) and body[place] != 0xFF:
        start = int.from_bytes(body[place + 1 : place + 3], "big")
        if body[place] == 1 and start < len(body):
            return body[start]
        place += 5
    return None


def read_answer(body: bytes) -> Answer:
    """Error, counts and whether a login was acknowledged.

    Rows cannot be walked without their columns' types: errors are found by the agreement of their two lengths,
    and DONE by its place at the end.
    """
    error, severity = None, 0
    for token in (0xAA, 0xE5):
        found = _find_error(body, token)
        if found is not None:
            error, severity = found
            break
    rows = None
    for size in (12, 8):
        tail = body[-size - 1 :]
        if len(tail) == size + 1 and tail[0] in (0xFD, 0xFE, 0xFF):
            status = int.from_bytes(tail[1:3], "little")
            if status & _DONE_COUNT and not status & ~0x137:
                rows = int.from_bytes(tail[5:], "little")
            break
    return Answer(error, severity, rows if rows is None or rows < 1 << 48 else None, b"\xad" in body[:4096])


def _find_error(body: bytes, token: int) -> tuple[tuple[int, str], int] | None:
    """ERROR (0xAA) of TDS 7, EED (0xE5) of TDS 5 with a class above 10; the texts' lengths have to fit the token's."""
    place = -1
    while (place := body.find(token, place + 1)) >= 0 and place + 12 <= len(body):
        length = int.from_bytes(body[place + 1 : place + 3], "little")
        end = place + 3 + length
        if length < 10 or end > len(body):
            continue
        number = int.from_bytes(body[place + 3 : place + 7], "little", signed=True)
        level = body[place + 8]
        if token == 0xAA:
            count = int.from_bytes(body[place + 9 : place + 11], "little")
            text = body[place + 11 : place + 11 + 2 * count]
            if 1 <= level <= 25 and 11 + 2 * count - 3 <= length and len(text) == 2 * count:
                return (number, _wide(text)), level
        else:
            state = body[place + 9]
            at = place + 10 + state + 3
            count = int.from_bytes(body[at : at + 2], "little")
            if 10 < level <= 26 and at + 2 + count <= end:
                return (number, read_text(body[at + 2 : at + 2 + count]).strip()), level
    return None


def detect(sample: Sample) -> float:
    """Packets in chains: requests from the client, results from the server."""
    client, server = (
        [head for head in heads if len(head) > HEADER_BYTES and is_chain(head, 0)]
        for heads in ([sample.client, *sample.client_runs], [sample.server, *sample.server_runs])
    )
    asks = [head for head in client if head[0] in OPERATIONS]
    answers = [head for head in server if head[0] == RESULT]
    if (client and not asks) or (server and not answers) or not (asks or answers):
        return 0.0
    opening = bool(asks) and asks[0][0] in (PRELOGIN, LOGIN7, OLD_LOGIN)
    if asks and answers:
        return 0.97 if opening or any(_is_typical(head) for head in asks) else 0.85
    if asks and not sample.server:
        return 0.7 if opening and _is_typical(asks[0]) else 0.45
    return 0.4


def _is_typical(head: bytes) -> bool:
    """Contents that no other protocol has: offered options, UTF-16 text, the lengths of a login."""
    parsed = parse_packet(head, 0)
    if not isinstance(parsed, tuple):
        return False
    packet: Packet = parsed[1]
    if packet.kind == PRELOGIN:
        return packet.body[:1] in (b"\x00", b"\x16") and read_prelogin(packet.body) is not None
    if packet.kind == LOGIN7:
        return int.from_bytes(packet.body[:4], "little") == len(packet.body)
    if packet.kind == OLD_LOGIN:
        return len(packet.body) > 400
    if packet.kind == SQL_BATCH:
        return _headers_bytes(packet.body) > 0 or packet.body[1:2] == b"\x00"
    return _headers_bytes(packet.body) > 0
