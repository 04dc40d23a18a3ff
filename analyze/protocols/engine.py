"""The one loop of all protocols: which protocol a connection speaks, and its frames in order.

Strategy: both directions are read as two cursors over runs of captured bytes; the cursor whose next byte
was seen first moves. Where they are a plain dialogue, a decoder that is at rest may read many turns of it at once
(turns.py). A frame that ends past the captured bytes moves its cursor behind it, over the gap. After
bytes that are no frame, or a gap in unknown territory, the decoder is asked for the next boundary.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kubetape.analyze.protocols.contract import (
    CLIENT,
    CUT,
    SERVER,
    WAIT,
    Connection,
    Decoder,
    Protocol,
    Request,
    Sample,
    Side,
)
from kubetape.analyze.protocols.turns import MIN_TURNS, Block, find_turns, make_block
from kubetape.analyze.streams import ConnectionStreams, Stream

SAMPLE_BYTES = 4096
SAMPLE_RUNS = 8  # places looked at in the rest of the connection
MIN_SCORE = 0.5
# A candidate whose decoding leaves more than this share of the bytes unread gives way to the runner-up.
MAX_UNREAD_SHARE = 0.5
# Chunks of the client looked at by the first try to read many turns at once; each success allows many more.
FIRST_CHUNKS = 4096
GROWTH = 16
# A try that reads fewer costs more than it saves. Frames read one by one after it: at most, and the factor by which
# each further such try makes it longer.
FEW_TURNS = 64
MAX_PAUSE = 4096
PAUSE_GROWTH = 4
# Both sides fit the grammar (see Protocol.detect): what the same server spoke before needs no rival to be believed.
SURE_SCORE = 0.9

# What servers were found to speak: (ip, port, datagrams) -> protocol.
Servers = dict[tuple[str, int, bool], str]


@dataclass(slots=True)
class Endpoints:
    """Addresses of a connection with roles, and whether those roles are known (else detection decides)."""

    client_ip: str
    client_port: int
    server_ip: str
    server_port: int
    known: bool


@dataclass(slots=True)
class Decoded:
    """The result for one connection.

    swapped: detection found the roles the other way round. unread_bytes: captured but in no frame;
    opaque_bytes: captured after the connection went encrypted or tunnelled. blocks: rows read many at once.
    """

    protocol: str | None
    score: float
    runner_up: str | None
    runner_up_score: float
    swapped: bool = False
    frame_count: int = 0
    unread_bytes: int = 0
    opaque_bytes: int = 0
    rows: list[Request] = field(default_factory=list)
    protocols: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    @property
    def row_count(self) -> int:
        return len(self.rows) + sum(map(len, self.blocks))

    def single_rows(self) -> list[Request]:
        """All rows in the order of the decoder, those of blocks one by one."""
        rows, done = [], 0
        for block in self.blocks:
            rows += self.rows[done : block.at] + block.single_rows()
            done = block.at
        return rows + self.rows[done:]


class _Cursor:
    """Where one direction is being read."""

    __slots__ = ("in_sync", "index", "offset", "runs", "stream")

    def __init__(self, stream: Stream, in_sync: bool) -> None:
        self.stream, self.runs = stream, stream.runs
        self.index = self.offset = 0
        self.in_sync = in_sync

    @property
    def position(self) -> int:
        run = self.runs[self.index]
        return run.position + self.offset

    def done(self) -> bool:
        return self.index >= len(self.runs)

    def move_to(self, position: int) -> None:
        """To the first captured byte at or behind `position`."""
        runs = self.runs
        while self.index < len(runs):
            run = runs[self.index]
            if position < run.position + len(run.data):
                self.offset = max(0, position - run.position)
                return
            self.index += 1
        self.offset = 0

    def rest_bytes(self) -> int:
        if self.done():
            return 0
        return sum(len(r.data) for r in self.runs[self.index :]) - self.offset


def decode_connection(
    streams: ConnectionStreams,
    ends: Endpoints,
    send_is_client: bool,
    from_start: bool,
    registry: dict[str, Protocol],
    shared: dict[str, dict[Any, Any]],
    servers: Servers | None = None,
) -> Decoded:
    """Decode one connection: detect, decode with the best candidate, fall back to the runner-up if it does not fit.

    send_is_client: the `send` direction carries the client's bytes. shared: per protocol, see Connection.shared.
    servers: what earlier connections taught, asked first and added to.
    """
    servers = {} if servers is None else servers
    pair = (streams.send, streams.receive) if send_is_client else (streams.receive, streams.send)
    server = (ends.server_ip, ends.server_port, streams.datagrams)
    seen_bytes = pair[0].seen_bytes + pair[1].seen_bytes
    best = None
    # The first bytes may be among those that were lost: what makes no sense as a beginning may as a middle.
    for begun in (True, False) if from_start and not streams.datagrams else (from_start,):
        ranked = _rank(pair, ends, streams.datagrams, begun, registry, servers.get(server))
        if begun != from_start:
            ranked = [rank for rank in ranked if rank[0] >= SURE_SCORE]
        best = _decode_best(streams, pair, ends, begun, ranked, registry, shared, best)
        if best.frame_count and best.unread_bytes <= seen_bytes * MAX_UNREAD_SHARE:
            break
    assert best is not None
    if not best.frame_count:
        return Decoded(None, 0.0, best.runner_up, best.runner_up_score, unread_bytes=seen_bytes)
    if best.score >= SURE_SCORE and not best.swapped and best.protocol is not None:
        servers[server] = best.protocol
    return best


def _decode_best(
    streams: ConnectionStreams,
    pair: tuple[Stream, Stream],
    ends: Endpoints,
    from_start: bool,
    ranked: list[tuple[float, str, bool]],
    registry: dict[str, Protocol],
    shared: dict[str, dict[Any, Any]],
    best: Decoded | None,
) -> Decoded:
    """The result of the first candidate that leaves little unread, or of the one that leaves least; `best` counts, too.

    Without any frame: its runner_up is the protocol that scored highest.
    """
    seen_bytes = pair[0].seen_bytes + pair[1].seen_bytes
    for place, (score, name, swapped) in enumerate(ranked[:3]):
        if score < MIN_SCORE:
            break
        runner_up = next(((s, n) for s, n, _ in ranked if n != name), (0.0, None))
        result = Decoded(name, score, runner_up[1], runner_up[0], swapped)
        connection = _connection(streams, pair, ends, swapped, from_start, shared.setdefault(name, {}))
        _run(name, connection, result, registry, shared)
        if best is None or (result.frame_count > 0 and result.unread_bytes < best.unread_bytes):
            best = result
        if (best.frame_count and best.unread_bytes <= seen_bytes * MAX_UNREAD_SHARE) or place == len(ranked) - 1:
            break
    if best is None:
        top = ranked[0] if ranked else (0.0, None, False)
        best = Decoded(None, 0.0, top[1], top[0], unread_bytes=seen_bytes)
    return best


def _connection(
    streams: ConnectionStreams,
    pair: tuple[Stream, Stream],
    ends: Endpoints,
    swapped: bool,
    from_start: bool,
    shared: dict[Any, Any],
) -> Connection:
    client = (ends.server_ip, ends.server_port) if swapped else (ends.client_ip, ends.client_port)
    server = (ends.client_ip, ends.client_port) if swapped else (ends.server_ip, ends.server_port)
    ordered = (pair[1], pair[0]) if swapped else pair
    return Connection(streams.connection_id, *client, *server, streams.datagrams, from_start, ordered, shared)


def _run(
    name: str,
    connection: Connection,
    result: Decoded,
    registry: dict[str, Protocol],
    shared: dict[str, dict[Any, Any]],
) -> None:
    """Decode with `name`, following the protocol switches of the connection."""
    cursors = [_Cursor(stream, connection.from_start or connection.datagrams) for stream in connection.streams]
    current: str | None = name
    while current is not None:
        result.protocols.append(current)
        decoder = registry[current].decoder(connection, result.rows)
        first_row, first_block = len(result.rows), len(result.blocks)
        _read(decoder, cursors, result)
        decoder.finish()
        for row in result.rows[first_row:]:
            row.protocol = row.protocol or current
        for block in result.blocks[first_block:]:
            for row in block.plain.templates:
                row.protocol = row.protocol or current
        current = decoder.switch_to
        if current is None:
            break
        connection.carry = decoder.switch_carry
        connection.from_start = True
        if current == "detect":
            current = _detect_rest(connection, cursors, registry)
        if current is None or current not in registry:
            result.opaque_bytes += sum(c.rest_bytes() for c in cursors)
            break
        connection.shared = shared.setdefault(current, {})


def _read(decoder: Decoder, cursors: list[_Cursor], result: Decoded) -> None:
    """Frames of both directions to the decoder until both are at their end or the protocol changes."""
    datagrams = decoder.connection.datagrams
    parse, on_frame = decoder.parse, decoder.on_frame
    times = [_time_once(cursors[0]), _time_once(cursors[1])]
    decoder.at_end = [times[0] is None, times[1] is None]
    waiting: Side | None = None
    side: Side
    chunks, pause = FIRST_CHUNKS, MIN_TURNS
    next_try = result.frame_count if decoder.READS_TURNS and not datagrams else sys.maxsize
    while decoder.switch_to is None:
        if result.frame_count >= next_try and decoder.at_rest():
            count, stopped = _read_turns(decoder, cursors, result, chunks)
            if count:
                times = [_time_once(cursors[0]), _time_once(cursors[1])]
                decoder.at_end = [times[0] is None, times[1] is None]
            if count >= FEW_TURNS or not stopped:
                # What a try costs stays in proportion to what the one before it read.
                chunks, pause = max(FIRST_CHUNKS, (2 if stopped else GROWTH) * count), MIN_TURNS
                next_try = result.frame_count + 2 * stopped
            else:
                next_try = result.frame_count + pause
                pause = min(MAX_PAUSE, pause * PAUSE_GROWTH)
        client_time, server_time = times
        if client_time is None:
            if server_time is None:
                return
            side = SERVER
        elif server_time is None:
            side = CLIENT
        elif waiting is not None:
            side = SERVER if waiting == CLIENT else CLIENT
        else:
            side = CLIENT if client_time <= server_time else SERVER
        cursor = cursors[side]
        data, offset = cursor.runs[cursor.index].data, cursor.offset
        if not cursor.in_sync:
            found = _find_boundary(decoder, side, cursor, result)
            if found > offset:
                # What begins there was seen later: the other direction may come first now.
                times[side] = _next_time(cursor)
                continue
            parsed: Any = None if found < 0 else parse(side, data, offset)
        else:
            parsed = parse(side, data, offset)
        if parsed.__class__ is tuple:
            size, frame = parsed
            position = cursor.runs[cursor.index].position + offset
            end = position + size
            result.frame_count += 1
            on_frame(side, frame, cursor.stream.span(position, end))
            if offset + size < len(data):
                cursor.offset = offset + size
            else:
                _leave_run(decoder, side, cursor, end, datagrams)
            waiting = None
        elif parsed is WAIT:
            if waiting is None and not decoder.at_end[1 - side]:
                waiting = side
                continue
            # Nobody can go first: what stands here will never be understood.
            _skip(decoder, side, cursor, len(data) - offset, result, datagrams)
            waiting = None
        elif parsed is not None:
            rest = len(data) - offset
            _skip(decoder, side, cursor, rest if parsed is CUT or datagrams else 1, result, datagrams)
            waiting = None
        times[side] = _next_time(cursor)
        if times[side] is None:
            decoder.at_end[side] = True


def _read_turns(decoder: Decoder, cursors: list[_Cursor], result: Decoded, chunks: int) -> tuple[int, bool]:
    """Read as many turns at once as the decoder is sure of, and move both cursors behind them.

    How many, and whether it stopped at one that is of another kind.
    """
    client, server = cursors
    if client.done() or server.done() or not client.in_sync or not server.in_sync:
        return 0, True
    run, server_run = client.runs[client.index], server.runs[server.index]
    turns = find_turns(client.stream, run, client.offset, server.stream, server_run, server.offset, chunks)
    plain = decoder.read_turns(turns) if turns is not None else None
    if turns is None or plain is None or not len(plain):
        return 0, True
    count = len(plain)
    for row in plain.templates:
        row.connection_id = decoder.connection.connection_id
    bases = run.position, server_run.position
    result.blocks.append(make_block(len(result.rows), plain, turns, client.stream, server.stream, bases))
    result.frame_count += 2 * count
    for side, cursor, end in ((CLIENT, client, int(turns.asks[count])), (SERVER, server, int(turns.answers[count]))):
        if end < len(cursor.runs[cursor.index].data):
            cursor.offset = end
        else:
            _leave_run(decoder, side, cursor, bases[side] + end, False)
    return count, count < len(turns)


def _find_boundary(decoder: Decoder, side: Side, cursor: _Cursor, result: Decoded) -> int:
    """Move a cursor that lost its place to the next boundary of its run; -1: none, the cursor is at the next run."""
    run, offset = cursor.runs[cursor.index], cursor.offset
    found = decoder.find_boundary(side, run.data, offset)
    skipped = (len(run.data) if found < 0 else found) - offset
    if skipped:
        result.unread_bytes += skipped
        decoder.on_gap(side, run.position + offset, skipped)
    if found < 0:
        cursor.index += 1
        cursor.offset = 0
        return -1
    cursor.offset = found
    cursor.in_sync = True
    return found


def _skip(decoder: Decoder, side: Side, cursor: _Cursor, size: int, result: Decoded, datagrams: bool) -> None:
    """Give up `size` bytes that are no frame."""
    run = cursor.runs[cursor.index]
    result.unread_bytes += size
    decoder.on_gap(side, run.position + cursor.offset, size)
    cursor.offset += size
    cursor.in_sync = datagrams
    if cursor.offset >= len(run.data):
        cursor.index += 1
        cursor.offset = 0


def _leave_run(decoder: Decoder, side: Side, cursor: _Cursor, end: int, datagrams: bool) -> None:
    """A frame ended with its run or behind it: go on behind the frame, over the gap if it covers it."""
    if datagrams:
        cursor.index += 1
        cursor.offset = 0
        return
    cursor.move_to(end)
    if not cursor.done() and (gap := cursor.position - end) > 0:
        cursor.in_sync = False
        decoder.on_gap(side, end, gap)


def _next_time(cursor: _Cursor) -> int | None:
    """When the next byte of the direction was seen; None at its end."""
    if cursor.index >= len(cursor.runs):
        return None
    stream = cursor.stream
    place = bisect_right(stream._positions, cursor.runs[cursor.index].position + cursor.offset) - 1
    return stream._complete_ns[place if place > 0 else 0]


def _time_once(cursor: _Cursor) -> int | None:
    """The same without the lists that make asking for every frame fast."""
    if cursor.index >= len(cursor.runs):
        return None
    stream = cursor.stream
    position = cursor.runs[cursor.index].position + cursor.offset
    return int(stream.complete_ns[max(0, int(np.searchsorted(stream.positions, position, "right")) - 1)])


# ---- detection ---------------------------------------------------------------------------------------------


def _rank(
    pair: tuple[Stream, Stream],
    ends: Endpoints,
    datagrams: bool,
    from_start: bool,
    registry: dict[str, Protocol],
    expected: str | None,
) -> list[tuple[float, str, bool]]:
    """(score, protocol, swapped) of every protocol, best first; port hints decide between equal scores.

    Where the server's earlier connections spoke `expected` and this one surely does, no other is asked.
    """
    heads = [_heads(stream) for stream in pair]
    transport = "udp" if datagrams else "tcp"
    results: list[tuple[float, int, str, bool]] = []
    # Where the connecting was seen, the roles are no question.
    for swapped in (False,) if ends.known else (False, True):
        client, server = (heads[1], heads[0]) if swapped else heads
        ports = (ends.client_port, ends.server_port)
        sample = Sample(
            client[0] if client else b"",
            server[0] if server else b"",
            client[1:],
            server[1:],
            ports[1] if swapped else ports[0],
            ports[0] if swapped else ports[1],
            datagrams,
            from_start,
        )
        if expected in registry and not swapped and (score := registry[expected].detect(sample)) >= SURE_SCORE:
            return [(score, expected, False)]
        for protocol in registry.values():
            if transport not in protocol.transports:
                continue
            score = protocol.detect(sample)
            if score > 0:
                results.append((score, sample.server_port in protocol.ports, protocol.name, swapped))
    results.sort(key=lambda r: (-r[0], -r[1], r[3]))
    return [(score, name, swapped) for score, _, name, swapped in results]


def _heads(stream: Stream) -> list[bytes]:
    """The first bytes of the stream, then of later runs and chunks: places where a message may begin."""
    if not stream.runs:
        return []
    heads = [stream.runs[0].data[:SAMPLE_BYTES]]
    heads += [run.data[:SAMPLE_BYTES] for run in stream.runs[1 : SAMPLE_RUNS + 1]]
    starts = stream.positions
    if len(heads) <= SAMPLE_RUNS and len(starts) > 1:
        step = max(1, len(starts) // SAMPLE_RUNS)
        run_index = 0
        for position in starts[1::step][: SAMPLE_RUNS + 1 - len(heads)].tolist():
            while run_index + 1 < len(stream.runs) and stream.runs[run_index].end <= position:
                run_index += 1
            run = stream.runs[run_index]
            if run.position < position < run.end:
                heads.append(run.data[position - run.position : position - run.position + SAMPLE_BYTES])
    return heads


def _detect_rest(connection: Connection, cursors: list[_Cursor], registry: dict[str, Protocol]) -> str | None:
    """The protocol of what follows the cursors; the roles stay."""
    rests = [b"" if c.done() else c.runs[c.index].data[c.offset : c.offset + SAMPLE_BYTES] for c in cursors]
    sample = Sample(
        rests[0], rests[1], [], [], connection.client_port, connection.server_port, connection.datagrams, True
    )
    scores = sorted(((p.detect(sample), p.name) for p in registry.values() if "tcp" in p.transports), reverse=True)
    return scores[0][1] if scores and scores[0][0] >= MIN_SCORE else None
