"""memcached's text, meta and binary protocols, and the frame of UDP."""

from __future__ import annotations

import re
import struct

from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.memcached.types import (
    KEYED,
    META,
    OPCODES,
    RETRIEVAL,
    STATUSES,
    STORAGE,
    WORDS,
    Command,
    Reply,
)

MAX_LINE = 65_536  # a multi-get may name thousands of keys; the server's limit of other lines is 2048
MAX_KEY_BYTES = 250  # KEY_MAX_LENGTH
MAX_VALUE_BYTES = 1 << 30  # the largest item_size_max
MAX_ITEMS = 1 << 20

HEADER = struct.Struct(">BBHBBHIIQ").unpack_from
HEADER_BYTES = 24
UDP_HEADER = struct.Struct(">HHHH").unpack_from
UDP_HEADER_BYTES = 8

_UNKNOWN = re.compile(rb"([A-Za-z_]{1,32})(?: [ -~]{0,2000})?\r?\n")
_NUMBER = re.compile(rb"\d{1,20}\Z")
_SIGNED = re.compile(rb"-?\d{1,20}\Z")


def read_text_command(data: bytes, pos: int) -> tuple[int, Command] | bool | None:
    """(end, command) of a text or meta command; the end may lie past the data, in its value.

    False: its line is cut; None: no command.
    """
    stop = data.find(b"\n", pos, pos + MAX_LINE)
    if stop < 0:
        head = data[pos : pos + 16].split(b" ", 1)[0]
        return False if len(data) - pos < MAX_LINE and any(w.startswith(head) for w in WORDS) else None
    line = data[pos:stop]
    if line.endswith(b"\r"):
        line = line[:-1]
    words = line.split()
    if not words or words[0] not in WORDS:
        return None
    name = words[0]
    end = stop + 1
    if name in META:
        return _meta(data, name, words, line, end)
    keys: list[bytes] = []
    command = Command(name.decode("ascii"), line, keys)
    command.silent = (words[-1] == b"noreply" and len(words) > 2) or (name == b"flush_all" and words[-1] == b"noreply")
    if name == b"quit":
        command.silent = True
    if name in STORAGE:
        if len(words) < 5 or not _SIGNED.match(words[2]) or not _SIGNED.match(words[3]) or not _NUMBER.match(words[4]):
            return None
        size = int(words[4])
        if size > MAX_VALUE_BYTES or len(words[1]) > MAX_KEY_BYTES:
            return None
        keys.append(words[1])
        end = _behind_value(data, end, size)
        if end < 0:
            return None
    elif name in RETRIEVAL:
        keys.extend(words[1 + (name in (b"gat", b"gats")) :])
        if not keys or len(keys[0]) > MAX_KEY_BYTES:
            return None
    elif name in KEYED:
        if len(words) < 2 or len(words[1]) > MAX_KEY_BYTES:
            return None
        keys.append(words[1])
    return end, command


def read_unknown_command(data: bytes, pos: int) -> tuple[int, Command] | None:
    """A printable line that is no known command: the server answers it with ERROR. Only where a command is due."""
    match = _UNKNOWN.match(data, pos)
    if match is None:
        return None
    return match.end(), Command(match[1].decode("ascii"), match[0].rstrip(), [])


def _behind_value(data: bytes, pos: int, size: int) -> int:
    """The position behind a value of `size` bytes and its line end; -1: there is no line end."""
    stop = pos + size
    if stop + 2 <= len(data) and data[stop : stop + 2] != b"\r\n":
        return -1
    return stop + 2


def _meta(data: bytes, name: bytes, words: list[bytes], line: bytes, end: int) -> tuple[int, Command] | None:
    command = Command(name.decode("ascii"), line, words[1:2] if name != b"mn" else [])
    if name != b"mn" and (len(words) < 2 or len(words[1]) > 2 * MAX_KEY_BYTES):
        return None
    flags = words[3:] if name == b"ms" else words[2:]
    for flag in flags:
        if flag == b"q":
            command.quiet = True
        elif flag[:1] == b"O":
            command.mark = flag
    if command.mark is None and b"k" in flags:
        command.mark = b"k" + words[1]
    if name == b"ms":
        if len(words) < 3 or not _NUMBER.match(words[2].lstrip(b"S")):
            return None
        end = _behind_value(data, end, int(words[2].lstrip(b"S")))
        if end < 0:
            return None
    return end, command


