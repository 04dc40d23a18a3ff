"""How many bytes a column of a native block takes: its type says it, no value is kept.

Source: src/Formats/NativeWriter.cpp and src/DataTypes/Serializations of the server.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

MAX_DEPTH: Final = 24  # of types in types
MAX_ROWS: Final = 1 << 28

_FIXED: Final = {
    **{f"{sign}Int{bits}": bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64, 128, 256)},
    "Float32": 4, "Float64": 8, "BFloat16": 2, "Bool": 1, "Date": 2, "Date32": 4, "DateTime": 4, "DateTime64": 8,
    "Time": 4, "Time64": 8, "UUID": 16, "IPv4": 4, "IPv6": 16, "Enum8": 1, "Enum16": 2, "Nothing": 1,
    "Decimal32": 4, "Decimal64": 8, "Decimal128": 16, "Decimal256": 32,
}  # fmt: skip
_ALIASES: Final = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "Polygon": "Array(Ring)",
    "MultiLineString": "Array(LineString)",
    "MultiPolygon": "Array(Polygon)",
}
_NAME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9]*)(?:\((.*)\))?\s*\Z", re.DOTALL)
_FIELD_NAME: Final = re.compile(r"\s*(?:`(?:[^`\\]|\\.)*`|[A-Za-z_]\w*)\s+(?=[A-Z])")

Shape = tuple[str, Any]  # ("fixed", size) | ("text", None) | ("null", Shape) | ("list", Shape) | ...


def _split(arguments: str) -> list[str]:
    """Arguments of a type at its top level."""
    parts, depth, start, quoted = [], 0, 0, ""
    place = 0
    while place < len(arguments):
        letter = arguments[place]
        if quoted:
            if letter == "\\":
                place += 1
            elif letter == quoted:
                quoted = ""
        elif letter in "'`":
            quoted = letter
        elif letter == "(":
            depth += 1
        elif letter == ")":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(arguments[start:place])
            start = place + 1
        place += 1
    return [*parts, arguments[start:]]


@lru_cache(maxsize=1024)
def shape_of(kind: str, depth: int = 0) -> Shape | None:
    """How values of a type are laid out; None: not known here (AggregateFunction, JSON, Variant, Dynamic)."""
    match = _NAME.match(kind)
    if match is None or depth > MAX_DEPTH:
        return None
    name, arguments = match[1], match[2] or ""
    if name in _FIXED:
        return "fixed", _FIXED[name]
    if name.startswith("Interval"):
        return "fixed", 8
    if name in _ALIASES:
        return shape_of(_ALIASES[name], depth + 1)
    if name == "String":
        return "text", None
    parts = _split(arguments)
    if name == "FixedString":
        return ("fixed", int(arguments)) if arguments.isdigit() else None
    if name == "Decimal":
        digits = parts[0].strip()
        if not digits.isdigit():
            return None
        return "fixed", next((size for most, size in ((9, 4), (18, 8), (38, 16)) if int(digits) <= most), 32)
    if name == "SimpleAggregateFunction":
        return shape_of(parts[-1], depth + 1)
    if name in ("Nullable", "Array", "LowCardinality"):
        inner = shape_of(arguments, depth + 1)
        if inner is None:
            return None
        if name == "LowCardinality":
            return "dictionary", inner[1] if inner[0] == "null" else inner
        return ("null" if name == "Nullable" else "list"), inner
    if name in ("Tuple", "Map", "Nested"):
        inners = [shape_of(_FIELD_NAME.sub("", part, 1), depth + 1) for part in parts]
        if any(inner is None for inner in inners):
            return None
        return ("fields", inners) if name == "Tuple" else ("list", ("fields", inners))
    return None


def skip_column(data: bytes, place: int, kind: str, rows: int) -> int:
    """The offset behind `rows` values of a type; -1: it cannot be told, or the bytes end before."""
    shape = shape_of(kind)
    if shape is None or rows > MAX_ROWS:
        return -1
    # Dictionaries announce their version before all data of the column.
    return _skip(data, place + 8 * kind.count("LowCardinality("), shape, rows)


def _skip(data: bytes, place: int, shape: Shape, rows: int) -> int:
    kind, inner = shape
    if kind == "fixed":
        return place + int(inner) * rows
    if place > len(data):
        return -1
    if kind == "text":
        return _skip_texts(data, place, rows)
    if kind == "null":
        return _skip(data, place + rows, inner, rows)
    if kind == "list":
        end = place + 8 * rows
        if end > len(data):
            return -1
        total = int.from_bytes(data[end - 8 : end], "little") if rows else 0
        return _skip(data, end, inner, total) if total <= MAX_ROWS else -1
    if kind == "fields":
        for field in inner:
            place = _skip(data, place, field, rows)
            if place < 0:
                return -1
        return place
    if not rows:
        return place
    if place + 16 > len(data):
        return -1
    width = 1 << (data[place] & 3)
    keys = int.from_bytes(data[place + 8 : place + 16], "little")
    if keys > MAX_ROWS:
        return -1
    place = _skip(data, place + 16, inner, keys)
    return place + 8 + width * rows if place >= 0 else -1


def _skip_texts(data: bytes, place: int, rows: int) -> int:
    size = len(data)
    for _ in range(rows):
        if place >= size:
            return -1
        length = data[place]
        place += 1
        if length > 127:
            length &= 127
            shift = 7
            while place < size and shift < 35:
                byte = data[place]
                place += 1
                length |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
            else:
                return -1
        place += length
    return place
