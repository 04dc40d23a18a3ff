"""Functions of Go programs and their RET instructions, from the table that Go's own runtime needs (.gopclntab).

It stays when a program is stripped. Layouts of Go 1.18 and 1.20 on, alike for what is read here:
src/debug/gosym/pclntab.go and src/runtime/symtab.go of Go. Older programs may pass arguments in memory and are refused.

A return probe cannot be used (Go moves stacks and would find a foreign return address there), so the RET instructions
are needed. No disassembler is: the table pcsp says how deep the stack is at each instruction, and a function of
x86-64 stands at depth 0 only at its entry, at each RET and at the call that grows the stack.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from kubetape.capture.elf import Elf, ElfError

_MAGICS = (0xFFFFFFF1, 0xFFFFFFF0)
_OLD_MAGICS = (0xFFFFFFFA, 0xFFFFFFFB)
_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_RET_ARM64 = 0xD65F03C0
_MAX_FUNCTION = 1 << 16


@dataclass(frozen=True)
class GoFunction:
    """entry and returns: offsets in the file."""

    entry: int
    returns: tuple[int, ...]


def is_go(elf: Elf) -> bool:
    return any(name in elf.sections for name in _SECTIONS)


def functions(elf: Elf, names: tuple[str, ...]) -> dict[str, GoFunction]:
    """Those of the names that the program has. Raises ElfError where the table is of no known layout."""
    section = next((elf.sections[name] for name in _SECTIONS if name in elf.sections), None)
    if section is None:
        raise ElfError("no table of functions")
    try:
        return _Table(elf, elf.content(section)).functions(names)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise ElfError(f"a table of functions that cannot be read: {error}") from error


class _Table:
    def __init__(self, elf: Elf, data: bytes) -> None:
        self._elf, self._data = elf, data
        magic, _, self._quantum, pointer = struct.unpack_from("<IHBB", data, 0)
        if magic in _OLD_MAGICS:
            raise ElfError("built by Go 1.17 or older")
        if magic not in _MAGICS or pointer != 8:
            raise ElfError(f"a table of functions of a layout not known ({magic:#x})")
        words = struct.unpack_from("<8Q", data, 8)
        count, _, self._text, self._names, self._names_end, _, self._steps, self._functions = words
        if not self._text and ".text" in elf.sections:
            self._text = elf.sections[".text"].address  # the loader would fill it in
        pairs = np.frombuffer(data, "<u4", 2 * count + 1, self._functions)
        self._entries, self._infos = pairs[0::2].astype(np.int64), pairs[1::2].astype(np.int64)

    def functions(self, names: tuple[str, ...]) -> dict[str, GoFunction]:
        at: dict[int, str] = {}
        for name in names:
            place = self._data.find(b"\0" + name.encode() + b"\0", self._names, self._names_end)
            if place >= 0:
                at[place + 1 - self._names] = name
        found = {}
        name_at = self._functions + self._infos + 4
        raw = np.frombuffer(self._data, np.uint8)
        inside = name_at + 4 <= len(raw)
        offsets = np.full(len(name_at), -1, np.int64)
        chosen = name_at[inside][:, None] + np.arange(4)
        offsets[inside] = np.ascontiguousarray(raw[chosen]).view("<i4").reshape(-1)
        for index in np.flatnonzero(np.isin(offsets, list(at))).tolist():
            function = self._function(index)
            if function is not None:
                found[at[int(offsets[index])]] = function
        return found

    def _function(self, index: int) -> GoFunction | None:
        start = self._text + int(self._entries[index])
        end = self._text + int(self._entries[index + 1])
        entry = self._elf.offset_of(start)
        if entry is None or not start < end <= start + _MAX_FUNCTION:
            return None
        code = self._elf.data[entry : entry + end - start]
        if self._elf.machine == "aarch64":
            words = np.frombuffer(code[: len(code) // 4 * 4], "<u4")
            returns = (np.flatnonzero(words == _RET_ARM64) * 4).tolist()
        else:
            returns = self._returns(index, code)
        return GoFunction(entry, tuple(entry + r for r in returns)) if returns else None

    def _returns(self, index: int, code: bytes) -> list[int]:
        info = self._functions + int(self._infos[index])
        # _func: entry, name offset, size of the arguments, deferreturn, pcsp
        (steps,) = struct.unpack_from("<I", self._data, info + 16)
        found = []
        for begin, depth in self._depths(self._steps + steps, len(code)):
            if begin and depth == 0 and code[begin] == 0xC3:
                found.append(begin)
        return found

    def _depths(self, place: int, size: int) -> list[tuple[int, int]]:
        """(begin, depth of the stack) of each range of the function, from the table of steps at `place`."""
        ranges: list[tuple[int, int]] = []
        value, at = -1, 0
        while at < size:
            step, place = self._number(place)
            if step == 0 and ranges:
                break
            value += -(step + 1 >> 1) if step & 1 else step >> 1
            ranges.append((at, value))
            width, place = self._number(place)
            at += width * self._quantum
        return ranges

    def _number(self, place: int) -> tuple[int, int]:
        result = shift = 0
        while True:
            byte = self._data[place]
            place += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result, place
            shift += 7
            if shift > 28:
                raise ValueError("a number too long")
