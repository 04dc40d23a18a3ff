"""HPACK (RFC 7541), for a reader who may have missed the beginning.

A header block is first read into instructions, which needs no table; then the instructions are applied to the
table of their direction. Entries from before the recording, or whose place is not sure after lost bytes, are
`Unknown` values: they keep their identity, so that what is learned of one later is learned for all its uses.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.http2 import huffman

_STATIC_LINES: Final = """
    :authority
    :method GET
    :method POST
    :path /
    :path /index.html
    :scheme http
    :scheme https
    :status 200
    :status 204
    :status 206
    :status 304
    :status 400
    :status 404
    :status 500
    accept-charset
    accept-encoding gzip, deflate
    accept-language
    accept-ranges
    accept
    access-control-allow-origin
    age
    allow
    authorization
    cache-control
    content-disposition
    content-encoding
    content-language
    content-length
    content-location
    content-range
    content-type
    cookie
    date
    etag
    expect
    expires
    from
    host
    if-match
    if-modified-since
    if-none-match
    if-range
    if-unmodified-since
    last-modified
    link
    location
    max-forwards
    proxy-authenticate
    proxy-authorization
    range
    referer
    refresh
    retry-after
    server
    set-cookie
    strict-transport-security
    transfer-encoding
    user-agent
    vary
    via
    www-authenticate
