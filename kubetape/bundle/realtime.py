"""From a node's monotonic clock to wall-clock time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kubetape.bundle.manifest import ClockAnchor


def realtime(anchors: Sequence[ClockAnchor], monotonic_ns: Any) -> npt.NDArray[np.int64]:
    """int64 array of CLOCK_MONOTONIC as nanoseconds since 1970, between the clock anchors of its node.

    Without anchors the values stay as they are.
    """
    values = np.asarray(monotonic_ns, np.int64)
    if not anchors:
        return values
    at = np.array([a.monotonic_ns for a in anchors], np.int64)
    offset = np.array([a.realtime_ns - a.monotonic_ns for a in anchors], np.int64)
    # Offsets, not times, are interpolated: float64 holds their differences exactly enough.
    shift = np.interp(values.astype(np.float64), at.astype(np.float64), (offset - offset[0]).astype(np.float64))
    return values + offset[0] + np.round(shift).astype(np.int64)
