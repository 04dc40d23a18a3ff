"""A reader of big-endian fields that knows where its bytes end."""

from __future__ import annotations


class Reader:
    """Reads fields from data[place:end]. Past the end numbers are 0, strings are what is left, and `short` is set."""

    __slots__ = ("data", "end", "place", "short")

    def __init__(self, data: bytes, place: int = 0, end: int | None = None) -> None:
        self.data, self.place = data, place
        self.end = len(data) if end is None else min(end, len(data))
        self.short = False

    def number(self, size: int) -> int:
        """An unsigned integer of `size` bytes."""
        stop = self.place + size
        if stop > self.end:
            self.place, self.short = self.end, True
            return 0
        value = int.from_bytes(self.data[self.place : stop], "big")
        self.place = stop
        return value

    def take(self, size: int) -> bytes:
        """`size` bytes, fewer at the end."""
        stop = self.place + size
        if stop > self.end:
            stop, self.short = self.end, True
        value = self.data[self.place : stop]
        self.place = stop
        return value

    def vector(self, length_size: int) -> bytes:
        """Bytes behind a length of `length_size` bytes."""
        return self.take(self.number(length_size))

    def left(self) -> int:
        """Bytes not read yet."""
        return self.end - self.place
