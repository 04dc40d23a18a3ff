"""RESP2 and RESP3 (redis.io/docs/latest/develop/reference/protocol-spec), and commands typed as lines."""

from __future__ import annotations

import re

from kubetape.analyze.protocols.redis.types import INLINE, Command, Value

MAX_ARGUMENTS = 64  # kept of a command; the rest is walked over
MAX_ARGUMENT_BYTES = 512  # kept of an argument
MAX_INLINE_BYTES = 65_536  # PROTO_INLINE_MAX_SIZE
MAX_BULK = 512 << 20  # proto-max-bulk-len
MAX_ELEMENTS = 1 << 24
MAX_LINE = 65_536

_SIMPLE = frozenset(b"+-:_,#(")
_BULK = frozenset(b"$!=")
_AGGREGATE = frozenset(b"*%~>|")
REPLY_TYPES = _SIMPLE | _BULK | _AGGREGATE

_ARRAY = re.compile(rb"\*(\d{1,8})\r\n")
_LENGTH = re.compile(rb"\$(\d{1,10})\r\n")
_HEAD = re.compile(rb"[$!=*%~>|](-?\d{1,10}|\?)\r\n")
_NUMBER = re.compile(rb"[+-]?\d{1,20}\Z")
_DOUBLE = re.compile(rb"[+-]?(?:inf|nan|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\Z")
_WORD = re.compile(rb"[A-Za-z][A-Za-z0-9_.\-]{0,63}\Z")


class Walk:
    """Where a command or reply that goes over a gap was left: elements still to come."""

    __slots__ = ("left", "value")

    def __init__(self) -> None:
        self.left = 0
        self.value: Value | None = None

    def reset(self) -> None:
        self.left, self.value = 0, None


def read_command(data: bytes, pos: int) -> tuple[int, Command] | bool | None:
    """(end, command) of an array of bulk strings at data[pos]; False: cut before its name; None: there is none.

    The end may lie past the data, in the first argument whose bytes are missing.
    """
    match = _ARRAY.match(data, pos)
    if match is None:
        return False if len(data) - pos < 12 and data.find(b"\r\n", pos) < 0 else None
    count = int(match[1])
    place = match.end()
    arguments: list[bytes] = []
    size = len(data)
    for number in range(count):
        length_match = _LENGTH.match(data, place)
        if length_match is None:
            if size - place < 14 and data.find(b"\r\n", place) < 0 and (place >= size or data[place] == 0x24):
                return (size, Command(arguments[0].upper(), arguments, False)) if arguments else False
            return None
        place = length_match.end()
        length = int(length_match[1])
        if length > MAX_BULK:
            return None
        stop = place + length
        if stop + 2 <= size and data[stop : stop + 2] != b"\r\n":
            return None
        if number < MAX_ARGUMENTS:
            arguments.append(data[place : stop if length <= MAX_ARGUMENT_BYTES else place + MAX_ARGUMENT_BYTES])
        place = stop + 2
        if place > size:
            return place, Command(arguments[0].upper(), arguments, number == count - 1)
    if not arguments:
        return place, Command(b"", [], True)
    return place, Command(arguments[0].upper(), arguments, True)


_INLINE_ARGUMENT = re.compile(rb"\s*(?:\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|(\S+))")


def read_inline(data: bytes, pos: int) -> tuple[int, list[bytes]] | bool | None:
    """(end, arguments) of a line; False: its end is not there; None: no printable line."""
    stop = data.find(b"\n", pos, pos + MAX_INLINE_BYTES)
    if stop < 0:
        return False if len(data) - pos < MAX_INLINE_BYTES else None
    line = data[pos:stop].rstrip(b"\r")
    if any(c < 32 and c != 9 for c in line):
        return None
    return stop + 1, [a or b or c for a, b, c in _INLINE_ARGUMENT.findall(line)]


def is_word(raw: bytes) -> bool:
    return _WORD.match(raw) is not None


