"""CQL envelopes from bytes: headers of v1 to v5, bodies decompressed; boundaries and detection."""

from __future__ import annotations

from struct import Struct
from typing import Final

from kubetape.analyze.protocols.cassandra.segments import header_kind, read_segment, unpack_lz4, unpack_snappy
from kubetape.analyze.protocols.cassandra.types import (
    AUTHENTICATE,
    BATCH,
    COMPRESSED,
    ERROR,
    ERRORS,
    EVENT,
    EXECUTE,
    OPTIONS,
    PREPARE,
    QUERY,
    READY,
    REGISTER,
    REPLIES,
    REQUESTS,
    RESULT,
    STARTUP,
    Envelope,
)
from kubetape.analyze.protocols.contract import CLIENT, CUT, INVALID, Parsed, Sample, Side

MAX_BODY_BYTES: Final = 1 << 28
KEPT_BODY_BYTES: Final = 1 << 16  # of a body, what rows are made from
MAX_SEARCH_BYTES: Final = 1 << 18  # a segment header stands within the first 128 KiB of any place
_CHAIN: Final = 3

_HEADER: Final = Struct(">BBhBI")
_OLD_HEADER: Final = Struct(">BBbBI")  # v1 and v2


def read_header(data: bytes, offset: int) -> tuple[int, int, int, int, int, int] | None:
    """(version with direction bit, flags, stream, opcode, body's length, header's size); None: cut."""
    left = len(data) - offset
    if left < 8:
        return None
    if data[offset] & 0x7F < 3:
        return (*_OLD_HEADER.unpack_from(data, offset), 8)
    return (*_HEADER.unpack_from(data, offset), 9) if left >= 9 else None


def parse_envelope(side: Side, data: bytes, offset: int, codec: str | None) -> Parsed:
    """(size, Envelope). codec: the compression agreed on, None where it is not known."""
    if not header_fits(side, data, offset):
        return CUT if 0 < len(data) - offset < 9 and data[offset] & 0x7F in _VERSIONS else INVALID
    header = read_header(data, offset)
    assert header is not None
    version, flags, stream, opcode, length, size = header
    start = offset + size
    body = data[start : start + length] if flags & COMPRESSED else data[start : start + min(length, KEPT_BODY_BYTES)]
    readable = True
    if flags & COMPRESSED and length:
        body = _unpack(body, codec) if len(body) == length else b""
        readable = bool(body)
    return size + length, Envelope(version & 0x7F, flags, stream, opcode, body, readable)


def _unpack(body: bytes, codec: str | None) -> bytes:
    """v3 and v4, section 5: LZ4 with the size before it, or snappy; told apart by trying where it was not seen."""
    if codec != "snappy" and (unpacked := unpack_lz4(body[4:], int.from_bytes(body[:4], "big"))):
        return unpacked[:KEPT_BODY_BYTES]
    return unpack_snappy(body)[:KEPT_BODY_BYTES] if codec != "lz4" else b""


# DSE speaks versions of its own with bit 6 set.
_VERSIONS: Final = frozenset((1, 2, 3, 4, 5, 0x41, 0x42))


def header_fits(side: Side, data: bytes, offset: int) -> bool:
    """Whether an envelope of `side` may begin here."""
    header = read_header(data, offset)
    if header is None:
        return False
    version, flags, stream, opcode, length, _ = header
    if (version >> 7) != side or version & 0x7F not in _VERSIONS or flags > 0x1F or length > MAX_BODY_BYTES:
        return False
    return opcode in REQUESTS if side == CLIENT else opcode in REPLIES and (stream >= 0 or opcode in (EVENT, ERROR))


def envelope_fits(side: Side, data: bytes, offset: int) -> bool:
    """As `header_fits`, and the body begins as its opcode wants it."""
    if not header_fits(side, data, offset):
        return False
    header = read_header(data, offset)
    assert header is not None
    _, flags, _, opcode, length, size = header
    start = offset + size
    left = len(data) - start
    if opcode in (OPTIONS, READY):
        return length == 0
    if flags & 7 or left < 4:
        # Compressed, traced or with a payload: the body does not begin with its own fields.
        return flags & COMPRESSED == 0 or length > 4
    first = int.from_bytes(data[start : start + 4], "big")
    if opcode in (QUERY, PREPARE):
        return 0 < first <= length - 4 and (left < 5 or data[start + 4] in _CQL_STARTS)
    if opcode == RESULT:
        return 1 <= first <= 5
    if opcode == ERROR:
        return first in ERRORS
    short = first >> 16
    if opcode == STARTUP:
        return 1 <= short <= 16 and b"CQL_VERSION" in data[start : start + min(length, 512)]
    if opcode in (REGISTER, EVENT, AUTHENTICATE):
        return 0 < short < 512 and short + 2 <= length
    if opcode == EXECUTE:
        return 0 < short <= 64 and short + 2 < length
    if opcode == BATCH:
        return data[start] <= 2 and int.from_bytes(data[start + 1 : start + 3], "big") > 0 and data[start + 3] <= 1
    return length >= 2