_REPLY = re.compile(
    rb"(STORED|NOT_STORED|EXISTS|NOT_FOUND|DELETED|TOUCHED|OK|ERROR|END|RESET|BUSY|NOTFULL|MN|HD|EN|NS|EX|NF)"
    rb"(?=[ \r\n])"
    rb"|(CLIENT_ERROR|SERVER_ERROR|VERSION|ME|BADCLASS|NOSPARE|UNSAFE|SAME) ?|(\d{1,20})(?= *\r?\n)"
)
_VALUE = re.compile(rb"VALUE (\S{1,250}) (\d{1,10}) (\d{1,10})(?: (\d{1,20}))?\r?\n")
_META_VALUE = re.compile(rb"VA (\d{1,10})([^\r\n]{0,1024})\r?\n")
_LISTED = (b"STAT ", b"ITEM ", b"PREFIX ", b"key=")


class Walk:
    """Where a list of values or statistics was left by a gap."""

    __slots__ = ("reply",)

    def __init__(self) -> None:
        self.reply: Reply | None = None


def read_text_reply(data: bytes, pos: int, walk: Walk) -> tuple[int, Reply] | bool | None:
    """(end, reply) at data[pos], or of the rest of the list that `walk` holds; False: cut; None: no reply."""
    reply = walk.reply
    place, size = pos, len(data)
    while place < size:
        if data.startswith(b"VALUE ", place):
            match = _VALUE.match(data, place)
            if match is None:
                if data.find(b"\n", place, place + 512) >= 0:
                    break
                return _part(walk, reply, place, pos)
            reply = reply or Reply("VALUE")
            reply.values += 1
            stop = match.end() + int(match[3])
            if stop + 2 <= size and data[stop : stop + 2] != b"\r\n":
                break
            place = stop + 2
            continue
        if data.startswith(_LISTED, place):
            stop = data.find(b"\n", place, place + MAX_LINE)
            if stop < 0:
                return _part(walk, reply, place, pos)
            word = data[place : place + 8].partition(b" ")[0].decode("ascii", "replace")
            reply = reply or Reply(word if word in ("STAT", "ITEM", "PREFIX") else "OK")
            reply.values += 1
            place = stop + 1
            continue
        if reply is not None:
            if data.startswith(b"END", place):
                stop = data.find(b"\n", place, place + 16)
                if stop < 0:
                    return _part(walk, reply, place, pos)
                reply.done, walk.reply = True, None
                return stop + 1, reply
            if size - place < 3 and b"END".startswith(data[place:]):
                return _part(walk, reply, place, pos)
            break
        return _single(data, place)
    if reply is not None and place >= size:
        return _part(walk, reply, place, pos)
    walk.reply = None
    if reply is not None and place > pos:
        reply.done = True  # something else begins: the list is over without its END
        return place, reply
    return None


def _part(walk: Walk, reply: Reply | None, place: int, pos: int) -> tuple[int, Reply] | bool:
    """A list that ends with the captured bytes."""
    if reply is None or place == pos:
        return False
    reply.done, walk.reply = False, reply
    return place, reply


def _single(data: bytes, pos: int) -> tuple[int, Reply] | bool | None:
    """A reply of one line, or of one line and a value."""
    if data.startswith(b"VA ", pos):
        match = _META_VALUE.match(data, pos)
        if match is None:
            return False if data.find(b"\n", pos) < 0 else None
        stop = match.end() + int(match[1])
        if stop + 2 <= len(data) and data[stop : stop + 2] != b"\r\n":
            return None
        reply = Reply("VA")
        reply.values, reply.mark = 1, _mark(match[2])
        return stop + 2, reply
    match = _REPLY.match(data, pos)
    stop = data.find(b"\n", pos, pos + MAX_LINE)
    if match is None:
        return False if stop < 0 and len(data) - pos < 16 else None
    if stop < 0:
        return False
    line = data[pos:stop].rstrip(b"\r")
    if match[3]:
        return stop + 1, Reply("OK")
    word = (match[1] or match[2]).decode("ascii")
    reply = Reply(word)
    rest = line[len(word) :].strip()
    if word in ("HD", "EN", "NS", "EX", "NF"):
        reply.mark = _mark(rest)
    elif rest:
        reply.message = read_text(rest, 512)
    return stop + 1, reply


def _mark(flags: bytes) -> bytes | None:
    """The opaque, or else the key, among the flags of a meta reply."""
    key = None
    for flag in flags.split():
        if flag[:1] == b"O":
            return flag
        if flag[:1] == b"k":
            key = flag
    return key


