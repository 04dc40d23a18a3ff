"""The maps of BPF programs, by bpf(2): keys and values as bytes.

Source: kernel include/uapi/linux/bpf.h (union bpf_attr, BPF_MAP_*_ELEM); kernel/bpf/syscall.c: the value of a per-CPU
map is one value for each possible CPU, each padded to 8 bytes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_LOOKUP, _UPDATE, _DELETE, _NEXT_KEY = 1, 2, 3, 4
_PER_CPU = {5, 6, 10}  # BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH

_libc = ctypes.CDLL(None, use_errno=True)
_NUMBER = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), -1)  # of bpf(2)


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2). Raises OSError."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))  # some commands write into it
    result = _libc.syscall(_NUMBER, command, buffer, len(attributes))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def possible_cpus() -> int:
    """How many values a per-CPU map has."""
    with open("/sys/devices/system/cpu/possible") as file:
        return int(file.read().strip().rsplit(",", 1)[-1].rsplit("-", 1)[-1]) + 1


@dataclass(frozen=True)
class Map:
    """A map in the kernel. key_bytes, value_bytes: sizes (of one CPU's value); entry_count: at most.

    Keys and values may be given as integers.
    """

    name: str
    descriptor: int
    kind: int
    key_bytes: int
    value_bytes: int
    entry_count: int

    def __getitem__(self, key: int | bytes) -> bytes:
        """The value; of a per-CPU map those of all CPUs in a row. Raises KeyError."""
        asked = self._packed(key, self.key_bytes)
        given = ctypes.create_string_buffer(self._read_bytes)
        if self._element(_LOOKUP, asked, given) == errno.ENOENT:
            raise KeyError(key)
        return given.raw

    def __setitem__(self, key: int | bytes, value: int | bytes) -> None:
        self._element(_UPDATE, self._packed(key, self.key_bytes), self._packed(value, self.value_bytes))

    def __delitem__(self, key: int | bytes) -> None:
        """Raises KeyError."""
        if self._element(_DELETE, self._packed(key, self.key_bytes), None) == errno.ENOENT:
            raise KeyError(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values. What is deleted meanwhile is left out; what is added may be.

        A key deleted between two steps begins the walk again (kernel/bpf/hashtab.c): each key is given once.
        """
        seen: set[bytes] = set()
        key: ctypes.Array[ctypes.c_char] | None = None
        following = ctypes.create_string_buffer(self.key_bytes)
        while self._element(_NEXT_KEY, key, following) != errno.ENOENT:
            key = ctypes.create_string_buffer(following.raw, self.key_bytes)
            if key.raw in seen:
                continue
            seen.add(key.raw)
            try:
                yield key.raw, self[key.raw]
            except KeyError:
                continue

    def per_cpu(self, key: int | bytes) -> list[int]:
        """The unsigned integers that all CPUs have for a key of a per-CPU map. Raises KeyError."""
        values, step = self[key], -(-self.value_bytes // 8) * 8
        return [int.from_bytes(values[at : at + self.value_bytes], sys.byteorder) for at in range(0, len(values), step)]

    @property
    def _read_bytes(self) -> int:
        if self.kind in _PER_CPU:
            return -(-self.value_bytes // 8) * 8 * possible_cpus()
        return self.value_bytes

    @staticmethod
    def _packed(value: int | bytes, size: int) -> ctypes.Array[ctypes.c_char]:
        data = value.to_bytes(size, sys.byteorder) if isinstance(value, int) else value
        return ctypes.create_string_buffer(data, size)

    def _element(
        self, command: int, key: ctypes.Array[ctypes.c_char] | None, value: ctypes.Array[ctypes.c_char] | None
    ) -> int:
        """0, or ENOENT. Raises OSError for everything else."""
        places = [0 if buffer is None else ctypes.addressof(buffer) for buffer in (key, value)]
        attributes = struct.pack("<IIQQQ", self.descriptor, 0, *places, 0)
        # Not bpf(): that nothing is there is the usual case for who looks twenty times a second, and no exception.
        if _libc.syscall(_NUMBER, command, attributes, len(attributes)) >= 0:
            return 0
        number = ctypes.get_errno()
        if number != errno.ENOENT:
            raise OSError(number, os.strerror(number))
        return number
