"""Streams: the bytes of each direction of each connection in order, with what is missing said.

The table `socket_data` is sorted by time; here it becomes, column-wise, one `Stream` per connection,
source and direction: runs of contiguous captured bytes, and the time at which each byte was seen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]

# Chunks of one stream that lie further apart than this are not one gap but a stream whose positions
# were lost (a reused port, a wrong unwrap); treating it as a gap would claim terabytes lost.
MAX_GAP_BYTES = 1 << 40
_LARGE_PIECE_BYTES = 512  # mean, from which on joining slices is cheaper than two copies


@dataclass(slots=True)
class Run:
    """Contiguous captured bytes: `data` begins at stream position `position`."""

    position: int
    data: bytes

    @property
    def end(self) -> int:
        return self.position + len(self.data)


class Span:
    """A range of one stream that makes a frame or a message, and when it was seen.

    start, end: stream positions (end exclusive). first_ns: when its first byte was seen, last_ns: when all
    of it had been. lost_bytes: bytes the recording does not have; cut_bytes: bytes left out by the payload
    policy. pid, tid: who moved the first byte (0 not known).
    """

    __slots__ = ("cut_bytes", "end", "first_ns", "last_ns", "lost_bytes", "pid", "start", "tid")

    def __init__(
        self,
        start: int,
        end: int,
        first_ns: int,
        last_ns: int,
        lost_bytes: int = 0,
        cut_bytes: int = 0,
        pid: int = 0,
        tid: int = 0,
    ) -> None:
        self.start, self.end, self.first_ns, self.last_ns = start, end, first_ns, last_ns
        self.lost_bytes, self.cut_bytes, self.pid, self.tid = lost_bytes, cut_bytes, pid, tid

    @property
    def size(self) -> int:
        return self.end - self.start

    def copy(self) -> Span:
        return Span(
            self.start,
            self.end,
            self.first_ns,
            self.last_ns,
            self.lost_bytes,
            self.cut_bytes,
            self.pid,
            self.tid,
        )

    def extend(self, other: Span) -> None:
        """Grow by a later span of the same stream (frames of one message)."""
        self.end = max(self.end, other.end)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.lost_bytes += other.lost_bytes
        self.cut_bytes += other.cut_bytes

    def __repr__(self) -> str:
        return f"Span({self.start}..{self.end}, {self.first_ns}..{self.last_ns} ns, lost {self.lost_bytes})"


class Stream:
    """One direction of one connection.

    runs: contiguous captured bytes in order; of datagrams one run each, `position` counting them from 0.
    Per chunk (a socket call, a segment, a datagram), in stream order: positions, times, pids, tids; complete_ns:
    when the chunk and all before it had been seen. The same as lists are made when first asked for: decoders that
    go from frame to frame need plain integers, those that read many messages at once do not.
    """

    __slots__ = (
        "_complete_ns",
        "_gaps",
        "_pids",
        "_positions",
        "_tids",
        "_times",
        "complete_ns",
        "end_position",
        "first_position",
        "pids",
        "positions",
        "runs",
        "seen_bytes",
        "tids",
        "times",
        "total_bytes",
    )

    def __init__(
        self,
        runs: list[Run],
        positions: Int64Array,
        sizes: Int64Array,
        captured: Int64Array,
        times: Int64Array,
        pids: npt.NDArray[np.int32],
        tids: npt.NDArray[np.int32],
    ) -> None:
        self.runs = runs
        self.first_position = int(positions[0]) if len(positions) else 0
        self.end_position = int(positions[-1] + sizes[-1]) if len(positions) else 0
        self.seen_bytes = int(captured.sum())
        self.positions, self.times, self.pids, self.tids = positions, times, pids, tids
        # A receiver has a byte when all before it have come: the running maximum.
        self.complete_ns: Int64Array = np.maximum.accumulate(times) if len(times) else times
        self._gaps = _gaps(positions, sizes, captured)
        self.total_bytes = self.seen_bytes + sum(end - start for start, end, _ in self._gaps)

    def __getattr__(self, name: str) -> list[int]:
        """The lists behind the frame-by-frame methods; from then on they are plain attributes."""
        if name not in ("_positions", "_times", "_complete_ns", "_pids", "_tids"):
            raise AttributeError(name)
        values: list[int] = getattr(self, name.removeprefix("_")).tolist()
        setattr(self, name, values)
        return values

    def __bool__(self) -> bool:
        return len(self.positions) > 0

    def chunk_of(self, position: Int64Array) -> Int64Array:
        """The index of the chunk that holds each position."""
        return np.maximum(0, np.searchsorted(self.positions, position, "right") - 1)

    @property
    def gaps(self) -> list[tuple[int, int, bool]]:
        """(start, end, lost): ranges without captured bytes; lost is False where the payload policy cut them."""
        return self._gaps

    @property
    def lost_bytes(self) -> int:
        return sum(end - start for start, end, lost in self._gaps if lost)

    def lost_outside(self, first: int | None, end: int | None) -> int:
        """Bytes missing before the first chunk and after the last.

        first, end: positions of the first byte that was moved and after the last one; None: not known.
        """
        if not len(self.positions):
            lost = [end - first if first is not None and end is not None else 0]
        else:
            # Trimmed chunks never lie behind one another: the last one ends last.
            lost = [
                self.first_position - first if first is not None else 0,
                end - self.end_position if end is not None else 0,
            ]
        return sum(size for size in lost if 0 < size < MAX_GAP_BYTES)

    @property
    def cut_bytes(self) -> int:
        return sum(end - start for start, end, lost in self._gaps if not lost)

    def time_at(self, position: int) -> int:
        """When the byte at `position` was seen (of a missing byte: the chunk before it)."""
        return self._times[max(0, bisect_right(self._positions, position) - 1)]

    def chunk_starts(self) -> list[int]:
        """Stream positions at which a socket call or segment began, in order."""
        return self._positions

    def span(self, start: int, end: int) -> Span:
        """The span from position `start` to `end` (exclusive)."""
        first = max(0, bisect_right(self._positions, start) - 1)
        last = max(first, bisect_right(self._positions, end - 1, lo=first) - 1)
        lost = cut = 0
        if self._gaps:
            for gap_start, gap_end, is_lost in self._gaps:
                overlap = min(end, gap_end) - max(start, gap_start)
                if overlap > 0:
                    if is_lost:
                        lost += overlap
                    else:
                        cut += overlap
        return Span(
            start,
            end,
            self._times[first],
            self._complete_ns[last],
            lost,
            cut,
            self._pids[first],
            self._tids[first],
        )


def _gaps(positions: Int64Array, sizes: Int64Array, captured: Int64Array) -> list[tuple[int, int, bool]]:
    gaps: list[tuple[int, int, bool]] = []
    short = np.flatnonzero(captured < sizes)
    gaps.extend(
        (start, end, False)
        for start, end in zip(
            (positions[short] + captured[short]).tolist(),
            (positions[short] + sizes[short]).tolist(),
            strict=True,
        )
    )
    if len(positions) > 1:
        ends = np.maximum.accumulate(positions + sizes)
        lost = np.flatnonzero((positions[1:] > ends[:-1]) & (positions[1:] - ends[:-1] < MAX_GAP_BYTES))
        gaps.extend((int(ends[i]), int(positions[i + 1]), True) for i in lost)
        gaps.sort()
    return gaps


@dataclass(slots=True)
class ConnectionStreams:
    """Both directions of one connection as one source saw them.

    send, receive: as in `socket_data.direction`. source: 'socket', 'tls' or 'wire'. datagrams: not a byte stream.
    """

    connection_id: int
    source: str
    datagrams: bool
    send: Stream
    receive: Stream


class StreamIndex:
    """All of `socket_data` grouped into streams; iterating yields ConnectionStreams in order of connection_id.

    data: pyarrow.Table with the columns of `socket_data`; datagram_ids: connection_ids that are datagrams.
    """

    COLUMNS = (
        "ts_ns",
        "connection_id",
        "direction",
        "position",
        "size_bytes",
        "payload",
        "source",
        "pid",
        "tid",
    )

    def __init__(self, data: Any, datagram_ids: npt.NDArray[np.int64]) -> None:
        data = data.combine_chunks()
        self.row_count = data.num_rows
        self.ts_ns = _ints(data, "ts_ns", np.int64)
        self.connection_id = _ints(data, "connection_id", np.int64)
        self.position = _ints(data, "position", np.int64)
        self.size = _ints(data, "size_bytes", np.int64)
        self.pid = _ints(data, "pid", np.int32)
        self.tid = _ints(data, "tid", np.int32)
        self.is_receive = _label_is(data, "direction", "receive")
        source_names, self.source = _labels(data, "source")
        self.source_names = source_names
        self.values = _binary(data, "payload")
        self.payload, self.offsets = _bytes_of(self.values)
        self.captured = np.diff(self.offsets)
        self.is_datagram = np.isin(self.connection_id, datagram_ids)
        self.order = self._order()
        ordered = self.order
        changes = np.flatnonzero(
            (np.diff(self.connection_id[ordered]) != 0)
            | (np.diff(self.source[ordered]) != 0)
            | (np.diff(self.is_receive[ordered]) != 0)
        )
        self.bounds: list[int] = [0, *(changes + 1).tolist(), len(ordered)] if len(ordered) else []

    def _order(self) -> Int64Array:
        """Rows by connection, source, direction and position; of equal position (and all datagrams) in time.

        Most streams are in order already: one stable sort of small numbers, and a look.
        """
        _, connection = np.unique(self.connection_id, return_inverse=True)
        stream = (connection * (len(self.source_names) or 1) + self.source) * 2 + self.is_receive
        count = int(stream.max(initial=0)) + 1
        # NumPy sorts numbers of 16 bits in linear time.
        order = np.argsort(stream.astype(np.uint16) if count <= 1 << 16 else stream, kind="stable")
        place = np.where(self.is_datagram, 0, self.position)[order]
        same = np.diff(stream[order]) == 0
        if (same & (np.diff(place) < 0)).any():
            order = order[np.lexsort((place, stream[order]))]
        return order

    def __iter__(self) -> Iterator[ConnectionStreams]:
        pending: dict[bool, Any] = {}
        key: tuple[int, int] | None = None
        for low, high in pairwise(self.bounds):
            row = int(self.order[low])
            this = (int(self.connection_id[row]), int(self.source[row]))
            if key is not None and this != key:
                yield self._connection(key, pending)
                pending = {}
            key = this
            pending[bool(self.is_receive[row])] = self.order[low:high]
        if key is not None:
            yield self._connection(key, pending)

    def _connection(self, key: tuple[int, int], rows: dict[bool, Any]) -> ConnectionStreams:
        datagrams = bool(self.is_datagram[next(iter(rows.values()))[0]])
        empty = np.empty(0, np.int64)
        return ConnectionStreams(
            key[0],
            self.source_names[key[1]],
            datagrams,
            self._stream(rows.get(False, empty), datagrams),
            self._stream(rows.get(True, empty), datagrams),
        )

    def _stream(self, rows: Int64Array, datagrams: bool) -> Stream:
        positions, sizes, captured = self.position[rows], self.size[rows], self.captured[rows]
        if datagrams:
            positions = np.cumsum(sizes) - sizes
            runs = [
                Run(position, bytes(self.payload[self.offsets[row] : self.offsets[row + 1]]))
                for position, row in zip(positions.tolist(), rows.tolist(), strict=True)
            ]
        else:
            positions, sizes, captured, rows, skip = _without_overlap(positions, sizes, captured, rows)
            runs = self._runs(positions, captured, rows, skip)
        return Stream(runs, positions, sizes, captured, self.ts_ns[rows], self.pid[rows], self.tid[rows])

    def _runs(self, positions: Int64Array, captured: Int64Array, rows: Int64Array, skip: Int64Array) -> list[Run]:
        if not len(rows):
            return []
        breaks = np.flatnonzero(positions[1:] != positions[:-1] + captured[:-1]) + 1
        bounds = [0, *breaks.tolist(), len(rows)]
        if not skip.any() and captured.sum() < _LARGE_PIECE_BYTES * len(rows):
            # One copy of all pieces in C, and one of each run: for large pieces the second costs more than a loop.
            import pyarrow as pa

            taken = self.values.take(pa.array(rows))
            whole, ends = _bytes_of(taken)
            return [
                Run(int(positions[low]), bytes(whole[ends[low] : ends[high]]))
                for low, high in pairwise(bounds)
                if ends[high] > ends[low]
            ]
        starts = (self.offsets[rows] + skip).tolist()
        stops = self.offsets[rows + 1].tolist()
        payload = self.payload
        pieces = [payload[s:e] for s, e in zip(starts, stops, strict=True)]
        return [
            Run(int(positions[low]), b"".join(pieces[low:high]))
            for low, high in pairwise(bounds)
            if any(len(p) for p in pieces[low:high])
        ]


def _without_overlap(
    positions: Int64Array, sizes: Int64Array, captured: Int64Array, rows: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array, Int64Array]:
    """Chunks trimmed so that none covers a byte an earlier one covers; the last array is bytes skipped of each."""
    skip = np.zeros(len(rows), np.int64)
    if len(rows) < 2:
        return positions, sizes, captured, rows, skip
    ends = np.maximum.accumulate(positions + sizes)
    overlap = np.maximum(0, ends[:-1] - positions[1:])
    if not overlap.any():
        return positions, sizes, captured, rows, skip
    skip[1:] = np.minimum(overlap, sizes[1:])
    keep = (skip < sizes) | (sizes == 0)
    captured_left = np.maximum(0, captured - skip)
    skip_captured = np.minimum(skip, captured)
    return (
        (positions + skip)[keep],
        (sizes - skip)[keep],
        captured_left[keep],
        rows[keep],
        skip_captured[keep],
    )


def _ints(data: Any, name: str, kind: Any) -> Any:
    column = data.column(name)
    if column.null_count:
        column = column.fill_null(0)
    return column.to_numpy().astype(kind, copy=False)


def _labels(data: Any, name: str) -> tuple[list[str], npt.NDArray[np.int32]]:
    column = data.column(name).combine_chunks()
    return column.dictionary.to_pylist(), column.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32)


def _label_is(data: Any, name: str, value: str) -> npt.NDArray[np.bool_]:
    names, codes = _labels(data, name)
    return codes == names.index(value) if value in names else np.zeros(len(codes), bool)


def _binary(data: Any, name: str) -> Any:
    """The column as one Arrow array of large_binary; NULL is empty."""
    import pyarrow as pa

    column = data.column(name)
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks)
        if column.num_chunks
        else pa.array([], pa.large_binary())
    )


def _bytes_of(array: Any) -> tuple[memoryview, Int64Array]:
    """The array's bytes as one buffer, and the offsets (length rows + 1) of each value in it."""
    if not len(array):
        return memoryview(b""), np.zeros(1, np.int64)
    _, offsets_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64, count=len(array) + 1, offset=array.offset * 8)
    return memoryview(data_buffer) if data_buffer is not None else memoryview(b""), offsets
