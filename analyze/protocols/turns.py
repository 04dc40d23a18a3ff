"""Many exchanges at once: stretches of a connection where one side asks and the other answers, in turns.

Strategy: most bytes of most recordings are such dialogues. Where a client's chunks and the server's follow each
other in time, without gap and without pipelining, the borders of messages are known before any byte is read; a
decoder then looks at all messages of the stretch together, column-wise (`Decoder.read_turns`), and says for how many
turns it is certain that each is exactly one request and its one whole response. From the first other turn on, the
engine goes on frame by frame. The result is the same, byte for byte, as without (tests/corpus/test_turns.py).

A decoder describes its rows by templates: one `Request` for all turns that are alike, made by the code that makes
single rows, and columns for the values in which rows of one template differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kubetape.analyze.streams import Run, Span, Stream

if TYPE_CHECKING:
    from kubetape.analyze.protocols.contract import Request

Int64Array = npt.NDArray[np.int64]
Octets = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

MIN_TURNS = 16  # fewer are read as fast one by one


@dataclass(slots=True)
class Turns:
    """A stretch of turns: turn i asks client[asks[i]:asks[i + 1]] and is answered server[answers[i]:answers[i + 1]].

    client, server: the bytes of a run; *_octets: the same as arrays. asks, answers: int64, one longer than turns.
    """

    client: bytes
    server: bytes
    asks: Int64Array
    answers: Int64Array
    client_octets: Octets
    server_octets: Octets

    def __len__(self) -> int:
        return len(self.asks) - 1


@dataclass(slots=True)
class Plain:
    """Rows of the first turns of a stretch.

    templates: distinct rows; code: for each turn its template, int64; as many turns as it has entries were read.
    columns: Arrow arrays by name of a `Request` field, in place of the templates' values.
    """

    templates: list[Request]
    code: Int64Array
    columns: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.code)


@dataclass(slots=True)
class Block:
    """Rows read at once, with their spans; `at`: how many single rows of the connection came before them.

    Arrays, one entry per row: positions in the streams, and what `Stream.span` tells of them.
    """

    at: int
    plain: Plain
    request_start: Int64Array
    response_start: Int64Array
    request_bytes: Int64Array
    response_bytes: Int64Array
    start_ns: Int64Array
    request_end_ns: Int64Array
    response_start_ns: Int64Array
    end_ns: Int64Array
    pid: npt.NDArray[np.int32]
    tid: npt.NDArray[np.int32]
    response_tid: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.plain)

    def single_rows(self) -> list[Request]:
        """The same as a decoder hands over row by row: for tests, and whoever has few rows."""
        columns = {name: values.to_pylist() for name, values in self.plain.columns.items()}
        rows = []
        for i, code in enumerate(self.plain.code.tolist()):
            row = replace(self.plain.templates[code], **{name: values[i] for name, values in columns.items()})
            times = [int(x[i]) for x in (self.start_ns, self.request_end_ns, self.response_start_ns, self.end_ns)]
            start, answer = int(self.request_start[i]), int(self.response_start[i])
            row.request = Span(start, start + int(self.request_bytes[i]), times[0], times[1])
            row.response = Span(answer, answer + int(self.response_bytes[i]), times[2], times[3])
            row.request.pid, row.request.tid = int(self.pid[i]), int(self.tid[i])
            row.response.tid = int(self.response_tid[i])
            rows.append(row)
        return rows


def find_turns(
    client: Stream, client_run: Run, client_offset: int, server: Stream, server_run: Run, server_offset: int, limit: int
) -> Turns | None:
    """The turns that begin at the given offsets of two runs, from at most `limit` chunks of the client.

    None where no client's chunk begins there, or the server speaks first, or there are fewer than MIN_TURNS.
    """
    first, last = _chunks(client, client_run, client_offset)
    server_first, server_last = _chunks(server, server_run, server_offset)
    if first is None or server_first is None or last - first < MIN_TURNS:
        return None
    whole = last - first <= limit
    stop = last if whole else first + limit
    # How many of the server's chunks were seen before each of the client's; of one time the client's is the earlier.
    before = np.searchsorted(server.complete_ns[server_first:server_last], client.complete_ns[first:stop], "left")
    if before[0]:
        return None
    begins = np.append(0, np.flatnonzero(before[1:] != before[:-1]) + 1)
    places = before[begins]
    asks = client.positions[first + begins] - client_run.position
    if places[-1] == server_last - server_first:
        # Nothing of this run answers the last: it is a border only, as the end of the server's bytes is.
        places = places[:-1]
        answers = np.append(server.positions[server_first + places] - server_run.position, len(server_run.data))
    else:
        answers = server.positions[server_first + places] - server_run.position
        if whole:
            asks, answers = np.append(asks, len(client_run.data)), np.append(answers, len(server_run.data))
        # Else the last is a border only: it may go on behind the limit.
    if len(asks) <= MIN_TURNS:
        return None
    return Turns(
        client_run.data,
        server_run.data,
        asks,
        answers,
        np.frombuffer(client_run.data, np.uint8),
        np.frombuffer(server_run.data, np.uint8),
    )


def _chunks(stream: Stream, run: Run, offset: int) -> tuple[int | None, int]:
    """The chunks of a run from `offset` on: (index of the first or None where none begins there, index behind)."""
    position = run.position + offset
    first = int(np.searchsorted(stream.positions, position, "left"))
    last = int(np.searchsorted(stream.positions, run.end, "left"))
    if first >= last or stream.positions[first] != position:
        return None, last
    return first, last


def make_block(at: int, plain: Plain, turns: Turns, client: Stream, server: Stream, bases: tuple[int, int]) -> Block:
    """The block of the turns that were read; bases: stream positions of the first bytes of the two runs."""
    count = len(plain)
    asks, answers = turns.asks[: count + 1] + bases[0], turns.answers[: count + 1] + bases[1]
    ask, answer = client.chunk_of(asks[:-1]), server.chunk_of(answers[:-1])
    return Block(
        at=at,
        plain=plain,
        request_start=asks[:-1],
        response_start=answers[:-1],
        request_bytes=np.diff(asks),
        response_bytes=np.diff(answers),
        start_ns=client.times[ask],
        request_end_ns=client.complete_ns[client.chunk_of(asks[1:] - 1)],
        response_start_ns=server.times[answer],
        end_ns=server.complete_ns[server.chunk_of(answers[1:] - 1)],
        pid=client.pids[ask],
        tid=client.tids[ask],
        response_tid=server.tids[answer],
    )


# ---- tools for decoders ------------------------------------------------------------------------------------------


def bytes_column(data: bytes, starts: Int64Array, ends: Int64Array) -> Any:
    """An Arrow large_binary array of data[starts[i]:ends[i]]; the ranges in order and without overlap.

    Arrow's values lie behind each other, so the gaps between the ranges are made values too and left out by `take`.
    """
    import pyarrow as pa

    count = len(starts)
    bounds = np.empty(2 * count, np.int64)
    bounds[0::2], bounds[1::2] = starts, ends
    if not count:
        return pa.array([], pa.large_binary())
    between = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), 2 * count - 1, [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    )
    return between.take(pa.array(np.arange(0, 2 * count - 1, 2)))


def octets_of(column: Any) -> tuple[Octets, Int64Array]:
    """The bytes of a large_binary array, and where each value begins (one longer than values)."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int64, count=len(column) + 1, offset=column.offset * 8)
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), bounds


