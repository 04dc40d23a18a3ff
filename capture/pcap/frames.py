"""Packets on their way through the layers, and the count of those that did not arrive."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from kubetape.capture.pcap.packets import Bools, Ints

MAX_LAYERS = 8  # headers of one kind within each other; more is not traffic


@dataclass
class Skipped:
    """Packets that became no row, by reason."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int) -> None:
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count


@dataclass
class Frames:
    """Packets on their way: `at` is where the next header begins, `end` where captured bytes end, `true_end`
    where the packet's own do; kind: LINKTYPE of that header, RAW_IP for IP."""

    order: Ints
    ts_ns: Ints
    frame_at: Ints
    at: Ints
    end: Ints
    true_end: Ints
    link: Ints
    label: Ints

    def take(self, which: Ints | Bools) -> Frames:
        return Frames(*(getattr(self, f.name)[which] for f in dataclasses.fields(self)))

    def inside(self, which: Ints, at: Ints, true_end: Ints, link: Ints, label: Ints) -> Frames:
        """The packets that begin at `at` within those chosen."""
        return Frames(
            self.order[which],
            self.ts_ns[which],
            self.frame_at[which],
            at,
            np.minimum(self.end[which], true_end),
            true_end,
            link,
            label,
        )
