"""Packet records as columns: what the container readers hand to the decoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]


@dataclass
class Packets:
    """n packets of one file, in file order unless `in_time_order` has put them into another.

    buffer: memory that holds them; offset: of the first link-layer byte in it; captured and original: bytes
    in the file and on the wire; ts_ns: realtime epoch, ns; link: LINKTYPE_* number of the packet's interface;
    interface: number of the interface, unique over all sections of a file; file: number of the input file.
    """

    buffer: Bytes
    offset: Ints
    captured: Ints
    original: Ints
    ts_ns: Ints
    link: Ints
    interface: Ints
    file: int = 0
    # Where `buffer[0]` stands in the (unpacked) file, so that records can be found again there.
    buffer_position: int = 0

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, which: Any) -> Packets:
        """The packets chosen by an index array, mask or slice; the buffer is shared."""
        return Packets(
            self.buffer,
            self.offset[which],
            self.captured[which],
            self.original[which],
            self.ts_ns[which],
            self.link[which],
            self.interface[which],
            self.file,
            self.buffer_position,
        )


@dataclass
class FileFacts:
    """What was learnt about one input file while it was read; goes into the manifest."""

    path: str
    format: str = ""
    file_bytes: int = 0
    packet_count: int = 0
    links: set[int] = field(default_factory=set)
    interfaces: list[str] = field(default_factory=list)
    dropped_count: int | None = None  # by the capturing program's kernel, where the file says so
    system: str = ""
    application: str = ""
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def gather_rows(buffer: Bytes, offset: Ints, width: int) -> Bytes:
    """(n, width) bytes from each offset on; beyond the buffer's end they are zero."""
    last = len(buffer) - width
    inside = np.clip(offset, 0, max(last, 0)) if len(offset) and int(offset.max()) > last else offset
    if last < 0:
        rows = np.zeros((len(offset), width), np.uint8)
    else:
        view = np.ndarray((last + 1,), f"V{width}", buffer=buffer.data, strides=(1,))
        rows = view[inside].view(np.uint8).reshape(-1, width)
    if inside is not offset:
        for i in np.nonzero(offset > last)[0].tolist():
            tail = buffer[int(offset[i]) :]
            rows[i] = 0
            rows[i, : len(tail)] = tail
    return rows
