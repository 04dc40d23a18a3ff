"""HTTP/2 frames in bytes (RFC 9113, section 4.1), and where a frame begins in the middle of a stream."""

from __future__ import annotations

import re
from typing import Final

from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed, Sample
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
        length = data[offset] << 16 | data[offset + 1] << 8 | data[offset + 2]
        kind, flags = data[offset + 3], data[offset + 4]
        stream_id = int.from_bytes(data[offset + 5 : offset + 9], "big")
        allowed = _FLAGS.get(kind)
        if (
            allowed is None
            or flags & ~allowed
            or length > MAX_GUESSED_LENGTH
            or stream_id >> 31
            or not _is_header(length, kind, flags, stream_id)
        ):
            return 0
        end = offset + HEADER_BYTES + length
        if kind == HEADERS:
            block = _block(data, offset, min(end, size), flags)
            if not block:
                return 0
            if end <= size and flags & END_HEADERS:
                if read_block(block) is None:
                    return 0
                if _role(block) is not None:
                    proof = 0
        if end > size:
            return seen if seen > proof else 0
        seen, offset = seen + 1, end
    return seen


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
    asks = _evidence((sample.client, *sample.client_runs), True)
    answers = _evidence((sample.server, *sample.server_runs), False)
    if asks < 0 or answers < 0:
        return 0.0
    if not sample.client or not sample.server:
        return 0.6 if max(asks, answers) >= CHAIN else 0.0
    if asks and answers and asks + answers >= CHAIN:
        return 0.8
    return 0.4 if asks or answers else 0.0


def _evidence(runs: tuple[bytes, ...], client: bool) -> int:
    """Frames in chains of one side; header blocks that prove the role count more; -1: they prove the other role."""
    frames = 0
    for run in runs:
        place = 0 if chain_length(run, 0) else find_frame(run, 0) if run else -1
        seen = 0
        while 0 <= place < len(run) and seen < MAX_DETECT_FRAMES:
            parsed = read_frame(run, place)
            if not isinstance(parsed, tuple):
                break
            size, frame = parsed
            seen += 1
            frames += 1
            if frame.kind == HEADERS and frame.whole:
                role = _role(frame.payload)
                if role is not None and role != client:
                    return -1
                frames += 2 if role is not None else 0
            place += size
    return frames


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
