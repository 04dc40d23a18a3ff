"""Kafka's frames from bytes: a size of 4 bytes, then a header (protocol guide, "Network", "Protocol Messages")."""

from __future__ import annotations

import re
from collections.abc import Callable
from struct import Struct
from typing import Final

from kubetape.analyze.protocols.common.text import read_name
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed
from kubetape.analyze.protocols.kafka.apis import APIS, CONTROLLED_SHUTDOWN
from kubetape.analyze.protocols.kafka.schema import Found, ShortError, plan_of, read_message, skip_tags
from kubetape.analyze.protocols.kafka.types import RequestFrame, ResponseFrame

MAX_FRAME_BYTES: Final = 1 << 29  # socket.request.max.bytes is 100 MiB; fetches of replicas may be larger
MAX_KEY: Final = 255  # APIs of the future
MAX_VERSION: Final = 63
MAX_CLIENT_ID_BYTES: Final = 256
MIN_REQUEST_BYTES: Final = 8

_REQUEST: Final = Struct(">ihhi")
_RESPONSE: Final = Struct(">ii")
# Size below 2^29, a known API, a known version: where to look closer.
_NEXT_REQUEST: Final = re.compile(rb"(?=[\x00-\x1f][\x00-\xff]{3}\x00[\x00-\x5c]\x00[\x00-\x12])")
_NEXT_RESPONSE: Final = re.compile(rb"(?=[\x00-\x1f][\x00-\xff]{7})")


def parse_request(data: bytes, offset: int) -> Parsed:
    """The request at data[offset]."""
    here = len(data) - offset
    if here < 12:
        return CUT if _fits_so_far(data, offset) else INVALID
    size, key, version, correlation_id = _REQUEST.unpack_from(data, offset)
    if not (MIN_REQUEST_BYTES <= size <= MAX_FRAME_BYTES and 0 <= key <= MAX_KEY and 0 <= version <= MAX_VERSION):
        return INVALID
    body = offset + 12
    client_id = None
    api = APIS.get(key)
    if not (key == CONTROLLED_SHUTDOWN and version == 0):
        if here < 14:
            return size + 4, RequestFrame(key, version, correlation_id, None, data, len(data), offset + 4 + size)
        length = int.from_bytes(data[body : body + 2], "big", signed=True)
        body += 2
        if length < -1 or length > min(MAX_CLIENT_ID_BYTES, size - 10):
            return INVALID
        if length >= 0:
            client_id = read_name(data[body : body + length])
            if not client_id.isprintable() or "\\x" in client_id:
                return INVALID
            body += length
    end = offset + 4 + size
    if api is not None and version >= api.flexible:
        try:
            body = skip_tags(data, body, min(end, len(data)))
        except ShortError:
            if end <= len(data):
                return INVALID
            body = len(data)
    return size + 4, RequestFrame(key, version, correlation_id, client_id, data, body, end)


def parse_response(data: bytes, offset: int) -> Parsed:
    """The response at data[offset]."""
    if len(data) - offset < 8:
        return CUT
    size, correlation_id = _RESPONSE.unpack_from(data, offset)
    if not 4 <= size <= MAX_FRAME_BYTES:
        return INVALID
    return size + 4, ResponseFrame(correlation_id, data, offset + 8, offset + 4 + size)


def read_request(frame: RequestFrame) -> Found | None:
    """What the request says; None: this API's or version's layout is not known."""
    plan = plan_of(frame.key, frame.version, False)
    if plan is None:
        return None
    return read_message(plan, frame.version >= APIS[frame.key].flexible, frame.data, frame.body, frame.end)


def read_response(frame: ResponseFrame, key: int, version: int, header_tags: bool) -> Found | None:
    """What the response to a request of this API and version says."""
    plan = plan_of(key, version, True)
    if plan is None:
        return None
    body = frame.body
    flexible = version >= APIS[key].flexible
    if flexible and header_tags:
        try:
            body = skip_tags(frame.data, body, min(frame.end, len(frame.data)))
        except ShortError:
            return None
    return read_message(plan, flexible, frame.data, body, frame.end)


def find_request(data: bytes, offset: int, may_be_cut: bool = True) -> int:
    """Where a request stands that fits its layout, or is followed by another; -1."""
    for found in _NEXT_REQUEST.finditer(data, offset):
        place = found.start()
        if is_request(data, place, may_be_cut):
            return place
    return -1


def is_request(data: bytes, offset: int, may_be_cut: bool = True) -> bool:
    """Whether a request of a known API stands there, by its layout to the last byte or by the one behind it.

    may_be_cut: also one whose end is not there, where it names its client.
    """
    parsed = parse_request(data, offset)
    if not isinstance(parsed, tuple):
        return False
    size, frame = parsed
    api = APIS.get(frame.key)
    if api is None or frame.version > api.latest:
        return False
    end = offset + size
    if end > len(data):
        return may_be_cut and bool(frame.client_id) and len(data) - offset > 16
    found = read_request(frame)
    if found is not None:
        return found.complete and found.end in (-1, end) and (bool(frame.client_id) or _names_something(found))
    follower = parse_request(data, end)
    return bool(frame.client_id) and (end == len(data) or isinstance(follower, tuple))


def _names_something(found: Found) -> bool:
    return any(isinstance(value, str) and value for values in found.values.values() for value in values)


def find_response(data: bytes, offset: int, is_asked: Callable[[int], bool]) -> int:
    """Where a response to a known correlation id stands, and behind it another or the end of the bytes; -1."""
    for found in _NEXT_RESPONSE.finditer(data, offset):
        place = found.start()
        size, correlation_id = _RESPONSE.unpack_from(data, place)
        if size < 4 or not is_asked(correlation_id):
            continue
        end = place + 4 + size
        if end + 8 > len(data) or is_asked(int.from_bytes(data[end + 4 : end + 8], "big", signed=True)):
            return place
    return -1


def _fits_so_far(data: bytes, offset: int) -> bool:
    rest = data[offset:]
    return rest[:1] <= b"\x1f" and rest[4:5] in (b"", b"\0") and rest[6:7] in (b"", b"\0")
