"""WebSocket frames in bytes (RFC 6455, section 5.2): the client's are masked, the server's are not."""

from __future__ import annotations

from typing import Final

from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.contract import CLIENT, CUT, INVALID, SERVER, Outcome, Sample, Side
from kubetape.analyze.protocols.websocket.types import CLOSE, NAMES, TEXT, Frame

MAX_LENGTH: Final = 1 << 40  # RFC 6455 allows 2**63; a real message of a terabyte does not exist
# Frames that must follow each other before a place is believed to be a boundary. A header fits random bytes
# in about one of 40 cases; a text payload, also checked, in far fewer.
CHAIN = 3
MIN_DETECTED_TEXT = 8
DETECTED_FRAMES = 4  # on each side, where payloads are binary and prove nothing


def _header(data: bytes, offset: int) -> tuple[int, int, int] | Outcome:
    """(header size, payload length, offset of the mask or 0) of the frame header at `offset`."""
    size = len(data) - offset
    if size < 2:
        return CUT
    first, second = data[offset], data[offset + 1]
    if (first & 15) not in NAMES and first & 15 != 0:
        return INVALID
    if first & 0x30 or (first & 8 and (not first & 0x80 or second & 127 > 125 or first & 0x40)):
        return INVALID
    length, header = second & 127, 2
    if length == 126:
        if size < 4:
            return CUT
        length, header = int.from_bytes(data[offset + 2 : offset + 4], "big"), 4
        if length < 126:
            return INVALID  # the shortest form is a must
    elif length == 127:
        if size < 10:
            return CUT
        length, header = int.from_bytes(data[offset + 2 : offset + 10], "big"), 10
        if not 65536 <= length < MAX_LENGTH:
            return INVALID
    if second & 128:
        return header + 4, length, offset + header
    return header, length, 0


def read_frame(data: bytes, offset: int) -> tuple[int, Frame] | Outcome:
    """(size, Frame) of the frame at `offset`; the size counts payload bytes that were not captured."""
    header = _header(data, offset)
    if isinstance(header, Outcome):
        return header
    header_size, length, mask = header
    first = data[offset]
    frame = Frame(first & 15, first >= 128, first & 0x40 != 0, length)
    if frame.opcode == CLOSE and length >= 2:
        payload = _unmasked(data, offset + header_size, length, mask)
        if len(payload) >= 2:
            frame.code = int.from_bytes(payload[:2], "big")
            frame.reason = read_text(payload[2:])
    return header_size + length, frame


def _unmasked(data: bytes, start: int, length: int, mask: int) -> bytes:
    payload = data[start : start + length]
    if not mask:
        return payload
    key = data[mask : mask + 4]
    return bytes(byte ^ key[n & 3] for n, byte in enumerate(payload))


def is_chain(data: bytes, offset: int, side: Side, count: int = CHAIN) -> bool:
    """Whether frames masked as this side must begin at `offset`: `count` of them, or as many as end with the data."""
    seen = 0
    while seen < count:
        if offset == len(data):
            return seen > 0
        header = _header(data, offset)
        if isinstance(header, Outcome):
            return False
        header_size, length, mask = header
        if (mask != 0) != (side == CLIENT):
            return False
        end = offset + header_size + length
        if data[offset] == 0x80 | TEXT and not _is_text(data, offset + header_size, length, mask):
            return False
        if end > len(data):
            return seen > 0
        offset, seen = end, seen + 1
    return True


def _is_text(data: bytes, start: int, length: int, mask: int) -> bool:
    """Whether the beginning of a payload is UTF-8 without control characters."""
    text = _unmasked(data, start, min(length, 64), mask)
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(text) - 3:
            return False
        decoded = text[: error.start].decode("utf-8")
    return not any(c < " " and c not in "\t\r\n" for c in decoded)


def find_frame(data: bytes, offset: int, side: Side) -> int:
    """The next index at which a chain of frames begins, or -1."""
    for place in range(offset, len(data) - 1):
        if data[place] & 0x30 == 0 and (data[place + 1] >= 128) == (side == CLIENT) and is_chain(data, place, side):
            return place
    return -1


def detect(sample: Sample) -> float:
    """After an upgrade the http1 decoder hands over; alone only a start mid-stream, by chains of whole frames."""
    if sample.from_start or sample.datagrams:
        return 0.0
    client = [_frames(run, CLIENT) for run in (sample.client, *sample.client_runs) if run]
    server = [_frames(run, SERVER) for run in (sample.server, *sample.server_runs) if run]
    # The first run may begin anywhere; the later ones are beginnings of socket calls or segments.
    client_frames, client_texts = _evidence(client)
    server_frames, server_texts = _evidence(server)
    if client_texts and server_texts:
        return 0.7
    few = min(client_frames, server_frames)
    if few >= DETECTED_FRAMES or (few >= 2 and client_frames + server_frames >= 2 * DETECTED_FRAMES):
        return 0.6
    if few and max(client_texts, server_texts) >= 2:
        return 0.6
    if client_frames and server_frames and all(_closes(run) for run in (sample.client, sample.server)):
        return 0.6
    if max(client_texts, server_texts) >= 2:
        return 0.55 if not (client and server) else 0.3
    return 0.0


def _closes(data: bytes) -> bool:
    """Whether a run is one close frame (RFC 6455, section 5.5.1)."""
    return data[:1] == b"\x88" and len(data) == 2 + (data[1] & 127) + 4 * (data[1] >> 7)


def _evidence(runs: list[tuple[int, int]]) -> tuple[int, int]:
    """(frames, texts) of the runs of one side, nothing if most of them are no frames."""
    good = [run for run in runs if run[0]]
    if len(good) * 2 < len(runs):
        return 0, 0
    return sum(run[0] for run in good), sum(run[1] for run in good)


def _frames(data: bytes, side: Side) -> tuple[int, int]:
    """(frames, long texts among them) of a run that is a chain of frames to its end; (0, 0): it is none."""
    offset = texts = frames = 0
    while offset < len(data) and frames < 8:
        header = _header(data, offset)
        if header is CUT and frames:
            break
        if isinstance(header, Outcome):
            return 0, 0
        if offset + header[0] + header[1] > len(data):
            break
        if not is_chain(data, offset, side, 1):
            return 0, 0
        texts += data[offset] == 0x80 | TEXT and header[1] >= MIN_DETECTED_TEXT
        offset += header[0] + header[1]
        frames += 1
    return frames, texts
