"""OpenWire commands from bytes: length, type, common fields in loose or tight encoding, the rest as bytes.

Sources: activemq.apache.org "OpenWire version 2 specification", BooleanStream and BaseCommandMarshaller of ActiveMQ.
"""

from __future__ import annotations

import re
from typing import Final

from kubetape.analyze.protocols.common.text import read_name
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed, Sample
from kubetape.analyze.protocols.openwire.types import (
    DESTINATIONS,
    EXCEPTION_RESPONSE,
    NAMES,
    RESPONSES,
    WIREFORMAT_INFO,
    Command,
)

PORTS: Final = frozenset({61616})
MAX_FRAME_BYTES: Final = 104_857_600  # wireFormat.maxFrameSize of ActiveMQ
BODY_BYTES: Final = 2048  # of a command: its ids and destination stand in front
_MAGIC: Final = b"ActiveMQ"
_TIGHT: Final = re.compile(rb"TightEncodingEnabled\x01(.)", re.S)
# Destination: its type (with the mark "not null" before it in the loose encoding), its name with 16 bits of length.
_LOOSE_NAME: Final = re.compile(rb"\x01([\x64-\x67])\x01([\x00-\x03][\x01-\xff])", re.S)
_TIGHT_NAME: Final = re.compile(rb"([\x64-\x67])([\x00-\x03][\x01-\xff])", re.S)
_NEXT: Final = re.compile(rb"(?=[\x00-\x06][\x00-\xff]{3}[\x01-\x0c\x0e-\x22])", re.S)
_TEXT: Final = re.compile(rb"[\x00-\x0f]([\x04-\xff])([\x20-\x7e]{4,})", re.S)


def parse_command(data: bytes, offset: int, tight: bool | None) -> Parsed:
    """The command at data[offset]. tight: the encoding agreed on; None: not known, the bytes decide."""
    if len(data) - offset < 5:
        return CUT
    size = int.from_bytes(data[offset : offset + 4], "big")
    kind = data[offset + 4]
    if not 1 <= size <= MAX_FRAME_BYTES or kind not in NAMES:
        return INVALID
    end = min(len(data), offset + 4 + size)
    body = data[offset + 5 : min(end, offset + 5 + BODY_BYTES)]
    if kind == WIREFORMAT_INFO:
        return _parse_wireformat(body, size)
    encodings = (_read_loose, _read_tight) if tight is None else (_read_tight,) if tight else (_read_loose,)
    for read in encodings:
        command = read(kind, body)
        if command is not None:
            return size + 4, command
    return CUT if len(body) < min(size - 1, 16) else INVALID


def _parse_wireformat(body: bytes, size: int) -> Parsed:
    if not body.startswith(_MAGIC[: len(body)]):
        return INVALID
    offered = _TIGHT.search(body)
    version = int.from_bytes(body[8:12], "big")
    return size + 4, Command(
        WIREFORMAT_INFO, -1, -1, False, body[12:], offered[1] != b"\x00" if offered else None, version
    )


def _read_loose(kind: int, body: bytes) -> Command | None:
    """Loose: command id, whether a response is required, and of responses the id of what they answer."""
    if len(body) < 5 or body[4] > 1 or body[0] > 0x3F:
        return None
    number = int.from_bytes(body[:4], "big")
    if kind not in RESPONSES:
        return Command(kind, number, -1, body[4] == 1, body[5:])
    if len(body) < 9 or body[4]:
        return None
    return Command(kind, number, int.from_bytes(body[5:9], "big"), False, body[9:])


def _read_tight(kind: int, body: bytes) -> Command | None:
    """Tight: the booleans of all fields first (length, bits; the first is "response required"), then the numbers."""
    if not body:
        return None
    count, place = body[0], 1
    if count == 0xC0:
        count, place = body[1] if len(body) > 1 else 0, 2
    elif count == 0x80:
        count, place = int.from_bytes(body[1:3], "big"), 3
    elif count > 0x3F:
        return None
    start = place + count
    if not count or len(body) < start + 4 or body[start] > 0x3F:
        return None
    number = int.from_bytes(body[start : start + 4], "big")
    required = bool(body[place] & 1)
    if kind not in RESPONSES:
        return Command(kind, number, -1, required, body[start + 4 :])
    if len(body) < start + 8:
        return None
    return Command(kind, number, int.from_bytes(body[start + 4 : start + 8], "big"), False, body[start + 8 :])


def find_command(data: bytes, offset: int, tight: bool | None) -> int:
    """Where a chain of two commands, or one that ends the bytes, stands; -1."""
    for found in _NEXT.finditer(data, offset):
        if is_chain(data, found.start(), tight):
            return found.start()
    return -1


def is_chain(data: bytes, offset: int, tight: bool | None) -> bool:
    """Whether a command stands there and is followed by another or by the end of the bytes."""
    first = parse_command(data, offset, tight)
    if not isinstance(first, tuple):
        return False
    following = offset + first[0]
    if following == len(data):
        return True
    return following < len(data) and isinstance(parse_command(data, following, tight), tuple)


def read_destination(body: bytes) -> tuple[str, str] | None:
    """(kind, name) of the first destination in a command's bytes: 'queue' or 'topic', and its name."""
    for pattern in (_LOOSE_NAME, _TIGHT_NAME):
        for found in pattern.finditer(body):
            size = int.from_bytes(found[2], "big")
            raw = body[found.end() : found.end() + size]
            if len(raw) == size and raw.isascii() and raw.decode("ascii").isprintable():
                return DESTINATIONS[found[1][0]], read_name(raw)
    return None


def read_error(command: Command) -> str | None:
    """Class and message of an ExceptionResponse: its first two strings."""
    if command.kind != EXCEPTION_RESPONSE:
        return None
    texts = []
    for found in _TEXT.finditer(command.body):
        size = found[1][0]
        if size <= len(found[2]):
            texts.append(read_name(found[2][:size]))
    return ": ".join(texts[:2]) or None


def detect(sample: Sample) -> float:
    """WireFormatInfo with its magic on either side; mid-stream chains of commands on both."""
    sides = (sample.client, sample.server)
    magic = [side[4:13] == b"\x01" + _MAGIC for side in sides]
    if all(magic):
        return 0.98
    if any(magic):
        return 0.9
    chains = [
        any(len(head) > 9 and is_chain(head, 0, None) for head in heads)
        for heads in ([sample.client, *sample.client_runs], [sample.server, *sample.server_runs])
    ]
    if sample.from_start or not all(chains):
        return 0.2 if any(chains) else 0.0
    return 0.75
