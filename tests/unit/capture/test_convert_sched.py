"""The events of a thread become intervals without gap or overlap."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from kubetape.capture.convert_sched import open_slices, slice_tables
from kubetape.capture.layouts import layouts
from kubetape.capture.records import Array

LAYOUT = layouts()["slice_event"]
NAMES = {0: "read", 202: "futex"}


def events(*rows: tuple[int, int, int, int, int, int]) -> Array:
    """Of thread 7: (state, call, off, woke, in, left)."""
    found = np.zeros(len(rows), LAYOUT.dtype)
    for one, (state, call, off, woke, came, left) in zip(found, rows, strict=True):
        one["state"], one["call"], one["off_ns"], one["woke_ns"] = state, call, off, woke
        one["in_ns"], one["ts_ns"], one["tid"], one["pid"], one["cpu"] = came, left, 7, 7, 1
        one["waker_tid"] = 9 if woke else 0
    return found


def intervals(found: Array) -> list[tuple[int, int, str, str | None, int | None, int | None]]:
    table = pa.concat_tables(slice_tables("n", found, NAMES)).to_pylist()
    return [(r["ts_ns"], r["duration_ns"], r["state"], r["syscall"], r["cpu"], r["waker_tid"]) for r in table]


def test_sleep_wait_run() -> None:
    preempted_then_slept = events((0, 0xFFFFFFFF, 100, 0, 150, 200), (1, 0, 200, 260, 270, 300))
    assert intervals(preempted_then_slept) == [
        (100, 50, "runnable", None, None, None),
        (150, 50, "running", None, 1, None),
        (200, 60, "sleeping", "read", None, 9),
        (260, 10, "runnable", "read", None, 9),
        (270, 30, "running", None, 1, None),
    ]


def test_a_sleep_whose_waking_was_not_seen_lasts_until_the_thread_runs() -> None:
    assert intervals(events((2, 202, 100, 0, 150, 160)))[0] == (100, 50, "blocked", "futex", None, None)


def thread(off: int, woke: int, came: int, ran: int = 0, waker: int = 0, account: int = 0) -> list[int]:
    """As read_threads gives it: thread 7, asleep in futex before."""
    return [7, off, woke, came, ran, 7, waker, 202, 1, account]


def test_what_threads_do_at_the_end_is_cut_there() -> None:
    asleep, waiting = thread(100, 0, 0), thread(100, 180, 0, waker=9)
    running = thread(100, 150, 160, ran=5, waker=9, account=45)
    assert intervals(open_slices([asleep], 200, LAYOUT)) == [(100, 100, "sleeping", "futex", None, None)]
    assert [i[:3] for i in intervals(open_slices([waiting], 200, LAYOUT))] == [
        (100, 80, "sleeping"),
        (180, 20, "runnable"),
    ]
    assert [i[:3] for i in intervals(open_slices([running], 200, LAYOUT))] == [
        (100, 50, "sleeping"),
        (150, 10, "runnable"),
        (160, 40, "running"),
    ]
    assert len(open_slices([], 200, LAYOUT)) == 0


def test_a_thread_whose_leaving_was_not_seen_runs_as_long_as_the_kernel_says() -> None:
    second = 1_000_000_000
    left = thread(100, 0, 200, ran=50, account=50 + 7000)
    assert [i[:4] for i in intervals(open_slices([left], second, LAYOUT))] == [
        (100, 100, "sleeping", "futex"),
        (200, 7000, "running", None),
        (7200, second - 7200, "sleeping", None),
    ]
    gone = thread(100, 0, 200, ran=50, account=-1)
    assert [i[:3] for i in intervals(open_slices([gone], second, LAYOUT))] == [(100, 100, "sleeping")]
