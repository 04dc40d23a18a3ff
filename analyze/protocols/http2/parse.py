"""HTTP/2 frames in bytes (RFC 9113, section 4.1), and where a frame begins in the middle of a stream."""

from __future__ import annotations

import re
from typing import Final

from kubetape.analyze.protocols.contract import CLIENT, CUT, INVALID, SERVER, Parsed, Sample, Side
from kubetape.analyze.protocols.http2.hpack import INDEXED, STATIC, read_block
from kubetape.analyze.protocols.http2.types import (
    CONNECTION_PREFACE,
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
)

HEADER_BYTES: Final = 9
MAX_GUESSED_LENGTH: Final = 1 << 20  # of a frame looked for; servers and clients offer 16 KiB to 1 MiB
CHAIN: Final = 3  # frames that must follow each other to believe in a boundary
MAX_DETECT_FRAMES: Final = 16
MIN_UNTOLD_FRAMES: Final = 12  # without any header block: no other protocol keeps up a chain for so long

_FIXED_LENGTHS: Final = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_ON_CONNECTION: Final = {SETTINGS, PING, GOAWAY, 12, 16}
_ON_STREAM: Final = {DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION}
_FLAGS: Final = {
    DATA: 0x9,
    HEADERS: 0x2D,
    PRIORITY: 0,
    RST_STREAM: 0,
    SETTINGS: 0x1,
    PUSH_PROMISE: 0xC,
    PING: 0x1,
    GOAWAY: 0,
    WINDOW_UPDATE: 0,
    CONTINUATION: 0x4,
}
# A frame header as it looks in nearly all traffic: under 1 MiB, a type and flags of RFC 9113, a stream below 2**24.
_CANDIDATE = re.compile(
    rb"[\x00-\x0f][\x00-\xff]{2}[\x00-\x09][\x00\x01\x04\x05\x08\x09\x0c\x0d\x20\x21\x24\x25\x28\x29\x2c\x2d]"
    rb"\x00[\x00-\xff]{3}"
)
_PREFACE_STARTS: Final = PREFACE[:16]


def _is_header(length: int, kind: int, flags: int, stream_id: int) -> bool:
    """Whether the fields of a frame header agree with each other (RFC 9113, section 6)."""
    fixed = _FIXED_LENGTHS.get(kind)
    if fixed is not None and length != fixed:
        return False
    if kind in _ON_CONNECTION:
        if stream_id:
            return False
        return not (kind == SETTINGS and (length % 6 or (flags & 1 and length))) and not (kind == GOAWAY and length < 8)
    return not (kind in _ON_STREAM and not stream_id)


def read_frame(data: bytes, offset: int) -> Parsed:
    """(size, Frame) of the frame, or the client's connection preface, at `offset`."""
    captured = len(data) - offset
    if data[offset] == 0x50 and data.startswith(_PREFACE_STARTS[:captured], offset):
        return len(PREFACE), Frame(CONNECTION_PREFACE, 0, 0, data, offset, offset, 0)
    if captured < HEADER_BYTES:
        return CUT
    length = data[offset] << 16 | data[offset + 1] << 8 | data[offset + 2]
    kind, flags = data[offset + 3], data[offset + 4]
    stream_id = int.from_bytes(data[offset + 5 : offset + 9], "big") & 0x7FFFFFFF
    # Unknown types are to be ignored; GREASE uses 0x0b + 0x1f * n (RFC 8701, RFC 9113 section 5.5).
    if not _is_header(length, kind, flags, stream_id) or (kind > 0x20 and (kind - 0x0B) % 0x1F):
        return INVALID
    start = offset + HEADER_BYTES
    size = HEADER_BYTES + length
    missing = max(0, size - captured)
    end = start + length - missing
    if kind in (DATA, HEADERS, PUSH_PROMISE) and flags & PADDED and start < end:
        padding = data[start]
        if padding >= length:
            return INVALID
        start += 1
        end = min(end, offset + size - padding)
    if kind == HEADERS and flags & HAS_PRIORITY:
        start += 5
    return size, Frame(kind, flags, stream_id, data, min(start, end), end, missing)


def chain_length(data: bytes, offset: int, limit: int = CHAIN) -> int:
    """How many plausible frames follow each other from `offset`, at most `limit`; 0: it is no chain.

    A chain that ends exactly with the data counts as `limit`; one that breaks counts nothing. The end of the
    data in a frame needs two before it, or one whose header block names its role.
    """
    seen, size, proof = 0, len(data), 1
    if data.startswith(PREFACE, offset):
        return limit
    while seen < limit:
        if offset == size:
            return limit if seen else 0
        if size - offset < HEADER_BYTES:
            return seen if seen > proof else 0
        role = _plausible(data, offset)
        if role is None:
            return 0
        end = offset + _size(data, offset)
        if end > size:
            return seen if seen > proof else 0
        if role != _UNTOLD:
            proof = 0
        seen, offset = seen + 1, end
    return seen


def _size(data: bytes, offset: int) -> int:
    return HEADER_BYTES + (data[offset] << 16 | data[offset + 1] << 8 | data[offset + 2])


_UNTOLD: Final = -1


