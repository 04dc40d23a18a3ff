"""One clock for several nodes, from the bytes that went between them.

Strategy: a byte is received after it was sent. Of bytes from A to B, (time received by B's clock) - (time sent by
A's) is B's clock less A's plus the way; the smallest such values bound the difference of the clocks from above,
those of the other direction from below, all through the recording. Between the bounds lies the straight line
a + b t that keeps farthest from both (a linear program); how far the lines that fit can differ is the error.
(The idea: S. Moon, P. Skelly, D. Towsley, "Estimation and removal of clock skew", INFOCOM 1999.)

A send is recorded when the system call returns: by then its bytes may be on their way. SEND_SLACK_NS allows for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kubetape.bundle.manifest import ClockAnchor, Node

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

SEND_SLACK_NS = 50_000
WINDOWS = 64  # parts of the recording; of each the smallest delay counts
MIN_MESSAGES = 3  # of a direction, below which chance decides
_WRAP = 1 << 32


@dataclass
class Stream:
    """One direction of one connection's end: positions and times of its calls, in stream order.

    start, end: positions of the bytes moved; real_ns: by the node's own clock, since 1970.
    """

    start: Int64
    end: Int64
    real_ns: Int64


@dataclass
class End:
    """One end of a TCP connection. addresses: (local ip, local port, remote ip, remote port)."""

    node: str
    addresses: tuple[str, int, str, int]
    sent: Stream
    received: Stream


@dataclass
class Delays:
    """What went from one node to another: when it was sent, and how long it took by both clocks, ns."""

    at_ns: list[Int64] = field(default_factory=list)
    delay_ns: list[Int64] = field(default_factory=list)

    def lowest(self, origin_ns: int, span_ns: int) -> tuple[Float64, Float64]:
        """(seconds since origin, delay in ns) of the smallest delay in each of WINDOWS parts."""
        if not self.at_ns:
            return np.empty(0), np.empty(0)
        at, delay = np.concatenate(self.at_ns), np.concatenate(self.delay_ns)
        window = np.clip((at - origin_ns) * WINDOWS // max(1, span_ns), 0, WINDOWS - 1)
        order = np.lexsort((delay, window))
        first = order[np.unique(window[order], return_index=True)[1]]
        return (at[first] - origin_ns) / 1e9, delay[first].astype(np.float64)

    @property
    def count(self) -> int:
        return sum(len(part) for part in self.at_ns)


@dataclass(frozen=True)
class Line:
    """Clock of `node` less clock of `other`: offset_ns + drift_ppm * 1000 * (seconds since origin_ns); error_ns: bound.

    origin_ns is on the other's clock.
    """

    node: str
    other: str
    origin_ns: int
    offset_ns: float
    drift_ppm: float
    error_ns: float
    message_count: int

    def at(self, real_ns: Int64) -> Float64:
        return self.offset_ns + self.drift_ppm * 1000 * ((real_ns - self.origin_ns) / 1e9)


def delays_between(sender: Stream, receiver: Stream) -> tuple[Int64, Int64]:
    """(time sent, delay) of each send whose last byte the receiver's calls cover; both by their own clocks."""
    none = np.empty(0, np.int64)
    if not len(sender.end) or not len(receiver.end):
        return none, none
    # The same byte has the same low 32 bits at both ends.
    shift = round((int(sender.end[0]) - int(receiver.end[0])) / _WRAP) * _WRAP
    ends = np.maximum.accumulate(receiver.end) + shift
    place = np.searchsorted(ends, sender.end, "left")
    inside = place < len(ends)
    inside[inside] &= receiver.start[place[inside]] + shift < sender.end[inside]
    return sender.real_ns[inside], receiver.real_ns[place[inside]] - sender.real_ns[inside]


def measure(ends: list[End]) -> dict[tuple[str, str], Delays]:
    """Delays by (sending node, receiving node), over all connections with both ends recorded on different nodes."""
    found: dict[tuple[str, str], Delays] = {}
    by_addresses = {end.addresses: end for end in ends}
    # Through NAT the addresses differ; the first bytes' sequence numbers of both directions hardly ever do by chance.
    by_numbers = {_numbers(end.received, end.sent): end for end in ends}
    for one in ends:
        ip, port, remote_ip, remote_port = one.addresses
        other = by_addresses.get((remote_ip, remote_port, ip, port))
        if other is None and len(one.sent.start) and len(one.received.start):
            other = by_numbers.get(_numbers(one.sent, one.received))
        if other is None or other.node == one.node:
            continue
        at, delay = delays_between(one.sent, other.received)
        if len(at):
            pair = found.setdefault((one.node, other.node), Delays())
            pair.at_ns.append(at)
            pair.delay_ns.append(delay)
    return found


def _numbers(first: Stream, second: Stream) -> tuple[int, int]:
    """Sequence numbers of the first bytes; -1 where nothing was moved."""
    numbers = [int(stream.start[0]) % _WRAP if len(stream.start) else -1 for stream in (first, second)]
    return numbers[0], numbers[1]


