"""Bytes of an input file in large pieces, unpacked where it is gzip-compressed."""

from __future__ import annotations

import os
import zlib

import numpy as np

from kubetape.capture.pcap.packets import Bytes
from kubetape.errors import ImportFileError

# Small enough to stay in the processor's cache from reading to writing, large enough that NumPy's cost
# per call vanishes (measured: 4 to 16 MiB differ by less than 5 % of CPU, 64 MiB costs a third more).
WINDOW_BYTES = 8 << 20
# A record longer than this is damage, not a packet: tcpdump and Wireshark stop at 256 KiB,
# but blocks of pcapng that hold no packet (secrets, names) may be large.
MAX_RECORD_BYTES = 64 << 20


class FileInput:
    """A window that slides over a file: `data[:size]` is what lies at `position` of the unpacked file.

    Raises ImportFileError where the file cannot be opened or read. `cut_short` tells that a gzip stream
    ended before its end.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.file_bytes = 0
        self.cut_short = False
        try:
            raw = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
            if os.path.isdir(path):
                raise IsADirectoryError(21, "it is a folder")
            self.file_bytes = os.fstat(raw.fileno()).st_size
            head = raw.read(4)
        except OSError as error:
            raise ImportFileError(f"cannot read {path}: {error.strerror or error}") from error
        self.compressed = head[:2] == b"\x1f\x8b"
        self._raw = raw
        # A pipe cannot be rewound; the magic has to be put back.
        self._head = head
        self._unpacker = _Unpacker() if self.compressed else None
        self._free: list[Bytes] = []
        self.data: Bytes = np.zeros(0, np.uint8)
        self.size = 0
        self.position = 0
        self.ended = False

    def advance(self, used: int, want: int = 0) -> bool:
        """Drop the first `used` bytes and fill up to at least `want` bytes; False where nothing came new.

        The bytes before stay where they are for those who hold `data`: the rest moves into another buffer.
        """
        rest = self.data[used : self.size]
        want = max(want, WINDOW_BYTES)
        buffer = self._buffer(max(want, len(rest) + 4096))
        buffer[: len(rest)] = rest
        size = len(rest)
        view = memoryview(buffer)  # type: ignore[arg-type]
        while size < want and not self.ended:
            count = self._read(view[size:])
            self.ended = count == 0
            size += count
        grown = size > len(rest)
        self.data, self.size = buffer, size
        self.position += used
        return grown

    def _read(self, view: memoryview) -> int:
        """Fill `view` from its start; how many bytes there were, 0 at the end."""
        if self._unpacker is None:
            return self._read_raw(view)
        while (count := self._unpacker.into(view)) == 0 and not self._unpacker.failed:
            packed = bytearray(1 << 18)
            size = self._read_raw(memoryview(packed))
            if size == 0:
                self.cut_short = not self._unpacker.between_members
                return 0
            self._unpacker.feed(bytes(packed[:size]))
        self.cut_short = self._unpacker.failed
        return count

    def _read_raw(self, view: memoryview) -> int:
        if self._head:
            count = len(self._head)
            view[:count] = self._head
            self._head = b""
            return count
        try:
            return self._raw.readinto(view) or 0
        except OSError as error:
            raise ImportFileError(f"cannot read {self.path}: {error.strerror or error}") from error

    def _buffer(self, size: int) -> Bytes:
        for index, buffer in enumerate(self._free):
            if len(buffer) >= size:
                return self._free.pop(index)
        return np.empty(size, np.uint8)

    def recycle(self, buffer: Bytes) -> None:
        """Nobody holds `buffer` any more: it may be filled again (fresh memory costs page faults)."""
        if buffer is not self.data and len(self._free) < 3 and all(buffer is not b for b in self._free):
            self._free.append(buffer)

    def close(self) -> None:
        self._raw.close()


class _Unpacker:
    """gzip (RFC 1952), members one after another. Unlike gzip.GzipFile it hands out what precedes damage."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)
        self._packed = b""
        self.failed = False
        self.between_members = False

    def feed(self, packed: bytes) -> None:
        self._packed = packed

    def into(self, view: memoryview) -> int:
        """Unpack into `view`; 0 where more packed bytes are needed."""
        while self._packed:
            if self._member.eof:
                self._member = zlib.decompressobj(31)
            try:
                data = self._member.decompress(self._packed, len(view))
            except zlib.error:
                self.failed = True
                return 0
            self._packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            self.between_members = self._member.eof
            if data:
                view[: len(data)] = data
                return len(data)
        return 0
