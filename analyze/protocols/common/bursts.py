"""Pairing by order after replies were lost: only what was sent last before a reply can be answered by it."""

from __future__ import annotations

from collections import deque
from typing import Protocol, TypeVar

from kubetape.analyze.streams import Span


class Waiting(Protocol):
    span: Span


W = TypeVar("W", bound=Waiting)


def unanswerable(waiting: deque[W], time_ns: int) -> list[W]:
    """Take from `waiting` what a reply seen at time_ns, after lost ones, cannot answer or may not answer.

    A burst is what was sent in one piece (the same first_ns). Bursts before the last one sent by time_ns were
    answered in the lost bytes. Of a last burst with several commands nobody knows how many replies were lost:
    it goes too.
    """
    taken: list[W] = []
    while len(waiting) > 1:
        burst = waiting[0].span.first_ns
        size = 0
        for item in waiting:
            if item.span.first_ns != burst:
                break
            size += 1
        is_last = size == len(waiting) or waiting[size].span.first_ns > time_ns
        if is_last and size == 1:
            break
        taken.extend(waiting.popleft() for _ in range(size))
        if is_last:
            break
    return taken
