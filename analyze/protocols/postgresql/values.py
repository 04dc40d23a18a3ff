"""Bound values as text: the text format as it is, the binary format of the common types decoded.

Source: the send functions of src/backend/utils/adt in PostgreSQL; type numbers of pg_type.dat.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from kubetape.analyze.protocols.common.text import MAX_STATEMENT_CHARS, read_text

MAX_VALUES = 256
MAX_VALUE_CHARS = 256
_EPOCH = datetime(2000, 1, 1)


def _integer(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


def _float(raw: bytes) -> float | str:
    value = struct.unpack(">f" if len(raw) == 4 else ">d", raw)[0]
    return value if value - value == 0 else str(value)  # NaN and infinity are no JSON


def _timestamp(raw: bytes) -> str:
    return str(_EPOCH + timedelta(microseconds=_integer(raw)))


def _date(raw: bytes) -> str:
    return str(date(2000, 1, 1) + timedelta(days=_integer(raw)))


def _numeric(raw: bytes) -> str:
    """numeric_send: digits of base 10000, weight of the first, sign, decimals."""
    count, weight, sign, scale = struct.unpack_from(">hhHH", raw)
    if sign & 0xC000 == 0xC000:
        return {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}.get(sign, "NaN")
    if abs(weight) > 256 or len(raw) != 8 + 2 * count:
        raise ValueError("numeric")
    digits = struct.unpack_from(f">{count}h", raw, 8)
    total = 0
    for digit in digits:
        total = total * 10000 + digit
    shift = (weight + 1 - count) * 4 + scale
    total = total * 10**shift if shift >= 0 else total // 10**-shift
    text = str(total).rjust(scale + 1, "0")
    text = f"{text[:-scale]}.{text[-scale:]}" if scale else text
    return "-" + text if sign == 0x4000 else text


_SIZES = {16: (1,), 21: (2,), 23: (4,), 20: (8,), 26: (4,), 700: (4,), 701: (8,), 1114: (8,), 1184: (8,), 1082: (4,)}
_READERS: dict[int, Callable[[bytes], Any]] = {
    16: lambda raw: raw != b"\0",
    20: _integer,
    21: _integer,
    23: _integer,
    26: lambda raw: int.from_bytes(raw, "big"),
    700: _float,
    701: _float,
    1082: _date,
    1114: _timestamp,
    1184: _timestamp,
    1700: _numeric,
    2950: lambda raw: str(UUID(bytes=raw)),
    3802: lambda raw: read_text(raw[1:], MAX_VALUE_CHARS),
}
_TEXTS = frozenset({18, 19, 25, 114, 142, 705, 1042, 1043})


def _value(raw: bytes | None, binary: bool, kind: int) -> Any:
    if raw is None:
        return None
    if not binary or kind in _TEXTS:
        return read_text(raw, MAX_VALUE_CHARS)
    reader = _READERS.get(kind)
    sizes = _SIZES.get(kind)
    if reader is not None and (sizes is None or len(raw) in sizes):
        try:
            return reader(raw)
        except (ValueError, OverflowError, struct.error):
            pass  # not of that type after all: shown as bytes below
    if not kind and raw.isascii() and len(raw) not in (1, 2, 4, 8, 16) and raw.decode("ascii").isprintable():
        return read_text(raw, MAX_VALUE_CHARS)
    return "0x" + raw[: MAX_VALUE_CHARS // 2].hex()


def values_json(formats: list[int], values: list[bytes | None], types: list[int]) -> str:
    """Bound values as the text of `request.parameters`; types: 0 or missing where not known."""
    shown: list[Any] = []
    for number, raw in enumerate(values[:MAX_VALUES]):
        form = formats[number] if number < len(formats) else formats[0] if len(formats) == 1 else 0
        shown.append(_value(raw, form == 1, types[number] if number < len(types) else 0))
    if len(values) > MAX_VALUES:
        shown.append(f"… {len(values) - MAX_VALUES} more")
    text = json.dumps(shown, ensure_ascii=False)
    return text if len(text) <= 4 * MAX_STATEMENT_CHARS else json.dumps([*shown[:16], "…"], ensure_ascii=False)
