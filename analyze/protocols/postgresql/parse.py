"""PostgreSQL messages from bytes (PostgreSQL 17 manual, 53.7 "Message Formats"), and where one begins."""

from __future__ import annotations

import re
import struct
from collections.abc import Container

from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.postgresql.types import (
    CANCEL,
    CANCEL_REQUEST,
    CLIENT_TYPES,
    COPY_DATA,
    DATA_ROW,
    GSS,
    GSS_REQUEST,
    SERVER_TYPES,
    SSL,
    SSL_REQUEST,
    STARTUP,
    STARTUP_MAJOR,
    Message,
)

MAX_STARTUP_BYTES = 10_000  # MAX_STARTUP_PACKET_LENGTH of the server
MAX_BODY_BYTES = 1 << 16  # of a message: what statement and parameters can show
MAX_MESSAGE_BYTES = 1 << 30  # the server's own limit (MaxAllocSize)
MAX_BATCH = 4096  # messages joined in one frame

I16 = struct.Struct(">h").unpack_from
I32 = struct.Struct(">i").unpack_from
# Messages without a body.
_CLIENT_EMPTY = frozenset(b"SHXc")
_SERVER_EMPTY = frozenset(b"123nIsc")
_TAG = re.compile(rb"[A-Z][A-Z ]{1,40}(?: \d+){0,2}\0")


def startup_at(data: bytes, pos: int) -> tuple[int, int] | None:
    """(kind, size) of a packet without type byte at data[pos]; None: there is none."""
    if pos + 8 > len(data):
        return None
    size, code = I32(data, pos)[0], I32(data, pos + 4)[0]
    if size == 8 and code == SSL_REQUEST:
        return SSL, 8
    if size == 8 and code == GSS_REQUEST:
        return GSS, 8
    if 16 <= size <= 272 and code == CANCEL_REQUEST:
        return CANCEL, size
    if code >> 16 == STARTUP_MAJOR and 9 <= size <= MAX_STARTUP_BYTES:
        body = data[pos + 8 : pos + size]
        if b"user\0" in body or (len(body) < size - 8 and body[:1].isalpha()):
            return STARTUP, size
    return None


def read_startup(body: bytes) -> dict[str, str]:
    """Names and values of a StartupMessage (body behind the protocol number)."""
    parts = body.split(b"\0")
    return {read_name(k): read_name(v) for k, v in zip(parts[::2], parts[1::2], strict=False) if k}


def read_messages(data: bytes, pos: int, client: bool, stops: Container[int], join: bool) -> list[Message]:
    """Messages from data[pos] up to and with the first whose type is in `stops`.

    Only the first where `join` is False; runs of rows or COPY data count as one, and what follows such
    a run is joined to it, as it belongs to the same result. Empty: no message can be read here.
    """
    found: list[Message] = []
    types = CLIENT_TYPES if client else SERVER_TYPES
    begin, end = pos, len(data)
    while pos + 5 <= end and len(found) < MAX_BATCH:
        kind = data[pos]
        length = I32(data, pos + 1)[0]
        if kind not in types or not 4 <= length <= MAX_MESSAGE_BYTES:
            break
        if kind == COPY_DATA or (kind == DATA_ROW and not client):
            start, count, size = pos, 0, 0
            body = data[pos + 5 : pos + 7]
            while pos + 5 <= end and data[pos] == kind:
                length = I32(data, pos + 1)[0]
                if not 4 <= length <= MAX_MESSAGE_BYTES:
                    break
                count += 1
                size += length - 4
                pos += 1 + length
            found.append(Message(kind, body, start - begin, pos - begin, count, size))
            if client and not join:
                break
            continue
        stop = pos + 1 + length
        kept = min(stop, pos + 5 + MAX_BODY_BYTES, end)
        found.append(Message(kind, data[pos + 5 : kept], pos - begin, stop - begin, 1, length - 4))
        pos = stop
        if not join or kind in stops:
            break
    return found


