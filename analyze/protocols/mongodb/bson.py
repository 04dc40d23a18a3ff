"""BSON (bsonspec.org, version 1.1) as far as rows need it: walking elements, and text like relaxed extended JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import isfinite
from struct import Struct
from typing import Any, Final

from kubetape.analyze.protocols.common.text import MAX_STATEMENT_CHARS

MAX_DEPTH: Final = 40  # the server allows 200; text of that depth tells nobody anything
MAX_BINARY_BYTES: Final = 32  # of a binary value, shown in hexadecimal

_I: Final = Struct("<i")
_Q: Final = Struct("<q")
_D: Final = Struct("<d")
_II: Final = Struct("<II")
_FIXED: Final = {
    0x01: 8,
    0x06: 0,
    0x07: 12,
    0x08: 1,
    0x09: 8,
    0x0A: 0,
    0x10: 4,
    0x11: 8,
    0x12: 8,
    0x13: 16,
    0x7F: 0,
    0xFF: 0,
}
_TEXTS: Final = frozenset((0x02, 0x0D, 0x0E))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Element = tuple[int, bytes, int, int]


def document_size(data: bytes, offset: int) -> int:
    """The declared size of the document at data[offset]; 0: there is none."""
    if offset + 4 > len(data):
        return 0
    size = int(_I.unpack_from(data, offset)[0])
    return size if size >= 5 else 0


def elements(data: bytes, offset: int, limit: int) -> Iterator[Element]:
    """(type, key, start, end) of the elements of the document at data[offset]; ends where bytes end or do not fit.

    A value that is cut at `limit` is yielded with `end` beyond it.
    """
    size = document_size(data, offset)
    end = min(offset + size, limit)
    offset += 4
    while offset < end and (kind := data[offset]):
        key_end = data.find(b"\0", offset + 1, end)
        if key_end < 0:
            return
        start = key_end + 1
        stop = _value_end(kind, data, start, end)
        if stop < 0:
            return
        yield kind, data[offset + 1 : key_end], start, stop
        offset = stop


def _value_end(kind: int, data: bytes, start: int, end: int) -> int:
    if kind in _FIXED:
        return start + _FIXED[kind]
    if kind == 0x0B:
        pattern = data.find(b"\0", start, end)
        options = data.find(b"\0", pattern + 1, end) if pattern >= 0 else -1
        return options + 1 if options >= 0 else -1
    if start + 4 > end:
        return -1
    size = int(_I.unpack_from(data, start)[0])
    if size < 0:
        return -1
    if kind in _TEXTS:
        return start + 4 + size
    if kind in (0x03, 0x04, 0x0F):
        return start + size if size >= 5 else -1
    if kind == 0x05:
        return start + 5 + size
    return start + 4 + size + 12 if kind == 0x0C else -1


def scalar(data: bytes, element: Element) -> Any:
    """A number, string, boolean or None of Python; None for other kinds and for values that are cut."""
    kind, _, start, end = element
    if end > len(data):
        return None
    if kind == 0x10:
        return _I.unpack_from(data, start)[0]
    if kind == 0x12:
        return _Q.unpack_from(data, start)[0]
    if kind == 0x01:
        return _D.unpack_from(data, start)[0]
    if kind in _TEXTS:
        return data[start + 4 : end - 1].decode("utf-8", "backslashreplace")
    if kind == 0x08:
        return data[start] != 0
    return None


def count_elements(data: bytes, offset: int, limit: int) -> int:
    """How many elements the document or array at data[offset] shows."""
    return sum(1 for _ in elements(data, offset, limit))


class _Writer:
    """Text with a limit; what is beyond it is not even looked at."""

    def __init__(self, hidden: frozenset[bytes], left_out: frozenset[bytes]) -> None:
        self.parts: list[str] = []
        self.room = MAX_STATEMENT_CHARS
        self.hidden, self.left_out = hidden, left_out

    def put(self, text: str) -> bool:
        self.room -= len(text)
        self.parts.append(text)
        return self.room > 0

    def document(self, data: bytes, offset: int, limit: int, is_array: bool, depth: int) -> bool:
        if depth > MAX_DEPTH:
            return self.put("…")
        if not self.put("[" if is_array else "{"):
            return False
        comma = ""
        end = offset
        for kind, key, start, stop in elements(data, offset, limit):
            end = stop
            if depth == 0 and key in self.left_out:
                continue
            if comma:
                self.put(comma)
            comma = ", "
            if not is_array and not self.put(_quoted(key) + ": "):
                return False
            if key in self.hidden:
                if not self.put('"…"'):
                    return False
            elif not self.value(kind, data, start, stop, limit, depth):
                return False
        if end > limit or offset + document_size(data, offset) > limit:
            self.put("…")
        return self.put("]" if is_array else "}")

    def value(self, kind: int, data: bytes, start: int, stop: int, limit: int, depth: int) -> bool:
        if kind in (0x03, 0x04):
            return self.document(data, start, limit, kind == 0x04, depth + 1)
        if kind in _TEXTS:
            if start + 4 > limit:
                return self.put("…")
            raw = data[start + 4 : min(stop - 1, start + 4 + 4 * max(1, self.room))]
            text = _quoted(raw)
            if kind == 0x0D:
                text = f'{{"$code": {text}}}'
            return self.put(text if stop <= limit else text + "…")
        if stop > limit:
            return self.put("…")
        return self.put(_plain(kind, data, start, stop))


def _quoted(raw: bytes) -> str:
    return json.dumps(raw.decode("utf-8", "backslashreplace"), ensure_ascii=False)


def _plain(kind: int, data: bytes, start: int, stop: int) -> str:
    """Extended JSON v2, relaxed, of the kinds without an inner document."""
    if kind == 0x10:
        return str(_I.unpack_from(data, start)[0])
    if kind == 0x12:
        return str(_Q.unpack_from(data, start)[0])
    if kind == 0x01:
        number = _D.unpack_from(data, start)[0]
        return repr(number) if isfinite(number) else f'{{"$numberDouble": "{number}"}}'
    if kind == 0x08:
        return "true" if data[start] else "false"
    if kind == 0x0A:
        return "null"
    if kind == 0x07:
        return f'{{"$oid": "{data[start:stop].hex()}"}}'
    if kind == 0x09:
        return f'{{"$date": "{_date(_Q.unpack_from(data, start)[0])}"}}'
    if kind == 0x05:
        return _binary(data, start, stop)
    if kind == 0x0B:
        pattern, _, options = data[start : stop - 1].partition(b"\0")
        return f'{{"$regularExpression": {{"pattern": {_quoted(pattern)}, "options": {_quoted(options)}}}}}'
    if kind == 0x11:
        step, seconds = _II.unpack_from(data, start)
        return f'{{"$timestamp": {{"t": {seconds}, "i": {step}}}}}'
    if kind == 0x13:
        return f'{{"$numberDecimal": "{_decimal(int.from_bytes(data[start:stop], "little"))}"}}'
    names = {0x06: "$undefined", 0x7F: "$maxKey", 0xFF: "$minKey", 0x0C: "$dbPointer", 0x0F: "$code"}
    return f'{{"{names.get(kind, "$unknown")}": 1}}'


def _date(milliseconds: int) -> str:
    try:
        when = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return str(milliseconds)
    fraction = f".{milliseconds % 1000:03d}" if milliseconds % 1000 else ""
    return f"{when:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _binary(data: bytes, start: int, stop: int) -> str:
    subtype, raw = data[start + 4], data[start + 5 : stop]
    if subtype == 4 and len(raw) == 16:
        digits = raw.hex()
        return f'{{"$uuid": "{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"}}'
    shown = raw[:MAX_BINARY_BYTES].hex() + ("…" if len(raw) > MAX_BINARY_BYTES else "")
    return f'{{"$binary": {{"hex": "{shown}", "size": {len(raw)}, "subType": "{subtype:02x}"}}}}'


def _decimal(value: int) -> str:
    """IEEE 754-2008 decimal128 in the binary integer encoding."""
    sign = "-" if value >> 127 else ""
    top = value >> 122 & 0x1F
    if top == 0x1F:
        return "NaN"
    if top == 0x1E:
        return sign + "Infinity"
    if top >> 3 == 3:
        return sign + "0"  # coefficients beyond 34 digits are read as zero
    exponent = (value >> 113 & 0x3FFF) - 6176
    digits = str(value & (1 << 113) - 1)
    if -6 - len(digits) < exponent <= 0:
        if not exponent:
            return sign + digits
        digits = digits.rjust(1 - exponent, "0")
        return f"{sign}{digits[:exponent]}.{digits[exponent:]}"
    return f"{sign}{digits}E{exponent:+d}"


def document_text(
    data: bytes,
    offset: int,
    limit: int,
    hidden: frozenset[bytes] = frozenset(),
    left_out: frozenset[bytes] = frozenset(),
) -> str:
    """The document at data[offset] as text of at most MAX_STATEMENT_CHARS.

    hidden: keys whose value is shown as "…"; left_out: keys of the outermost document not shown at all.
    """
    writer = _Writer(hidden, left_out)
    writer.document(data, offset, limit, False, 0)
    text = "".join(writer.parts)
    return text if len(text) <= MAX_STATEMENT_CHARS else text[: MAX_STATEMENT_CHARS - 1] + "…"
