"""The compressed protocol: packets that carry packets (MySQL Internals, "Compression").

Header: 3 bytes length of what follows, 1 byte sequence number, 3 bytes length before compression (0: not
compressed). What is inside, put together, is the plain stream of packets: one may hold several, or a part.
"""

from __future__ import annotations

import zlib

import pyarrow as pa

from kubetape.analyze.protocols.mysql.parse import U32, command_at
from kubetape.analyze.protocols.mysql.reply import reply_at

HEADER_BYTES = 7
# A plain packet of 16 MiB needs two; one compressed packet holds at most that by the width of its length.
MAX_PLAIN_BYTES = 1 << 24
_ZLIB_HEADS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_ZSTD_HEAD = b"\x28\xb5\x2f\xfd"


def read_header(data: bytes, pos: int) -> tuple[int, int, int] | None:
    """(payload length, sequence, length before compression) at data[pos]."""
    if pos + HEADER_BYTES > len(data):
        return None
    first = U32(data, pos)[0]
    return first & 0xFFFFFF, first >> 24, int.from_bytes(data[pos + 4 : pos + 7], "little")


def plain(data: bytes, pos: int, length: int, plain_length: int) -> bytes | None:
    """The payload of a compressed packet, uncompressed; of a cut one its beginning; None: damaged."""
    payload = data[pos + HEADER_BYTES : pos + HEADER_BYTES + length]
    if not plain_length:
        return payload
    if payload[:4] == _ZSTD_HEAD:
        if len(payload) < length:
            return None
        try:
            return bytes(pa.Codec("zstd").decompress(payload, plain_length).to_pybytes())
        except (OSError, ValueError, pa.ArrowException):
            return None
    try:
        return zlib.decompressobj().decompress(payload, plain_length)
    except zlib.error:
        return None


def compressed_at(data: bytes, pos: int, is_reply: bool | None = None) -> bool:
    """Whether a compressed packet plausibly begins at data[pos].

    is_reply: it must begin a reply (True) or a command (False) of the plain stream; None: any of the two.
    """
    header = read_header(data, pos)
    if header is None:
        return False
    length, sequence, plain_length = header
    if not length or (plain_length and not length <= plain_length + 64):
        return False
    if plain_length:
        head = data[pos + HEADER_BYTES : pos + HEADER_BYTES + 4]
        if head[:2] not in _ZLIB_HEADS and head != _ZSTD_HEAD:
            return False
        inner = plain(data, pos, length, plain_length)
        if inner is None:
            return False
    else:
        inner = data[pos + HEADER_BYTES : pos + HEADER_BYTES + length]
    command, reply = command_at(inner, 0), reply_at(inner, 0)
    if is_reply is None:
        return command or reply
    return reply if is_reply else command and sequence == 0