""".strip().splitlines()
# RFC 7541, appendix A; index 1 is the first.
STATIC: Final[tuple[tuple[str, str], ...]] = tuple(
    (line.strip().partition(" ")[0], line.strip().partition(" ")[2]) for line in _STATIC_LINES
)

DEFAULT_TABLE_SIZE: Final = 4096
MAX_TABLE_SIZE: Final = 1 << 24  # what SETTINGS may ask for; more is an attack or no HPACK
MAX_FIELDS: Final = 1024  # of one block: servers stop at about 100
MAX_VALUE_CHARS: Final = 4096
MAX_REMEMBERED = 4096
MAX_UNKNOWN: Final = 4096  # tables of usual size hold about 100; larger indices are noise
# How many insertions may have been lost in a gap for its other side still to be searched for.
MAX_HOLE = 24

INDEXED: Final = 0  # (INDEXED, index, "", "", 0)
LITERAL: Final = 1  # (LITERAL, name index or 0, name, value, size): not put into the table
INSERT: Final = 2  # as LITERAL, and put into the table
RESIZE: Final = 3  # (RESIZE, size, "", "", 0)

# kind, index or size, name, value, octets of name and value as the table counts them
Instruction = tuple[int, int, str, str, int]


class Unknown:
    """A table entry that was not seen: name and value are None until something teaches them."""

    __slots__ = ("name", "value")

    def __init__(self) -> None:
        self.name: str | None = None
        self.value: str | None = None


Field = tuple[str, str] | Unknown

_remembered: dict[bytes, list[Instruction] | None] = {}


def read_block(block: bytes) -> list[Instruction] | None:
    """The instructions of a whole header block; None: it is no header block."""
    try:
        return _remembered[block]
    except KeyError:
        instructions, whole = _read_block(block)
        result = instructions if whole else None
        if len(_remembered) >= MAX_REMEMBERED:
            _remembered.clear()
        _remembered[block] = result
        return result


def read_prefix(block: bytes) -> list[Instruction]:
    """The instructions at the beginning of a block whose end was not captured."""
    return _read_block(block)[0]


def _read_block(block: bytes) -> tuple[list[Instruction], bool]:
    """The instructions up to the first that cannot be read, and whether that was the end."""
    instructions: list[Instruction] = []
    place, end = 0, len(block)
    while place < end:
        first = block[place]
        if first & 0x80:
            index, place = _integer(block, place, 7)
            if index <= 0:
                return instructions, False
            instructions.append((INDEXED, index, "", "", 0))
            continue
        if first & 0xE0 == 0x20:
            size, place = _integer(block, place, 5)
            if not 0 <= size <= MAX_TABLE_SIZE:
                return instructions, False
            instructions.append((RESIZE, size, "", "", 0))
            continue
        kind, bits = (INSERT, 6) if first & 0x40 else (LITERAL, 4)
        index, place = _integer(block, place, bits)
        if index < 0:
            return instructions, False
        name, size = "", 0
        if index == 0:
            raw_name, place = _string(block, place)
            if raw_name is None or not raw_name:
                return instructions, False
            name, size = read_text(raw_name, 256), len(raw_name)
        value, place = _string(block, place)
        if value is None or len(instructions) >= MAX_FIELDS:
            return instructions, False
        instructions.append((kind, index, name, read_text(value, MAX_VALUE_CHARS), size + len(value)))
    return instructions, True


def _integer(block: bytes, place: int, bits: int) -> tuple[int, int]:
    """(value, next place) of an integer with an n-bit prefix (section 5.1); -1: cut, or far too large."""
    limit = (1 << bits) - 1
    value = block[place] & limit
    place += 1
    if value < limit:
        return value, place
    shift = 0
    while place < len(block) and shift <= 28:
        byte = block[place]
        place += 1
        value += (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    return -1, place


def _string(block: bytes, place: int) -> tuple[bytes | None, int]:
    """(string, next place) of a string literal (section 5.2)."""
    if place >= len(block):
        return None, place
    coded = block[place] & 0x80
    length, place = _integer(block, place, 7)
    end = place + length
    if length < 0 or end > len(block):
        return None, place
    raw = block[place:end]
    return (huffman.decode(raw) if coded else raw), end


class Table:
    """The dynamic table of one direction.

    entries: newest first, with their sizes. Behind `hole_at` entries there is a hole: `hole` entries that were
    put there unseen (None: how many is not known; nothing behind it is known either).
    """

    def __init__(self, from_start: bool) -> None:
        self.entries: deque[tuple[Field, int]] = deque()
        self._size = 0
        self._limit = DEFAULT_TABLE_SIZE
        self._has_hole = not from_start
        self._hole_at = 0
        self.hole: int | None = None
        self._unknown: dict[int, Unknown] = {}

    @property
    def is_whole(self) -> bool:
        """Whether all of the table was seen being built."""
        return not self._has_hole

    def lose(self) -> None:
        """Header blocks of this direction may have been lost."""
        while self._has_hole and len(self.entries) > self._hole_at:
            self._size -= self.entries.pop()[1]
        self._has_hole, self._hole_at, self.hole = True, 0, None
        self._unknown = {}

    def fields(self, instructions: list[Instruction], hole: int | None) -> tuple[list[Field], bool]:
        """(header fields, whether all are sure) of a block, supposing `hole` lost insertions; changes nothing.

        A block may refer to what it inserts itself, so insertions are played on a list in front of the table.
        """
        fields: list[Field] = []
        fresh: list[Field] = []
        sure = True
        for kind, index, name, value, _ in instructions:
            if kind == RESIZE:
                continue
            if kind == INDEXED:
                field, certain = self._look_up(index, fresh, hole)
                sure = sure and certain
                fields.append(field)
                continue
            if index:
                named, certain = self._look_up(index, fresh, hole)
                sure = sure and certain
                if isinstance(named, Unknown):
                    field = Unknown()
                    field.name, field.value = named.name, value
                else:
                    field = (named[0], value)
            else:
                field = (name, value)
            fields.append(field)
            if kind == INSERT:
                fresh.insert(0, field)
        return fields, sure

    def _look_up(self, index: int, fresh: list[Field], hole: int | None) -> tuple[Field, bool]:
        if index <= len(STATIC):
            return STATIC[index - 1], True
        place = index - len(STATIC) - 1
        if place < len(fresh):
            return fresh[place], True
        place -= len(fresh)
        if place < len(self.entries) and (not self._has_hole or place < self._hole_at):
            return self.entries[place][0], True
        if self._has_hole and hole is not None:
            behind = place - hole
            if self._hole_at <= behind < len(self.entries):
                return self.entries[behind][0], False
        if len(self._unknown) > MAX_UNKNOWN:
            return Unknown(), False
        return self._unknown.setdefault(place - self._hole_at, Unknown()), False

    def apply(self, instructions: list[Instruction], fields: list[Field]) -> None:
        """Put into the table what a block inserts; fields: the answer of `fields` for it."""
        position = 0
        for kind, size, name, _, octets in instructions:
            if kind == RESIZE:
                self._limit = size
                self._evict()
                continue
            field = fields[position]
            position += 1
            if kind != INSERT:
                continue
            known_name = name or (field[0] if isinstance(field, tuple) else field.name or "")
            octets += 32 + (0 if name else len(known_name))
            self.entries.appendleft((field, octets))
            self._size += octets
            if self._has_hole:
                self._hole_at += 1
            self._evict()

    def _evict(self) -> None:
        while self._size > self._limit and self.entries:
            self._size -= self.entries.pop()[1]
        if self._has_hole and self._hole_at >= len(self.entries):
            self._hole_at = len(self.entries)

    def holes(self) -> range:
        """Sizes of the hole worth trying; only 0 where there is none, or nothing known behind it."""
        if not self._has_hole or len(self.entries) <= self._hole_at:
            return range(1)
        return range(MAX_HOLE)
