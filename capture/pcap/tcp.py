"""TCP byte streams out of segments: every byte once, at its position, at the time its first copy was seen.

# Strategy: sort a window's segments by direction (connection and sender) and look at all directions at once.
# Sequence numbers become 64-bit positions by summing their signed differences; a running maximum of segment
# ends (`reached`) then tells, without a loop, which segment continues its stream (position == reached), which
# skips bytes (>) and which brings old ones (<). Only the last two kinds, rare in healthy traffic, are looked at
# one by one (`repair.py`), with the list of holes of their direction.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from kubetape.capture.pcap.copies import find_copies
from kubetape.capture.pcap.events import NONE, EventLog, SampleLog
from kubetape.capture.pcap.flows import FlowTable
from kubetape.capture.pcap.grow import Growing
from kubetape.capture.pcap.handshake import ACK, FIN, RST, SYN, assign_connections
from kubetape.capture.pcap.packets import Bools, Bytes, Ints
from kubetape.capture.pcap.repair import Holes, repair
from kubetape.capture.pcap.round_trips import round_trips
from kubetape.capture.pcap.strays import find_strays, forward, signed
from kubetape.capture.pcap.transport import Layer4

UNSEEN = NONE
# A stream that is joined in the middle begins 2**32 up, so that bytes before its first seen one have positions too.
MIDDLE_BASE = 1 << 32
# Relative positions and direction numbers share one int64 in sorted keys: 2**43 bytes per direction and window.
KEY_SHIFT = 43


@dataclass
class StreamRows:
    """Rows of socket_data: `packet` is the index of the segment, `skip` the payload bytes of it left out before."""

    packet: Ints
    connection: Ints
    sender: Ints
    position: Ints
    size: Ints
    skip: Ints
    retransmitted: Ints  # NONE: not known

    @staticmethod
    def concatenate(parts: list[StreamRows]) -> StreamRows:
        names = [f.name for f in fields(StreamRows)]
        return StreamRows(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))

    def take(self, which: Ints) -> StreamRows:
        return StreamRows(*(getattr(self, f.name)[which] for f in fields(self)))


@dataclass
class Directions:
    """A window's segments sorted by direction, then time; one entry per segment unless said otherwise.

    packet: index in the window; group: number of the direction within the window; starts: where each group
    begins (one per group); direction: connection * 2 + sender, one per group; base: smallest position of a
    group, one per group; position .. end: stream positions of the segment; reached: highest end before it.
    """

    packet: Ints
    group: Ints
    starts: Ints
    direction: Ints
    base: Ints
    ts_ns: Ints
    flags: Ints
    position: Ints
    end: Ints
    reached: Ints
    size: Ints
    window: Ints
    acks: Ints  # position acknowledged, UNSEEN where the segment has no ACK
    acked_before: Ints  # highest position acknowledged before it in its direction


class TcpStreams:
    """State of all directions over the windows, indexed by connection * 2 + sender."""

    def __init__(self, flows: FlowTable, events: EventLog, samples: SampleLog) -> None:
        self.flows, self.events, self.samples = flows, events, samples
        self.began = Growing(UNSEEN)  # position of the first segment seen, a SYN's own included
        self.reached = Growing(UNSEEN)  # highest position seen + 1
        self.acked = Growing(UNSEEN)  # highest position this side has acknowledged
        self.acked_ns = Growing(0)
        self.last_ack = Growing(UNSEEN)  # acknowledgement of the last segment
        self.last_window = Growing(UNSEEN)
        self.keep_alive = Growing(0)  # 1: the last segment was a keep-alive
        self.last_ns = Growing(0)  # per connection * 2 + sender
        self.holes: dict[int, Holes] = {}
        self.copy_count = 0
        self.stray_count = 0

    def window(self, packets: Layer4, flow: Ints, sender: Ints, buffers: list[Bytes]) -> StreamRows:
        """Follow one window of time-ordered segments; the rows of new bytes, unsorted."""
        connection, copies = assign_connections(packets, flow, sender, self.flows, self.events)
        for growing in (
            self.began, self.reached, self.acked, self.acked_ns, self.last_ack, self.last_window, self.keep_alive,
            self.last_ns,
        ):  # fmt: skip
            growing.reserve(2 * self.flows.connection_count)
        direction = connection * 2 + sender
        usable = ~copies
        self.copy_count += int(copies.sum())
        packets = self._put_aside_strays(packets, direction, usable)
        directions = self._sort(packets, direction, usable)
        troubled = _troubled(directions)
        if troubled.any() or _pure_ack_repeats(directions).any():
            d = directions
            copies = find_copies(packets.take(d.packet), (d.acks, d.size, d.position, d.flags, d.group), buffers)
            if copies.any():
                self.copy_count += int(copies.sum())
                usable[directions.packet[copies]] = False
                directions = self._sort(packets, direction, usable)
                troubled = _troubled(directions)
        rows = self._rows(packets, directions, troubled)
        self._notice(directions)
        round_trips(directions, self.samples, KEY_SHIFT)
        self._keep(directions)
        return rows

    def _sort(self, packets: Layer4, direction: Ints, usable: Bools) -> Directions:
        which = np.nonzero(usable & (packets.flags & RST == 0))[0]
        direction = direction[which]
        unique, group = np.unique(direction, return_inverse=True)
        narrow = group.astype(np.uint16) if len(unique) < 65_536 else group
        order = np.argsort(narrow, kind="stable")  # a radix sort where 16 bits are enough
        packet, group = which[order], group[order]
        starts = np.nonzero(np.append(True, group[1:] != group[:-1])[: len(group)])[0]
        seq, flags, size = packets.seq[packet], packets.flags[packet], packets.size[packet]
        first_of_group = np.zeros(len(packet), bool)
        first_of_group[starts] = True
        reached_before = self.reached.values[unique]
        peer_acked = self.acked.values[unique ^ 1]
        known = reached_before != UNSEEN
        first_seq = seq[starts]
        fresh = np.where((flags[starts] & SYN != 0) | (first_seq > 1 << 31), first_seq, first_seq + MIDDLE_BASE)
        near = np.where(known, reached_before, np.where(peer_acked != UNSEEN, peer_acked, fresh))
        first_position = near + forward(first_seq - near)
        position = _unwrap(seq, starts, group, first_position)
        end = position + size + (flags & SYN != 0) + (flags & FIN != 0)
        start_reached = np.where(known, reached_before, first_position)
        base = np.minimum(np.minimum.reduceat(position, starts), start_reached) if len(starts) else starts
        reached = _running_maximum(end, group, starts, base, start_reached)
        # Acknowledgements count in the other direction's positions.
        has_ack = flags & ACK != 0
        ack = packets.ack[packet]
        other = unique ^ 1
        index = np.searchsorted(unique, other)
        index = np.minimum(index, max(len(unique) - 1, 0))
        present = unique[index] == other if len(unique) else np.zeros(0, bool)
        other_reached = self.reached.values[other]
        acked_before = self.acked.values[unique]
        anchor = np.where(
            acked_before != UNSEEN,
            acked_before,
            np.where(other_reached != UNSEEN, other_reached, np.where(present, first_position[index], UNSEEN)),
        )
        acks, acked = _acknowledgements(ack, has_ack, starts, group, anchor, acked_before)
        return Directions(
            packet, group, starts, unique, base, packets.ts_ns[packet], flags, position, end, reached, size,
            packets.window[packet], acks, acked,
        )  # fmt: skip

    def _put_aside_strays(self, packets: Layer4, direction: Ints, usable: Bools) -> Layer4:
        """Mark segments with stray sequence numbers unusable; stray acknowledgements lose their ACK flag."""
        # A reset's numbers are often made up by a middlebox or a closed socket: they move no stream.
        which = np.nonzero(usable & (packets.flags & RST == 0))[0]
        which = which[np.argsort(direction[which], kind="stable")]
        group = direction[which]
        strays = find_strays(packets.seq[which], group, self.reached.values[group], UNSEEN)
        usable[which[strays]] = False
        self.stray_count += int(strays.sum())
        acking = packets.flags[which] & ACK != 0
        which, group = which[acking], group[acking]
        strays = find_strays(packets.ack[which], group, self.acked.values[group], UNSEEN)
        if not strays.any():
            return packets
        flags = packets.flags.copy()
        flags[which[strays]] &= ~ACK
        return replace(packets, flags=flags)

    def _rows(self, packets: Layer4, d: Directions, troubled: Bools) -> StreamRows:
        plain = (d.size > 0) & (d.position >= d.reached)
        kept = np.nonzero(plain)[0]
        of_group = d.direction[d.group[kept]]
        rows = StreamRows(
            packet=d.packet[kept],
            connection=of_group >> 1,
            sender=of_group & 1,
            position=d.position[kept] + (d.flags[kept] & SYN != 0),
            size=d.size[kept],
            skip=np.zeros(len(kept), np.int64),
            retransmitted=np.full(len(kept), NONE, np.int64),
        )
        if troubled.any():
            pieces = repair(d, np.nonzero(troubled)[0], self.holes, self.acked.values, self.events)
            if pieces:
                extra = np.array(pieces, np.int64).T
                index, position, size, skip, again = extra
                of_group = d.direction[d.group[index]]
                rows = StreamRows(
                    np.append(rows.packet, d.packet[index]),
                    np.append(rows.connection, of_group >> 1),
                    np.append(rows.sender, of_group & 1),
                    np.append(rows.position, position),
                    np.append(rows.size, size),
                    np.append(rows.skip, skip),
                    np.append(rows.retransmitted, again),
                )
        return rows

    def _notice(self, d: Directions) -> None:
        """Zero windows, keep-alives and duplicate acknowledgements."""
        if not len(d.packet):
            return
        quiet = d.flags & (SYN | FIN | RST) == 0
        of_group = d.direction[d.group]
        last_window = _shift(d.window, d.starts, self.last_window.values[d.direction])
        shut = quiet & (d.window == 0) & (last_window != 0) & (last_window != UNSEEN)
        self._log("zero_window", d, np.nonzero(shut)[0], of_group)
        alive = _keep_alives(d) & (_shift(d.end, d.starts, self.reached.values[d.direction]) != UNSEEN)
        where = np.nonzero(alive)[0]
        self._log("keep_alive", d, where, of_group)
        last_ack = _shift(d.acks, d.starts, self.last_ack.values[d.direction])
        repeated = _pure_ack_repeats(d, last_ack, last_window) & ~alive
        candidates = np.nonzero(repeated)[0]
        if len(candidates) and (len(where) or self.keep_alive.values[d.direction ^ 1].any()):
            candidates = self._without_answers(d, candidates, alive)
        self._log("duplicate_ack", d, candidates, of_group, d.acks)

    def _without_answers(self, d: Directions, candidates: Ints, alive: Bools) -> Ints:
        """Those that do not answer a keep-alive: the other side's last segment before them was none."""
        group_of = {direction: g for g, direction in enumerate(d.direction.tolist())}
        bounds = np.append(d.starts, len(d.packet))
        kept = []
        for i in candidates.tolist():
            other = int(d.direction[d.group[i]]) ^ 1
            g = group_of.get(other)
            before = -1
            if g is not None:
                low, high = int(bounds[g]), int(bounds[g + 1])
                before = low + int(np.searchsorted(d.packet[low:high], d.packet[i])) - 1
                before = before if before >= low else -1
            answers = bool(alive[before]) if before >= 0 else bool(self.keep_alive.values[other])
            if not answers:
                kept.append(i)
        return np.array(kept, np.int64)

    def _log(self, kind: str, d: Directions, which: Ints, of_group: Ints, position: Ints | None = None) -> None:
        where = d.position if position is None else position
        self.events.add_many(kind, d.ts_ns[which], of_group[which] >> 1, of_group[which] & 1, where[which])

    def _keep(self, d: Directions) -> None:
        """Carry each direction's state over to the next window."""
        if not len(d.packet):
            return
        last = np.append(d.starts[1:], len(d.packet)) - 1
        to = d.direction
        fresh = self.began.values[to] == UNSEEN
        self.began.values[to[fresh]] = d.position[d.starts[fresh]]
        self.reached.values[to] = np.maximum(d.reached[last], d.end[last])
        acked = np.maximum(d.acked_before[last], d.acks[last])
        moved = acked > self.acked.values[to]
        self.acked.values[to] = acked
        self.acked_ns.values[to[moved]] = d.ts_ns[last[moved]]
        with_ack = d.acks[last] != UNSEEN
        self.last_ack.values[to[with_ack]] = d.acks[last[with_ack]]
        self.last_window.values[to] = d.window[last]
        self.keep_alive.values[to] = _keep_alives(d)[last]
        self.last_ns.values[to] = d.ts_ns[last]


