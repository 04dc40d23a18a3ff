"""Record sets: how many records, and what the headers of the first one carry (protocol guide, "Record Batch")."""

from __future__ import annotations

import zlib
from struct import Struct
from typing import Final, NamedTuple

from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.common.trace import CARRIERS, TraceContext, read_trace

MAX_BATCHES: Final = 10_000  # walked in one record set
MAX_HEADERS: Final = 64  # of one record
MAX_INFLATED_BYTES: Final = 1 << 16  # of a compressed batch, enough for its first record's headers in most cases

_BATCH: Final = Struct(">qiibIhiqqqhii")  # 61 bytes before the records
_COMPRESSION: Final = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


class RecordSet(NamedTuple):
    """records: how many, None where the bytes do not tell; compression, trace: of the first batch and record."""

    records: int | None
    compression: str | None
    magic: int
    trace: TraceContext | None


def read_records(data: bytes, start: int, end: int) -> RecordSet | None:
    """The record set at data[start:end], of which only the bytes of `data` are there; None: it is none."""
    here = min(end, len(data))
    place = start
    total = 0
    known = True
    first: tuple[str | None, int, TraceContext | None] | None = None
    for _ in range(MAX_BATCHES):
        if place + 17 > here:
            break
        size = int.from_bytes(data[place + 8 : place + 12], "big", signed=True)
        magic = data[place + 16]
        if size < 14 or magic > 2:
            break
        if magic < 2:
            # Message sets of before 0.11: one entry is one message, or a compressed set of unknown number.
            compression = _COMPRESSION.get(data[place + 17] & 7) if place + 17 < here else None
            trace = None
            known = known and compression is None
            total += 1
        elif place + _BATCH.size <= here:
            fields = _BATCH.unpack_from(data, place)
            compression = _COMPRESSION.get(fields[5] & 7)
            total += max(0, fields[12])
            trace = None
            if first is None:
                trace = _first_trace(data, place + _BATCH.size, min(here, place + 12 + size), fields[5] & 7)
        else:
            break
        first = first or (compression, magic, trace)
        place += 12 + size
    if first is None:
        return None
    # A fetched set may end in the middle of a batch; what is missing here was not captured.
    whole = known and (place >= end or here == end)
    return RecordSet(total if whole else None, *first)


def _first_trace(data: bytes, place: int, end: int, compression: int) -> TraceContext | None:
    if compression == 1:
        try:
            data = zlib.decompressobj(31).decompress(data[place:end], MAX_INFLATED_BYTES)
        except zlib.error:
            return None
        place, end = 0, len(data)
    elif compression:
        return None
    try:
        headers = _headers(data, place, end)
    except IndexError:
        return None
    return read_trace(headers) if headers else None


def _headers(data: bytes, place: int, end: int) -> dict[str, str]:
    """The headers of the record at `place` that carry a trace; IndexError where the bytes end."""
    _, place = _varint(data, place, end)
    place += 1
    for _ in range(2):
        _, place = _varint(data, place, end)
    for _ in range(2):
        size, place = _varint(data, place, end)
        place += max(0, size)
    count, place = _varint(data, place, end)
    found: dict[str, str] = {}
    for _ in range(min(count, MAX_HEADERS)):
        size, place = _varint(data, place, end)
        if size < 0 or place + size > end:
            raise IndexError
        name = data[place : place + size].lower()
        place += size
        size, place = _varint(data, place, end)
        if place + max(0, size) > end:
            raise IndexError
        if size > 0 and (key := name.decode("latin-1")) in CARRIERS:
            found[key] = read_text(data[place : place + size])
        place += max(0, size)
    return found


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """A zigzag varint of at most 64 bits."""
    value = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return (value >> 1) ^ -(value & 1), place
        shift += 7
    raise IndexError
