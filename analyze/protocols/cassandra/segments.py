"""The outer framing of v5 (native_protocol_v5.spec, section 2.2): headers with a CRC24, payloads plain or LZ4."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from kubetape.analyze.protocols.cassandra.types import Segment

MAX_PAYLOAD: Final = (1 << 17) - 1
PLAIN_HEADER, LZ4_HEADER, TRAILER = 6, 8, 4

_POLYNOMIAL: Final = 0x1974F0B
_INITIAL: Final = 0x875060


def _table() -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        value = byte << 16
        for _ in range(8):
            value <<= 1
            if value & 0x1000000:
                value ^= _POLYNOMIAL
        entries.append(value)
    return tuple(entries)


_CRC24: Final = _table()


def crc24(data: bytes) -> int:
    """The checksum of a segment's header."""
    value = _INITIAL
    for byte in data:
        value = (value << 8 & 0xFFFFFF) ^ _CRC24[(value >> 16) ^ byte]
    return value


def header_kind(data: bytes, offset: int) -> int:
    """PLAIN_HEADER or LZ4_HEADER if the header of such a segment stands at data[offset], else 0."""
    if len(data) - offset < PLAIN_HEADER:
        return 0
    # Bits above the lengths and the flag are zero: cheap to see, before the checksum is computed.
    if data[offset + 2] < 4 and int.from_bytes(data[offset + 3 : offset + 6], "little") == crc24(
        data[offset : offset + 3]
    ):
        return PLAIN_HEADER
    if (
        len(data) - offset >= LZ4_HEADER
        and data[offset + 4] < 8
        and int.from_bytes(data[offset + 5 : offset + 8], "little") == crc24(data[offset : offset + 5])
    ):
        return LZ4_HEADER
    return 0


def read_segment(data: bytes, offset: int, kind: int) -> tuple[int, Segment]:
    """(size, Segment) of the segment whose header, of `kind`, stands at data[offset]."""
    if kind == PLAIN_HEADER:
        bits = int.from_bytes(data[offset : offset + 3], "little")
        length, whole = bits & MAX_PAYLOAD, bool(bits >> 17 & 1)
        start = offset + PLAIN_HEADER
        payload = data[start : start + length]
        return PLAIN_HEADER + length + TRAILER, Segment(payload, length, whole)
    bits = int.from_bytes(data[offset : offset + 5], "little")
    length, plain_length, whole = bits & MAX_PAYLOAD, bits >> 17 & MAX_PAYLOAD, bool(bits >> 34 & 1)
    start = offset + LZ4_HEADER
    payload = data[start : start + length]
    if plain_length:
        payload = unpack_lz4(payload, plain_length) if len(payload) == length else b""
    else:
        plain_length = length  # sent as it is, where compressing did not help
    return LZ4_HEADER + length + TRAILER, Segment(payload, plain_length, whole)


def unpack_lz4(raw: bytes, size: int) -> bytes:
    """An LZ4 block of known size; b"" where it is damaged."""
    return _unpack("lz4_raw", raw, size)


def unpack_snappy(raw: bytes) -> bytes:
    """A snappy block, which begins with its size as a varint; b"" where it is damaged."""
    size = shift = 0
    for byte in raw[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return _unpack("snappy", raw, size)
    return b""


MAX_UNPACKED: Final = 1 << 28  # native_transport_max_frame_size is 256 MiB at most in practice


def _unpack(codec: str, raw: bytes, size: int) -> bytes:
    if not 0 < size <= MAX_UNPACKED or size > 256 * len(raw) + 64:
        return b""  # neither codec packs more than 255 to 1
    try:
        return bytes(pa.Codec(codec).decompress(raw, size, asbytes=True))
    except (pa.ArrowException, OSError, ValueError, MemoryError):
        return b""