def _unwrap(numbers: Ints, starts: Ints, group: Ints, first: Ints) -> Ints:
    """64-bit positions from 32-bit numbers, per group, beginning at `first`."""
    if not len(numbers):
        return numbers
    steps = np.zeros(len(numbers), np.int64)
    steps[1:] = forward(numbers[1:] - numbers[:-1])
    total = np.cumsum(steps)
    return total - total[starts][group] + first[group]


def _running_maximum(end: Ints, group: Ints, starts: Ints, base: Ints, at_start: Ints) -> Ints:
    """For each entry the highest `end` before it in its group, `at_start` for the first."""
    if not len(end):
        return end
    if len(starts) == 1:
        shifted = np.append(at_start[0], end[:-1])
        return np.maximum.accumulate(shifted)
    relative = np.clip(_shift(end, starts, at_start) - base[group], 0, (1 << KEY_SHIFT) - 1)
    key = np.maximum.accumulate(relative + (group << KEY_SHIFT))
    return key - (group << KEY_SHIFT) + base[group]


def _shift(values: Ints, starts: Ints, at_start: Ints) -> Ints:
    """The value before each entry in its group; `at_start` for the first of a group."""
    shifted = np.empty_like(values)
    shifted[1:] = values[:-1]
    shifted[starts] = at_start
    return shifted


