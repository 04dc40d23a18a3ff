"""RocketMQ commands from bytes (RemotingCommand): total length, serialisation and header length, header, body."""

from __future__ import annotations

import json
import re
from struct import Struct
from typing import Any, Final

from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.common.trace import CARRIERS
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed
from kubetape.analyze.protocols.rocketmq.types import Command

MAX_FRAME_BYTES: Final = 1 << 26  # com.rocketmq.remoting.frameMaxLength is 16 MiB by default
MAX_HEADER_BYTES: Final = 1 << 17  # properties of a message are at most 32 KiB
MAX_FIELDS: Final = 128

JSON: Final = 0
BINARY: Final = 1
_LANGUAGES: Final = (
    "JAVA",
    "CPP",
    "DOTNET",
    "PYTHON",
    "DELPHI",
    "ERLANG",
    "RUBY",
    "OTHER",
    "HTTP",
    "GO",
    "PHP",
    "OMS",
    "RUST",
    "NODE_JS",
)  # LanguageCode
_BINARY_HEAD: Final = Struct(">hBhiii")  # code, language, version, opaque, flag, length of the remark
_MESSAGE: Final = Struct(">iIiiiqqiq")  # up to bornTimestamp (MessageDecoder)
_MAGICS: Final = {0xDAA320A7: 1, 0xDAA320AB: 2}  # -> bytes of the topic's length
_NEXT: Final = re.compile(
    rb"(?=[\x00-\x03][\x00-\xff]{3}(?:\x00[\x00\x01][\x00-\xff]{2}\{[ \t]*\"|\x01[\x00\x01][\x00-\xff]{2}))"
)
_NUMBERS: Final = {
    name: re.compile(rb'"' + name.encode() + rb'"\s*:\s*(-?\d{1,11})') for name in ("code", "flag", "opaque")
}


def parse_command(data: bytes, offset: int) -> Parsed:
    """The command at data[offset]."""
    if len(data) - offset < 8:
        return CUT
    size = int.from_bytes(data[offset : offset + 4], "big")
    kind = data[offset + 4]
    length = int.from_bytes(data[offset + 5 : offset + 8], "big")
    if size > MAX_FRAME_BYTES or not 2 <= length <= min(MAX_HEADER_BYTES, size - 4) or kind not in (JSON, BINARY):
        return INVALID
    start, body, end = offset + 8, offset + 8 + length, offset + 4 + size
    if kind == JSON:
        if data[start : start + 1] not in (b"{", b""):
            return INVALID
        command = _read_json(data, start, body, end)
    else:
        command = _read_binary(data, start, body, end)
    if command is None:
        if body <= len(data):
            return INVALID
        command = Command(-1, 0, 0, "", 0, "", {}, data, body, end, False)
    return size + 4, command


def _read_json(data: bytes, start: int, body: int, end: int) -> Command | None:
    raw = data[start:body]
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        return _read_cut(raw, data, body, end) if body > len(data) else None
    if not isinstance(header, dict):
        return None
    numbers = [header.get(name, 0) for name in ("code", "flag", "opaque", "version")]
    if "code" not in header or not all(isinstance(n, int) for n in numbers):
        return None
    fields = header.get("extFields")
    kept = {str(k): str(v) for k, v in fields.items()} if isinstance(fields, dict) else {}
    return Command(
        numbers[0],
        numbers[1],
        numbers[2],
        str(header.get("language", "")),
        numbers[3],
        str(header.get("remark") or ""),
        kept,
        data,
        body,
        end,
        True,
    )


def _read_cut(raw: bytes, data: bytes, body: int, end: int) -> Command | None:
    """Of a header whose end is not there: its numbers, if all were."""
    found = {name: pattern.search(raw) for name, pattern in _NUMBERS.items()}
    code, flag, opaque = (int(m[1]) if m else None for m in found.values())
    if code is None or flag is None or opaque is None:
        return None
    return Command(code, flag, opaque, "", 0, "", {}, data, body, end, True)


def _read_binary(data: bytes, start: int, body: int, end: int) -> Command | None:
    """RocketMQSerializable: fixed fields, remark, pairs of a name (16 bits of length) and a value (32 bits)."""
    stop = min(body, len(data))
    if start + _BINARY_HEAD.size > stop:
        return None
    code, language, version, opaque, flag, size = _BINARY_HEAD.unpack_from(data, start)
    if language >= len(_LANGUAGES) or flag & ~3:
        return None
    place = start + _BINARY_HEAD.size
    if not 0 <= size <= body - place - 4:
        return None
    remark = read_text(data[place : min(stop, place + size)])
    place += size
    if place + 4 <= stop and int.from_bytes(data[place : place + 4], "big") != body - place - 4:
        return None
    place += 4
    fields: dict[str, str] = {}
    while place + 2 <= stop and len(fields) < MAX_FIELDS:
        name_end = place + 2 + int.from_bytes(data[place : place + 2], "big")
        value_end = name_end + 4 + int.from_bytes(data[name_end : name_end + 4], "big")
        if value_end > stop:
            break
        fields[read_name(data[place + 2 : name_end])] = read_text(data[name_end + 4 : value_end], 1 << 14)
        place = value_end
    return Command(code, flag, opaque, _LANGUAGES[language], version, remark, fields, data, body, end, True)


def find_command(data: bytes, offset: int) -> int:
    """Where a command with a whole header stands; -1."""
    for found in _NEXT.finditer(data, offset):
        if is_command(data, found.start()):
            return found.start()
    return -1


def is_command(data: bytes, offset: int) -> bool:
    """Whether a command whose header is whole and known stands there."""
    parsed = parse_command(data, offset)
    return isinstance(parsed, tuple) and parsed[1].known and bool(parsed[1].language)


def read_properties(text: str) -> dict[str, str]:
    """Message properties, name \\x01 value \\x02 ...: those that may carry a trace (MessageDecoder)."""
    pairs = (part.partition("\x01") for part in text[: 1 << 16].split("\x02"))
    return {name.lower(): value for name, _, value in pairs if name.lower() in CARRIERS}


def read_first_message(command: Command) -> tuple[str, dict[str, str]]:
    """(topic, properties that may carry a trace) of the first message in the body of a pull's answer."""
    data, place, end = command.data, command.body, min(command.end, len(command.data))
    if place + _MESSAGE.size > end:
        return "", {}
    fields: tuple[Any, ...] = _MESSAGE.unpack_from(data, place)
    width = _MAGICS.get(fields[1])
    if width is None:
        return "", {}
    born, stored = (20 if fields[7] & bit else 8 for bit in (0x10, 0x20))  # addresses of version 6 are longer
    place += _MESSAGE.size + born + 8 + stored + 4 + 8
    place += 4 + int.from_bytes(data[place : place + 4], "big")
    size = int.from_bytes(data[place : place + width], "big")
    topic = data[place + width : place + width + size]
    place += width + size
    length = int.from_bytes(data[place : place + 2], "big")
    if place + 2 > end:
        return "", {}
    properties = data[place + 2 : min(end, place + 2 + length)].decode("utf-8", "replace")
    return read_name(topic), read_properties(properties)
