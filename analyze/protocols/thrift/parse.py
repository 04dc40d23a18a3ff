"""Thrift messages from bytes: binary (strict and old) and compact, bare, framed, or in the header transport."""

from __future__ import annotations

import re
import zlib
from typing import Final

from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.contract import CLIENT, CUT, INVALID, Parsed, Sample, Side
from kubetape.analyze.protocols.thrift.types import EXCEPTION, REPLY, Message
from kubetape.analyze.protocols.thrift.walk import CUT_END, Walker

MAX_FRAME_BYTES: Final = 1 << 28  # TFramedTransport refuses beyond 256 MB; servers far below
MAX_NAME_BYTES: Final = 256
_PLAIN: Final = re.compile(rb"[A-Za-z_][\w.:$/-]{0,255}\Z")
# Where a message may begin: strict binary, compact of version 1, header transport.
_START: Final = re.compile(rb"\x80\x01\x00[\x01-\x04]\x00\x00|\x82[\x21\x41\x61\x81]|\x0f\xff\x00")
_ASKS: Final = {0: (1, 4), 1: (2, 3)}

_Read = tuple[int, Message]  # where the message ends (or CUT_END), and what it says


def parse_message(side: Side, data: bytes, offset: int) -> Parsed:
    """(size, Message) of the message at data[offset], whichever way it is wrapped."""
    left = len(data) - offset
    if left < 12:
        return CUT if left < 4 or data[offset] in (0, 0x80, 0x82) else INVALID
    head = data[offset : offset + 6]
    if head[:3] == b"\x80\x01\x00" or head[0] == 0x82:
        return _bare(_read_message(side, data, offset, len(data)), offset)
    size = int.from_bytes(head[:4], "big")
    if not 0 < size <= MAX_FRAME_BYTES:
        return INVALID
    end = offset + 4 + size
    start = offset + 4
    if head[4:] == b"\x0f\xff":
        message = _read_header(side, data, start, min(end, len(data)))
        return (4 + size, message) if message is not None else INVALID
    if head[4:] == b"\x80\x01" or head[4] == 0x82:
        read = _read_message(side, data, start, min(end, len(data)))
        return (4 + size, read[1]._replace(transport="framed")) if read is not None else INVALID
    # The old binary encoding: a name's length comes first, so that of a frame must be told from it.
    read = _read_old(side, data, start, min(end, len(data)))
    if read is not None and (read[0] == end or (read[0] == CUT_END and end > len(data))):
        return 4 + size, read[1]._replace(transport="framed")
    return _bare(_read_old(side, data, offset, len(data)), offset)


def _bare(read: _Read | None, offset: int) -> Parsed:
    if read is None:
        return INVALID
    return CUT if read[0] == CUT_END else (read[0] - offset, read[1])


def _read_message(side: Side, data: bytes, offset: int, end: int) -> _Read | None:
    return _read_compact(side, data, offset, end) if data[offset] == 0x82 else _read_strict(side, data, offset, end)


def _read_strict(side: Side, data: bytes, offset: int, end: int) -> _Read | None:
    kind = data[offset + 3]
    size = int.from_bytes(data[offset + 4 : offset + 8], "big")
    place = offset + 8 + size
    if data[offset : offset + 3] != b"\x80\x01\x00" or not _names(data, offset + 8, size):
        return None
    return _binary(side, kind, data, offset + 8, size, place, end, "binary")


def _read_old(side: Side, data: bytes, offset: int, end: int) -> _Read | None:
    if offset + 10 > end:
        return None
    size = int.from_bytes(data[offset : offset + 4], "big")
    place = offset + 4 + size
    if not _names(data, offset + 4, size) or place + 5 > end:
        return None
    return _binary(side, data[place], data, offset + 4, size, place + 1, end, "binary-old")


def _binary(
    side: Side, kind: int, data: bytes, name: int, size: int, place: int, end: int, encoding: str
) -> _Read | None:
    if kind not in _ASKS[side]:
        return None
    walker = Walker(data, end)
    stop = walker.binary_struct(place + 4) if place + 4 < end else CUT_END
    if stop < 0 and stop != CUT_END:
        return None
    sequence_id = int.from_bytes(data[place : place + 4], "big", signed=True)
    failure = _failure(kind, walker, False)
    return stop, _message(kind, data[name : name + size], sequence_id, encoding, failure)


def _read_compact(side: Side, data: bytes, offset: int, end: int) -> _Read | None:
    if offset + 4 > end or data[offset] != 0x82 or data[offset + 1] & 0x1F != 1:
        return None
    kind = data[offset + 1] >> 5
    walker = Walker(data, end)
    sequence_id, place = walker.varint(offset + 2)
    size, name = walker.varint(place) if place > 0 else (0, -1)
    if name < 0 or not _names(data, name, size) or kind not in _ASKS[side]:
        return None
    stop = walker.compact_struct(name + size)
    if stop < 0 and stop != CUT_END:
        return None
    return stop, _message(kind, data[name : name + size], sequence_id, "compact", _failure(kind, walker, True))


def _names(data: bytes, offset: int, size: int) -> bool:
    return 0 < size <= MAX_NAME_BYTES and _PLAIN.match(data[offset : offset + size]) is not None


def _message(
    kind: int, name: bytes, sequence_id: int, encoding: str, failure: tuple[int | None, str | None] | None
) -> Message:
    # TMultiplexedProtocol puts the service before the method.
    service, _, method = read_name(name).rpartition(":")
    return Message(kind, method, service or None, sequence_id, encoding, "bare", failure, {})


