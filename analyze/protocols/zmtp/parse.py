"""ZMTP frames from bytes: greeting, then flags, length, body (ZeroMQ RFC 23 section 2, RFC 37)."""

from __future__ import annotations

import re
from typing import Final

from kubetape.analyze.protocols.common.text import read_name
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed, Sample
from kubetape.analyze.protocols.zmtp.types import GREETING_BYTES, SIGNATURE_BYTES, Command, Greeting, Part

PORTS: Final = frozenset({5555, 5556})
MAX_FRAME_BYTES: Final = 1 << 32
_CHAIN: Final = 8
KEPT_BYTES: Final = 512  # of a part: enough for a topic or an envelope

_MORE, _LONG, _COMMAND = 1, 2, 4
_MECHANISM: Final = re.compile(rb"[A-Z][A-Z0-9_+-]*\x00*")
# A command frame: flags, one byte of length, length of a name, the name.
_NEXT: Final = re.compile(
    rb"\x04[\x02-\xff](?:\x05READY|\x05ERROR|\x09SUBSCRIBE|\x06CANCEL|\x04P[IO]NG|\x05HELLO|\x07WELCOME|\x08INITIATE)"
)


def parse_greeting(data: bytes, offset: int) -> Parsed:
    """The greeting at data[offset]; the version of older protocols is refused."""
    if len(data) - offset < GREETING_BYTES:
        return CUT if is_signature(data, offset) else INVALID
    mechanism = data[offset + 12 : offset + 32]
    if not is_signature(data, offset) or data[offset + 10] != 3 or not _MECHANISM.fullmatch(mechanism):
        return INVALID
    name = mechanism.rstrip(b"\x00").decode("ascii")
    return GREETING_BYTES, Greeting(f"3.{data[offset + 11]}", name, data[offset + 32] == 1)


def is_signature(data: bytes, offset: int) -> bool:
    return data[offset : offset + 1] == b"\xff" and data[offset + 9 : offset + SIGNATURE_BYTES] == b"\x7f"


def parse_frame(data: bytes, offset: int) -> Parsed:
    """The command or message part at data[offset]."""
    flags = data[offset]
    if flags > _MORE | _LONG | _COMMAND or (flags & _COMMAND and flags & _MORE):
        return INVALID
    head = 9 if flags & _LONG else 2
    if len(data) - offset < head:
        return CUT
    size = int.from_bytes(data[offset + 1 : offset + head], "big")
    if size > MAX_FRAME_BYTES:
        return INVALID
    body = data[offset + head : offset + head + min(size, KEPT_BYTES)]
    if not flags & _COMMAND:
        return head + size, Part(body, bool(flags & _MORE), size)
    length = body[0] if body else 0
    name = read_name(body[1 : 1 + length])
    if not length or 1 + length > size or not name.isascii() or not name.isalpha():
        return INVALID if body else CUT
    return head + size, Command(name, body[1 + length :])


def find_frame(data: bytes, offset: int) -> int:
    """Where the next known command stands; -1. Message parts cannot be told from their contents."""
    found = _NEXT.search(data, offset)
    return found.start() if found else -1


def chain_fits(data: bytes) -> bool:
    """Whether frames follow each other from the first byte on, to the last one or for as long as chance can not."""
    place = count = 0
    while place < len(data) and count < _CHAIN:
        parsed = parse_frame(data, place)
        if not isinstance(parsed, tuple):
            return False
        place, count = place + parsed[0], count + 1
    return place == len(data) or (count == _CHAIN and place < len(data))


def read_properties(body: bytes) -> dict[str, str]:
    """Metadata of READY and INITIATE: length of name (8 bits), name, length of value (32 bits), value."""
    properties: dict[str, str] = {}
    place = 0
    while place < len(body):
        name_end = place + 1 + body[place]
        value_end = name_end + 4 + int.from_bytes(body[name_end : name_end + 4], "big")
        if name_end + 4 > len(body):
            break
        properties[read_name(body[place + 1 : name_end])] = read_name(body[name_end + 4 : value_end])
        place = value_end
    return properties


def detect(sample: Sample) -> float:
    """The greeting on one side or both; mid-stream commands known by their names."""
    greeted = [is_signature(side, 0) and side[10:11] in (b"", b"\x03") for side in (sample.client, sample.server)]
    other = [bool(side) and not good for side, good in zip((sample.client, sample.server), greeted, strict=True)]
    if all(greeted):
        return 0.97
    named = [
        any(find_frame(head, 0) >= 0 for head in heads)
        for heads in ([sample.client, *sample.client_runs], [sample.server, *sample.server_runs])
    ]
    if any(greeted):
        # A recording that begins between the two greetings has the rest of one.
        silent = not any(other)
        return (
            0.8
            if silent or any(is_other and is_named for is_other, is_named in zip(other, named, strict=True))
            else 0.3
        )
    return 0.7 if all(named) else 0.5 if any(named) else 0.0
