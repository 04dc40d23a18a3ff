"""Segments that skip bytes or bring old ones, one by one: what is new in them, and what to call it.

Wireshark decides between a retransmission and a reordered segment by time alone. Here the bytes decide first: a
segment whose bytes were all seen is a retransmission. Bytes seen for the first time, late, were either
overtaken (they come within the time reordering takes) or lost before the place of the capture and sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kubetape.capture.pcap.events import NONE, EventLog
from kubetape.capture.pcap.packets import Ints

if TYPE_CHECKING:
    from kubetape.capture.pcap.tcp import Directions

SYN = 2
# Wireshark takes 3 ms where it knows no round-trip time.
REORDERING_NS = 3_000_000
FAST_WITHIN_DUPLICATES = 3  # RFC 5681: the third duplicate acknowledgement
MAX_HOLES = 1024  # per direction; the oldest is given up (and reported as lost) beyond that


class Holes:
    """Missing ranges of one direction below what was reached, as [start, end, time noticed], ascending."""

    __slots__ = ("given_up", "ranges")

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int, int]] = []
        self.given_up: list[tuple[int, int, int]] = []

    def add(self, start: int, end: int, ts_ns: int) -> None:
        self.ranges.append((start, end, ts_ns))
        if len(self.ranges) > MAX_HOLES:
            self.given_up.append(self.ranges.pop(0))

    def fill(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Take [start, end) out of the holes; the parts that were missing, each with the time it was noticed."""
        if not self.ranges or start >= self.ranges[-1][1] or end <= self.ranges[0][0]:
            return []
        filled, left = [], []
        for hole in self.ranges:
            low, high = max(hole[0], start), min(hole[1], end)
            if low >= high:
                left.append(hole)
                continue
            filled.append((low, high, hole[2]))
            if hole[0] < low:
                left.append((hole[0], low, hole[2]))
            if high < hole[1]:
                left.append((high, hole[1], hole[2]))
        self.ranges = left
        return filled


def repair(
    d: Directions, which: Ints, holes: dict[int, Holes], acked: Ints, events: EventLog
) -> list[tuple[int, int, int, int, int]]:
    """Go through the segments `which` (indices into `d`, ascending): holes are opened and filled, events recorded.

    Returns rows of new bytes out of segments that also bring old ones: (index, position, size, payload bytes
    skipped before, bytes known to have been sent more than once or NONE).
    """
    pieces: list[tuple[int, int, int, int, int]] = []
    columns = (d.group, d.ts_ns, d.flags, d.position, d.size, d.reached)
    for i, group, ts_ns, flags, position, size, reached in zip(
        which.tolist(), *(c[which].tolist() for c in columns), strict=True
    ):
        direction = int(d.direction[group])
        mine = holes.get(direction)
        if position > reached:
            if mine is None:
                mine = holes[direction] = Holes()
            mine.add(reached, position, ts_ns)
            continue
        start = position + (1 if flags & SYN else 0)
        end = start + size
        fresh = mine.fill(start, min(end, reached)) if mine is not None else []
        late = _is_late(fresh, ts_ns)
        for low, high, _ in fresh:
            pieces.append((i, low, high - low, low - start, high - low if late else NONE))
        if end > reached:
            pieces.append((i, reached, end - reached, reached - start, NONE))
        connection, sender = direction >> 1, direction & 1
        if fresh and not late:
            events.add("out_of_order", ts_ns, connection, sender, "", start, size)
        elif not flags & SYN:
            detail = _cause(d, i, direction, start, ts_ns)
            events.add("retransmit", ts_ns, connection, sender, detail, start, size)
    return pieces


def _is_late(fresh: list[tuple[int, int, int]], ts_ns: int) -> bool:
    """Whether bytes missing until now come too late to have been merely overtaken."""
    return bool(fresh) and ts_ns - fresh[0][2] > REORDERING_NS


def _cause(d: Directions, i: int, direction: int, start: int, ts_ns: int) -> str:
    """'fast' after duplicate acknowledgements of this very byte, 'timeout' after a silence, else 'other'.

    The silence is measured from the direction's own last segment: a sender that waited at least 200 ms (Linux's
    smallest retransmission timeout) for nothing was woken by its timer.
    """
    index = int(np.searchsorted(d.direction, direction ^ 1))
    if index < len(d.direction) and d.direction[index] == direction ^ 1:
        low = int(d.starts[index])
        high = int(d.starts[index + 1]) if index + 1 < len(d.starts) else len(d.packet)
        before = low + int(np.searchsorted(d.packet[low:high], d.packet[i]))
        recent = d.acks[max(low, before - FAST_WITHIN_DUPLICATES - 1) : before]
        if len(recent) > FAST_WITHIN_DUPLICATES and (recent == start).all():
            return "fast"
    group = int(d.group[i])
    if i > int(d.starts[group]) and ts_ns - int(d.ts_ns[i - 1]) >= 200_000_000:
        return "timeout"
    return "other"
