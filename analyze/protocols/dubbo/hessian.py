"""Hessian 2.0 values (hessian.caucho.com, "Hessian 2.0 Serialization Protocol") as Python ones, within limits."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

MAX_VALUES: Final = 10_000  # of one message; the attachments stand behind the arguments
MAX_DEPTH: Final = 64
MAX_STRING_CHARS: Final = 1 << 20

_H: Final = Struct(">h")
_I: Final = Struct(">i")
_Q: Final = Struct(">q")
_D: Final = Struct(">d")


class HessianError(ValueError):
    """The bytes end, do not fit the grammar, or a limit is reached. Never leaves this package."""


class ClassOf(dict[str, Any]):
    """An object: its fields, and the name of its class."""

    name: str = ""


class Hessian:
    """Reads values from data[place:end], one after the other; class definitions count over all of them."""

    def __init__(self, data: bytes, place: int, end: int) -> None:
        self.data, self.place, self.end = data, place, min(end, len(data))
        self.classes: list[tuple[str, list[str]]] = []
        self.values_left = MAX_VALUES

    def value(self, depth: int = 0) -> Any:
        """The next value. Raises HessianError."""
        self.values_left -= 1
        if depth > MAX_DEPTH or self.values_left < 0:
            raise HessianError
        code = self._byte()
        if code < 0x20 or 0x30 <= code < 0x34 or code in (0x52, 0x53):
            return self._string(code)
        if code < 0x30 or 0x34 <= code < 0x38 or code in (0x41, 0x42):
            return self._binary(code)
        if code >= 0x80 or 0x38 <= code < 0x40:
            return self._integer(code)
        if code == 0x4E:
            return None
        if code in (0x54, 0x46):
            return code == 0x54
        if code in (0x49, 0x59):
            return self._unpack(_I)
        if code in (0x4C, 0x4A):
            return self._unpack(_Q)
        if code == 0x4B:
            return self._unpack(_I) * 60_000
        if code == 0x44:
            return self._unpack(_D)
        if 0x5B <= code <= 0x5F:
            return self._small_double(code)
        if code == 0x51:
            self._int()
            return None  # a reference to an earlier value: its content is told there
        if code == 0x43:
            self._define()
            return self.value(depth)
        if code == 0x4F or 0x60 <= code < 0x70:
            return self._object(self._int() if code == 0x4F else code - 0x60, depth)
        if code in (0x48, 0x4D):
            if code == 0x4D:
                self.value(depth + 1)
            return self._map(depth)
        return self._list(code, depth)

    def string(self) -> str:
        """The next value, which must be a string or null."""
        found = self.value()
        if found is None:
            return ""
        if not isinstance(found, str):
            raise HessianError
        return found

    # ---- the kinds -------------------------------------------------------------------------------------------

    def _byte(self) -> int:
        if self.place >= self.end:
            raise HessianError
        self.place += 1
        return self.data[self.place - 1]

    def _take(self, size: int) -> bytes:
        if size < 0 or self.place + size > self.end:
            raise HessianError
        self.place += size
        return self.data[self.place - size : self.place]

    def _unpack(self, form: Struct) -> Any:
        return form.unpack(self._take(form.size))[0]

    def _int(self) -> int:
        found = self.value(MAX_DEPTH)
        if not isinstance(found, int):
            raise HessianError
        return found

    def _integer(self, code: int) -> int:
        if code < 0x40:
            return (code - 0x3C << 16) + int.from_bytes(self._take(2), "big")
        if code < 0xC0:
            return code - 0x90
        if code < 0xD0:
            return (code - 0xC8 << 8) + self._byte()
        if code < 0xD8:
            return (code - 0xD4 << 16) + int.from_bytes(self._take(2), "big")
        if code < 0xF0:
            return code - 0xE0
        return (code - 0xF8 << 8) + self._byte()

    def _small_double(self, code: int) -> float:
        if code < 0x5D:
            return float(code - 0x5B)
        if code == 0x5D:
            return float(int.from_bytes(self._take(1), "big", signed=True))
        return float(self._unpack(_H)) if code == 0x5E else self._unpack(_I) * 0.001

    def _string(self, code: int) -> str:
        parts: list[str] = []
        total = 0
        while True:
            if code < 0x20:
                size, last = code, True
            elif 0x30 <= code < 0x34:
                size, last = (code - 0x30 << 8) + self._byte(), True
            elif code in (0x52, 0x53):
                size, last = int.from_bytes(self._take(2), "big"), code == 0x53
            else:
                raise HessianError
            total += size
            if total > MAX_STRING_CHARS:
                raise HessianError
            parts.append(self._characters(size))
            if last:
                return "".join(parts)
            code = self._byte()

    def _characters(self, count: int) -> str:
        """`count` UTF-16 units, each in UTF-8 (supplementary ones as two surrogates of three bytes)."""
        raw = self.data[self.place : min(self.place + count, self.end)]
        if len(raw) == count and raw.isascii():
            self.place += count
            return raw.decode("ascii")
        place, data, end = self.place, self.data, self.end
        left = count
        while left > 0:
            if place >= end:
                raise HessianError
            lead = data[place]
            place += 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            left -= 2 if lead >= 0xF0 else 1
        raw = self._take(place - self.place)
        try:
            text = raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("utf-8", "backslashreplace")
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _binary(self, code: int) -> bytes:
        pieces: list[bytes] = []
        while code == 0x41:
            pieces.append(self._take(int.from_bytes(self._take(2), "big")))
            code = self._byte()
        if 0x20 <= code < 0x30:
            size = code - 0x20
        elif 0x34 <= code < 0x38:
            size = (code - 0x34 << 8) + self._byte()
        elif code == 0x42:
            size = int.from_bytes(self._take(2), "big")
        else:
            raise HessianError
        pieces.append(self._take(size))
        return b"".join(pieces)

    def _define(self) -> None:
        name = self.string()
        count = self._int()
        if not 0 <= count <= 1024 or len(self.classes) > 4096:
            raise HessianError
        self.classes.append((name, [self.string() for _ in range(count)]))

    def _object(self, index: int, depth: int) -> ClassOf:
        if not 0 <= index < len(self.classes):
            raise HessianError
        found = ClassOf()
        found.name, fields = self.classes[index]
        for field in fields:
            found[field] = self.value(depth + 1)
        return found

    def _map(self, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        while not self._ends():
            key = self.value(depth + 1)
            value = self.value(depth + 1)
            if isinstance(key, str | int):
                found[key] = value
        return found

    def _ends(self) -> bool:
        if self.place >= self.end:
            raise HessianError
        if self.data[self.place] != 0x5A:
            return False
        self.place += 1
        return True

    def _list(self, code: int, depth: int) -> list[Any]:
        typed = code in (0x55, 0x56) or 0x70 <= code < 0x78
        if typed:
            self.value(depth + 1)
        found: list[Any] = []
        if code in (0x55, 0x57):
            while not self._ends():
                found.append(self.value(depth + 1))
            return found
        if 0x70 <= code < 0x80:
            size = code & 7
        elif code in (0x56, 0x58):
            size = self._int()
        else:
            raise HessianError
        if size > self.values_left:
            raise HessianError
        return [self.value(depth + 1) for _ in range(size)]


def count_arguments(descriptor: str) -> int:
    """How many parameters a JVM type descriptor such as "Ljava/lang/String;[I" names."""
    count = place = 0
    while place < len(descriptor):
        while place < len(descriptor) and descriptor[place] == "[":
            place += 1
        if place < len(descriptor) and descriptor[place] == "L":
            place = descriptor.find(";", place)
            if place < 0:
                return count
        place += 1
        count += 1
    return count
