"""Big-endian fields out of many packet headers at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from kubetape.capture.pcap.packets import Bytes, Ints, gather_rows

# MAX_NETWORK_OFFSET, the longest IPv4 header and TCP's fixed part; whatever has more headers is gathered anew.
HEADER_BYTES = 112
MAX_NETWORK_OFFSET = 30


class Rows:
    """The first HEADER_BYTES of n packets. Offsets are one number for all, or an array of one per packet.

    Reading where a packet is shorter gives bytes that do not belong to it: compare with its length first.
    """

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self._flat = data.reshape(-1)
        self._base = np.arange(len(data), dtype=np.int64) * data.shape[1]

    @classmethod
    def at(cls, buffer: Bytes, offset: Ints) -> Rows:
        return cls(gather_rows(buffer, offset, HEADER_BYTES))

    def __len__(self) -> int:
        return len(self.data)

    def take(self, which: Any) -> Rows:
        return Rows(self.data[which])

    def field(self, offset: int | Ints, size: int) -> Ints:
        """Unsigned numbers of 1, 2 or 4 bytes as int64."""
        if isinstance(offset, int):
            column = self.data[:, offset : offset + size]
        else:
            # Nobody needs what lies beyond; the caller compares with lengths before it believes a value.
            offset = np.minimum(offset, HEADER_BYTES - size)
            view = np.ndarray((len(self._flat) - size + 1,), f">u{size}", buffer=self._flat.data, strides=(1,))
            return view[self._base + offset].astype(np.int64)
        if size == 1:
            return column[:, 0].astype(np.int64)
        return np.ascontiguousarray(column).view(f">u{size}")[:, 0].astype(np.int64)

    def block(self, offset: int | Ints, size: int) -> Bytes:
        """(n, size) bytes."""
        if isinstance(offset, int):
            return np.ascontiguousarray(self.data[:, offset : offset + size])
        offset = np.minimum(offset, HEADER_BYTES - size)
        view = np.ndarray((len(self._flat) - size + 1,), f"V{size}", buffer=self._flat.data, strides=(1,))
        return view[self._base + offset].view(np.uint8).reshape(-1, size)


def uniform(values: Ints) -> int | Ints:
    """The one value all entries share, else the array: a shared offset makes `Rows` several times faster."""
    if len(values) and (values == values[0]).all():
        return int(values[0])
    return values