_CQL_STARTS: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \t\r\n/-(\"'")


def chain_fits(side: Side, data: bytes, offset: int) -> int:
    """How many envelopes follow each other from here on (0: none; up to _CHAIN)."""
    for number in range(_CHAIN):
        if not envelope_fits(side, data, offset):
            # A header that is cut is no counter-evidence behind a whole envelope; v5 goes on in segments.
            follows = len(data) - offset < 9 or header_kind(data, offset)
            return number if follows else 0
        header = read_header(data, offset)
        assert header is not None
        offset += header[4] + header[5]
        if offset >= len(data):
            return number + 1
    return _CHAIN


# Opcodes whose bodies are checked well enough to believe one alone.
_TELLING: Final = frozenset((ERROR, STARTUP, QUERY, PREPARE, EVENT))
# Those of which a few small numbers are checked: random bytes have them now and then, but not with an end in sight.
_TELLING_WHOLE: Final = frozenset((RESULT, EXECUTE, BATCH))


def _tells_alone(data: bytes, place: int) -> bool:
    """Whether one envelope is enough to believe: its body was checked, or it can be decompressed."""
    length = int.from_bytes(data[place + 5 : place + 9], "big")
    if data[place + 1] == 0:
        opcode = data[place + 4]
        return opcode in _TELLING or (opcode in _TELLING_WHOLE and place + 9 + length <= len(data))
    body = data[place + 9 : place + 9 + length]
    return data[place + 1] & COMPRESSED != 0 and len(body) == length and bool(_unpack(body, None))


def find_envelope(side: Side, data: bytes, offset: int) -> int:
    """Where a chain of envelopes begins; -1."""
    if offset == 0 and chain_fits(side, data, 0):
        return 0  # what was read or sent in one piece mostly begins with an envelope
    best = -1
    for version in (4, 3, 5):
        mark = bytes((version | (0x80 if side != CLIENT else 0),))
        stop = len(data) if best < 0 else best
        place = data.find(mark, offset, stop)
        while place >= 0:
            chain = chain_fits(side, data, place)
            if chain > 1 or (chain and _tells_alone(data, place)):
                best = place
                break
            place = data.find(mark, place + 1, stop)
    return best


def find_segment(data: bytes, offset: int, stop: int) -> tuple[int, int]:
    """(place, kind of header) of the first segment that begins before `stop`; (-1, 0)."""
    for place in range(offset, min(len(data) - 5, stop, offset + MAX_SEARCH_BYTES)):
        kind = header_kind(data, place)
        if kind and _segment_believed(data, place, kind):
            return place, kind
    return -1, 0


def _segment_believed(data: bytes, place: int, kind: int) -> bool:
    """24 bits agree by chance once in many megabytes: the next header, where it is in sight, must agree too."""
    size, segment = read_segment(data, place, kind)
    following = place + size
    if following + kind <= len(data):
        return header_kind(data, following) == kind
    return segment.payload[:1] in (b"\x05", b"\x85")


# ---- detection ---------------------------------------------------------------------------------------------------


def detect(sample: Sample) -> float:
    """Envelopes of the client and of the server, or segments of v5."""
    asked = _seen(CLIENT, sample.client, sample.client_runs)
    answered = _seen(1, sample.server, sample.server_runs)
    if asked < 0 or answered < 0:
        return 0.0
    if asked and answered:
        return 0.97 if asked + answered >= 4 else 0.85
    return {3: 0.85, 2: 0.7, 1: 0.5}.get(asked + answered, 0.0)


def _seen(side: Side, first: bytes, runs: list[bytes]) -> int:
    """3: begins with a chain; 2: with an envelope or a segment; 1: such further on; 0: nothing; -1: others' bytes."""
    if not first:
        return 0
    chain = chain_fits(side, first, 0)
    if chain:
        return 3 if chain > 1 or first[4:5] in (b"\x01", b"\x07", b"\x09", b"\x06") else 2
    if (kind := header_kind(first, 0)) and _segment_believed(first, 0, kind):
        return 2
    if any(chain_fits(side, run, 0) for run in runs) or find_envelope(side, first, 1) >= 0:
        return 1
    return 1 if find_segment(first, 1, len(first))[0] >= 0 else -1
