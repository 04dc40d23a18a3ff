"""TLS records in bytes, where a chain of them begins, and detection."""

from __future__ import annotations

import re
from typing import Final

from kubetape.analyze.protocols.contract import CLIENT, CUT, INVALID, Parsed, Sample, Side
from kubetape.analyze.protocols.tls.types import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    HANDSHAKE_TYPES,
    HEARTBEAT,
    SSL2,
    Record,
)

HEADER_BYTES: Final = 5
MAX_RECORD_BYTES: Final = (1 << 14) + 2048  # RFC 5246, section 6.2.3
CHAIN: Final = 3

_CANDIDATE = re.compile(rb"[\x14-\x17]\x03[\x00-\x04][\x00-\x48]")
_SSL2_VERSIONS: Final = frozenset({0x0002, 0x0300, 0x0301, 0x0302, 0x0303})


def _is_record(data: bytes, offset: int) -> bool:
    """Whether five bytes are the header of a record, and its payload, where visible, of the right form."""
    kind, length = data[offset], data[offset + 3] << 8 | data[offset + 4]
    if not CHANGE_CIPHER_SPEC <= kind <= HEARTBEAT or data[offset + 1] != 3 or data[offset + 2] > 4:
        return False
    if length > MAX_RECORD_BYTES or (not length and kind != APPLICATION_DATA):
        return False
    return kind != CHANGE_CIPHER_SPEC or length == 1


def read_record(side: Side, data: bytes, offset: int) -> Parsed:
    """(size, Record) of the record at `offset`."""
    captured = len(data) - offset
    if captured < HEADER_BYTES:
        return CUT
    if not _is_record(data, offset):
        return _read_ssl2(side, data, offset, captured)
    size = HEADER_BYTES + (data[offset + 3] << 8 | data[offset + 4])
    missing = max(0, size - captured)
    version = data[offset + 1] << 8 | data[offset + 2]
    return size, Record(data[offset], version, data, offset + HEADER_BYTES, offset + size - missing, missing)


def _read_ssl2(side: Side, data: bytes, offset: int, captured: int) -> Parsed:
    """A record of SSL 2.0 with a two-byte header that holds a hello."""
    size = 2 + ((data[offset] & 0x7F) << 8 | data[offset + 1])
    if not _is_ssl2_hello(side, data, offset):
        return INVALID
    missing = max(0, size - captured)
    return size, Record(SSL2, 2, data, offset + 2, offset + size - missing, missing)


def _is_ssl2_hello(side: Side, data: bytes, offset: int) -> bool:
    """CLIENT-HELLO: its three lengths fill the record; SERVER-HELLO: alike."""
    if len(data) - offset < 11 or not data[offset] & 0x80:
        return False
    length = (data[offset] & 0x7F) << 8 | data[offset + 1]
    kind = data[offset + 2]
    numbers = [int.from_bytes(data[i : i + 2], "big") for i in range(offset + 3, offset + 11, 2)]
    if side == CLIENT:
        version, *lengths = numbers
        return kind == 1 and version in _SSL2_VERSIONS and 9 + sum(lengths) == length and not lengths[0] % 3
    if kind != 4 or len(data) - offset < 13:
        return False
    lengths = [int.from_bytes(data[i : i + 2], "big") for i in range(offset + 7, offset + 13, 2)]
    return numbers[1] == 2 and 11 + sum(lengths) == length


def is_chain(data: bytes, offset: int, count: int = CHAIN) -> bool:
    """Whether records follow each other from `offset`: `count` of them, or some that end with the data."""
    seen, size = 0, len(data)
    while seen < count:
        if offset == size:
            return seen > 0
        if size - offset < HEADER_BYTES:
            return seen > 1
        if not _is_record(data, offset):
            return False
        offset += HEADER_BYTES + (data[offset + 3] << 8 | data[offset + 4])
        if offset > size:
            return seen > 0
        seen += 1
    return True


def find_record(data: bytes, offset: int) -> int:
    """The next index at which a chain of records begins, or -1."""
    found = _CANDIDATE.search(data, offset)
    while found is not None:
        if is_chain(data, found.start()):
            return found.start()
        found = _CANDIDATE.search(data, found.start() + 1)
    return -1


# ---- detection ---------------------------------------------------------------------------------------------


def detect(sample: Sample) -> float:
    """A hello; or, mid-stream, records in a chain on both sides."""
    if sample.datagrams:
        return 0.0
    if is_hello(sample.client):
        if not sample.server:
            return 0.9
        if _begins(sample.server) or _is_ssl2_hello(1, sample.server, 0):
            return 0.98
        # The answer to what asked for encryption (STARTTLS) may stand before.
        later = not sample.from_start and find_record(sample.server[:512], 0) > 0
        return 0.9 if later else 0.65
    if _is_ssl2_hello(CLIENT, sample.client, 0):
        answered = _begins(sample.server) or _is_ssl2_hello(1, sample.server, 0)
        return 0.95 if answered else 0.6
    if (sample.from_start and sample.client) or is_hello(sample.server):
        return 0.0
    if _is_server_hello(sample.server):
        return 0.75 if not sample.client else 0.9 if _chains((sample.client, *sample.client_runs)) else 0.5
    client = _chains((sample.client, *sample.client_runs))
    server = _chains((sample.server, *sample.server_runs))
    if client and server:
        return 0.85
    return 0.6 if (client and not sample.server) or (server and not sample.client) else 0.0


def is_hello(data: bytes) -> bool:
    """Whether data begins with a record that begins with a ClientHello."""
    if len(data) < 11 or data[0] != HANDSHAKE or not _is_record(data, 0) or data[5] != 1:
        return False
    length, message = data[3] << 8 | data[4], int.from_bytes(data[6:9], "big")
    return 38 <= message < 1 << 18 and (message + 4 == length or message + 4 > 64) and data[9] in (2, 3, 0x7F)


def _is_server_hello(data: bytes) -> bool:
    return len(data) >= 11 and data[0] == HANDSHAKE and _is_record(data, 0) and data[5] == 2 and data[9] in (3, 0x7F)


def _begins(data: bytes) -> bool:
    """Whether data begins with a plaintext handshake message or alert."""
    if len(data) < 6 or not _is_record(data, 0):
        return False
    if data[0] == ALERT:
        return data[3:5] == b"\0\2" and data[5] in (1, 2)
    return data[0] == HANDSHAKE and data[5] in HANDSHAKE_TYPES


def _chains(runs: tuple[bytes, ...]) -> bool:
    """Whether most runs are records from their beginning on, or have a chain of them inside."""
    runs = tuple(run for run in runs if len(run) >= HEADER_BYTES)
    good = sum(is_chain(run, 0, 2) or _is_long_record(run) or find_record(run, 0) >= 0 for run in runs)
    return good * 2 > len(runs)


def _is_long_record(run: bytes) -> bool:
    """Whether a run is the beginning of one record of application data, as bulk transfers send them."""
    return run[0] == APPLICATION_DATA and _is_record(run, 0) and len(run) >= 1024
