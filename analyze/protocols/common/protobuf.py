"""Protocol buffers read without a schema: field numbers, numbers and bytes."""

from __future__ import annotations

from collections.abc import Iterator


def read_varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """(value, offset behind it) of a varint of at most 64 bits; the offset is -1 where it does not end."""
    value = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    return 0, -1


def iterate_fields(data: bytes, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, value, start, end) of each field; value: of numbers, else -1; start, end: of bytes, else of the number.

    Ends where the bytes end in a field; a last field of (0, -1, place, place) says that they are no fields.
    """
    while place < end:
        key, place = read_varint(data, place, end)
        number, wire = key >> 3, key & 7
        if place < 0 or not 0 < number < 1 << 29:
            yield 0, -1, place, place
            return
        start = place
        if wire == 0:
            value, place = read_varint(data, place, end)
            if place < 0:
                return
            yield number, value, start, place
        elif wire == 2:
            size, place = read_varint(data, place, end)
            if place < 0:
                return
            yield number, -1, place, place + size
            place += size
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
            if place > end:
                return
            yield number, int.from_bytes(data[start:place], "little"), start, place
        else:
            yield 0, -1, place, place
            return


def read_fields(data: bytes, place: int, end: int) -> dict[int, int | bytes] | None:
    """The first value of each field, as far as the bytes go; None: they are no fields."""
    found: dict[int, int | bytes] = {}
    for number, value, start, stop in iterate_fields(data, place, end):
        if number == 0:
            return None
        if number not in found:
            found[number] = value if value >= 0 else data[start : min(stop, end)]
    return found