def _acknowledgements(
    ack: Ints, has_ack: Bools, starts: Ints, group: Ints, anchor: Ints, acked_before: Ints
) -> tuple[Ints, Ints]:
    """Positions acknowledged, and the highest before each entry. Entries without ACK repeat the one before them."""
    if not len(ack):
        return ack, ack
    if not has_ack.all():
        index = np.where(has_ack, np.arange(len(ack)), 0)
        index[starts] = starts
        index = np.maximum.accumulate(index)
        carried = ack[index]
        lacking = ~has_ack[index]  # before the first ACK of its group
        following = np.where(has_ack, np.arange(len(ack)), len(ack) - 1)[::-1]
        following = np.minimum.accumulate(following)[::-1]
        same = group[following] == group
        carried = np.where(lacking & same, ack[following], carried)
        ack = carried
    first = np.where(anchor != UNSEEN, anchor + signed(ack[starts] - anchor), ack[starts] + MIDDLE_BASE)
    acks = _unwrap(ack, starts, group, first)
    low = np.minimum.reduceat(acks, starts)
    # The first acknowledgement of all is news: it acknowledges at least the SYN.
    begin = np.where(acked_before != UNSEEN, acked_before, low - 1)
    counted = np.where(has_ack, acks, begin[group])
    highest = _running_maximum(counted, group, starts, np.minimum(low, begin), begin)
    silent = ~np.logical_or.reduceat(has_ack, starts) & (acked_before == UNSEEN)
    highest = np.where(silent[group], UNSEEN, highest)
    return np.where(has_ack, acks, UNSEEN), highest