def any_in(marks: Bools, bounds: Int64Array) -> Bools:
    """For each range bounds[i]:bounds[i + 1] of `marks` whether one in it is set."""
    if not marks.any():
        return np.zeros(len(bounds) - 1, bool)
    counts = np.cumsum(marks, dtype=np.int64)
    counts = np.append(0, counts)
    return counts[bounds[1:]] > counts[bounds[:-1]]


def prefix_length(good: Bools) -> int:
    """How many entries from the first on are set."""
    return len(good) if good.all() else int(np.argmin(good))


def is_text(octets: Octets) -> Bools:
    """Which bytes are printable ASCII: texts of them alone are shown as they are."""
    return (octets - np.uint8(32)) < np.uint8(95)


def distinct(column: Any) -> tuple[list[Any], Int64Array]:
    """The distinct values of an Arrow array, and for each entry which of them it is."""
    encoded = column.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def combine(codes: list[Int64Array]) -> tuple[Int64Array, Int64Array]:
    """Distinct combinations of several codes: (index of the first entry of each, combination of each entry)."""
    whole = codes[0]
    for code in codes[1:]:
        whole = whole * (int(code.max(initial=0)) + 1) + code
        _, whole = np.unique(whole, return_inverse=True)
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    return first, inverse.astype(np.int64)
