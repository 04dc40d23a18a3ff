"""The BPF ring buffer, mapped, and drained in bulk: no work per event.

Layout of the mapping (kernel/bpf/ringbuf.c): one page with the consumer position (ours to write), one page with
the producer position, then the data twice in a row, so that no record wraps for the reader. We map it once: pages
mapped twice count twice as this process's memory, and where a drain wraps, copying its two parts together is cheap.
Positions only grow. A record is an 8-byte header (length with a busy and a discard bit, page offset) and its bytes,
padded to 8.

A record still being written must not be passed. Looking at each header would be work per event; instead a drain
goes no further than the producer stood at the drain before, some 50 ms ago. A program cannot be preempted, so
every record below that position has long been finished; the one exception (a virtual CPU stopped by its
hypervisor in the middle of a copy) leaves its busy bit in the spool and is counted as lost by the conversion.
"""

from __future__ import annotations

import mmap

import numpy as np

PAGE = mmap.PAGESIZE


def complete_prefix(data: memoryview, room: int) -> int:
    """Bytes of the whole records at the beginning of `data` that fit into `room`. Work per record: for the end only."""
    position = 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "little") & 0x3FFFFFFF
        following = position + 8 + (length + 7 & ~7)
        if following > min(room, len(data)):
            break
        position = following
    return position


class Ring:
    """The ring of map descriptor `fd` with `size` bytes of data, a power of two."""

    def __init__(self, fd: int, size: int) -> None:
        self.size = size
        self._consumer_map = mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._producer_map = mmap.mmap(fd, PAGE + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE)
        self._consumer = np.frombuffer(self._consumer_map, np.uint64, 1)
        self._producer = np.frombuffer(self._producer_map, np.uint64, 1)
        self._data = memoryview(self._producer_map)[PAGE:]
        self._settled = self.produced

    @property
    def produced(self) -> int:
        return int(self._producer[0])

    @property
    def consumed(self) -> int:
        return int(self._consumer[0])

    @property
    def backlog(self) -> int:
        """Bytes written by the programs and not yet taken."""
        return self.produced - self.consumed

    def settled(self, everything: bool = False) -> memoryview:
        """The unread bytes that are certainly complete: those below the producer's position at the call before.

        everything: all of them; only once the programs are detached. Call `advance` when they are stored.
        """
        produced = self.produced
        if everything:
            self._settled = produced
        begin, size = self.consumed, self._settled - self.consumed
        self._settled = produced
        start = begin & (self.size - 1)
        if start + size <= self.size:
            return self._data[start : start + size]
        return memoryview(bytes(self._data[start:]) + bytes(self._data[: start + size - self.size]))

    def advance(self, count: int) -> None:
        """Hand `count` bytes back to the programs."""
        self._consumer[0] = self.consumed + count

    def close(self) -> None:
        self._data.release()
        del self._consumer, self._producer
        self._consumer_map.close()
        self._producer_map.close()