def _keep_alives(d: Directions) -> Bools:
    """One byte before what was reached, with one byte or none (RFC 1122 section 4.2.3.6)."""
    return (d.position == d.reached - 1) & (d.size <= 1) & (d.flags & (SYN | FIN | RST) == 0)


def _troubled(d: Directions) -> Bools:
    """Segments that skip bytes, or bring bytes (or a FIN) from before what was reached."""
    brings = (d.size > 0) | (d.flags & FIN != 0)
    return (d.position > d.reached) | ((d.position < d.reached) & brings & ~_keep_alives(d))


def _pure_ack_repeats(d: Directions, last_ack: Ints | None = None, last_window: Ints | None = None) -> Bools:
    """Duplicate acknowledgements: no data, nothing new acknowledged, window unchanged (RFC 5681 section 2)."""
    if not len(d.packet):
        return np.zeros(0, bool)
    if last_ack is None or last_window is None:
        unseen = np.full(len(d.starts), UNSEEN)
        last_ack, last_window = _shift(d.acks, d.starts, unseen), _shift(d.window, d.starts, unseen)
    return (
        (d.size == 0)
        & (d.flags & (SYN | FIN | RST) == 0)
        & (d.acks == last_ack)
        & (d.acks != UNSEEN)
        & (d.window == last_window)
        & (d.window != 0)
        & (d.position == d.reached)
    )
