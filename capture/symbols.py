"""Names for code addresses: ELF files, compilers' maps, the kernel.

Sources of names of an ELF file, all of them together: .symtab, .dynsym, .gnu_debugdata (an xz-packed .symtab), a debug
file by build-id, Go's .gopclntab, which stripping leaves. A file without a name for an address still has, in
.eh_frame_hdr, where the function begins: `[module+0xbegin]` then stands for one function, not for one address.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import lzma
import os
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from kubetape.capture.elf import Elf, ElfError
from kubetape.capture.host import kernel_symbols
from kubetape.capture.stacks import Space, Spaces

Array = np.ndarray[Any, Any]

_FUNCTIONS = (2, 10)  # STT_FUNC, STT_GNU_IFUNC
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_SYMTAB, _DYNSYM, _NOTE_BUILD_ID = 2, 11, 3
_MAX_UNPACKED = 256 << 20
_GO_MAGICS = {0xFFFFFFF0: 1, 0xFFFFFFF1: 1}  # Go 1.18-1.19, 1.20 and later
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")


@dataclass(frozen=True)
class Name:
    """What stands for an address in a stack: values of the columns symbol, module and basis."""

    symbol: str
    module: str | None
    basis: str


class ElfNames:
    """Functions of one ELF file by virtual address. Raises OSError, ElfError."""

    def __init__(self, path: str, debug_root: str | None = "/usr/lib/debug") -> None:
        with Elf(path) as elf:
            self.segments = elf.segments
            self._begin = np.zeros(0, np.uint64)
            self._end = np.zeros(0, np.uint64)
            self._names: list[tuple[Array, bytes]] = []  # (name offsets, strings), of each source
            self._source = np.zeros(0, np.int64)
            self._index = np.zeros(0, np.int64)
            parts: list[tuple[Array, Array]] = []
            self._add_symbols(elf, parts)
            if ".gnu_debugdata" in elf.sections:
                with contextlib.suppress(lzma.LZMAError, ElfError, OSError):
                    self._add_packed(elf.content(elf.sections[".gnu_debugdata"]), parts)
            build_id = _build_id(elf)
            if debug_root and build_id:
                with (
                    contextlib.suppress(OSError, ElfError),
                    Elf(f"{debug_root}/.build-id/{build_id[:2]}/{build_id[2:]}.debug") as other,
                ):
                    self._add_symbols(other, parts)
            with contextlib.suppress(ElfError, struct.error, ValueError):
                self._add_go(elf, parts)
            self._frames = _frame_begins(elf)
        if parts:
            begin = np.concatenate([p[0] for p in parts])
            end = np.concatenate([p[1] for p in parts])
            source = np.repeat(np.arange(len(parts)), [len(p[0]) for p in parts])
            index = np.concatenate([np.arange(len(p[0])) for p in parts])
            # Of several names the one with a size, and of these the first source.
            order = np.lexsort((source, end == begin, begin))
            begin, end, source, index = begin[order], end[order], source[order], index[order]
            first = np.ones(len(begin), bool)
            first[1:] = begin[1:] != begin[:-1]
            self._begin, self._end, self._source, self._index = begin[first], end[first], source[first], index[first]

    def _add_symbols(self, elf: Elf, parts: list[tuple[Array, Array]]) -> None:
        for section in elf.tables(_SYMTAB, _DYNSYM):
            strings = elf.content(elf.linked(section))
            content = elf.content(section)
            symbols = np.frombuffer(content, _SYMBOL, len(content) // _SYMBOL.itemsize)
            symbols = symbols[
                np.isin(symbols["info"] & 15, _FUNCTIONS)
                & (symbols["section"] != 0)
                & (symbols["value"] != 0)
                & (symbols["name"] < len(strings))
            ]
            parts.append((symbols["value"].copy(), symbols["value"] + symbols["size"]))
            self._names.append((symbols["name"].copy(), strings))

    def _add_packed(self, data: bytes, parts: list[tuple[Array, Array]]) -> None:
        unpacked = lzma.LZMADecompressor().decompress(data, _MAX_UNPACKED)
        descriptor = os.memfd_create("kubetape-symbols", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, unpacked)
            with Elf(f"/proc/self/fd/{descriptor}") as inner:
                self._add_symbols(inner, parts)
        finally:
            os.close(descriptor)

    def _add_go(self, elf: Elf, parts: list[tuple[Array, Array]]) -> None:
        """Go's table of functions: src/debug/gosym/pclntab.go of the Go sources, versions from 1.18."""
        section = elf.sections.get(".gopclntab") or elf.sections.get(".data.rel.ro.gopclntab")
        if section is None:
            return
        data = elf.content(section)
        magic, _, _, pointer = struct.unpack_from("<IHBB", data, 0)
        if magic not in _GO_MAGICS or pointer != 8:
            return
        count, _, text, names_at, _, _, _, functions_at = struct.unpack_from("<8Q", data, 8)
        if not text and ".text" in elf.sections:
            text = elf.sections[".text"].address  # 1.25 and later leave it to the loader
        table = np.frombuffer(data, "<u4", 2 * count + 1, functions_at)
        begins, details = table[: 2 * count : 2].astype(np.uint64), table[1 : 2 * count : 2].astype(np.int64)
        if count and int(details.max()) + functions_at + 8 > len(data):
            raise ElfError("a damaged .gopclntab")
        words = np.frombuffer(data, np.uint8)
        at = (details + functions_at + 4)[:, None] + np.arange(4)
        name = np.ascontiguousarray(words[at]).view("<i4").reshape(-1)
        parts.append((begins + np.uint64(text), np.append(begins[1:], table[2 * count]) + np.uint64(text)))
        self._names.append((name.astype(np.int64), data[names_at:]))

    def address_of(self, offset: int) -> int | None:
        """The virtual address of a byte of the file."""
        for start, begin, size in self.segments:
            if begin <= offset < begin + size:
                return offset - begin + start
        return None

    def name(self, address: int) -> str | None:
        at = int(np.searchsorted(self._begin, np.uint64(address), "right")) - 1
        if at < 0:
            return None
        end = int(self._end[at])
        # A symbol without a size (assembly) reaches to the next one.
        if address >= end and end != int(self._begin[at]):
            return None
        if end == int(self._begin[at]) and self._function_begin(address) > int(self._begin[at]):
            return None
        offsets, strings = self._names[int(self._source[at])]
        place = int(offsets[int(self._index[at])])
        return demangle(strings[place : strings.find(b"\0", place)].decode(errors="replace")) or None

    def _function_begin(self, address: int) -> int:
        at = int(np.searchsorted(self._frames, np.uint64(address), "right")) - 1
        return int(self._frames[at]) if at >= 0 else 0

    def begin(self, address: int) -> int:
        """Where the function around an address begins, as far as the file tells; else the address itself."""
        return self._function_begin(address) or address