def client_message_at(data: bytes, pos: int) -> int | None:
    """The size of a plausible frontend message at data[pos]."""
    if pos + 5 > len(data):
        return None
    kind, length = data[pos], I32(data, pos + 1)[0]
    if kind not in CLIENT_TYPES or not 4 <= length <= MAX_MESSAGE_BYTES:
        return None
    body = data[pos + 5 : min(pos + 1 + length, pos + 5 + 4096)]
    whole = len(body) == length - 4
    if kind in _CLIENT_EMPTY:
        return 5 if length == 4 else None
    if kind == 0x51:  # Query
        good = length > 4 and (not whole or body.endswith(b"\0")) and _is_text(body[:64])
    elif kind == 0x50:  # Parse
        name, zero, rest = body.partition(b"\0")
        good = bool(zero) and len(name) < 256 and _is_text(name + b"\0") and _is_text(rest[:64])
        good = good and (not whole or _parse_fits(rest))
    elif kind == 0x42:  # Bind
        good = length >= 12 and body.count(b"\0", 0, 512) >= 2 and (not whole or bind_fits(body))
    elif kind in (0x44, 0x43):  # Describe, Close
        good = length >= 6 and body[:1] in (b"S", b"P") and body.find(b"\0") == length - 5
    elif kind == 0x45:  # Execute
        good = length >= 9 and body.find(b"\0") == length - 9
    elif kind == 0x70:  # password, SASL
        good = 4 < length < 65536
    elif kind == 0x46:  # FunctionCall
        good = length >= 14
    elif kind == 0x64:
        good = length < 1 << 24
    else:
        good = length > 4 and (not whole or body.endswith(b"\0"))
    return 1 + length if good else None


def _parse_fits(rest: bytes) -> bool:
    stop = rest.find(b"\0")
    return stop >= 0 and len(rest) >= stop + 3 and len(rest) == stop + 3 + 4 * I16(rest, stop + 1)[0]


def bind_fits(body: bytes) -> bool:
    """Whether a whole Bind adds up."""
    bound = read_bind(body)
    return bound is not None and bound[4]


def server_message_at(data: bytes, pos: int) -> int | None:
    """The size of a plausible backend message at data[pos]."""
    if pos + 5 > len(data):
        return None
    kind, length = data[pos], I32(data, pos + 1)[0]
    if kind not in SERVER_TYPES or not 4 <= length <= MAX_MESSAGE_BYTES:
        return None
    body = data[pos + 5 : min(pos + 1 + length, pos + 5 + 1024)]
    whole = len(body) == length - 4
    if kind in _SERVER_EMPTY:
        return 5 if length == 4 else None
    name = chr(kind)
    if name == "Z":
        good = length == 5 and body in (b"I", b"T", b"E", b"")
    elif name == "C":
        good = 6 <= length <= 80 and (not whole or _TAG.fullmatch(body) is not None)
    elif name in "EN":
        good = 6 <= length <= 65536 and body[:1] in (b"S", b"") and (not whole or body.endswith(b"\0\0"))
        good = good and _is_text(body[1:32].replace(b"\0", b" "))
    elif name == "T":
        count = I16(body, 0)[0] if len(body) >= 2 else 0
        good = 0 <= count <= 1664 and length >= 6 + 19 * count
    elif name == "D":
        good = _row_fits(body, length - 4)
    elif name == "S":
        good = 6 < length < 4096 and (not whole or (body.endswith(b"\0") and body.count(b"\0") == 2))
        good = good and body[:1].isalpha()
    elif name == "K":
        good = 12 <= length <= 268
    elif name == "R":
        good = 8 <= length <= 65536 and (len(body) < 4 or 0 <= I32(body, 0)[0] <= 12)
    elif name == "t":
        good = len(body) >= 2 and length == 6 + 4 * (I16(body, 0)[0] & 0xFFFF)
    elif name in "GHW":
        good = len(body) >= 3 and body[0] in (0, 1) and length == 7 + 2 * I16(body, 1)[0]
    elif name == "A":
        good = length >= 10 and (not whole or (body.endswith(b"\0") and body.count(b"\0", 4) >= 2))
    elif name == "V":
        good = length >= 8
    elif name == "v":
        good = 12 <= length <= 4096
    else:
        good = length < 1 << 24  # CopyData
    return 1 + length if good else None


