"""FastCGI records in bytes, name-value pairs, and detection (specification 1.0, sections 3.3 and 3.4)."""

from __future__ import annotations

import re
from typing import Final

from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.contract import CLIENT, CUT, INVALID, SERVER, Parsed, Sample, Side
from kubetape.analyze.protocols.fastcgi.types import (
    BEGIN_REQUEST,
    END_REQUEST,
    FROM_CLIENT,
    FROM_SERVER,
    GET_VALUES,
    GET_VALUES_RESULT,
    ROLES,
    UNKNOWN_TYPE,
    Record,
)

HEADER_BYTES: Final = 8
CHAIN: Final = 3
MAX_PAIRS: Final = 512  # PHP behind nginx gets about 30
MAX_VALUE_CHARS: Final = 8192

_CANDIDATE = re.compile(rb"\x01[\x01-\x0b][\x00-\xff]{5}\x00", re.DOTALL)


def _is_header(side: Side, data: bytes, offset: int) -> bool:
    kind = data[offset + 1]
    if data[offset] != 1 or kind not in (FROM_CLIENT if side == CLIENT else FROM_SERVER):
        return False
    request_id = data[offset + 2] << 8 | data[offset + 3]
    length = data[offset + 4] << 8 | data[offset + 5]
    if kind in (GET_VALUES, GET_VALUES_RESULT, UNKNOWN_TYPE):
        return request_id == 0
    return request_id > 0 and (kind not in (BEGIN_REQUEST, END_REQUEST) or length == 8)


def read_record(side: Side, data: bytes, offset: int) -> Parsed:
    """(size, Record) of the record at `offset`."""
    captured = len(data) - offset
    if captured < HEADER_BYTES:
        return CUT if data[offset] == 1 else INVALID
    if not _is_header(side, data, offset):
        return INVALID
    length = data[offset + 4] << 8 | data[offset + 5]
    start = offset + HEADER_BYTES
    request_id = data[offset + 2] << 8 | data[offset + 3]
    record = Record(data[offset + 1], request_id, length, data, start, min(start + length, len(data)))
    return HEADER_BYTES + length + data[offset + 6], record


def read_pairs(raw: bytes) -> dict[str, str]:
    """The name-value pairs of PARAMS and GET_VALUES, as far as they were captured."""
    pairs: dict[str, str] = {}
    place, size = 0, len(raw)
    while place < size and len(pairs) < MAX_PAIRS:
        lengths = []
        for _ in range(2):
            if place < size and raw[place] >= 128:
                lengths.append(int.from_bytes(raw[place : place + 4], "big") & 0x7FFFFFFF)
                place += 4
            elif place < size:
                lengths.append(raw[place])
                place += 1
        if len(lengths) < 2 or place + lengths[0] > size:
            break
        name = read_text(raw[place : place + lengths[0]], 256)
        place += lengths[0]
        pairs[name] = read_text(raw[place : place + lengths[1]], MAX_VALUE_CHARS)
        place += lengths[1]
    return pairs


def is_chain(side: Side, data: bytes, offset: int, count: int = CHAIN) -> bool:
    """Whether records of this side follow each other from `offset`: `count`, or two that end with the data."""
    seen, size = 0, len(data)
    while seen < count:
        if offset == size:
            return seen > 1
        if size - offset < HEADER_BYTES or not _is_header(side, data, offset):
            return False
        offset += HEADER_BYTES + (data[offset + 4] << 8 | data[offset + 5]) + data[offset + 6]
        if offset > size:
            return seen > 0
        seen += 1
    return True


def find_record(side: Side, data: bytes, offset: int) -> int:
    """The next index at which a request begins or a chain of records does, or -1."""
    found = _CANDIDATE.search(data, offset)
    while found is not None:
        place = found.start()
        if is_chain(side, data, place) or (side == CLIENT and is_begin(data, place)) or _is_last(side, data, place):
            return place
        found = _CANDIDATE.search(data, place + 1)
    return -1


def is_begin(data: bytes, offset: int) -> bool:
    """Whether a BEGIN_REQUEST with a role and its five reserved zeros stands at `offset`."""
    if len(data) - offset < 16 or not _is_header(CLIENT, data, offset) or data[offset + 1] != BEGIN_REQUEST:
        return False
    body = data[offset + 8 : offset + 16]
    return body[0] == 0 and body[1] in ROLES and body[2] <= 1 and body[3:] == bytes(5)


def _is_last(side: Side, data: bytes, offset: int) -> bool:
    """Whether an END_REQUEST with its three reserved zeros ends the data."""
    end = offset + 16
    return (
        side == SERVER
        and data[offset + 1] == END_REQUEST
        and end + data[offset + 6] == len(data)
        and _is_header(side, data, offset)
        and data[offset + 12] in (0, 1, 2, 3)
        and data[offset + 13 : end] == b"\0\0\0"
    )


def _asks_values(data: bytes) -> bool:
    """Whether data begins with GET_VALUES for variables as the specification names them."""
    if len(data) < HEADER_BYTES + 6 or not _is_header(CLIENT, data, 0) or data[1] != GET_VALUES:
        return False
    names = read_pairs(data[HEADER_BYTES : HEADER_BYTES + (data[4] << 8 | data[5])])
    return bool(names) and all(name.startswith("FCGI_") for name in names)


def detect(sample: Sample) -> float:
    """BEGIN_REQUEST on one side, records of the other kind on the other."""
    if sample.datagrams:
        return 0.0
    begins = is_begin(sample.client, 0)
    if sample.from_start and sample.client:
        if not begins and not _asks_values(sample.client):
            return 0.0
        if not sample.server:
            return 0.85
        return 0.97 if len(sample.server) >= 8 and _is_header(SERVER, sample.server, 0) else 0.55
    client = begins or any(find_record(CLIENT, run, 0) >= 0 for run in (sample.client, *sample.client_runs))
    server = any(find_record(SERVER, run, 0) >= 0 for run in (sample.server, *sample.server_runs))
    if client and server:
        return 0.9
    if begins:
        return 0.75
    return 0.55 if (client and not sample.server) or (server and not sample.client) else 0.0
