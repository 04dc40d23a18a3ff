"""block_io rows from the events of block_io.c."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.capture import columns
from kubetape.capture.records import Array

# enum req_op of include/linux/blk_types.h; zeroes are written without data, as a discard is.
_OPERATIONS = {0: "read", 1: "write", 2: "flush", 3: "discard", 5: "discard", 7: "write", 9: "discard"}
_OTHER = "other"
_NOT_MEASURED = np.uint64(2**64 - 1)


def table(node: str, events: Array) -> Any:
    """block_io as pyarrow.Table, in order of the time of issue (monotonic ns). events: of the layout block_io_event."""
    events = events[np.argsort(events["issue_ns"], kind="stable")]
    issued = events["issue_ns"].astype(np.int64)
    queue = events["queue_ns"]
    asked = events["pid"] != 0
    return pa.table(
        {
            "node": columns.constant(node, len(events)),
            "ts_ns": pa.array(issued),
            "device": _texts(events["device"]),
            "operation": pa.array([_OPERATIONS.get(n, _OTHER) for n in events["operation"].tolist()], pa.string()),
            "size_bytes": pa.array(events["size_bytes"].astype(np.int64)),
            "queue_ns": columns.integers(
                np.where(queue == _NOT_MEASURED, 0, queue), queue == _NOT_MEASURED, pa.int64()
            ),
            "duration_ns": pa.array(events["ts_ns"].astype(np.int64) - issued),
            "pid": columns.integers(events["pid"], ~asked, pa.int32()),
            "command": _texts(events["command"], ~asked),
            "is_error": pa.array(events["error"] != 0),
        }
    )


def _texts(raw: Array, empty: Array | None = None) -> Any:
    """Arrays of bytes that end with NUL, as strings; NULL where `empty`."""
    words, which = np.unique(raw, axis=0, return_inverse=True)
    texts = pa.array([w.tobytes().split(b"\0", 1)[0].decode(errors="replace") for w in words], pa.string())
    found = texts.take(pa.array(which.reshape(-1)))
    return found if empty is None else pa.compute.if_else(pa.array(empty), pa.scalar(None, pa.string()), found)