def _build_id(elf: Elf) -> str:
    section = elf.sections.get(".note.gnu.build-id")
    if section is None:
        return ""
    data = elf.content(section)
    if len(data) < 16:
        return ""
    name_size, size, kind = struct.unpack_from("<III", data, 0)
    begin = 12 + (name_size + 3 & ~3)
    return data[begin : begin + size].hex() if kind == _NOTE_BUILD_ID else ""


def _frame_begins(elf: Elf) -> Array:
    """Where functions begin, by .eh_frame_hdr (Linux Standard Base, 10.6.2), in the one encoding that is in use."""
    section = elf.sections.get(".eh_frame_hdr")
    none = np.zeros(0, np.uint64)
    if section is None:
        return none
    data = elf.content(section)
    if len(data) < 12 or data[0] != 1 or data[2] != 0x03 or data[3] != 0x3B:
        return none
    count = struct.unpack_from("<I", data, 8)[0]
    table = np.frombuffer(data, "<i4", min(2 * count, (len(data) - 12) // 4 // 2 * 2), 12)
    return np.sort(table[::2].astype(np.int64) + section.address).astype(np.uint64)


class _Demangler:
    """__cxa_demangle of the C++ library, which bcc brings along; names stay as they are without it."""

    def __init__(self) -> None:
        self._call: Any = None
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL("libstdc++.so.6")
            self._call = library["__cxa_demangle"]  # not as attribute: Python would put the class in front
            self._call.restype = ctypes.c_void_p
            self._call.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
            self._free = ctypes.CDLL(None).free
            self._free.argtypes = [ctypes.c_void_p]

    def __call__(self, name: str) -> str:
        if self._call is None or not name.startswith("_Z"):
            return name
        status = ctypes.c_int(0)
        result = self._call(name.encode(), None, None, ctypes.byref(status))
        if not result:
            return name
        text = ctypes.string_at(result).decode(errors="replace")
        self._free(result)
        return _RUST_HASH.sub("", text)


_demangler: _Demangler | None = None


def demangle(name: str) -> str:
    """C++ and (older) Rust names as they are written in the source."""
    global _demangler
    if _demangler is None:
        _demangler = _Demangler()
    return _demangler(name)


class JitNames:
    """/tmp/perf-PID.map: lines `start size name`, hexadecimal; a later line holds where two overlap."""

    def __init__(self, text: str) -> None:
        entries: dict[int, tuple[int, str]] = {}
        for line in text.splitlines():
            parts = line.split(maxsplit=2)
            if len(parts) == 3:
                with contextlib.suppress(ValueError):
                    entries[int(parts[0], 16)] = (int(parts[1], 16), parts[2])
        self._starts = sorted(entries)
        self._entries = entries

    def name(self, address: int) -> str | None:
        at = bisect.bisect_right(self._starts, address) - 1
        if at < 0:
            return None
        size, name = self._entries[self._starts[at]]
        return name if address < self._starts[at] + size else None


class Symboliser:
    """Names addresses of the processes in `spaces`. Never raises on what it finds in them."""

    def __init__(self, spaces: Spaces) -> None:
        self._spaces = spaces
        self._files: dict[tuple[int, str, int], ElfNames | None] = {}
        self._jits: dict[int, JitNames] = {}
        self._vdso: ElfNames | None = None
        self._vdso_read = False

    def kernel(self, addresses: set[int]) -> dict[int, Name]:
        known = kernel_symbols(addresses)
        return {a: Name(known[a], None, "kallsyms") if a in known else _unknown() for a in addresses}

    def user(self, space: Space | None, address: int, is_caller: bool) -> Name:
        """is_caller: the address is where a call returns to; the call itself lies before it."""
        at = address - 1 if is_caller else address
        mapping = space.mapping_of(at) if space is not None else None
        if space is None:
            return _unknown()
        if mapping is None:
            # Code compiled after the last look at a process that is gone.
            return self._in_jit(space, at) or _unknown()
        start, _, offset, inode, path = mapping
        if path == "[vdso]":
            return self._in_file(self._own_vdso(), at - start, path)
        if path.startswith("/") and inode:
            key = (space.mount_namespace, path, inode)
            if key not in self._files:
                self._files[key] = self._open(space, path, inode)
            return self._in_file(self._files[key], at - start + offset, path)
        return self._in_jit(space, at) or Name(path or "[anonymous memory]", path or None, "unknown")

    def _in_jit(self, space: Space, address: int) -> Name | None:
        if not space.jit:
            return None
        if id(space) not in self._jits:
            self._jits[id(space)] = JitNames(space.jit)
        name = self._jits[id(space)].name(address)
        return Name(name, None, "perf-map") if name else None

    def _in_file(self, names: ElfNames | None, offset: int, path: str) -> Name:
        short = path.removesuffix(" (deleted)").rpartition("/")[2].strip("[]")
        if names is None:
            return Name(f"[{short}+{offset:#x}]", path, "offset")
        address = names.address_of(offset)
        if address is None:
            return Name(f"[{short}+{offset:#x}]", path, "offset")
        name = names.name(address)
        if name is not None:
            return Name(name, path, "elf")
        return Name(f"[{short}+{names.begin(address):#x}]", path, "offset")

    def _open(self, space: Space, path: str, inode: int) -> ElfNames | None:
        descriptor = self._spaces.open(space, path, inode)
        if descriptor is None:
            return None
        try:
            return ElfNames(f"/proc/self/fd/{descriptor}")
        except (OSError, ElfError, ValueError, struct.error):
            return None
        finally:
            os.close(descriptor)

    def _own_vdso(self) -> ElfNames | None:
        """All 64-bit processes have the same one; this process reads its own."""
        if not self._vdso_read:
            self._vdso_read = True
            with contextlib.suppress(OSError, ElfError, ValueError, struct.error), open("/proc/self/maps") as file:
                line = next((line for line in file if line.rstrip().endswith("[vdso]")), "")
                begin, _, end = line.split(maxsplit=1)[0].partition("-")
                with open("/proc/self/mem", "rb") as memory:
                    memory.seek(int(begin, 16))
                    data = memory.read(int(end, 16) - int(begin, 16))
                descriptor = os.memfd_create("kubetape-vdso", os.MFD_CLOEXEC)
                try:
                    os.write(descriptor, data)
                    self._vdso = ElfNames(f"/proc/self/fd/{descriptor}", debug_root=None)
                finally:
                    os.close(descriptor)
        return self._vdso


def _unknown() -> Name:
    return Name("[unknown]", None, "unknown")
