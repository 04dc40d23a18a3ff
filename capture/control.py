"""What the recorder turns in its running programs: the generation of a ring's segments, and the share recorded."""

from __future__ import annotations

import os
import time

from kubetape.capture import program
from kubetape.capture.load import Loaded

GENERATION, SHARE, WHOLE = 0, 1, 256  # numbers in common.h; a share is counted in 256ths
_LEAST = 1
_SLACK = 0.85  # of the budget: above it nothing is added


class Control:
    """The map `control`. With a CPU budget (of one CPU: 0.05), `adjust` every second keeps to it.

    The programs' own time is counted by the kernel (BPF_ENABLE_STATS) while this object holds its descriptor.
    """

    def __init__(self, loaded: Loaded, max_cpu: float | None) -> None:
        self._loaded, self._max_cpu = loaded, max_cpu
        self._table = loaded.module.table("control")
        self._generation = 0
        self.share = self.least = WHOLE
        self._statistics = -1
        self._statistics_missing = False
        if max_cpu is not None:
            try:
                self._statistics = program.enable_statistics()
            except OSError:
                self._statistics_missing = True
        self._used_ns, self._at_ns = self._used(), time.monotonic_ns()
        self._set(SHARE, WHOLE)
        self.next_generation()

    def _set(self, which: int, value: int) -> None:
        self._table[which] = value

    def next_generation(self) -> None:
        """From now on, each socket is announced again at its next event."""
        self._generation += 1
        self._set(GENERATION, self._generation)

    def _used(self) -> int:
        """CPU time of the recorder and of its programs so far."""
        return time.process_time_ns() + sum(a.statistics()[1] for a in self._loaded.attachments)

    def adjust(self) -> None:
        """Look at what was used since the call before, and record a larger or a smaller share from now on."""
        if self._max_cpu is None:
            return
        used, now = self._used(), time.monotonic_ns()
        ratio = (used - self._used_ns) / max(1, now - self._at_ns) / self._max_cpu
        self._used_ns, self._at_ns = used, now
        self.share = next_share(self.share, ratio)
        self.least = min(self.least, self.share)
        self._set(SHARE, self.share)

    def close(self) -> list[str]:
        """Notes for the manifest."""
        if self._statistics >= 0:
            os.close(self._statistics)
            self._statistics = -1
        notes = []
        if self.least < WHOLE:
            notes.append(
                f"to stay within --max-cpu, only a part of all connections was recorded at times, at the least "
                f"{100 * self.least / WHOLE:.0f} %: see table loss, reason thinned"
            )
        if self._statistics_missing:
            notes.append("this kernel does not count the time of its programs: --max-cpu held for the recorder only")
        return notes


def next_share(share: int, ratio: float) -> int:
    """The share for the next second, when this one used `ratio` of the budget: down at once, up by degrees."""
    if ratio > 1:
        return max(_LEAST, int(share / ratio * 0.9))
    if ratio < _SLACK:
        return min(WHOLE, share + max(1, int(share * min(0.25, _SLACK - ratio))))
    return share