def read_value(data: bytes, pos: int, walk: Walk) -> tuple[int, Value] | bool | None:
    """(end, value) of a reply at data[pos], or of the rest of the one `walk` holds.

    The end may lie past the data where a bulk string's bytes are missing; `value.done` is False then if more
    elements follow. False: cut; None: no reply.
    """
    size = len(data)
    value = walk.value
    left = walk.left if value is not None else 1
    place = pos
    fresh = value is None
    attribute = 0  # elements of an attribute (|) that precede the value
    while left:
        if place >= size:
            break
        kind = data[place]
        if kind in _BULK or kind in _AGGREGATE:
            match = _HEAD.match(data, place)
            if match is None:
                if size - place < 14 and data.find(b"\r\n", place) < 0:
                    break
                walk.reset()
                return None
            text = match[1]
            place = match.end()
            if text == b"?":
                walk.reset()
                return None  # streamed aggregates are specified, and sent by no server
            number = int(text)
            if kind in _BULK:
                if number > MAX_BULK or number < -1:
                    walk.reset()
                    return None
                body = b""
                if number >= 0:
                    stop = place + number
                    if stop + 2 <= size and data[stop : stop + 2] != b"\r\n":
                        walk.reset()
                        return None
                    body = data[place : min(stop, place + 256)]
                    place = stop + 2
                if value is None:
                    value = Value(kind, body if number >= 0 else b"-1")
                    value.count = number
                else:
                    _element(value, kind, body)
                left -= 1
            else:
                if number > MAX_ELEMENTS or number < -1:
                    walk.reset()
                    return None
                children = max(0, number) * (2 if kind in b"%|" else 1)
                if kind == 0x7C:
                    attribute += children
                    left += children
                    continue
                if value is None or (attribute and value.kind == 0x7C):
                    value = Value(kind, text)
                    value.count = number
                left += children - 1
        elif kind in _SIMPLE:
            stop = data.find(b"\r\n", place, place + MAX_LINE)
            if stop < 0:
                if size - place >= MAX_LINE:
                    walk.reset()
                    return None
                break
            text = data[place + 1 : stop]
            if not _line_fits(kind, text):
                walk.reset()
                return None
            place = stop + 2
            if value is None and not attribute:
                value = Value(kind, text)
            elif value is not None:
                _element(value, kind, text)
            left -= 1
            attribute = max(0, attribute - 1)
        else:
            walk.reset()
            return None
    if value is None or (fresh and place == pos):
        return False
    if place == pos:
        return False
    value.done = not left
    walk.left, walk.value = left, value if left else None
    return place, value


def _element(value: Value, kind: int, text: bytes) -> None:
    if value.first is None:
        value.first = text
    elif value.second is None:
        value.second = text
    if kind in b"-!":
        value.errors += 1


def _line_fits(kind: int, text: bytes) -> bool:
    if kind == 0x3A:
        return _NUMBER.match(text) is not None
    if kind == 0x5F:
        return not text
    if kind == 0x23:
        return text in (b"t", b"f")
    if kind == 0x2C:
        return _DOUBLE.match(text) is not None
    if kind == 0x28:
        return text.lstrip(b"+-").isdigit()
    return b"\0" not in text


_COMMAND_START = re.compile(rb"\*[1-9]\d{0,7}\r\n\$[1-9]\d{0,2}\r\n[A-Za-z]")
_REPLY_START = re.compile(rb"(?<=\r\n)(?:[+\-:,(][^\r\n]|[$!=*%~>|](?:-1|\d{1,10})\r\n|_\r\n|#[tf]\r\n)")


def command_at(data: bytes, pos: int) -> bool:
    """Whether a plausible command begins at data[pos]: an array whose first string is a word, or a known line."""
    if pos >= len(data):
        return False
    if data[pos] == 0x2A:
        got = read_command(data, pos)
        return isinstance(got, tuple) and bool(got[1].arguments) and is_word(got[1].arguments[0])
    line = read_inline(data, pos)
    return isinstance(line, tuple) and bool(line[1]) and line[1][0].upper() in INLINE


def find_command(data: bytes, pos: int) -> int:
    """The next array that is a plausible command; -1: none."""
    for match in _COMMAND_START.finditer(data, pos):
        got = read_command(data, match.start())
        if isinstance(got, tuple) and (got[0] >= len(data) or data[got[0] : got[0] + 1] in (b"*", b"\r", b"\n")):
            return match.start()
    return -1


def reply_at(data: bytes, pos: int) -> bool:
    """Whether a reply begins at data[pos], followed by another or by the end of the data."""
    got = read_value(data, pos, Walk())
    return isinstance(got, tuple) and (got[0] >= len(data) or data[got[0]] in REPLY_TYPES)


MAX_TRIES = 4096  # places tried in one run: each may walk far


def find_reply(data: bytes, pos: int) -> int:
    """The next place where replies follow one another; -1: none."""
    if pos < len(data) and data[pos] in REPLY_TYPES and reply_at(data, pos):
        return pos
    for number, match in enumerate(_REPLY_START.finditer(data, pos)):
        if number >= MAX_TRIES:
            break
        if reply_at(data, match.start()):
            return match.start()
    return -1
