"""block_io rows from the events of block_io.c."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.capture import columns
from kubetape.capture.records import Array

_NAMES = ("read", "write", "flush", "discard", "other")
# enum req_op of include/linux/blk_types.h -> place in _NAMES; zeroes are written without data, as a discard is.
_OPERATIONS = np.full(256, _NAMES.index("other"))
_OPERATIONS[[0, 1, 2, 3, 5, 7, 9]] = [0, 1, 2, 3, 3, 1, 3]
_NOT_MEASURED = np.uint64(2**64 - 1)


def table(node: str, events: Array) -> Any:
    """block_io as pyarrow.Table, in order of the time of issue (monotonic ns). events: of the layout block_io_event."""
    events = events[np.argsort(events["issue_ns"], kind="stable")]
    issued = events["issue_ns"].astype(np.int64)
    unknown = events["pid"] == 0
    return pa.table(
        {
            "node": columns.constant(node, len(events)),
            "ts_ns": pa.array(issued),
            "device": _texts(events["device"]),
            "operation": columns.labels(_OPERATIONS[events["operation"]], _NAMES),
            "size_bytes": pa.array(events["size_bytes"].astype(np.int64)),
            "queue_ns": columns.integers(events["queue_ns"], events["queue_ns"] == _NOT_MEASURED),
            "duration_ns": pa.array(events["ts_ns"].astype(np.int64) - issued),
            "pid": columns.integers(events["pid"], unknown, pa.int32()),
            "command": _texts(events["command"], unknown),
            "is_error": pa.array(events["error"] != 0),
        }
    )


def _texts(raw: Array, empty: Array | None = None) -> Any:
    """Arrays of bytes that end with NUL, as strings; NULL where `empty`."""
    words, which = np.unique(raw, axis=0, return_inverse=True)
    texts = pa.array([w.tobytes().split(b"\0", 1)[0].decode(errors="replace") for w in words], pa.string())
    return texts.take(pa.array(which.reshape(-1), mask=empty))
