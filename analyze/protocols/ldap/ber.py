"""The part of BER (X.690) that LDAP uses (RFC 4511, section 5.1): definite lengths, tags of one byte."""

from __future__ import annotations

from collections.abc import Iterator

MAX_LENGTH = 1 << 28  # directories refuse messages of far less


def read_header(data: bytes, offset: int) -> tuple[int, int, int] | None:
    """(tag, start of the content, its length) of the element at data[offset]; None: no such element, or it is cut."""
    if offset + 2 > len(data):
        return None
    tag, length = data[offset], data[offset + 1]
    start = offset + 2
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or start + count > len(data):
            return None
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    return (tag, start, length) if length <= MAX_LENGTH else None


def elements(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(tag, start, end) of the elements in data[start:end]; the last one may be cut."""
    while start < end and (header := read_header(data, start)) is not None:
        tag, start, length = header
        yield tag, start, min(start + length, end)
        start += length


def integer(data: bytes, start: int, end: int) -> int:
    """INTEGER or ENUMERATED content (at most 8 bytes of it)."""
    return int.from_bytes(data[start : min(end, start + 8)], "big", signed=True)