def fit(node: str, other: str, to_node: Delays, from_node: Delays) -> Line | None:
    """The clock of `node` against that of `other`; None without messages enough in both directions."""
    from scipy.optimize import linprog

    if min(to_node.count, from_node.count) < MIN_MESSAGES:
        return None
    times = np.concatenate([*to_node.at_ns, *from_node.at_ns])
    origin, span = int(times.min()), int(times.max() - times.min())
    up_at, upper = to_node.lowest(origin, span)
    low_at, lower = from_node.lowest(origin, span)
    lower = -lower
    # Unknowns: a, b (per second), margin. a + b t + margin <= upper; -(a + b t) + margin <= -lower.
    ones = np.ones(len(up_at)), np.ones(len(low_at))
    rows = np.concatenate([np.column_stack([ones[0], up_at, ones[0]]), np.column_stack([-ones[1], -low_at, ones[1]])])
    limits = np.concatenate([upper, -lower])
    centre = float(np.median(np.concatenate([upper, lower])))
    limits[: len(upper)] -= centre
    limits[len(upper) :] += centre
    # No clock drifts by more than 500 ppm (ntp_adjtime's own limit).
    bounds = [(None, None), (-500e3, 500e3), (None, None)]
    best = linprog([0, 0, -1], rows, limits, bounds=bounds)
    if not best.success:
        return None
    a, b, margin = best.x
    error = abs(float(margin)) if margin < 0 else 0.0
    if margin > 0:
        # How far other lines between the bounds go apart from this one, at both ends of the recording.
        for at in (0.0, span / 1e9):
            for sign in (1, -1):
                other_line = linprog([sign, sign * at], rows[:, :2], limits, bounds=bounds[:2])
                if other_line.success:
                    error = max(error, abs(float(other_line.x[0] + other_line.x[1] * at) - (a + b * at)))
    count = to_node.count + from_node.count
    return Line(node, other, origin, centre + float(a), float(b) / 1000, error + SEND_SLACK_NS, count)


def align(nodes: list[Node], ends: list[End]) -> list[str]:
    """Correct the clock anchors of all nodes to that of the best connected one; what was done, one line each.

    The anchors' `error_ns` grows by the bound of the correction. Nodes without traffic to others keep their clocks.
    """
    delays = measure(ends)
    nothing = Delays()
    lines: dict[tuple[str, str], Line] = {}
    for sender, receiver in delays:
        if (receiver, sender) not in lines:
            line = fit(receiver, sender, delays[sender, receiver], delays.get((receiver, sender), nothing))
            if line is not None:
                lines[receiver, sender] = line
    by_name = {node.name: node for node in nodes}
    degree = {name: sum(name in pair for pair in lines) for name in by_name}
    rest = sorted(by_name, key=lambda name: (-degree[name], name))
    notes = []
    while rest:
        reference = rest.pop(0)
        corrected: dict[str, Callable[[Int64], Float64]] = {reference: lambda real: np.zeros(len(real))}
        errors = {reference: 0.0}
        while True:
            # The surest step to a node not reached yet.
            steps = [
                (errors[known] + line.error_ns, known, new, line)
                for pair, line in lines.items()
                for known, new in (pair, pair[::-1])
                if known in corrected and new not in corrected
            ]
            if not steps:
                break
            error, known, new, line = min(steps, key=lambda step: (step[0], step[2]))
            corrected[new] = _correction(line, new, corrected[known])
            errors[new] = error
        for name in corrected:
            if name == reference:
                continue
            rest.remove(name)
            notes.append(_apply(by_name[name], corrected[name], errors[name], reference))
        if len(corrected) == 1 and len(nodes) > 1:
            notes.append(f"{reference}: no traffic with other nodes tells its clock; it was taken as it is")
            by_name[reference].facts["clock_alignment"] = {"basis": "anchors"}
    return notes


def _correction(line: Line, new: str, of_known: Callable[[Int64], Float64]) -> Callable[[Int64], Float64]:
    """What to take from the clock of `new`, by its own time: the line, and what is taken from the known node's."""
    sign = 1.0 if line.node == new else -1.0

    def correction(real_ns: Int64) -> Float64:
        own: Float64 = sign * line.at(real_ns)
        return own + of_known(real_ns - own.astype(np.int64))

    return correction


def _apply(node: Node, correction: Callable[[Int64], Float64], error_ns: float, reference: str) -> str:
    if not node.clock:
        return f"{node.name}: has no clock to correct"
    # A line needs both ends of the recording, even where there was one reading of the clock.
    if len(node.clock) == 1 and node.end_ns > node.start_ns:
        offset = node.clock[0].realtime_ns - node.clock[0].monotonic_ns
        error = node.clock[0].error_ns
        node.clock = [ClockAnchor(at, at + offset, error) for at in (node.start_ns, node.end_ns)]
    real = np.array([anchor.realtime_ns for anchor in node.clock], np.int64)
    taken = correction(real)
    for anchor, amount in zip(node.clock, taken.tolist(), strict=True):
        anchor.realtime_ns -= round(amount)
        anchor.error_ns += round(error_ns)
    seconds = max(1e-9, (real[-1] - real[0]) / 1e9)
    drift_ppm = (taken[-1] - taken[0]) / seconds / 1000 if len(taken) > 1 else 0.0
    node.facts["clock_alignment"] = {
        "basis": "traffic",
        "reference": reference,
        "offset_ns": round(float(taken[0])),
        "drift_ppm": round(float(drift_ppm), 3),
        "error_ns": round(error_ns),
    }
    return (
        f"{node.name}: its clock was set to that of {reference} by their traffic: {-taken[0] / 1e6:+.3f} ms, "
        f"drift {drift_ppm:+.1f} ppm, error at most {error_ns / 1e6:.3f} ms"
    )
