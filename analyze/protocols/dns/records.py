"""Names and record data of DNS in presentation form."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

from kubetape.analyze.protocols.dns import types as t

MAX_NAME_BYTES: Final = 255  # RFC 1035, section 2.3.4
# A name has at most 127 labels, so an honest one needs no more pointers; loops end here.
MAX_POINTERS: Final = 127
MAX_DATA_CHARS: Final = 1024  # of one record, as text: room for the longest TXT strings people read

_Reader = Callable[[bytes, int, int, int, int], str | None]

_PLAIN: Final = re.compile(rb"[A-Za-z0-9_\-]+\Z")
_SVCB_KEYS: Final = {
    0: "mandatory",
    1: "alpn",
    2: "no-default-alpn",
    3: "port",
    4: "ipv4hint",
    5: "ech",
    6: "ipv6hint",
    7: "dohpath",
}


def read_name(data: bytes, offset: int, start: int, end: int) -> tuple[str, int] | None:
    """(name in presentation form without the final dot, offset behind it); None: not a name.

    start, end: bounds of the message in data: compression pointers count from start (RFC 1035, section 4.1.4).
    Forward pointers are followed as resolvers do; loops and names longer than 255 bytes are refused.
    """
    labels: list[str] = []
    behind = -1
    pointers = total = 0
    end = min(end, len(data))
    while True:
        if offset >= end:
            return None
        size = data[offset]
        if size < 64:
            offset += 1
            if size == 0:
                break
            total += size + 1
            if total > MAX_NAME_BYTES or offset + size > end:
                return None
            raw = data[offset : offset + size]
            labels.append(raw.decode("ascii") if _PLAIN.match(raw) else _label(raw))
            offset += size
        elif size >= 192:
            if offset + 2 > end or pointers >= MAX_POINTERS:
                return None
            if behind < 0:
                behind = offset + 2
            pointers += 1
            offset = start + ((size & 63) << 8 | data[offset + 1])
        else:
            return None
    return ".".join(labels), offset if behind < 0 else behind


def skip_name(data: bytes, offset: int, end: int) -> int:
    """The offset behind a name; -1: not a name."""
    while offset < end:
        size = data[offset]
        if size < 64:
            offset += size + 1
            if size == 0:
                return offset
        else:
            return offset + 2 if size >= 192 and offset + 2 <= end else -1
    return -1


def _label(raw: bytes) -> str:
    """RFC 4343, section 2.1: dots and what cannot be printed are escaped; UTF-8 stays (RFC 6762, section 16)."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text.isprintable() and text:
        return text.replace("\\", "\\\\").replace(".", "\\.")
    return "".join(chr(byte) if 32 < byte < 127 and byte not in b".\\" else f"\\{byte:03d}" for byte in raw)


def _ipv4(data: bytes, offset: int) -> str:
    return f"{data[offset]}.{data[offset + 1]}.{data[offset + 2]}.{data[offset + 3]}"


def read_data(data: bytes, kind: int, offset: int, size: int, start: int, end: int) -> str:
    """The value of a record as text; "" where the type is not decoded or the bytes do not fit it."""
    if kind == t.A:
        return _ipv4(data, offset) if size == 4 and offset + 4 <= len(data) else ""
    if kind == t.AAAA:
        return str(IPv6Address(data[offset : offset + 16])) if size == 16 and offset + 16 <= len(data) else ""
    reader = _READERS.get(kind)
    return (reader(data, offset, size, start, end) or "")[:MAX_DATA_CHARS] if reader else ""


def _name(data: bytes, offset: int, size: int, start: int, end: int) -> str | None:
    found = read_name(data, offset, start, end)
    return (found[0] or ".") if found else None


def _after(prefix: int) -> _Reader:
    """A reader of numbers of 16 bits followed by a name (MX, SRV, AFSDB, KX, RT)."""

    def read(data: bytes, offset: int, size: int, start: int, end: int) -> str | None:
        name = _name(data, offset + prefix, size, start, end) if size > prefix else None
        if name is None:
            return None
        numbers = [str(int.from_bytes(data[i : i + 2], "big")) for i in range(offset, offset + prefix, 2)]
        return " ".join([*numbers, name])

    return read


def _soa(data: bytes, offset: int, size: int, start: int, end: int) -> str | None:
    primary = read_name(data, offset, start, end)
    mailbox = read_name(data, primary[1], start, end) if primary else None
    if primary is None or mailbox is None or mailbox[1] + 20 > min(end, offset + size):
        return None
    numbers = (int.from_bytes(data[i : i + 4], "big") for i in range(mailbox[1], mailbox[1] + 20, 4))
    return " ".join([primary[0] or ".", mailbox[0] or ".", *map(str, numbers)])


def _strings(data: bytes, offset: int, size: int, start: int, end: int) -> str:
    return " ".join(f'"{_string(raw)}"' for raw in _character_strings(data, offset, min(end, offset + size)))


def _character_strings(data: bytes, offset: int, end: int) -> list[bytes]:
    found = []
    while offset < end:
        size = data[offset]
        found.append(data[offset + 1 : min(end, offset + 1 + size)])
        offset += size + 1
    return found


