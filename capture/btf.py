"""A reader of BTF, the kernel's own description of its types, and a printer of chosen types as C.

Format: Documentation/bpf/btf.rst of the kernel. Only what header synthesis and tracepoint attachment need
is kept: names, sizes, members, enum values. The whole of a kernel's BTF (5 MB, 130,000 types) is indexed in
some tenths of a second; types are decoded when they are asked for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

from kubetape.errors import CaptureError

MAGIC = 0xEB9F

(INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST) = range(1, 11)
(RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64) = range(11, 20)

_MODIFIERS = {TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG}

# Bytes that follow the 12-byte head of a type: (fixed, per element of vlen).
_EXTRA = {
    INT: (4, 0),
    ARRAY: (12, 0),
    STRUCT: (0, 12),
    UNION: (0, 12),
    ENUM: (0, 8),
    FUNC_PROTO: (0, 8),
    VAR: (4, 0),
    DATASEC: (0, 12),
    DECL_TAG: (4, 0),
    ENUM64: (0, 12),
}


@dataclass(frozen=True)
class Member:
    """One member: bit offset in its struct; width in bits of a bit field, else 0."""

    name: str
    type_id: int
    bit_offset: int
    bit_width: int


class Btf:
    """The types of one BTF blob. Raises CaptureError where it is not BTF or is damaged."""

    def __init__(self, data: bytes) -> None:
        if len(data) < 24 or struct.unpack_from("<H", data)[0] != MAGIC:
            raise CaptureError("the kernel's type information (BTF) is not in a form this version reads")
        header_bytes, type_off, type_len, str_off, str_len = struct.unpack_from("<IIIII", data, 4)
        types_at = header_bytes + type_off
        self._types = data[types_at : types_at + type_len]
        strings_at = header_bytes + str_off
        self._strings = data[strings_at : strings_at + str_len]
        self._at = self._index()

    @staticmethod
    def of_kernel(path: str = "/sys/kernel/btf/vmlinux") -> Btf:
        """The running kernel's types. Raises CaptureError where the kernel offers none."""
        try:
            with open(path, "rb") as file:
                return Btf(file.read())
        except OSError as error:
            raise CaptureError(f"this kernel offers no BTF ({path}: {error.strerror})") from error

    def _index(self) -> list[int]:
        positions = [0]
        position, end = 0, len(self._types)
        read = struct.Struct("<I").unpack_from
        sizes = [(12, 0)] * 32
        for kind, (fixed, each) in _EXTRA.items():
            sizes[kind] = (12 + fixed, each)
        types = self._types
        while position < end:
            positions.append(position)
            (info,) = read(types, position + 4)
            fixed, each = sizes[info >> 24 & 31]
            position += fixed + each * (info & 0xFFFF)
        if position != end:
            raise CaptureError("the kernel's type information (BTF) is damaged")
        return positions

    def _name(self, offset: int) -> str:
        end = self._strings.index(b"\0", offset)
        return self._strings[offset:end].decode()

    def head(self, type_id: int) -> tuple[str, int, int, bool, int]:
        """(name, kind, vlen, kind flag, size or referenced type id) of a type."""
        name, info, size = struct.unpack_from("<III", self._types, self._at[type_id])
        return self._name(name), info >> 24 & 31, info & 0xFFFF, bool(info >> 31), size

    def kind(self, type_id: int) -> int:
        return self._types[self._at[type_id] + 7] & 31 if type_id else 0

    @cached_property
    def _by_name(self) -> dict[tuple[int, int], int]:
        """(kind, offset of the name) -> type id; the first of equal names counts."""
        found: dict[tuple[int, int], int] = {}
        read = struct.Struct("<II").unpack_from
        for type_id in range(len(self._at) - 1, 0, -1):
            name, info = read(self._types, self._at[type_id])
            found[info >> 24 & 31, name] = type_id
        return found

    def find(self, name: str, *kinds: int) -> int | None:
        """The id of the type of that name and one of the kinds, or None."""
        needle = b"\0" + name.encode() + b"\0"
        position = self._strings.find(needle)
        while position >= 0:
            for kind in kinds:
                type_id = self._by_name.get((kind, position + 1))
                if type_id is not None:
                    return type_id
            position = self._strings.find(needle, position + 1)
        return None

    def members(self, type_id: int) -> list[Member]:
        _, _, count, bit_fields, _ = self.head(type_id)
        found = []
        at = self._at[type_id] + 12
        for index in range(count):
            name, member_type, offset = struct.unpack_from("<III", self._types, at + 12 * index)
            width = offset >> 24 if bit_fields else 0
            found.append(Member(self._name(name), member_type, offset & 0xFFFFFF if bit_fields else offset, width))
        return found

    def enum_values(self, name: str) -> dict[int, str]:
        """Values of a named enum; empty where the kernel has no such enum."""
        type_id = self.find(name, ENUM)
        if type_id is None:
            return {}
        _, _, count, _, _ = self.head(type_id)
        at = self._at[type_id] + 12
        pairs = [struct.unpack_from("<Ii", self._types, at + 8 * i) for i in range(count)]
        return {value: self._name(label) for label, value in pairs}

    def parameter_count(self, trace_typedef: str) -> int | None:
        """Arguments of a tracepoint, from its typedef `btf_trace_NAME` (the leading void * left out)."""
        type_id = self.find(trace_typedef, TYPEDEF)
        while type_id and self.kind(type_id) in (TYPEDEF, PTR):
            type_id = self.head(type_id)[4]
        return self.head(type_id)[2] - 1 if type_id and self.kind(type_id) == FUNC_PROTO else None

    def has_member(self, struct_name: str, member: str) -> bool:
        type_id = self.find(struct_name, STRUCT)
        return type_id is not None and self._has(type_id, member)

    def offset_of(self, struct_name: str, member: str) -> int | None:
        """Place of a member of a named struct, in bytes; None where the kernel has no such member."""
        type_id = self.find(struct_name, STRUCT)
        members = self.members(type_id) if type_id is not None else []
        return next((one.bit_offset // 8 for one in members if one.name == member), None)

    def _has(self, type_id: int, member: str) -> bool:
        for one in self.members(type_id):
            if one.name == member:
                return True
            inner = self.strip(one.type_id)
            if not one.name and self.kind(inner) in (STRUCT, UNION) and self._has(inner, member):
                return True
        return False

    def strip(self, type_id: int) -> int:
        """The type behind typedefs and qualifiers."""
        while type_id and self.kind(type_id) in _MODIFIERS:
            type_id = self.head(type_id)[4]
        return type_id

    def array(self, type_id: int) -> tuple[int, int]:
        """(element type id, element count) of an array type."""
        element, _, count = struct.unpack_from("<III", self._types, self._at[type_id] + 12)
        return element, count

    def integer_encoding(self, type_id: int) -> int:
        """1 signed, 2 char, 4 bool."""
        (value,) = struct.unpack_from("<I", self._types, self._at[type_id] + 12)
        return value >> 24 & 15
