"""Spans of messages whose frames lie between those of others."""

from __future__ import annotations

from kubetape.analyze.streams import Span


class ScatteredSpan(Span):
    """The frames of one message of a multiplexed stream: `size` counts its own frames only."""

    __slots__ = ("own_bytes",)

    def __init__(self, first: Span) -> None:
        super().__init__(
            first.start,
            first.end,
            first.first_ns,
            first.last_ns,
            first.lost_bytes,
            first.cut_bytes,
            first.pid,
            first.tid,
        )
        self.own_bytes = first.size

    @property
    def size(self) -> int:
        return self.own_bytes

    def extend(self, other: Span) -> None:
        super().extend(other)
        self.own_bytes += other.size
