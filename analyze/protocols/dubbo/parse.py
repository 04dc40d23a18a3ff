"""Dubbo 2 messages from bytes: a header of 16 bytes, a body in one of many serialisations."""

from __future__ import annotations

import json
import re
from struct import Struct
from typing import Any, Final

from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed, Sample
from kubetape.analyze.protocols.dubbo.hessian import ClassOf, Hessian, HessianError, count_arguments
from kubetape.analyze.protocols.dubbo.types import JSON_LINES, OK, SERIALISATIONS, STATUSES, Call, Reply

MAGIC: Final = b"\xda\xbb"
HEADER_BYTES: Final = 16
MAX_BODY_BYTES: Final = 1 << 28  # `payload` is 8 MiB unless raised
_READ_BYTES: Final = 1 << 18  # of a body, what is looked at
_HEADER: Final = Struct(">2sBBqI")

_REQUEST, _TWO_WAY, _EVENT = 0x80, 0x40, 0x20
# A Java interface: three words at least, the last of them capitalised.
_INTERFACE: Final = re.compile(rb"[a-z]\w{0,63}(?:\.\w{1,64}){1,16}\.[A-Z]\w{0,128}")


def header_fits(data: bytes, offset: int) -> bool:
    """Whether a message's header stands at data[offset]."""
    if len(data) - offset < HEADER_BYTES:
        return False
    magic, flags, status, _, size = _HEADER.unpack_from(data, offset)
    if magic != MAGIC or size > MAX_BODY_BYTES or flags & 0x1F not in SERIALISATIONS:
        return False
    return status == 0 if flags & _REQUEST else status in STATUSES and not flags & _TWO_WAY


def parse_message(data: bytes, offset: int) -> Parsed:
    """(size, Call) or (size, Reply)."""
    if not header_fits(data, offset):
        rest = data[offset : offset + HEADER_BYTES]
        return CUT if len(rest) < HEADER_BYTES and rest.startswith(MAGIC[: len(rest)]) else INVALID
    _, flags, status, call_id, size = _HEADER.unpack_from(data, offset)
    start = offset + HEADER_BYTES
    end = min(start + size, len(data), start + _READ_BYTES)
    kind = flags & 0x1F
    if flags & _REQUEST:
        return HEADER_BYTES + size, _call(call_id, flags, kind, data, start, end)
    reply = Reply(call_id, status, bool(flags & _EVENT))
    if not reply.event:
        _read_reply(reply, kind, data, start, end)
    return HEADER_BYTES + size, reply


def find_message(data: bytes, offset: int) -> int:
    """Where a header stands, and another behind its body if those bytes are there; -1."""
    place = data.find(MAGIC, offset)
    while place >= 0:
        if header_fits(data, place):
            following = place + HEADER_BYTES + int.from_bytes(data[place + 12 : place + 16], "big")
            if following + HEADER_BYTES > len(data) or header_fits(data, following):
                return place
        place = data.find(MAGIC, place + 1)
    return -1


# ---- requests ----------------------------------------------------------------------------------------------------


def _call(call_id: int, flags: int, kind: int, data: bytes, start: int, end: int) -> Call:
    event = None
    if flags & _EVENT:
        # ReadOnlyEvent is the one event with content.
        event = "readonly" if b"R" in data[start : min(end, start + 8)] else "heartbeat"
    call = Call(call_id, bool(flags & _TWO_WAY), event, SERIALISATIONS[kind])
    if event is not None:
        return call
    if kind in (2, 10):
        _read_hessian(call, Hessian(data, start, end))
    elif kind in JSON_LINES:
        _read_lines(call, data[start:end])
    elif found := _INTERFACE.search(data, start, min(end, start + 512)):
        call.interface, call.guessed = read_name(found[0]), True
    return call


