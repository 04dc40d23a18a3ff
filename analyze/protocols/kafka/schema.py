"""The layouts of apis.py made into plans, and plans run over bytes.

The language, one word per field:

    i1 i2 i4 i8   integers (i4x3: three of them); e: an error code; s b r: string, bytes, records; u: UUID
    [x]           array of x; { ... }: array of structures (a null array is an empty one)
    @name         the value is kept under this name
    :3+ :1-4 :0   only in these versions
    .             what follows is not read

From the API's first flexible version on, lengths are unsigned varints plus one and every structure ends
with tagged fields (KIP-482).
"""

from __future__ import annotations

import re
from functools import cache
from struct import Struct
from typing import Any, Final

from kubetape.analyze.protocols.common.text import read_name
from kubetape.analyze.protocols.kafka import apis

MAX_KEPT: Final = 10_000  # values kept of one name: topics of a large cluster
MAX_ELEMENTS: Final = 1_000_000  # of one array: more partitions than any broker has

_SKIP, _STRING, _BYTES, _RECORDS, _UUID, _ERROR, _INTEGER, _ARRAY, _FIXED_ARRAY, _TAGS, _STOP = range(11)
_SIZES: Final = {"i1": 1, "i2": 2, "i4": 4, "i8": 8}
_INT16: Final = Struct(">h")
_INT32: Final = Struct(">i")

Op = tuple[int, Any, str | None]  # what, its argument (size, sub-plan), name
Plan = list[Op]

_WORD: Final = re.compile(
    r"(\{|\}|\.|\[?(?:i[1248](?:x\d)?|[esbru])(?:@(\w+))?\]?)(?:@(\w+))?(?::(\d+)(?:(\+)|-(\d+))?)?\s*"
)


class ShortError(Exception):
    """The bytes end before the layout does, or do not fit it."""


class EndOfReadingError(Exception):
    """The layout ends on purpose."""


class Found:
    """What a message says: values by name; errors: codes other than 0 in order; coded: an error code was there.

    records: (start, end) of record sets in the bytes; complete: the layout was followed to its end.
    """

    __slots__ = ("coded", "complete", "end", "errors", "records", "values")

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {}
        self.errors: list[int] = []
        self.records: list[tuple[int, int]] = []
        self.coded = self.complete = False
        self.end = 0

    def first(self, name: str) -> Any:
        """The first value of that name that is not null; None."""
        return next((v for v in self.values.get(name, ()) if v is not None), None)


@cache
def plan_of(key: int, version: int, response: bool) -> Plan | None:
    """How to read a message; None: its layout is not known."""
    api = apis.APIS.get(key)
    text = (apis.RESPONSES if response else apis.REQUESTS).get(key)
    if api is None or text is None or version > api.latest:
        return None
    flexible = version >= api.flexible
    plan, _ = _compile(text, 0, version, flexible)
    return plan


def _compile(text: str, place: int, version: int, flexible: bool) -> tuple[Plan, int]:
    plan: Plan = []
    while place < len(text):
        found = _WORD.match(text, place)
        if found is None:
            raise ValueError(f"not a layout: {text[place:]!r}")
        place = found.end()
        word, low, plus, high = found[1], found[4], found[5], found[6]
        lowest = int(low or 0)
        highest = int(high) if high else 1 << 15 if plus or low is None else lowest
        present = lowest <= version <= highest
        if word == "}":
            break
        if word == "{":
            inner, place = _compile(text, place, version, flexible)
            if present:
                plan.append(_array(inner))
        elif word == ".":
            if present:
                plan.append((_STOP, None, None))
        elif present:
            _append(plan, word, found[2] or found[3], flexible)
    if flexible:
        plan.append((_TAGS, None, None))
    return plan, place


def _array(inner: Plan) -> Op:
    if len(inner) == 1 and inner[0][0] == _SKIP:
        return _FIXED_ARRAY, inner[0][1], None
    return _ARRAY, inner, None


