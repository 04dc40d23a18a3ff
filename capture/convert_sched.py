"""sched_slice rows from the slice events: each event is up to three rows (off the CPU, waiting for one, running)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.capture import columns
from kubetape.capture.layouts import Layout
from kubetape.capture.program import Module
from kubetape.capture.records import Array

_STATES = ("runnable", "sleeping", "blocked", "stopped", "idle", "running")  # SLICE_* of events.h, then running
_RUNNABLE, _RUNNING = 0, 5
_NO_CALL = 0xFFFFFFFF
_BATCH = 1 << 20
_FIELDS = ("off_ns", "woke_ns", "in_ns", "pid", "waker_tid", "call", "state")  # struct sched_thread of sched.c


def read_threads(module: Module) -> list[list[int]]:
    """sched.c's state of every thread it follows: [tid, *_FIELDS]."""
    table = module.table("sched_threads")
    return [[key.value, *(int(getattr(value, name)) for name in _FIELDS)] for key, value in table.items()]


def open_slices(threads: list[list[int]], end_ns: int, layout: Layout) -> Array:
    """Slice events, cut at end_ns, for what the threads were doing when the recording ended."""
    events = np.zeros(len(threads), layout.dtype)
    if not threads:
        return events
    values = dict(zip(("tid", *_FIELDS), np.array(threads, np.int64).T, strict=True))
    for name, column in values.items():
        events[name] = column
    events["ts_ns"] = end_ns
    # Still off the CPU: a stay of no length at the end.
    events["in_ns"] = np.where(values["in_ns"] == 0, end_ns, values["in_ns"])
    return events[(values["in_ns"] < end_ns) & (values["off_ns"] < end_ns)]


def slice_tables(node: str, events: Array, names: dict[int, str]) -> Iterator[Any]:
    """sched_slice in batches, in order of time. names: system calls by number."""
    off, woke, came, left = (events[n].astype(np.int64) for n in ("off_ns", "woke_ns", "in_ns", "ts_ns"))
    slept = events["state"] != _RUNNABLE
    # A thread that slept and was never seen woken slept until it ran.
    wait_begin = np.where(slept, np.where(woke > 0, np.clip(woke, off, came), came), off)
    begins = np.concatenate([off, wait_begin, came])
    durations = np.concatenate([wait_begin - off, came - wait_begin, left - came])
    chosen = np.flatnonzero(durations > 0)
    chosen = chosen[np.argsort(begins[chosen], kind="stable")]
    numbers = {n: i for i, n in enumerate(sorted(names))}
    texts = [*(names[n] for n in numbers), None]
    for first in range(0, len(chosen), _BATCH):
        part = chosen[first : first + _BATCH]
        phase, at = np.divmod(part, len(events))
        rows = events[at]
        running = phase == 2
        kind = np.where(phase == 0, rows["state"], np.where(running, _RUNNING, _RUNNABLE))
        unique, inverse = np.unique(rows["call"], return_inverse=True)
        call = np.array([numbers.get(int(n), len(numbers)) for n in unique], np.int64)[inverse.reshape(-1)]
        waker = rows["waker_tid"]
        yield pa.table(
            {
                "node": columns.constant(node, len(part)),
                "ts_ns": pa.array(begins[part]),
                "duration_ns": pa.array(durations[part]),
                "pid": columns.integers(rows["pid"], kind=pa.int32()),
                "tid": columns.integers(rows["tid"], kind=pa.int32()),
                "state": columns.labels(kind, _STATES),
                "cpu": columns.integers(rows["cpu"], ~running, pa.int16()),
                "syscall": columns.labels(np.where(running, len(numbers), call), texts),
                "waker_tid": columns.integers(waker, running | (waker == 0), pa.int32()),
            }
        )
