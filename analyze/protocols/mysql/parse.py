"""Packets of MySQL and MariaDB: greeting, login, statements and bound values.

Sources: MySQL Internals "Client/Server Protocol" (dev.mysql.com/doc/dev/mysql-server, PAGE_PROTOCOL) and the MariaDB
knowledge base "Client/Server Protocol". Functions return None where the bytes do not fit.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from kubetape.analyze.protocols.common.text import MAX_STATEMENT_CHARS, read_name, read_text
from kubetape.analyze.protocols.mysql.types import (
    CLIENT_MYSQL,
    CONNECT_ATTRS,
    CONNECT_WITH_DB,
    LENGTHS,
    NAMES,
    PLUGIN_AUTH,
    PLUGIN_AUTH_LENENC,
    PROTOCOL_41,
    QUERY_ATTRIBUTES,
    SECURE_CONNECTION,
    SSL,
    Greeting,
    Login,
)

MAX_BODY_BYTES = 1 << 16  # of a command: what statement and parameters can show
MAX_VALUES = 256  # bound values shown of one execution
MAX_VALUE_CHARS = 256
MAX_ATTRIBUTES = 64  # connection attributes and query attributes read

U16 = struct.Struct("<H").unpack_from
U32 = struct.Struct("<I").unpack_from
U64 = struct.Struct("<Q").unpack_from


def read_length(data: bytes, pos: int, end: int) -> tuple[int, int] | None:
    """A length-encoded integer: (value, position behind it)."""
    if pos >= end:
        return None
    first = data[pos]
    if first < 0xFB:
        return first, pos + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
    if size is None or pos + 1 + size > end:
        return None
    return int.from_bytes(data[pos + 1 : pos + 1 + size], "little"), pos + 1 + size


def read_bytes(data: bytes, pos: int, end: int) -> tuple[bytes, int] | None:
    """A length-encoded string that lies wholly before `end`."""
    got = read_length(data, pos, end)
    if got is None or got[0] > end - got[1]:
        return None
    return data[got[1] : got[1] + got[0]], got[1] + got[0]


def _zero_ended(data: bytes, pos: int, end: int) -> tuple[bytes, int] | None:
    stop = data.find(b"\0", pos, end)
    return None if stop < 0 else (data[pos:stop], stop + 1)


def read_greeting(data: bytes, pos: int, end: int) -> Greeting | None:
    """Protocol::HandshakeV10 (or V9), body at data[pos:end]."""
    if end - pos < 15 or data[pos] not in (9, 10):
        return None
    version = _zero_ended(data, pos + 1, min(end, pos + 257))
    if (
        version is None
        or len(version[0]) < 3
        or not version[0].isascii()
        or not version[0].decode("ascii").isprintable()
    ):
        return None
    name, at = version
    if not any(48 <= c <= 57 for c in name) or end - at < 12:
        return None
    thread_id = U32(data, at)[0]
    if data[pos] == 9:
        return Greeting(name.decode("ascii"), thread_id, 0, "")
    at += 12
    if data[at] != 0 if at < end else False:
        return None
    if end - at < 3:
        return Greeting(name.decode("ascii"), thread_id, 0, "")
    capabilities: int = U16(data, at + 1)[0]
    if end - at < 19:
        return Greeting(name.decode("ascii"), thread_id, capabilities, "")
    capabilities |= U16(data, at + 6)[0] << 16
    if not capabilities & CLIENT_MYSQL:
        capabilities |= U32(data, at + 15)[0] << 32
    plugin = _zero_ended(data, at + 32, end) if capabilities & PLUGIN_AUTH else None
    return Greeting(name.decode("ascii"), thread_id, capabilities, read_name(plugin[0]) if plugin else "")


def read_login(data: bytes, pos: int, end: int) -> Login | None:
    """Protocol::HandshakeResponse41, SSLRequest, or the 3.20 form; body at data[pos:end], captured bytes only."""
    if end - pos < 4:
        return None
    capabilities = U32(data, pos)[0]
    if not capabilities & PROTOCOL_41:
        return _old_login(data, pos, end)
    if end - pos < 32 or any(data[pos + 9 : pos + 9 + 19]):
        return None
    if not capabilities & CLIENT_MYSQL:
        capabilities |= U32(data, pos + 28)[0] << 32
    elif any(data[pos + 28 : pos + 32]):
        return None
    if end - pos == 32:
        return Login(None, None, capabilities, tls=True) if capabilities & SSL else None
    user = _zero_ended(data, pos + 32, end)
    if user is None or not _is_name(user[0]):
        return None
    login = Login(read_name(user[0]), None, capabilities)
    at = user[1]
    if capabilities & PLUGIN_AUTH_LENENC:
        secret = read_bytes(data, at, end)
    elif capabilities & SECURE_CONNECTION:
        secret = (b"", at + 1 + data[at]) if at < end else None
    else:
        secret = _zero_ended(data, at, end)
    if secret is None:
        return login
    at = secret[1]
    if capabilities & CONNECT_WITH_DB and (schema := _zero_ended(data, at, end)) is not None:
        login.schema, at = read_name(schema[0]) or None, schema[1]
    if capabilities & PLUGIN_AUTH and (plugin := _zero_ended(data, at, end)) is not None:
        login.plugin, at = read_name(plugin[0]), plugin[1]
    if capabilities & CONNECT_ATTRS:
        login.attributes = _attributes(data, at, end)
    return login


def _is_name(raw: bytes) -> bool:
    return len(raw) <= 256 and all(c >= 32 for c in raw)


def _old_login(data: bytes, pos: int, end: int) -> Login | None:
    """Protocol::HandshakeResponse320: two bytes of flags, three of packet size, user, password, perhaps schema."""
    user = _zero_ended(data, pos + 5, end)
    if user is None or not user[0] or not _is_name(user[0]) or not user[0].isascii():
        return None
    capabilities = U16(data, pos)[0]
    schema = _zero_ended(data, user[1], end) if capabilities & CONNECT_WITH_DB else None
    name = schema and _zero_ended(data + b"\0", schema[1], end + 1)
    return Login(read_name(user[0]), read_name(name[0]) if name else None, capabilities)


def _attributes(data: bytes, pos: int, end: int) -> dict[str, str]:
    """Connection attributes: program_name, _client_name, _pid, ..."""
    found: dict[str, str] = {}
    size = read_length(data, pos, end)
    if size is None:
        return found
    pos, end = size[1], min(end, size[1] + size[0])
    while len(found) < MAX_ATTRIBUTES:
        key = read_bytes(data, pos, end)
        value = key and read_bytes(data, key[1], end)
        if not key or not value:
            break
        found[read_name(key[0])] = read_name(value[0])
        pos = value[1]
    return found


def read_change_user(body: bytes, capabilities: int) -> tuple[str | None, str | None]:
    """(user, schema) of COM_CHANGE_USER."""
    user = _zero_ended(body, 0, len(body))
    if user is None:
        return None, None
    at = user[1]
    if at >= len(body):
        return read_name(user[0]), None
    # Password: one length byte, since 4.1; capabilities 0: not known, that is newer than 4.1.
    secret = (
        (b"", at + 1 + body[at])
        if not capabilities or capabilities & SECURE_CONNECTION
        else _zero_ended(body, at, len(body))
    )
    schema = secret and _zero_ended(body, secret[1], len(body))
    return read_name(user[0]), (read_name(schema[0]) or None) if schema else None


def command_at(data: bytes, offset: int) -> bool:
    """Whether a command begins at data[offset]: its number, a length that it can have, text where it has text."""
    if offset + 5 > len(data) or data[offset + 3] != 0:
        return False
    length, code = U32(data, offset)[0] & 0xFFFFFF, data[offset + 4]
    if not length or code not in NAMES:
        return False
    fixed = LENGTHS.get(code)
    if fixed is not None:
        return length in fixed
    start = offset + 5
    if code in (0x03, 0x16):
        if length < 2:
            return False
        if code == 0x03 and data[start : start + 2] in (b"\0\x01", b"\0"):
            start += 2
        text = data[start : min(offset + 4 + length, start + 48)]
        return not text or _begins_statement(text)
    if code in (0x02, 0x05, 0x06):
        return 2 <= length <= 260 and _is_name(data[start : offset + 4 + length])
    if code in (0x17, 0xFA):
        minimum = 10 if code == 0x17 else 7
        if length < minimum or start + 9 > len(data):
            return False
        return data[start + 4] <= 0x0F and data[start + 5 : start + 9] == b"\x01\0\0\0" if code == 0x17 else True
    if code == 0x18:
        return length >= 7
    if code == 0x04:
        return 2 <= length <= 520 and b"\0" in data[start : offset + 4 + length]
    if code == 0x11:
        return 3 <= length <= 2048 and data.find(b"\0", start, start + 257) >= 0
    if code in (0x12, 0x1E):
        return 11 <= length <= 65536
    if code == 0x15:
        return 18 <= length <= 1024
    return False


_FIRST_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ(/-#; \t\r\n{")


def _begins_statement(text: bytes) -> bool:
    if text[0] not in _FIRST_LETTERS:
        return False
    return all(c >= 32 or c in b"\t\r\n" for c in text)


def read_statement(body: bytes, capabilities: int | None) -> tuple[str, dict[str, Any] | None]:
    """(text, query attributes) of COM_QUERY; capabilities None: not known, the bytes must tell."""
    with_attributes = bool(capabilities & QUERY_ATTRIBUTES) if capabilities is not None else body[:1] < b"\t"
    if with_attributes and body:
        got = _query_attributes(body)
        if got is not None:
            return read_text(body[got[1] :]), got[0] or None
    return read_text(body), None


def _query_attributes(body: bytes) -> tuple[dict[str, Any], int] | None:
    """Named parameters before the text of COM_QUERY (MySQL 8.0.23), and where the text begins."""
    end = len(body)
    count = read_length(body, 0, end)
    sets = count and read_length(body, count[1], end)
    if not count or not sets or sets[0] != 1 or count[0] > 65535:
        return None
    if not count[0]:
        return {}, sets[1]
    pos = sets[1]
    nulls = body[pos : pos + (count[0] + 7) // 8]
    pos += len(nulls)
    if pos >= end or body[pos] != 1:
        return None
    types = _named_types(body, pos + 1, count[0])
    if types is None:
        return None
    kinds, names, pos = types
    values, pos = read_values(body, pos, nulls, kinds)
    return dict(zip(names[:MAX_ATTRIBUTES], values, strict=False)), pos


def _named_types(body: bytes, pos: int, count: int) -> tuple[list[int], list[str], int] | None:
    kinds, names = [], []
    for _ in range(count):
        if pos + 2 > len(body):
            return None
        kinds.append(U16(body, pos)[0])
        name = read_bytes(body, pos + 2, len(body))
        if name is None:
            return None
        names.append(read_name(name[0]))
        pos = name[1]
    return kinds, names, pos


# ---- bound values ------------------------------------------------------------------------------------------

UNSIGNED = 0x8000
_FIXED = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 8: 8, 9: 4, 13: 2}
_FLOATS = {4: struct.Struct("<f"), 5: struct.Struct("<d")}
_DATES = frozenset({7, 10, 12})
_TIME = 11
KINDS = frozenset(
    {
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
        13,
        15,
        16,
        243,
        244,
        245,
        246,
        247,
        248,
        249,
        250,
        251,
        252,
        253,
        254,
        255,
        242,
    }
)


def read_values(
    body: bytes, pos: int, nulls: bytes, kinds: list[int], absent: frozenset[int] = frozenset()
) -> tuple[list[Any], int]:
    """Values of the binary protocol; absent: parameters whose value came by COM_STMT_SEND_LONG_DATA.

    A list that ends early where the bytes do. Dates and decimals are text, bytes that are no text hexadecimal.
    """
    values: list[Any] = []
    for number, kind in enumerate(kinds):
        if number in absent:
            values.append("(long data)")
            continue
        if nulls[number >> 3] >> (number & 7) & 1 or kind & 0xFF == 6:
            values.append(None)
            continue
        got = read_value(body, pos, kind)
        if got is None:
            break
        values.append(got[0])
        pos = got[1]
    return values, pos


def read_value(body: bytes, pos: int, kind: int) -> tuple[Any, int] | None:
    base = kind & 0xFF
    size = _FIXED.get(base)
    if size is not None:
        if pos + size > len(body):
            return None
        if base in _FLOATS:
            value = _FLOATS[base].unpack_from(body, pos)[0]
            # NaN and infinity are no JSON.
            return (value if value - value == 0 else str(value)), pos + size
        return int.from_bytes(body[pos : pos + size], "little", signed=not kind & UNSIGNED), pos + size
    got = read_bytes(body, pos, len(body))
    if got is None:
        # A value longer than what was kept: its beginning is shown.
        size_only = read_length(body, pos, len(body))
        if size_only is None or base in _DATES or base == _TIME:
            return None
        return _shown(body[size_only[1] :]) + "…", size_only[1] + size_only[0]
    raw, end = got
    if base in _DATES:
        return (_date(raw), end) if len(raw) in (0, 4, 7, 11) else None
    if base == _TIME:
        return (_time(raw), end) if len(raw) in (0, 8, 12) else None
    return _shown(raw), end


def _shown(raw: bytes) -> str:
    try:
        text = raw[: MAX_VALUE_CHARS * 4].decode("utf-8")
    except UnicodeDecodeError:
        if len(raw) <= MAX_VALUE_CHARS * 4:
            return "0x" + raw[: MAX_VALUE_CHARS // 2].hex()
    else:
        if "\0" in text:
            return "0x" + raw[: MAX_VALUE_CHARS // 2].hex()
    return read_text(raw, MAX_VALUE_CHARS)


def _date(raw: bytes) -> str:
    if not raw:
        return "0000-00-00"
    text = f"{U16(raw, 0)[0]:04}-{raw[2]:02}-{raw[3]:02}"
    if len(raw) >= 7:
        text += f" {raw[4]:02}:{raw[5]:02}:{raw[6]:02}"
    if len(raw) == 11:
        text += f".{U32(raw, 7)[0]:06}"
    return text


def _time(raw: bytes) -> str:
    if not raw:
        return "00:00:00"
    hours = U32(raw, 1)[0] * 24 + raw[5]
    text = f"{'-' if raw[0] else ''}{hours:02}:{raw[6]:02}:{raw[7]:02}"
    return text + f".{U32(raw, 8)[0]:06}" if len(raw) == 12 else text


class Binding:
    """What COM_STMT_EXECUTE carries: the raw values, and the types if they came with it."""

    __slots__ = ("body", "count", "flags", "kinds", "nulls", "start")

    def __init__(self, body: bytes, flags: int, count: int, nulls: bytes, kinds: list[int] | None, start: int) -> None:
        self.body, self.flags, self.count, self.nulls, self.kinds, self.start = body, flags, count, nulls, kinds, start


def read_binding(body: bytes, count: int, capabilities: int | None) -> Binding | None:
    """The bound values of COM_STMT_EXECUTE (body behind the command byte) with `count` parameters."""
    if len(body) < 9:
        return None
    flags, pos = body[4], 9
    named = capabilities is not None and bool(capabilities & QUERY_ATTRIBUTES)
    if named and flags & 0x08:
        got = read_length(body, pos, len(body))
        if got is None:
            return None
        count, pos = got
    if not count:
        return Binding(body, flags, 0, b"", [], pos)
    nulls = body[pos : pos + (count + 7) // 8]
    pos += len(nulls)
    if pos >= len(body) or body[pos] > 1:
        return None
    has_types, pos = body[pos], pos + 1
    if not has_types:
        return Binding(body, flags, count, nulls, None, pos)
    if named:
        types = _named_types(body, pos, count)
        return None if types is None else Binding(body, flags, count, nulls, types[0], types[2])
    if pos + 2 * count > len(body):
        return None
    kinds = list(struct.unpack_from(f"<{count}H", body, pos))
    return Binding(body, flags, count, nulls, kinds, pos + 2 * count)


def guess_count(body: bytes, size: int) -> int | None:
    """The number of parameters of an execution whose PREPARE was not seen; None: not certain.

    size: length of the body on the wire. Every number of parameters implies a place of the types; one number
    fits when all types exist and the values end where the body ends.
    """
    if size == 9:
        return 0
    if len(body) < size or size < 11:
        return None
    fitting = []
    for count in range(1, min((size - 10) // 2, MAX_VALUES) + 1):
        flag = 9 + (count + 7) // 8
        if body[flag] != 1:
            continue
        binding = read_binding(body, count, 0)
        if binding is None or not binding.kinds:
            continue
        if any(k & 0xFF not in KINDS or k & 0x7F00 for k in binding.kinds):
            continue
        values, end = read_values(body, binding.start, binding.nulls, binding.kinds)
        if len(values) == count and end == size:
            fitting.append(count)
    return fitting[0] if len(fitting) == 1 else None


def values_json(values: list[Any]) -> str:
    """Bound values as the text of `request.parameters`."""
    shown = values[:MAX_VALUES]
    if len(values) > MAX_VALUES:
        shown = [*shown, f"… {len(values) - MAX_VALUES} more"]
    text = json.dumps(shown, ensure_ascii=False)
    return text if len(text) <= 4 * MAX_STATEMENT_CHARS else json.dumps([*shown[:16], "…"], ensure_ascii=False)


def read_bulk(body: bytes, count: int) -> tuple[list[Any], int] | None:
    """(values of the first set, number of sets) of MariaDB's COM_STMT_BULK_EXECUTE."""
    if len(body) < 6 or not count:
        return None
    flags, pos = U16(body, 4)[0], 6
    if not flags & 128 or pos + 2 * count > len(body):
        return None
    kinds = list(struct.unpack_from(f"<{count}H", body, pos))
    pos += 2 * count
    first: list[Any] = []
    sets = 0
    while pos < len(body):
        for kind in kinds:
            if pos >= len(body):
                return first, sets
            indicator, pos = body[pos], pos + 1
            value: Any = {1: None, 2: "(default)", 3: "(ignore)"}.get(indicator)
            if indicator == 0:
                got = read_value(body, pos, kind)
                if got is None:
                    return first, sets
                value, pos = got
            if not sets:
                first.append(value)
        sets += 1
    return first, sets