def _failure(kind: int, walker: Walker, compact: bool) -> tuple[int | None, str | None] | None:
    """What an exception says: TApplicationException {1: message, 2: type}, or the first string of a declared one."""
    strings, number = (8, 5) if compact else (11, 8)
    if kind == EXCEPTION:
        code: int | None = None
        text: str | None = None
        for field, kind_of, place in walker.first:
            if field == 1 and kind_of == strings:
                text = read_text(walker.text(compact, place), 1024)
            elif field == 2 and kind_of == number:
                code = int.from_bytes(walker.data[place : place + 4], "big")
                if compact:
                    coded = walker.varint(place)[0]
                    code = coded >> 1 ^ -(coded & 1)
        return code, text
    if kind == REPLY and walker.first and walker.first[0][0] > 0:
        # Field 0 is the result; any other is an exception that the method declares.
        _, kind_of, place = walker.first[0]
        text = None
        if kind_of == 12:
            inner = Walker(walker.data, walker.end)
            if compact:
                inner.compact_struct(place)
            else:
                inner.binary_struct(place)
            found = next((p for _, k, p in inner.first if k == strings), None)
            if found is not None:
                text = read_text(walker.text(compact, found), 1024)
        return None, text
    return None


def _read_header(side: Side, data: bytes, offset: int, end: int) -> Message | None:
    """THeader (HeaderFormat.md): magic, flags, sequence id, size of the header in words, then the header itself."""
    if end - offset < 12:
        return None
    words = int.from_bytes(data[offset + 8 : offset + 10], "big")
    body = offset + 10 + words * 4
    walker = Walker(data, min(body, end))
    protocol, place = walker.varint(offset + 10)
    transforms, place = walker.varint(place) if place > 0 else (0, -1)
    if place < 0 or protocol not in (0, 2) or transforms > 4 or body > end:
        return None
    packed = False
    for _ in range(transforms):
        transform, place = walker.varint(place)
        if place < 0 or transform not in (1, 5):
            return None
        packed = True
    headers = _info_headers(walker, place, min(body, end))
    payload, start, stop = data, body, end
    if packed:
        try:
            payload = zlib.decompressobj().decompress(data[body:end], 1 << 20)
        except zlib.error:
            return None
        start, stop = 0, len(payload)
    if stop - start < 8:
        return None
    read = _read_message(side, payload, start, stop)
    return None if read is None else read[1]._replace(transport="header", headers=headers)


def _info_headers(walker: Walker, place: int, end: int) -> dict[str, str]:
    """Info of kind 1: a count, then names and values."""
    headers: dict[str, str] = {}
    while 0 < place < end:
        kind, place = walker.varint(place)
        if kind != 1 or place < 0:
            break
        count, place = walker.varint(place)
        for _ in range(min(count, 64)):
            pair = []
            for _ in range(2):
                size, place = walker.varint(place) if place > 0 else (0, -1)
                if place < 0 or place + size > end:
                    return headers
                pair.append(read_name(walker.data[place : place + size]))
                place += size
            headers[pair[0].lower()] = pair[1]
    return headers


# ---- boundaries and detection ------------------------------------------------------------------------------------


def find_message(side: Side, data: bytes, offset: int) -> int:
    """Where a message (with its frame) begins that ends where the bytes end or where the next begins; -1.

    The old binary encoding has no mark to look for.
    """
    found = _START.search(data, offset)
    while found is not None:
        place = found.start()
        for start in (place - 4, place):
            if start >= offset and fits(side, data, start):
                return start
        found = _START.search(data, place + 1)
    return -1


def fits(side: Side, data: bytes, offset: int) -> bool:
    """Whether a message begins here, and what follows it does not speak against it."""
    parsed = parse_message(side, data, offset)
    if parsed.__class__ is not tuple:
        return False
    following = offset + parsed[0]
    if len(data) - following < 12:
        return True
    return parse_message(side, data, following).__class__ is tuple or parse_message(side, data, following) is CUT


def detect(sample: Sample) -> float:
    """Calls from the client, replies from the server, whose values all end where they should."""
    asked = _seen(CLIENT, sample.client, sample.client_runs)
    answered = _seen(1, sample.server, sample.server_runs)
    if asked < 0 or answered < 0 or not (asked or answered):
        return 0.0
    if asked and answered:
        return 0.95 if asked + answered == 4 else 0.85
    return 0.75 if asked + answered == 2 else 0.55


def _seen(side: Side, first: bytes, runs: list[bytes]) -> int:
    """2: begins with a message; 1: one further on; 0: nothing there; -1: others' bytes."""
    if not first:
        return 0
    if fits(side, first, 0) or _begins_strict(side, first):
        return 2
    if any(fits(side, run, 0) for run in runs) or find_message(side, first, 1) >= 0:
        return 1
    return -1


def _begins_strict(side: Side, data: bytes) -> bool:
    """A strict message that is longer than what detection sees."""
    start = 0 if data[:2] == b"\x80\x01" else 4
    size = int.from_bytes(data[start + 4 : start + 8], "big")
    return (
        data[start : start + 3] == b"\x80\x01\x00"
        and len(data) > start + 8 + size
        and data[start + 3] in _ASKS[side]
        and _names(data, start + 8, size)
    )