def _row_fits(body: bytes, size: int) -> bool:
    """Whether the values of a DataRow add up to its length, as far as captured."""
    if len(body) < 2 or not 0 <= (count := I16(body, 0)[0]) <= 1664:
        return False
    pos = 2
    for _ in range(count):
        if pos + 4 > len(body):
            return len(body) < size
        length = I32(body, pos)[0]
        if length < -1:
            return False
        pos += 4 + max(0, length)
        if pos > size:
            return False
    return pos == size


def _is_text(raw: bytes) -> bool:
    return all(c >= 32 or c in b"\t\r\n\0" for c in raw)


_CANDIDATE = {True: re.compile(rb"[BCDEFHPQSXcdfp]\0"), False: re.compile(rb"[A-IKNRSTVWZcdnstv123]\0")}


def find_message(data: bytes, pos: int, client: bool) -> int:
    """The next place where a chain of plausible messages begins; -1: none."""
    at = client_message_at if client else server_message_at
    for match in _CANDIDATE[client].finditer(data, pos):
        if chain_at(data, match.start(), client, at(data, match.start())):
            return match.start()
    return -1


def chain_at(data: bytes, pos: int, client: bool, size: int | None) -> bool:
    """Whether messages follow one another from data[pos] on: three of them, or to the exact end of the data."""
    at = client_message_at if client else server_message_at
    weak = b"dcpXHS" if client else b"dcsnI123"
    strong = False
    for _ in range(3):
        if size is None:
            return False
        strong = strong or data[pos] not in weak
        pos += size
        if pos >= len(data):
            # One that reaches past what was captured proves less.
            return strong and (pos == len(data) or size < 1 << 16)
        if pos + 5 > len(data):
            return strong
        size = at(data, pos)
    return strong


# ---- contents ----------------------------------------------------------------------------------------------


def read_error(body: bytes) -> dict[str, str]:
    """Fields of ErrorResponse and NoticeResponse by their letter: S, V, C, M, D, H, ..."""
    fields: dict[str, str] = {}
    for part in body.split(b"\0"):
        if not part:
            break
        fields[chr(part[0])] = read_text(part[1:], 1024)
    return fields


def read_parse(body: bytes) -> tuple[str, str, list[int]]:
    """(name, text, parameter types given) of Parse."""
    name, _, rest = body.partition(b"\0")
    text, zero, tail = rest.partition(b"\0")
    types: list[int] = []
    if zero and len(tail) >= 2:
        count = min(I16(tail, 0)[0] & 0xFFFF, (len(tail) - 2) // 4)
        types = list(struct.unpack_from(f">{count}I", tail, 2))
    return read_name(name), read_text(text), types


def read_bind(body: bytes) -> tuple[str, str, list[int], list[bytes | None], bool] | None:
    """(portal, statement, formats, values, all there and of the right size) of Bind."""
    portal, _, rest = body.partition(b"\0")
    statement, zero, _ = rest.partition(b"\0")
    pos = len(portal) + len(statement) + 2
    if not zero or pos + 2 > len(body):
        return None
    count = I16(body, pos)[0]
    if count < 0 or pos + 4 + 2 * count > len(body):
        return None
    formats = list(struct.unpack_from(f">{count}h", body, pos + 2))
    pos += 2 + 2 * count
    number = I16(body, pos)[0] & 0xFFFF
    pos += 2
    values: list[bytes | None] = []
    whole = all(f in (0, 1) for f in formats)
    for _ in range(number):
        if pos + 4 > len(body):
            whole = False
            break
        size = I32(body, pos)[0]
        pos += 4
        if size < 0:
            values.append(None)
            whole = whole and size == -1
            continue
        values.append(body[pos : pos + size])
        pos += size
    if pos + 2 > len(body):
        whole = False
    elif whole:
        whole = pos + 2 + 2 * (I16(body, pos)[0] & 0xFFFF) == len(body)
    return read_name(portal), read_name(statement), formats, values, whole


def read_tag(body: bytes) -> tuple[str, int | None]:
    """(command, rows) of CommandComplete: `INSERT 0 5` -> ('INSERT', 5), `BEGIN` -> ('BEGIN', None)."""
    words = body.rstrip(b"\0").decode("ascii", "replace").split()
    count = int(words[-1]) if words and words[-1].isascii() and words[-1].isdigit() else None
    return " ".join(w for w in words if not w.isdigit()), count
