"""What kind of capture a file is, and the packets of several files in the order of their times."""

from __future__ import annotations

import heapq
import mmap
from collections.abc import Iterator

import numpy as np

from kubetape.capture.pcap.file_input import WINDOW_BYTES, FileInput
from kubetape.capture.pcap.packets import Bytes, FileFacts, Packets
from kubetape.capture.pcap.pcap_file import MAGICS, read_pcap
from kubetape.capture.pcap.pcapng_file import read_pcapng
from kubetape.errors import ImportFileError

SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"
# What people hand over by mistake, so that the message can name it.
OTHER_KINDS = {
    b"PK\x03\x04": "a ZIP file (a .ktape bundle?); unpack it, or use it without importing",
    b"\xfd7zX": "xz-compressed; unpack it first",
    b"\x28\xb5\x2f\xfd": "zstd-compressed; unpack it first",
    b"\x1f\x8b": "gzip inside gzip; unpack it first",
    b"snoo": "a snoop file; convert it with `editcap -F pcap`",
}


class CaptureFile:
    """One input file, opened: `packets()` yields its packets a window at a time, `facts` fill up meanwhile.

    Raises ImportFileError where the file cannot be read, is empty, or is no pcap or pcapng file.
    """

    def __init__(self, path: str, number: int) -> None:
        self.source = FileInput(path)
        self.number = number
        self.facts = FileFacts(path, file_bytes=self.source.file_bytes)
        try:
            self._packets = self._recognise(path)
        except ImportFileError:
            self.source.close()
            raise

    def _recognise(self, path: str) -> Iterator[Packets]:
        self.source.advance(0)
        head = self.source.data[: min(4, self.source.size)].tobytes()
        if not head:
            raise ImportFileError(f"{path} is empty")
        if head == SECTION_MAGIC:
            return read_pcapng(self.source, self.facts)
        if int.from_bytes(head, "little") in MAGICS and len(head) == 4:
            return read_pcap(self.source, self.facts)
        kind = next((k for magic, k in OTHER_KINDS.items() if head.startswith(magic)), "")
        raise ImportFileError(
            f"{path} is {kind}"
            if kind
            else f"{path} is not a pcap or pcapng capture; its first bytes are {head.hex(' ')}"
        )

    def packets(self) -> Iterator[Packets]:
        for packets in self._packets:
            packets.file = self.number
            yield packets
        if self.source.cut_short:
            self.facts.note("its compressed data is cut off")

    def close(self) -> None:
        self.source.close()


class TimeRunsBackError(Exception):
    """A packet is older than packets already handed out; the files have to be sorted as a whole."""


def in_time_order(files: list[CaptureFile]) -> Iterator[list[Packets]]:
    """Lists of packets that together run forward in time, each ready to be analysed at once.

    One window per file is read ahead, so packets may be displaced by up to a window; raises
    TimeRunsBackError where they are displaced further.
    """
    streams = [f.packets() for f in files]
    ahead: list[tuple[int, int, Packets]] = []  # (oldest time, file, the window read ahead)
    for number, stream in enumerate(streams):
        _push(ahead, number, stream)
    held: list[Packets] = []
    newest_released = -(1 << 62)
    while ahead:
        _, number, window = heapq.heappop(ahead)
        held.append(window)
        _push(ahead, number, streams[number])
        limit = ahead[0][0] if ahead else 1 << 62
        ready: list[Packets] = []
        waiting: list[Packets] = []
        for packets in held:
            late = packets.ts_ns > limit
            if not late.any():
                ready.append(packets)
            elif late.all():
                waiting.append(packets)
            else:
                ready.append(packets.take(~late))
                waiting.append(packets.take(late))
        held = waiting
        if ready:
            if min(int(p.ts_ns.min()) for p in ready) < newest_released:
                raise TimeRunsBackError
            newest_released = max(int(p.ts_ns.max()) for p in ready)
            yield ready
            for packets in ready:
                others = held + [window for _, _, window in ahead]
                if all(packets.buffer is not other.buffer for other in others):
                    files[packets.file].source.recycle(packets.buffer)


def _push(ahead: list[tuple[int, int, Packets]], number: int, stream: Iterator[Packets]) -> None:
    window = next(stream, None)
    if window is not None:
        heapq.heappush(ahead, (int(window.ts_ns.min()), number, window))


def sorted_as_a_whole(files: list[CaptureFile]) -> Iterator[list[Packets]]:
    """As `in_time_order`, for files whose times jump: all records are listed (56 bytes each) and sorted first.

    The files must lie unpacked on disk.
    """
    listed: list[Packets] = []
    mapped = [_map(f.source.path) for f in files]
    buffers: list[Bytes] = [np.frombuffer(m, np.uint8) for m in mapped]
    for opened in files:
        for packets in opened.packets():
            packets.offset = packets.offset + packets.buffer_position
            held, packets.buffer = packets.buffer, buffers[opened.number]
            opened.source.recycle(held)
            listed.append(packets)
    if not listed:
        return
    file = np.concatenate([np.full(len(p), p.file, np.int64) for p in listed])
    columns = {
        name: np.concatenate([getattr(p, name) for p in listed])
        for name in ("offset", "captured", "original", "ts_ns", "link", "interface")
    }
    listed.clear()
    order = np.argsort(columns["ts_ns"], kind="stable")
    window = np.cumsum(columns["captured"][order]) // WINDOW_BYTES
    for chosen in np.split(order, np.nonzero(np.diff(window))[0] + 1):
        yield [
            Packets(buffers[number], **{n: c[mine] for n, c in columns.items()}, file=number)
            for number in np.unique(file[chosen]).tolist()
            for mine in [chosen[file[chosen] == number]]
        ]
        for m in mapped:  # the pages stay in the page cache, but no longer count as this process's memory
            m.madvise(mmap.MADV_DONTNEED)


def _map(path: str) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