def _string(raw: bytes) -> str:
    text = raw.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else f"\\{ord(c):03d}" for c in text)
    return text.replace('"', '\\"')


def _caa(data: bytes, offset: int, size: int, start: int, end: int) -> str | None:
    """RFC 8659, section 4.1."""
    if size < 2 or 2 + data[offset + 1] > size:
        return None
    value = offset + 2 + data[offset + 1]
    return f'{data[offset]} {_string(data[offset + 2 : value])} "{_string(data[value : offset + size])}"'


def _naptr(data: bytes, offset: int, size: int, start: int, end: int) -> str | None:
    """RFC 3403, section 4.1."""
    order, preference = (int.from_bytes(data[i : i + 2], "big") for i in (offset, offset + 2))
    place = offset + 4
    words = []
    for _ in range(3):
        if place >= min(end, offset + size):
            return None
        words.append(f'"{_string(data[place + 1 : place + 1 + data[place]])}"')
        place += 1 + data[place]
    name = _name(data, place, size, start, end)
    return None if name is None else " ".join([str(order), str(preference), *words, name])


def _svcb(data: bytes, offset: int, size: int, start: int, end: int) -> str | None:
    """RFC 9460, section 2.2."""
    limit = min(end, offset + size)
    found = read_name(data, offset + 2, start, end) if size > 2 else None
    if found is None:
        return None
    parts = [str(int.from_bytes(data[offset : offset + 2], "big")), found[0] or "."]
    place = found[1]
    while place + 4 <= limit:
        key, length = (int.from_bytes(data[i : i + 2], "big") for i in (place, place + 2))
        value = data[place + 4 : min(limit, place + 4 + length)]
        parts.append(f"{_SVCB_KEYS.get(key, f'key{key}')}={_svcb_value(key, value)}")
        place += 4 + length
    return " ".join(parts)


def _svcb_value(key: int, value: bytes) -> str:
    if key == 1:
        return ",".join(_string(raw) for raw in _character_strings(value, 0, len(value)))
    if key == 3 and len(value) == 2:
        return str(int.from_bytes(value, "big"))
    if key == 4:
        return ",".join(_ipv4(value, i) for i in range(0, len(value) - 3, 4))
    if key == 6:
        return ",".join(str(IPv6Address(value[i : i + 16])) for i in range(0, len(value) - 15, 16))
    if key == 7:
        return _string(value)
    return value.hex()


def _numbers_and_hex(prefix: tuple[int, ...]) -> _Reader:
    """A reader of numbers of the given sizes followed by bytes in hexadecimal (DS, SSHFP, TLSA, DNSKEY)."""

    def read(data: bytes, offset: int, size: int, start: int, end: int) -> str | None:
        place = offset
        words = []
        for width in prefix:
            words.append(str(int.from_bytes(data[place : place + width], "big")))
            place += width
        if place > offset + size:
            return None
        return " ".join([*words, data[place : min(end, offset + size)].hex()])

    return read


_READERS: Final[dict[int, _Reader]] = {
    t.NS: _name,
    t.CNAME: _name,
    t.PTR: _name,
    t.DNAME: _name,
    7: _name,
    8: _name,
    9: _name,
    t.SOA: _soa,
    t.MX: _after(2),
    18: _after(2),
    21: _after(2),
    36: _after(2),
    t.SRV: _after(6),
    t.TXT: _strings,
    t.SPF: _strings,
    13: _strings,
    t.NAPTR: _naptr,
    t.SVCB: _svcb,
    t.HTTPS: _svcb,
    t.CAA: _caa,
    43: _numbers_and_hex((2, 1, 1)),
    59: _numbers_and_hex((2, 1, 1)),
    44: _numbers_and_hex((1, 1)),
    52: _numbers_and_hex((1, 1, 1)),
    48: _numbers_and_hex((2, 1, 1)),
}


def read_options(data: bytes, offset: int, end: int) -> dict[str, object]:
    """EDNS options worth keeping (RFC 6891, section 6.1.2)."""
    found: dict[str, object] = {}
    while offset + 4 <= end:
        code, size = (int.from_bytes(data[i : i + 2], "big") for i in (offset, offset + 2))
        value = data[offset + 4 : min(end, offset + 4 + size)]
        offset += 4 + size
        if code == 3 and value:
            found["nsid"] = _string(value)
        elif code == 8 and len(value) >= 4:
            found["client_subnet"] = _subnet(value)
        elif code == 15 and len(value) >= 2:
            number = int.from_bytes(value[:2], "big")
            found["extended_error"] = number
            found["extended_error_text"] = _string(value[2:]) or t.EXTENDED_ERRORS.get(number, "")
    return found


def _subnet(value: bytes) -> str:
    """RFC 7871, section 6."""
    family, prefix, address = int.from_bytes(value[:2], "big"), value[2], value[4:]
    if family == 1 and len(address) <= 4:
        return f"{_ipv4(address.ljust(4, bytes(1)), 0)}/{prefix}"
    if family == 2 and len(address) <= 16:
        return f"{IPv6Address(address.ljust(16, bytes(1)))}/{prefix}"
    return value.hex()
