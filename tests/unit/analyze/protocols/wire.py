"""Dialogues for decoder tests: pieces of both directions in order, turned into rows by the real engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kubetape.analyze.protocols import engine, registry
from kubetape.analyze.protocols.contract import Request, Sample
from kubetape.analyze.protocols.engine import Decoded, Endpoints, decode_connection
from kubetape.analyze.streams import ConnectionStreams, Run, Stream

CLIENT_PORT = 40000

# (side, bytes): side "c" or "s"; or (side, bytes, captured): only the first `captured` bytes are there;
# the rest was cut by the payload policy; captured 0: all of it was lost.
Piece = tuple[str, bytes] | tuple[str, bytes, int]


def make_stream(chunks: Iterable[tuple[int, int, int, bytes]], datagrams: bool = False) -> Stream:
    """A Stream of (time_ns, position, size, captured bytes) in stream order."""
    listed = list(chunks)
    runs: list[Run] = []
    for _, position, _, data in listed:
        if not data:
            continue
        if runs and runs[-1].end == position and not datagrams:
            runs[-1].data += data
        else:
            runs.append(Run(position, data))
    kept = [c for c in listed if c[3] or c[2]]
    numbers = [np.array([c[i] for c in kept], np.int64) for i in (1, 2)]
    captured = np.array([len(c[3]) for c in kept], np.int64)
    times = np.array([c[0] for c in kept], np.int64)
    nobody = np.zeros(len(kept), np.int32)
    return Stream(runs, numbers[0], numbers[1], captured, times, nobody, nobody)


def streams_of(pieces: Sequence[Piece], datagrams: bool = False) -> ConnectionStreams:
    """One connection, seen at its client; the pieces are 1000 ns apart, the first at 1000."""
    sides: dict[str, list[tuple[int, int, int, bytes]]] = {"c": [], "s": []}
    ends = {"c": 0, "s": 0}
    for number, piece in enumerate(pieces, 1):
        side, data = piece[0], piece[1]
        captured = piece[2] if len(piece) > 2 else len(data)
        if captured:
            sides[side].append((number * 1000, ends[side], len(data), data[:captured]))
        ends[side] += len(data)
    return ConnectionStreams(
        1, "wire", datagrams, make_stream(sides["c"], datagrams), make_stream(sides["s"], datagrams)
    )


def decode(
    pieces: Sequence[Piece],
    *,
    datagrams: bool = False,
    from_start: bool = True,
    known: bool = True,
    server_port: int = 4444,
    shared: dict[str, dict[Any, Any]] | None = None,
    only: str | None = None,
) -> Decoded:
    """The engine's result; only: leave all other protocols out of the detection."""
    ends = Endpoints("10.0.0.1", CLIENT_PORT, "10.0.0.2", server_port, known)
    protocols = registry()
    if only is not None:
        protocols = {only: protocols[only]}
    shared = {} if shared is None else shared
    decoded = decode_connection(streams_of(pieces, datagrams), ends, True, from_start, protocols, shared)
    decoded.rows, decoded.blocks = decoded.single_rows(), []
    for name, protocol in protocols.items():
        mine = [row for row in decoded.rows if row.protocol == name]
        if protocol.resolve is not None and mine:
            protocol.resolve(mine, shared.setdefault(name, {}))
    return decoded


def outcome(row: Request) -> str:
    """As `request.outcome` will be."""
    if row.outcome is not None:
        return row.outcome
    if row.request is None:
        return "no_request"
    if row.response is None:
        return "no_response"
    return "truncated" if row.request.lost_bytes + row.response.lost_bytes else "complete"


def brief(rows: Iterable[Request], *names: str) -> list[tuple[Any, ...]]:
    """The named fields of each row ('outcome' as the table will have it), in order of their beginnings."""
    listed = sorted(rows, key=_begins)
    return [tuple(outcome(r) if n == "outcome" else getattr(r, n) for n in names) for r in listed]


def _begins(row: Request) -> tuple[int, int]:
    span = row.request or row.response
    assert span is not None
    return span.first_ns, span.start


def feed_anything(name: str, client: bytes, server: bytes, *, datagrams: bool = False) -> list[Request]:
    """Decode bytes as protocol `name` without asking detection; for property tests: it must not raise."""
    streams = streams_of([("c", client), ("s", server)], datagrams)
    pair = (streams.send, streams.receive)
    result = Decoded(name, 1.0, None, 0.0)
    ends = Endpoints("10.0.0.1", CLIENT_PORT, "10.0.0.2", 4444, True)
    for from_start in (True, False):
        connection = engine._connection(streams, pair, ends, False, from_start, {})
        registry()[name].detect(_sample(client, server, datagrams))
        engine._run(name, connection, result, registry(), {})
    return result.rows


def _sample(client: bytes, server: bytes, datagrams: bool) -> Sample:
    return Sample(client[:4096], server[:4096], [client[7:99]], [server[5:99]], 1, 2, datagrams, False)
