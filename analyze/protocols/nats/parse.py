"""NATS commands from bytes (client protocol reference): a line ended by CRLF, after some of them a payload."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Final

from kubetape.analyze.protocols.common.text import cut_text, read_text
from kubetape.analyze.protocols.common.trace import CARRIERS
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed
from kubetape.analyze.protocols.nats.types import Command

MAX_LINE_BYTES: Final = 1 << 16  # max_control_line is 4 KiB; INFO of large clusters is longer
MAX_PAYLOAD_BYTES: Final = 1 << 26  # the server allows at most 64 MiB
MAX_HEADER_LINES: Final = 256

_SUBJECT: Final = rb"[^\s\x00-\x1f\x7f]{1,1024}"
_GAP: Final = rb"[ \t]+"
_LINE: Final = re.compile(
    rb"(?:(INFO|CONNECT)[ \t]*(\{[^\r\n]*\}?)"
    rb"|(PUB)" + _GAP + _SUBJECT + rb"(?:" + _GAP + _SUBJECT + rb")?" + _GAP + rb"\d{1,9}"
    rb"|(HPUB)" + _GAP + _SUBJECT + rb"(?:" + _GAP + _SUBJECT + rb")?" + _GAP + rb"\d{1,9}" + _GAP + rb"\d{1,9}"
    rb"|(MSG)" + _GAP + _SUBJECT + _GAP + rb"[!-~]{1,64}(?:" + _GAP + _SUBJECT + rb")?" + _GAP + rb"\d{1,9}"
    rb"|(HMSG)" + _GAP + _SUBJECT + _GAP + rb"[!-~]{1,64}(?:" + _GAP + _SUBJECT + rb")?" + _GAP + rb"\d{1,9}"
    + _GAP + rb"\d{1,9}"
    rb"|(SUB)" + _GAP + _SUBJECT + rb"(?:" + _GAP + _SUBJECT + rb")?" + _GAP + rb"[!-~]{1,64}"
    rb"|(UNSUB)" + _GAP + rb"[!-~]{1,64}(?:" + _GAP + rb"\d{1,19})?"
    rb"|(PING|PONG|\+OK)"
    rb"|(-ERR)[ \t]*([^\r\n]{0,1024}))[ \t]*\r\n",
    re.IGNORECASE,
)  # fmt: skip
_WORDS: Final = rb"(?:INFO|CONNECT|H?PUB|H?MSG|UNSUB|SUB|-ERR)[ \t]|(?:PING|PONG|\+OK)[ \t]*\r\n"
_VERB: Final = re.compile(_WORDS, re.IGNORECASE)
_NEXT: Final = re.compile(rb"\r\n(?=" + _WORDS + rb")", re.IGNORECASE)
_BEGINNINGS: Final = (b"INFO ", b"CONNECT ", b"PUB ", b"HPUB ", b"MSG ", b"HMSG ", b"SUB ", b"UNSUB ", b"PING\r\n")
_BEGINNINGS_2: Final = (b"PONG\r\n", b"+OK\r\n", b"-ERR ")


def parse_command(data: bytes, offset: int) -> Parsed:
    """The command at data[offset]."""
    found = _LINE.match(data, offset)
    if found is None:
        return CUT if _may_begin(data, offset) else INVALID
    line = data[offset : found.end() - 2]
    verb = line.split(None, 1)[0].upper().decode("ascii")
    if verb.startswith(("INFO{", "CONNECT{")):
        verb = verb.partition("{")[0]
    size = found.end() - offset
    if verb in ("INFO", "CONNECT"):
        return size, Command(verb, [], line[line.find(b"{") :].decode("utf-8", "replace"), data, (0, 0), 0)
    if verb == "-ERR":
        return size, Command(verb, [], read_text(found[11] or b"").strip(), data, (0, 0), 0)
    words = [read_text(word, 1024) for word in line.split()[1:]]
    if verb not in ("PUB", "HPUB", "MSG", "HMSG"):
        return size, Command(verb, words, "", data, (0, 0), 0)
    total = int(words[-1])
    header = int(words[-2]) if verb[0] == "H" else 0
    if total > MAX_PAYLOAD_BYTES or header > total:
        return INVALID
    end = found.end() + total + 2
    if end <= len(data) and data[end - 2 : end] != b"\r\n":
        return INVALID
    start = found.end()
    return end - offset, Command(verb, words, "", data, (start, start + header) if header else (0, 0), total - header)


def find_command(data: bytes, offset: int) -> int:
    """Where a command stands whose follower is one too, or that ends the bytes; -1."""
    for place in chain((offset,), _places(data, offset)):
        parsed = parse_command(data, place)
        if not isinstance(parsed, tuple):
            continue
        behind = place + parsed[0]
        if behind >= len(data) or _VERB.match(data, behind) or _may_begin(data, behind):
            return place
    return -1


def _places(data: bytes, offset: int) -> Iterator[int]:
    return (found.end() for found in _NEXT.finditer(data, offset))


def _may_begin(data: bytes, offset: int) -> bool:
    """The bytes end within what could still be a line of a command."""
    if data.find(b"\n", offset, offset + MAX_LINE_BYTES) >= 0 or len(data) - offset > MAX_LINE_BYTES:
        return False
    rest = data[offset : offset + 8].upper()
    return any(rest[: len(b)] == b[: len(rest)] for b in (*_BEGINNINGS, *_BEGINNINGS_2))


def read_headers(command: Command) -> tuple[str, dict[str, str]]:
    """(status of the first line or "", headers that may carry a trace): ADR-4 of the NATS architecture."""
    start, end = command.headers
    lines = command.data[start : min(end, len(command.data))].split(b"\r\n", MAX_HEADER_LINES)
    if not lines or not lines[0].startswith(b"NATS/1.0"):
        return "", {}
    carriers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        key = name.strip().lower().decode("latin-1")
        if colon and key in CARRIERS:
            carriers[key] = read_text(value.strip())
    return cut_text(read_text(lines[0][8:].strip()), 128), carriers