def _plausible(data: bytes, offset: int) -> int | None:
    """None: no frame header as peers write it stands at `offset`. Else who wrote the frame, where a block tells it.

    CLIENT or SERVER by the pseudo headers of a whole header block, else _UNTOLD.
    """
    size = _size(data, offset)
    kind, flags = data[offset + 3], data[offset + 4]
    stream_id = int.from_bytes(data[offset + 5 : offset + 9], "big")
    allowed = _FLAGS.get(kind)
    if allowed is None or flags & ~allowed or size > MAX_GUESSED_LENGTH or stream_id >> 31:
        return None
    if not _is_header(size - HEADER_BYTES, kind, flags, stream_id):
        return None
    if kind == DATA and not flags and size == HEADER_BYTES:
        return None  # allowed, but rows of zeros look like it
    if kind == SETTINGS and not _are_settings(data, offset + HEADER_BYTES, min(offset + size, len(data))):
        return None
    if kind != HEADERS:
        return _UNTOLD
    block = _block(data, offset, min(offset + size, len(data)), flags)
    if not block:
        return None
    if offset + size > len(data) or not flags & END_HEADERS:
        return _UNTOLD
    if read_block(block) is None:
        return None
    role = _role(block)
    return _UNTOLD if role is None else CLIENT if role else SERVER


def _are_settings(data: bytes, start: int, end: int) -> bool:
    """Whether the identifiers are registered ones or GREASE (RFC 9113, section 6.5.2)."""
    identifiers = [data[place] << 8 | data[place + 1] for place in range(start, end - 5, 6)]
    return all(0 < n <= 0x10 or n & 0x0F0F == 0x0A0A or n >> 8 == 0xFE for n in identifiers)


def _block(data: bytes, offset: int, end: int, flags: int) -> bytes:
    """The header block fragment of a HEADERS frame at `offset` that ends at `end`."""
    start = offset + HEADER_BYTES
    if flags & PADDED:
        end -= data[start] if start < end else 0
        start += 1
    return data[start + (5 if flags & HAS_PRIORITY else 0) : end]


def find_frame(data: bytes, offset: int) -> int:
    """The next index at which a chain of frames (or the preface) begins, or -1."""
    preface = data.find(PREFACE, offset)
    found = _CANDIDATE.search(data, offset)
    while found is not None:
        place = found.start()
        if 0 <= preface <= place:
            return preface
        if chain_length(data, place):
            return place
        found = _CANDIDATE.search(data, place + 1)
    return preface


# ---- detection ---------------------------------------------------------------------------------------------


def detect(sample: Sample) -> float:
    """The preface; or, mid-stream, chains of frames whose header blocks tell requests from responses."""
    if sample.datagrams:
        return 0.0
    if sample.client.startswith(PREFACE):
        return 0.99 if not sample.server or chain_length(sample.server, 0, 1) else 0.6
    if sample.from_start and sample.client:
        return 0.0
    if sample.from_start and sample.server:
        return 0.6 if chain_length(sample.server, 0, 1) and sample.server[3] == SETTINGS else 0.0
    asks, asks_told = _evidence((sample.client, *sample.client_runs), CLIENT)
    answers, answers_told = _evidence((sample.server, *sample.server_runs), SERVER)
    if asks < 0 or answers < 0 or (sample.client and not asks) or (sample.server and not answers):
        return 0.0
    if asks_told and answers_told:
        return 0.9
    if asks_told or answers_told:
        return 0.75
    # Streams that were open before: DATA, window updates and pings only.
    aligned = _are_aligned(sample.client_runs) and _are_aligned(sample.server_runs)
    return 0.6 if aligned and asks + answers >= MIN_UNTOLD_FRAMES else 0.3


def _are_aligned(runs: list[bytes]) -> bool:
    """Whether most socket calls and segments begin with a frame, as peers that flush whole frames send them."""
    return sum(chain_length(run, 0) > 0 for run in runs) * 2 > len(runs)


def _evidence(runs: tuple[bytes, ...], side: Side) -> tuple[int, bool]:
    """(frames in unbroken chains of one side, whether a header block proves the role).

    -1: a run is broken off by something that is no frame, or a block proves the other role.
    """
    frames, told = 0, False
    for run in runs:
        place = 0 if len(run) >= HEADER_BYTES and chain_length(run, 0) else find_frame(run, 0) if run else -1
        if place < 0:
            continue
        seen = 0
        while len(run) - place >= HEADER_BYTES and seen < MAX_DETECT_FRAMES:
            if run.startswith(PREFACE, place):
                place += len(PREFACE)
                continue
            role = _plausible(run, place)
            if role is None or role == 1 - side:
                return -1, False
            told = told or role == side
            seen += 1
            place += _size(run, place)
        frames += seen
    return frames, told


def _role(block: bytes) -> bool | None:
    """Whether a header block is a request's (True), a response's (False); None: it does not tell."""
    for instruction in read_block(block) or ():
        index = instruction[1] if instruction[0] == INDEXED or not instruction[2] else 0
        name = STATIC[index - 1][0] if 0 < index <= len(STATIC) else instruction[2]
        if name == ":status":
            return False
        if name in (":method", ":path", ":scheme", ":authority"):
            return True
    return None