def binary_at(data: bytes, pos: int, magic: int) -> bool:
    """Whether a header with this magic byte (0x80 request, 0x81 response) adds up at data[pos]."""
    if pos + HEADER_BYTES > len(data) or data[pos] != magic:
        return False
    _, opcode, key, extras, kind, status, body, _, _ = HEADER(data, pos)
    if opcode not in OPCODES or kind > 7 or key + extras > body or key > MAX_KEY_BYTES or extras > 28:
        return False
    if magic == 0x81:
        return status in STATUSES and body <= MAX_VALUE_BYTES
    return body <= MAX_VALUE_BYTES and (extras == 0 or extras in (4, 8, 20))


def read_binary_command(data: bytes, pos: int) -> tuple[int, Command]:
    """(end, command); `binary_at` holds."""
    _, opcode, key_size, extras, _, _, body, opaque, _ = HEADER(data, pos)
    name, quiet = OPCODES[opcode]
    start = pos + HEADER_BYTES + extras
    key = data[start : start + key_size]
    line = name.encode() + (b" " + key if key else b"")
    command = Command(name, line, [key] if key else [])
    command.quiet, command.opcode = quiet, opcode
    command.silent = opcode == 0x17
    command.mark = opaque.to_bytes(4, "big")
    return pos + HEADER_BYTES + body, command


def read_binary_reply(data: bytes, pos: int) -> tuple[int, Reply]:
    """(end, reply); `binary_at` holds. Of STAT each reply but the last, which is empty, is a part."""
    _, opcode, key_size, extras, _, status, body, opaque, _ = HEADER(data, pos)
    reply = Reply(STATUSES[status])
    reply.code, reply.opcode = status, opcode
    reply.mark = opaque.to_bytes(4, "big")
    start = pos + HEADER_BYTES + extras + key_size
    if status and body > key_size + extras:
        reply.message = read_text(data[start : min(pos + HEADER_BYTES + body, start + 512)], 512)
    if opcode == 0x10 and not status and body:
        reply.done, reply.values = False, 1
    elif OPCODES[opcode][0] in ("get", "gat") and not status:
        reply.values = 1
    return pos + HEADER_BYTES + body, reply


_WORD_LIST = b"|".join(sorted(WORDS, reverse=True))  # longer words before their beginnings
_COMMAND_START = re.compile(rb"(?<=\n)(?:" + _WORD_LIST + rb")(?=[ \r\n])|\x80[\x00-\x24]")
_REPLY_START = re.compile(
    rb"(?<=\n)(?:VALUE |END\r|STORED\r|NOT_STORED\r|EXISTS\r|NOT_FOUND\r|DELETED\r|TOUCHED\r|OK\r|ERROR\r|CLIENT_ERROR "
    rb"|SERVER_ERROR |VERSION |STAT |VA \d|HD[ \r]|EN\r|MN\r|NS[ \r]|EX[ \r]|NF[ \r]|\d{1,20}\r)|\x81[\x00-\x24]"
)


def command_at(data: bytes, pos: int) -> int | None:
    """The end of a plausible command at data[pos]."""
    if binary_at(data, pos, 0x80):
        return read_binary_command(data, pos)[0]
    got = read_text_command(data, pos)
    return got[0] if isinstance(got, tuple) else None


def reply_at(data: bytes, pos: int) -> int | None:
    """The end of a plausible reply at data[pos]."""
    if binary_at(data, pos, 0x81):
        return read_binary_reply(data, pos)[0]
    got = read_text_reply(data, pos, Walk())
    return got[0] if isinstance(got, tuple) else None


MAX_TRIES = 4096  # places tried in one run: each may walk far


def find(data: bytes, pos: int, client: bool) -> int:
    """The next place where commands (or replies) follow one another to the end of the data or twice; -1: none."""
    at = command_at if client else reply_at
    if pos < len(data) and _chain(data, pos, at(data, pos), client):
        return pos
    for number, match in enumerate((_COMMAND_START if client else _REPLY_START).finditer(data, pos)):
        if number >= MAX_TRIES:
            break
        if _chain(data, match.start(), at(data, match.start()), client):
            return match.start()
    return -1


def _chain(data: bytes, pos: int, end: int | None, client: bool) -> bool:
    if end is None:
        return False
    if end >= len(data):
        return True
    return (command_at(data, end) if client else reply_at(data, end)) is not None
