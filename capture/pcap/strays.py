"""Sequence and acknowledgement numbers that belong to no stream: damaged packets, or those of a host gone astray."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from kubetape.capture.pcap.packets import Bools, Ints

Number = TypeVar("Number", Ints, int)

# No window is larger than 2**30 bytes (RFC 7323), and few come near. What lies further back than this is
# taken for what lies ahead, so that a stream whose ports were used again without a SYN seen goes on after a gap.
FAR_BYTES = 1 << 28


def signed(difference: Number) -> Number:
    """Modulo 2**32, between -2**31 and 2**31."""
    return ((difference + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def forward(difference: Ints) -> Ints:
    """Modulo 2**32, between -FAR_BYTES and 2**32 - FAR_BYTES."""
    return ((difference + FAR_BYTES) & 0xFFFFFFFF) - FAR_BYTES


def find_strays(numbers: Ints, group: Ints, reference: Ints, unseen: int) -> Bools:
    """Which 32-bit numbers lie far from both of their neighbours in their group.

    group: sorted; reference: per entry, the last known position of its group before the first entry, or
    `unseen`. Of a stream that really jumps (a long gap in the capture) the next number follows the new one.
    """
    strays = np.zeros(len(numbers), bool)
    if len(numbers) < 2:
        return strays
    same = group[1:] == group[:-1]
    far = np.append(False, same & (np.abs(signed(numbers[1:] - numbers[:-1])) > FAR_BYTES))
    known = np.append(True, ~same) & (reference != unseen)
    far |= known & (np.abs(signed(numbers - reference)) > FAR_BYTES)
    if not far.any():
        return strays
    for g in np.unique(group[far]).tolist():
        low, high = np.searchsorted(group, [g, g + 1]).tolist()
        values = numbers[low:high].tolist()
        last = None if reference[low] == unseen else int(reference[low]) & 0xFFFFFFFF
        for k, value in enumerate(values):
            after = values[k + 1 : k + 3]
            if last is None:
                # The first of all: astray if the two behind it agree with each other, but not with it.
                astray = len(after) == 2 and _far(after[0], value) and not _far(after[0], after[1])
            else:
                astray = _far(value, last) and (not after or _far(after[0], value))
            if astray:
                strays[low + k] = True
            else:
                last = value
    return strays


def _far(a: int, b: int) -> bool:
    """Whether two numbers lie far from each other, the shorter way round."""
    return min((a - b) & 0xFFFFFFFF, (b - a) & 0xFFFFFFFF) > FAR_BYTES
