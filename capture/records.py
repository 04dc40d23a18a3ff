"""From a window of ring bytes to arrays of events, with numpy and no loop per event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from kubetape.capture.layouts import Layout
from kubetape.capture.spool import Frame, SpoolReader

Array = np.ndarray[Any, Any]

WINDOW_BYTES = 64 << 20  # converting holds a few times this much
_BUSY, _DISCARD, _LENGTH = np.uint32(1 << 31), np.uint32(1 << 30), np.uint32((1 << 30) - 1)


def record_offsets(words: Array, begins: Array, ends: Array) -> tuple[Array, int, int]:
    """Where the records' data stand.

    words: uint32 view of the bytes; begins, ends: byte offsets of ranges that begin and end at a record.
    Returns (ascending byte offsets of the data of finished records, count of unfinished ones, bytes not
    understood). Finding the next record needs the length of this one, so a range is a chain; all ranges are
    followed side by side, one step of all chains per turn.
    """
    cursor, end = (begins // 4).astype(np.int64), (ends // 4).astype(np.int64)
    found: list[Array] = []
    busy_count = damaged_bytes = 0
    alive = cursor < end
    cursor, end = cursor[alive], end[alive]
    while len(cursor):
        head = words[cursor]
        following = cursor + 2 + ((head & _LENGTH).astype(np.int64) + 7 >> 3 << 1)
        broken = (following > end) | ((head & _LENGTH) < 16)
        if broken.any():
            damaged_bytes += int((end - cursor)[broken].sum()) * 4
            cursor, end, head, following = (x[~broken] for x in (cursor, end, head, following))
        flagged = (head & (_BUSY | _DISCARD)) != 0
        if flagged.any():
            busy_count += int(((head & _BUSY) != 0).sum())
            found.append(cursor[~flagged])
        else:
            found.append(cursor)
        alive = following < end
        if alive.all():
            cursor = following
        else:
            cursor, end = following[alive], end[alive]
    offsets = np.concatenate(found) if found else np.zeros(0, np.int64)
    offsets.sort()
    return (offsets + 2) * 4, busy_count, damaged_bytes


def gather(data: Array, offsets: Array, dtype: np.dtype[Any]) -> Array:
    """The fixed parts of the records at `offsets` (multiples of 8) as one structured array."""
    count = dtype.itemsize // 8
    words = data[: len(data) // 8 * 8].view(np.uint64)
    index = (offsets // 8)[:, None] + np.arange(count)
    return np.ascontiguousarray(words[index]).view(dtype).reshape(-1)


class Window:
    """Some successive frames of a spool: `data` (their bytes), and the offsets of each kind of event in it."""

    def __init__(self, data: Array, layouts: dict[str, Layout], begins: Array, ends: Array) -> None:
        self.data = data
        self._layouts = layouts
        offsets, self.busy_count, self.damaged_bytes = record_offsets(data.view(np.uint32), begins, ends)
        self._offsets = offsets
        self._kinds = data[offsets + 8] if len(offsets) else np.zeros(0, np.uint8)

    def offsets(self, name: str) -> Array:
        return self._offsets[self._kinds == self._layouts[name].number]

    def events(self, name: str) -> Array:
        return gather(self.data, self.offsets(name), self._layouts[name].dtype)

    def times(self) -> Array:
        """ts_ns of every event, in no order."""
        words = self.data[: len(self.data) // 8 * 8].view(np.uint64)
        return words[self._offsets // 8].astype(np.int64)

    def counts(self) -> dict[str, int]:
        """Events by the name of their layout."""
        numbers = np.bincount(self._kinds, minlength=256)
        return {name: int(numbers[layout.number]) for name, layout in self._layouts.items()}


def windows(spool: SpoolReader, layouts: dict[str, Layout], window_bytes: int = WINDOW_BYTES) -> Iterator[Window]:
    """The events of a spool in windows of about `window_bytes`, in order."""
    batch: list[Frame] = []
    size = 0
    for frame in spool.event_frames():
        if batch and (size + frame.size > window_bytes or frame.file != batch[0].file):
            yield _window(spool, layouts, batch)
            batch, size = [], 0
        batch.append(frame)
        size += frame.size
    if batch:
        yield _window(spool, layouts, batch)


def _window(spool: SpoolReader, layouts: dict[str, Layout], frames: list[Frame]) -> Window:
    first = frames[0].offset
    last = frames[-1].offset + frames[-1].size
    whole = spool.files[frames[0].file]
    data = np.frombuffer(
        whole, np.uint8, (last - first + 7) // 8 * 8 if last + 8 <= len(whole) else last - first, first
    )
    begins = np.array([f.offset - first for f in frames], np.int64)
    ends = np.array([f.offset - first + f.size for f in frames], np.int64)
    return Window(data, layouts, begins, ends)