def _append(plan: Plan, word: str, name: str | None, flexible: bool) -> None:
    element = word.strip("[]").partition("@")[0]
    op: Op
    if element[0] == "i":
        size = _SIZES[element[:2]] * int(element[3:] or 1)
        op = (_INTEGER, size, name) if name else (_SKIP, size, None)
    else:
        code = {"e": _ERROR, "s": _STRING, "b": _BYTES, "r": _RECORDS, "u": _UUID}[element]
        op = (code, flexible, name)
        if code == _UUID and name is None:
            op = (_SKIP, 16, None)
    if word.startswith("["):
        # Elements that are no structures carry no tags.
        op = _array([op])
    if op[0] == _SKIP and plan and plan[-1][0] == _SKIP:
        op = (_SKIP, plan.pop()[1] + op[1], None)
    plan.append(op)


def read_message(plan: Plan, flexible: bool, data: bytes, offset: int, end: int) -> Found:
    """Follow the plan from data[offset] to at most `end`, as far as the bytes go."""
    found = Found()
    try:
        found.end = _run(plan, flexible, data, offset, min(end, len(data)), found)
        found.complete = True
    except EndOfReadingError:
        found.complete = True
        found.end = -1
    except ShortError:
        pass
    return found


def _run(plan: Plan, flexible: bool, data: bytes, place: int, end: int, found: Found) -> int:
    for code, argument, name in plan:
        if code == _SKIP:
            place += argument
        elif code == _ERROR:
            if place + 2 > end:
                raise ShortError
            (error,) = _INT16.unpack_from(data, place)
            found.coded = True
            if error and len(found.errors) < MAX_KEPT:
                found.errors.append(error)
            place += 2
        elif code == _STRING:
            size, place = _size(data, place, end, 1 if flexible else 2)
            if name is not None:
                if place + max(0, size) > end:
                    raise ShortError
                _keep(found, name, None if size < 0 else read_name(data[place : place + size]))
            place += max(0, size)
        elif code == _INTEGER:
            if place + argument > end:
                raise ShortError
            _keep(found, name, int.from_bytes(data[place : place + argument], "big", signed=True))
            place += argument
        elif code in (_FIXED_ARRAY, _ARRAY):
            count, place = _size(data, place, end, 1 if flexible else 4)
            if count > MAX_ELEMENTS:
                raise ShortError
            if code == _FIXED_ARRAY:
                place += max(0, count) * argument
            else:
                for _ in range(count):
                    place = _run(argument, flexible, data, place, end, found)
        elif code == _TAGS:
            place = skip_tags(data, place, end)
        elif code == _UUID:
            if place + 16 > end:
                raise ShortError
            _keep(found, name, data[place : place + 16])
            place += 16
        elif code == _STOP:
            raise EndOfReadingError
        else:
            size, place = _size(data, place, end, 1 if flexible else 4)
            if code == _RECORDS and size > 0 and len(found.records) < MAX_KEPT:
                found.records.append((place, place + size))
            place += max(0, size)
        if place > end:
            raise ShortError
    return place


def _keep(found: Found, name: str | None, value: Any) -> None:
    values = found.values.setdefault(name or "", [])
    if len(values) < MAX_KEPT:
        values.append(value)


def _size(data: bytes, place: int, end: int, width: int) -> tuple[int, int]:
    """(length or count, offset behind it); -1 is null. width: bytes, or 1 for the compact form."""
    if width == 1:
        value, place = read_unsigned(data, place, end)
        return value - 1, place
    if place + width > end:
        raise ShortError
    (size,) = (_INT16 if width == 2 else _INT32).unpack_from(data, place)
    if size < -1:
        raise ShortError
    return size, place + width


def read_unsigned(data: bytes, place: int, end: int) -> tuple[int, int]:
    """An unsigned varint of at most 32 bits (protocol guide, "Protocol Primitive Types")."""
    value = shift = 0
    while place < end and shift < 35:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ShortError


def skip_tags(data: bytes, place: int, end: int) -> int:
    if place < end and data[place] == 0:
        return place + 1
    count, place = read_unsigned(data, place, end)
    for _ in range(count):
        _, place = read_unsigned(data, place, end)
        size, place = read_unsigned(data, place, end)
        place += size
        if place > end:
            raise ShortError
    return place
