"""Walking over Thrift values without building them: where a struct ends tells where an unframed message ends.

thrift-binary-protocol.md and thrift-compact-protocol.md of Apache Thrift.
"""

from __future__ import annotations

from typing import Final

MAX_DEPTH: Final = 64  # as thrift's own libraries
MAX_FIELDS: Final = 1 << 20  # of one message, all depths together

INVALID_END, CUT_END = -1, -2

_FIXED: Final = {2: 1, 3: 1, 4: 8, 6: 2, 8: 4, 10: 8, 16: 16}
_TYPES: Final = frozenset((2, 3, 4, 6, 8, 10, 11, 12, 13, 14, 15, 16))

Field = tuple[int, int, int]  # id, type, where its value begins


class Walker:
    """Walks the values of one message in data[:end]; `first` is filled with the fields of the outermost struct."""

    def __init__(self, data: bytes, end: int) -> None:
        self.data, self.end = data, min(end, len(data))
        self.left = MAX_FIELDS
        self.first: list[Field] = []

    # ---- binary ----------------------------------------------------------------------------------------------

    def binary_struct(self, place: int, depth: int = 0) -> int:
        """Behind the struct at `place`; INVALID_END or CUT_END."""
        data, end = self.data, self.end
        while True:
            if place >= end:
                return CUT_END
            kind = data[place]
            if kind == 0:
                return place + 1
            if kind not in _TYPES:
                return INVALID_END
            if place + 3 > end:
                return CUT_END
            self.left -= 1
            if self.left < 0:
                return INVALID_END
            if depth == 0 and len(self.first) < 16:
                self.first.append((int.from_bytes(data[place + 1 : place + 3], "big", signed=True), kind, place + 3))
            place = self.binary_value(kind, place + 3, depth + 1)
            if place < 0:
                return place

    def binary_value(self, kind: int, place: int, depth: int) -> int:
        data, end = self.data, self.end
        if kind in _FIXED:
            place += _FIXED[kind]
            return place if place <= end else CUT_END
        if depth > MAX_DEPTH:
            return INVALID_END
        if kind == 12:
            return self.binary_struct(place, depth)
        if kind == 11:
            if place + 4 > end:
                return CUT_END
            size = int.from_bytes(data[place : place + 4], "big", signed=True)
            if size < 0:
                return INVALID_END
            return place + 4 + size if place + 4 + size <= end else CUT_END
        head = 6 if kind == 13 else 5
        if place + head > end:
            return CUT_END
        count = int.from_bytes(data[place + head - 4 : place + head], "big", signed=True)
        kinds = tuple(data[place : place + head - 4])
        place += head
        if count < 0 or (count and any(k not in _TYPES for k in kinds)):
            return INVALID_END
        if all(k in _FIXED for k in kinds):
            place += count * sum(_FIXED[k] for k in kinds)
            return place if place <= end else CUT_END
        for _ in range(count):
            for one in kinds:
                self.left -= 1
                if self.left < 0:
                    return INVALID_END
                place = self.binary_value(one, place, depth + 1)
                if place < 0:
                    return place
        return place

    # ---- compact ---------------------------------------------------------------------------------------------

    def varint(self, place: int) -> tuple[int, int]:
        """(value, behind it); behind it negative where there is none."""
        value = shift = 0
        data, end = self.data, self.end
        while place < end and shift < 70:
            byte = data[place]
            value |= (byte & 0x7F) << shift
            place += 1
            if byte < 0x80:
                return value, place
            shift += 7
        return 0, (CUT_END if place >= end else INVALID_END)

    def compact_struct(self, place: int, depth: int = 0) -> int:
        last = 0
        while True:
            if place >= self.end:
                return CUT_END
            head = self.data[place]
            place += 1
            if head == 0:
                return place
            kind = head & 15
            if not 1 <= kind <= 13:
                return INVALID_END
            self.left -= 1
            if self.left < 0:
                return INVALID_END
            if head >> 4:
                last += head >> 4
            else:
                coded, place = self.varint(place)
                if place < 0:
                    return place
                last = coded >> 1 ^ -(coded & 1)
            if depth == 0 and len(self.first) < 16:
                self.first.append((last, kind, place))
            if kind > 2:
                place = self.compact_value(kind, place, depth + 1)
                if place < 0:
                    return place

    def compact_value(self, kind: int, place: int, depth: int) -> int:
        end = self.end
        if kind <= 3:
            return place + 1 if place < end else CUT_END
        if kind <= 6:
            return self.varint(place)[1]
        if kind in (7, 13):
            place += 8 if kind == 7 else 16
            return place if place <= end else CUT_END
        if depth > MAX_DEPTH:
            return INVALID_END
        if kind == 12:
            return self.compact_struct(place, depth)
        if kind == 8:
            size, place = self.varint(place)
            if place < 0:
                return place
            return place + size if place + size <= end else CUT_END
        return self._compact_container(kind, place, depth)

    def _compact_container(self, kind: int, place: int, depth: int) -> int:
        if place >= self.end:
            return CUT_END
        if kind == 11:
            count, place = self.varint(place)
            if place < 0 or not count:
                return place
            if place >= self.end:
                return CUT_END
            kinds: tuple[int, ...] = (self.data[place] >> 4, self.data[place] & 15)
            place += 1
        else:
            head = self.data[place]
            kinds, count = (head & 15,), head >> 4
            place += 1
            if count == 15:
                count, place = self.varint(place)
                if place < 0:
                    return place
        if count and not all(1 <= k <= 13 for k in kinds):
            return INVALID_END
        if count > self.end - place:
            return CUT_END  # every element takes a byte at least
        for _ in range(count):
            for one in kinds:
                self.left -= 1
                if self.left < 0:
                    return INVALID_END
                place = self.compact_value(one, place, depth + 1)
                if place < 0:
                    return place
        return place

    # ---- strings of an exception -----------------------------------------------------------------------------

    def text(self, compact: bool, place: int) -> bytes:
        """The string or binary value at `place`, as far as it is there."""
        if compact:
            size, start = self.varint(place)
        else:
            size, start = int.from_bytes(self.data[place : place + 4], "big"), place + 4
        return self.data[start : min(start + size, self.end)] if start > 0 else b""
