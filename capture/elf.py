"""Where functions stand in ELF files (64 bits, little-endian), as offsets that a uprobe takes."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MACHINES = {62: "x86_64", 183: "aarch64"}
_SYMTAB, _DYNSYM, _LOAD, _NOBITS = 2, 11, 1, 8
_MAX_SECTIONS = 4096
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)


class ElfError(Exception):
    """Not a file of this kind, or a damaged one."""


@dataclass(frozen=True)
class Section:
    name: str
    kind: int
    address: int
    offset: int
    size: int
    link: int


class Elf:
    """An open file. Raises OSError, ElfError. Files come from strangers: every number in them is checked."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < 64:
                raise ElfError("too short")
            self.data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        try:
            self._read_headers()
        except (struct.error, IndexError, OverflowError, ElfError) as error:
            self.data.close()
            raise ElfError(str(error)) from error

    def __enter__(self) -> Elf:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, where: TracebackType | None) -> None:
        self.data.close()

    def _read_headers(self) -> None:
        data = self.data
        if data[:6] != b"\x7fELF\x02\x01":
            raise ElfError("no 64-bit little-endian ELF file")
        machine, _, _, segments_at, sections_at = struct.unpack_from("<HIQQQ", data, 18)
        if machine not in MACHINES:
            raise ElfError("a machine not known")
        self.machine = MACHINES[machine]
        _, segment_size, segment_count, section_size, section_count, names = struct.unpack_from("<HHHHHH", data, 52)
        # (virtual address, offset, size in the file) of what is loaded
        self.segments: list[tuple[int, int, int]] = []
        for i in range(segment_count):
            kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", data, segments_at + i * segment_size)
            if kind == _LOAD:
                self.segments.append((address, offset, size))
        self.sections: dict[str, Section] = {}
        raw = []
        if section_count <= _MAX_SECTIONS and sections_at:
            for i in range(section_count):
                raw.append(struct.unpack_from("<IIQQQQI", data, sections_at + i * section_size))
        if names < len(raw):
            text_at, text_size = raw[names][4], raw[names][5]
            texts = data[text_at : text_at + text_size]
            self._by_index = []
            for name_at, kind, _, address, offset, size, link in raw:
                name = texts[name_at : texts.find(b"\0", name_at)].decode(errors="replace")
                section = Section(name, kind, address, offset, size, link)
                self._by_index.append(section)
                self.sections.setdefault(name, section)
        else:
            self._by_index = []

    def content(self, section: Section) -> bytes:
        return self.data[section.offset : section.offset + section.size]

    def tables(self, *kinds: int) -> list[Section]:
        """Sections of these kinds that name another one, see `linked`."""
        return [s for s in self._by_index if s.kind in kinds and s.link < len(self._by_index)]

    def linked(self, section: Section) -> Section:
        return self._by_index[section.link]

    def offset_of(self, address: int) -> int | None:
        """The file offset of a virtual address."""
        for start, offset, size in self.segments:
            if start <= address < start + size:
                return address - start + offset
        return None

    def functions(self, names: Iterable[str]) -> dict[str, int]:
        """File offsets of those of the names that are defined here, by .dynsym or .symtab. Raises ElfError."""
        try:
            return self._functions(names)
        except (ValueError, OverflowError) as error:
            raise ElfError(f"a table of symbols that cannot be read: {error}") from error

    def _functions(self, names: Iterable[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for section in self._by_index:
            if section.kind not in (_SYMTAB, _DYNSYM) or section.link >= len(self._by_index):
                continue
            strings = self._by_index[section.link]
            wanted = {
                name: places
                for name in names
                if name not in found and (places := self._places(strings, name.encode() + b"\0"))
            }
            if not wanted:
                continue
            count = min(section.size, max(0, len(self.data) - section.offset)) // _SYMBOL.itemsize
            symbols = np.frombuffer(self.data, _SYMBOL, count, section.offset)
            at, defined, value = symbols["name"], symbols["section"] != 0, symbols["value"]
            for name, places in wanted.items():
                rows = np.flatnonzero(np.isin(at, places) & defined)
                if len(rows) and (offset := self.offset_of(int(value[rows[0]]))) is not None:
                    found[name] = offset
            del symbols, at, value, defined  # or the map cannot be closed
        return found

    def _places(self, strings: Section, text: bytes) -> list[int]:
        """Where a name begins in a table of strings; linkers let it share the end of a longer one."""
        places = []
        end = min(strings.offset + strings.size, len(self.data))
        place = self.data.find(text, strings.offset, end)
        while place >= 0:
            places.append(place - strings.offset)
            place = self.data.find(text, place + 1, end)
        return places
