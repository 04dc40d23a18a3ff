"""Events of block devices become rows."""

from __future__ import annotations

import numpy as np

from kubetape.capture.convert_block import table
from kubetape.capture.layouts import layouts

LAYOUT = layouts()["block_io_event"]


def test_rows_in_order_of_issue_and_what_is_not_known_is_null() -> None:
    events = np.zeros(2, LAYOUT.dtype)
    for one, (operation, issued, queued, done, pid, error) in zip(
        events, ((2, 300, 2**64 - 1, 350, 0, 5), (1, 100, 20, 400, 7, 0)), strict=True
    ):
        one["operation"], one["issue_ns"], one["queue_ns"], one["ts_ns"] = operation, issued, queued, done
        one["pid"], one["error"], one["size_bytes"] = pid, error, 4096 if pid else 0
        one["device"][:3], one["command"][:2] = list(b"vda"), list(b"sh")
    written = {"device": "vda", "operation": "write", "size_bytes": 4096, "is_error": False}
    flushed = {"device": "vda", "operation": "flush", "size_bytes": 0, "is_error": True}
    assert table("n", events).to_pylist() == [
        {"node": "n", "ts_ns": 100, "queue_ns": 20, "duration_ns": 300, "pid": 7, "command": "sh"} | written,
        {"node": "n", "ts_ns": 300, "queue_ns": None, "duration_ns": 50, "pid": None, "command": None} | flushed,
    ]


def test_no_events() -> None:
    assert table("n", np.zeros(0, LAYOUT.dtype)).num_rows == 0
