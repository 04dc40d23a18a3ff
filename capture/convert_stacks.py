"""stack_sample and stack tables from the stack events: addresses become names, equal stacks become one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from kubetape.bundle.writer import BundleWriter
from kubetape.capture import columns
from kubetape.capture.layouts import Layout
from kubetape.capture.records import Array, Window
from kubetape.capture.stacks import Space, Spaces
from kubetape.capture.symbols import Name, Symboliser

_KINDS = ("kernel", "user")
_MAX_DEPTH = 512


class StackConverter:
    """Collects samples window by window: some hundred bytes each, 99 a second and busy CPU."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._events: list[Array] = []
        self._frames: list[Array] = []

    def feed(self, window: Window) -> None:
        offsets = window.offsets(self._layout.name)
        if not len(offsets):
            return
        events = window.events(self._layout.name)
        counts = events["kernel_frames"].astype(np.int64) + events["user_frames"]
        words = window.data[: len(window.data) // 8 * 8].view(np.uint64)
        begins = np.repeat(offsets // 8 + self._layout.dtype.itemsize // 8 - _before(counts), counts)
        self._events.append(events)
        self._frames.append(words[begins + np.arange(len(begins))])

    def write(self, writer: BundleWriter, node: str, spaces: Spaces, hertz: int) -> None:
        """Both tables; nothing where there are no samples."""
        if not self._events:
            return
        events, frames = np.concatenate(self._events), np.concatenate(self._frames)
        kernel = events["kernel_frames"].astype(np.int64)
        counts = kernel + events["user_frames"]
        owner = np.repeat(np.arange(len(events)), counts)
        depth = np.arange(len(owner)) - np.repeat(_before(counts), counts)
        is_user = depth >= kernel[owner]
        is_caller = depth != np.where(is_user, kernel[owner], 0)
        space_of, known = _spaces_of(events, spaces)
        names, codes = _named(frames, is_user, is_caller, np.where(is_user, space_of[owner], -1), known, spaces)
        keep = _shown(codes, names, owner, is_user)
        owner, codes, frames, is_user = owner[keep], codes[keep], frames[keep], is_user[keep]
        counts = np.bincount(owner, minlength=len(events))
        depth = np.arange(len(owner)) - np.repeat(_before(counts), counts)
        stack_of, first = _distinct(codes * 2 + is_user, counts, owner, depth)
        order = np.argsort(events["ts_ns"], kind="stable")
        sorted_events = events[order]
        table = writer.table("stack_sample")
        table.write(
            pa.table(
                {
                    "node": columns.constant(node, len(events)),
                    "ts_ns": columns.integers(sorted_events["ts_ns"]),
                    "pid": columns.integers(sorted_events["pid"], kind=pa.int32()),
                    "tid": columns.integers(sorted_events["tid"], kind=pa.int32()),
                    "cpu": columns.integers(sorted_events["cpu"], kind=pa.int16()),
                    "stack_id": pa.array(stack_of[order].astype(np.int64)),
                    "weight_ns": columns.integers(np.full(len(events), 1_000_000_000 // hertz)),
                }
            )
        )
        # The frames of the first sample of each stack stand for all.
        chosen = np.flatnonzero(np.isin(owner, first))
        chosen = chosen[np.lexsort((depth[chosen], stack_of[owner[chosen]]))]
        names_of = [names[code] for code in codes[chosen].tolist()]
        table = writer.table("stack")
        table.write(
            pa.table(
                {
                    "node": columns.constant(node, len(chosen)),
                    "stack_id": pa.array(stack_of[owner[chosen]].astype(np.int64)),
                    "depth": columns.integers(depth[chosen], kind=pa.int16()),
                    "kind": columns.labels(is_user[chosen].astype(np.int64), _KINDS),
                    "address": pa.array(frames[chosen].view(np.int64)),
                    "symbol": pa.array([n.symbol for n in names_of], pa.string()),
                    "module": pa.array([n.module for n in names_of], pa.string()),
                    "basis": pa.array([n.basis for n in names_of], pa.string()).dictionary_encode(),
                }
            )
        )


def _before(counts: Array) -> Array:
    """How many frames stand before those of each event."""
    return np.cumsum(counts) - counts


def _spaces_of(events: Array, spaces: Spaces) -> tuple[Array, list[Space]]:
    """The address space each sample fell into, as index into the list; -1 where none is known."""
    known = sorted(spaces.spaces, key=lambda s: (s.pid, s.since_ns))
    result = np.full(len(events), -1, np.int64)
    if not known:
        return result, known
    pids, since = np.array([s.pid for s in known]), np.array([s.since_ns for s in known], np.int64)
    for pid in np.unique(events["pid"]).tolist():
        low, high = np.searchsorted(pids, [pid, pid + 1])
        if low == high:
            continue
        mine = np.flatnonzero(events["pid"] == pid)
        at = np.searchsorted(since[low:high], events["ts_ns"][mine].astype(np.int64), "right") - 1
        result[mine] = low + np.maximum(at, 0)
    return result, known


def _named(
    frames: Array, is_user: Array, is_caller: Array, space: Array, known: list[Space], spaces: Spaces
) -> tuple[list[Name], Array]:
    """(names, index into them of each frame). Each address is looked up once."""
    keys = np.zeros(len(frames), [("space", "<i8"), ("address", "<u8"), ("user", "?"), ("caller", "?")])
    keys["space"], keys["address"], keys["user"], keys["caller"] = space, frames, is_user, is_caller & is_user
    unique, inverse = np.unique(keys, return_inverse=True)
    symboliser = Symboliser(spaces)
    kernel = symboliser.kernel(set(unique["address"][~unique["user"]].tolist()))
    names: dict[Name, int] = {}
    codes = np.zeros(len(unique), np.int64)
    for i, (at, address, user, caller) in enumerate(unique.tolist()):
        if user:
            name = symboliser.user(known[at] if at >= 0 else None, address, caller)
        else:
            name = kernel[address]
        codes[i] = names.setdefault(name, len(names))
    return list(names), codes[inverse.reshape(-1)]


def _shown(codes: Array, names: list[Name], owner: Array, is_user: Array) -> Array:
    """Which frames say something: of user frames in no mapping, where the chain of frames broke, only the first."""
    lost = np.isin(codes, [i for i, n in enumerate(names) if n.symbol == "[unknown]"]) & is_user
    again = np.zeros(len(codes), bool)
    again[1:] = lost[1:] & lost[:-1] & (owner[1:] == owner[:-1])
    shown: Array = ~again
    return shown


def _distinct(values: Array, counts: Array, owner: Array, depth: Array) -> tuple[Array, Array]:
    """(number of the distinct stack of each event, first event of each), by 64-bit sums of random numbers."""
    rng = np.random.default_rng(1)
    of_value = rng.integers(1, 1 << 63, int(values.max(initial=0)) + 1, dtype=np.uint64)
    of_depth = rng.integers(1, 1 << 63, _MAX_DEPTH, dtype=np.uint64) | np.uint64(1)
    mixed = of_value[values] * of_depth[np.minimum(depth, _MAX_DEPTH - 1)]
    sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed, dtype=np.uint64)])
    ends = np.cumsum(counts)
    hashes = sums[ends] - sums[ends - counts]
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    # Numbered in the order they were first seen.
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)] + 1, first
