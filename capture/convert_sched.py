"""sched_slice rows from the slice events: each event is up to three rows (off the CPU, waiting for one, running)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.capture import columns
from kubetape.capture.compilation import Module
from kubetape.capture.layouts import Layout, struct_of
from kubetape.capture.records import Array

_STATES = ("runnable", "sleeping", "blocked", "stopped", "idle", "running")  # SLICE_* of events.h, then running
_RUNNABLE, _RUNNING = 0, 5
_NO_CALL = 0xFFFFFFFF
_BATCH = 1 << 20
_FIELDS = (
    "off_ns",
    "woke_ns",
    "in_ns",
    "ran_ns",
    "pid",
    "waker_tid",
    "call",
    "state",
)  # struct sched_thread of sched.c
_TICK_NS = (
    10_000_000  # the kernel brings a running thread's account up to date once a tick, at CONFIG_HZ=100 at the rarest
)


def read_threads(module: Module) -> list[list[int]]:
    """sched.c's state of every thread it follows, and by /proc whether it still runs: [tid, *_FIELDS, account].

    account: of a thread last seen on a CPU its time there in ns by the kernel's account now (/proc/PID/schedstat), -1
    where it is gone; 0 of the others.
    """
    pairs = list(module.table("sched_threads").items())
    if not pairs:
        return []
    tids = np.frombuffer(b"".join(key for key, _ in pairs), np.uint32)
    values = np.frombuffer(b"".join(value for _, value in pairs), struct_of("sched.c", "sched_thread"))
    rows = np.column_stack([tids, *(values[name] for name in _FIELDS)]).tolist()
    came = 1 + _FIELDS.index("in_ns")
    return [[*row, _time_on_cpu(row[0]) if row[came] else 0] for row in rows]


def _time_on_cpu(tid: int) -> int:
    try:
        with open(f"/proc/{tid}/schedstat") as file:
            return int(file.read().split()[0])
    except OSError:
        return -1


def open_slices(threads: list[list[int]], end_ns: int, layout: Layout) -> Array:
    """Slice events, cut at end_ns, for what the threads were doing when the recording ended.

    threads: as of read_threads. A thread last seen coming onto a CPU may have left it since without a program being
    called (see sched.c): by the kernel's account it ran that long and slept for the rest; of one that is gone
    nothing is said after it came.
    """
    if not threads:
        return np.zeros(0, layout.dtype)
    values = dict(zip(("tid", *_FIELDS, "account"), np.array(threads, np.int64).T, strict=True))
    came, account = values["in_ns"], values.pop("account")
    ran = np.clip(account - values.pop("ran_ns"), 0, None)
    left = np.where(came + ran + _TICK_NS + ran // 10 >= end_ns, end_ns, came + ran)
    left = np.where(account < 0, came, left)
    events = np.zeros(len(threads), layout.dtype)
    for name, column in values.items():
        events[name] = column
    # Still off the CPU: a stay of no length at the end.
    events["in_ns"] = np.where(came == 0, end_ns, came)
    events["ts_ns"] = np.where(came == 0, end_ns, np.minimum(left, end_ns))
    asleep = events[(came > 0) & (account >= 0) & (left < end_ns)]
    asleep["off_ns"], asleep["in_ns"], asleep["ts_ns"] = asleep["ts_ns"], end_ns, end_ns
    asleep["woke_ns"], asleep["waker_tid"] = 0, 0
    asleep["state"], asleep["call"] = _STATES.index("sleeping"), _NO_CALL
    return np.concatenate([events[(values["in_ns"] < end_ns) & (values["off_ns"] < end_ns)], asleep])


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