def _read_hessian(call: Call, reader: Hessian) -> None:
    """DubboCodec.encodeRequestData: version, path, version of the service, method, types, arguments, attachments."""
    try:
        call.dubbo_version = reader.string()
        call.interface = _clean(reader.string())
        call.version = _clean(reader.string())
        call.method = _clean(reader.string())
        call.types = _clean(reader.string())
        for _ in range(count_arguments(call.types)):
            reader.value()
        _attach(call, reader.value())
    except HessianError:
        return


def _read_lines(call: Call, body: bytes) -> None:
    """The JSON serialisations write one value per line."""
    lines = body.split(b"\n")
    values = [_json(line) for line in lines[:5]]
    names = ("dubbo_version", "interface", "version", "method", "types")
    for name, value in zip(names, values, strict=False):
        if isinstance(value, str):
            setattr(call, name, _clean(value))
    for line in reversed(lines[5:]):
        if line.strip():
            _attach(call, _json(line))
            break


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _attach(call: Call, found: Any) -> None:
    if isinstance(found, dict):
        for key, value in list(found.items())[:256]:
            if isinstance(key, str) and isinstance(value, str | int | float):
                call.attachments[key] = str(value)[:1024]


def _clean(text: str) -> str:
    return read_name(text.encode("utf-8", "backslashreplace"))


# ---- replies -----------------------------------------------------------------------------------------------------


def _read_reply(reply: Reply, kind: int, data: bytes, start: int, end: int) -> None:
    """A status of its own brings a message; status 20 a flag that says whether a value or an exception follows."""
    if kind in JSON_LINES:
        lines = data[start:end].split(b"\n")
        first = _json(lines[0])
        if reply.status != OK:
            reply.message = _message(first)
        elif first in (0, 3) and len(lines) > 1:
            _thrown(reply, _json(lines[1]))
        return
    if kind not in (2, 10):
        return
    reader = Hessian(data, start, end)
    try:
        first = reader.value()
        if reply.status != OK:
            reply.message = _message(first)
        elif first in (0, 3) and first is not False:
            reply.exception = "exception"
            if reader.place < end and data[reader.place] == 0x43:
                # The class is known even where the object itself is cut.
                name = Hessian(data, reader.place + 1, end).string()
                reply.exception = _clean(name)
            _thrown(reply, reader.value())
    except HessianError:
        return


def _message(value: Any) -> str | None:
    return read_text(value.encode("utf-8", "backslashreplace"), 1024) if isinstance(value, str) and value else None


def _thrown(reply: Reply, value: Any) -> None:
    reply.exception = reply.exception or "exception"
    if isinstance(value, ClassOf):
        reply.exception = _clean(value.name)
    if isinstance(value, dict):
        reply.message = _message(value.get("detailMessage") or value.get("message"))
        if isinstance(named := value.get("@type"), str):
            reply.exception = _clean(named)


# ---- detection ---------------------------------------------------------------------------------------------------


def detect(sample: Sample) -> float:
    """Headers on both sides, each followed by the next; requests from the client."""
    asked = _seen(sample.client, sample.client_runs)
    answered = _seen(sample.server, sample.server_runs)
    if asked < 0 or answered < 0 or not (asked or answered):
        return 0.0
    # Either side may send heartbeats: the first message that is none tells who is the client.
    if asked and answered:
        return 0.97 if _asks(sample.client) is not False and _asks(sample.server) is not True else 0.92
    return 0.85 if _asks(sample.client) or _asks(sample.server) is False else 0.7


def _seen(first: bytes, runs: list[bytes]) -> int:
    if not first:
        return 0
    if header_fits(first, 0) or any(header_fits(run, 0) for run in runs):
        return 1
    place = find_message(first, 1)
    return 1 if place >= 0 else -1


def _asks(first: bytes) -> bool | None:
    """Whether the first message that is no event asks (True) or answers (False)."""
    place = find_message(first, 0)
    while place >= 0 and header_fits(first, place):
        flags = first[place + 2]
        if not flags & _EVENT:
            return bool(flags & _REQUEST)
        place += HEADER_BYTES + int.from_bytes(first[place + 12 : place + 16], "big")
    return None
