"""Small helpers that make Arrow columns from numpy arrays."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]


def labels(indices: Array, names: Sequence[str | None]) -> Any:
    """A dictionary column: names[indices]; entries of None are NULL."""
    known = [n for n in names if n is not None]
    table = np.full(len(names), -1, np.int32)
    table[[i for i, n in enumerate(names) if n is not None]] = np.arange(len(known), dtype=np.int32)
    chosen = table[indices]
    codes = pa.array(chosen, pa.int32(), mask=chosen < 0)
    return pa.DictionaryArray.from_arrays(codes, pa.array(known, pa.string()))


def constant(name: str, count: int) -> Any:
    return labels(np.zeros(count, np.int32), [name])


def integers(values: Array, null: Array | None = None, kind: Any = None) -> Any:
    """An int64 (or `kind`) column, NULL where `null`."""
    return pa.array(values.astype(np.int64), mask=null).cast(kind or pa.int64())


def address_text(raw: bytes) -> str:
    """16 bytes in network order as text; an IPv4-mapped address as IPv4."""
    address = ipaddress.IPv6Address(raw)
    return str(address.ipv4_mapped or address)


def addresses(raw: Array, null: Array | None = None) -> Any:
    """A string column from an (n, 16) array of bytes."""
    if not len(raw):
        return pa.array([], pa.string())
    flat = np.ascontiguousarray(raw).view("V16").reshape(-1)
    unique, inverse = np.unique(flat, return_inverse=True)
    names = np.array([address_text(u.tobytes()) for u in unique], object)
    return pa.array(names[inverse.reshape(-1)], pa.string(), mask=null)


def payload(data: Array, begins: Array, sizes: Array, null: Array) -> Any:
    """A large_binary column of data[begin : begin + size], in the order given; begins must ascend.

    The window's bytes are looked at as alternating entries (payload, what lies between), so that Arrow's own
    `take` copies the payloads: no index per byte, no loop per row.
    """
    count = len(begins)
    if not count:
        return pa.array([], pa.large_binary())
    edges = np.empty(2 * count + 1, np.int64)
    edges[0:-1:2] = begins
    edges[1:-1:2] = begins + sizes
    edges[-1] = edges[-2]
    whole = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), 2 * count, [None, pa.py_buffer(edges), pa.py_buffer(data)]
    )
    chosen = pa.array(np.arange(0, 2 * count, 2), mask=null)
    return whole.take(chosen)
