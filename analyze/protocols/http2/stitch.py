"""HTTP/2 and gRPC requests from frames, paired by stream id (RFC 9113, section 5)."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from kubetape.analyze.normalise.route import route_template
from kubetape.analyze.protocols.common.http import http_row, resolve_routes
from kubetape.analyze.protocols.common.spans import ScatteredSpan
from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.contract import (
    CLIENT,
    SERVER,
    Connection,
    Decoder,
    Parsed,
    Request,
    Side,
)
from kubetape.analyze.protocols.http2.fields import (
    as_headers,
    has_unknown,
    is_plausible,
    name_literals,
    place_of_path,
    pseudo_order,
)
from kubetape.analyze.protocols.http2.grpc import MessageCounter, grpc_row, timeout_ns
from kubetape.analyze.protocols.http2.hpack import Field, Table, Unknown, read_block, read_prefix
from kubetape.analyze.protocols.http2.parse import find_frame, read_frame
from kubetape.analyze.protocols.http2.types import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PUSH_PROMISE,
    RST_STREAM,
    Frame,
    error_name,
)
from kubetape.analyze.streams import Span

# Streams open at once; peers allow 100 to 1000, more stay open only where their ends were lost.
MAX_OPEN_STREAMS = 20_000
MAX_RESET_STREAMS = 256  # kept for frames that were on their way
MAX_BLOCK_BYTES = 1 << 20  # of a header block in CONTINUATION frames
MAX_UNSURE_ROWS = 100_000


_GRPC_HEADERS: Final = frozenset(
    {"grpc-status", "grpc-message", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "grpc-trace-bin"}
)


class _Reset(NamedTuple):
    """RST_STREAM: its code, who sent it, when, and whether the answer was complete by then."""

    code: int
    side: Side
    when_ns: int
    answered: bool


class _Stream:
    """One stream: what each side sent."""

    __slots__ = (
        "answered",
        "asked",
        "counters",
        "ended",
        "guessed",
        "interim",
        "pushed",
        "reset",
        "spans",
        "stream_id",
        "sure",
        "trailers",
    )

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.spans: list[ScatteredSpan | None] = [None, None]
        self.asked: list[Field] | None = None
        self.answered: list[Field] | None = None
        self.trailers: list[Field] = []
        self.ended = [False, False]
        self.counters = (MessageCounter(), MessageCounter())
        self.interim: list[int] = []
        self.reset: _Reset | None = None
        self.pushed = False
        self.sure = True  # no field of its header blocks refers to what was not seen
        self.guessed = False  # fields were taken from the place where they probably are

    def grow(self, side: Side, span: Span) -> None:
        own = self.spans[side]
        if own is None:
            self.spans[side] = ScatteredSpan(span)
        else:
            own.extend(span)


class _Block:
    """A header block that CONTINUATION frames go on with."""

    __slots__ = ("frame", "parts", "size", "span", "whole")

    def __init__(self, frame: Frame, payload: bytes, span: Span) -> None:
        self.frame, self.parts, self.span, self.whole = frame, [payload], ScatteredSpan(span), frame.whole
        self.size = len(payload)


class Http2Decoder(Decoder):
    """One header table per direction, one state per stream; a row when both sides have ended or one has reset."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._tables = (Table(connection.from_start), Table(connection.from_start))
        self._streams: dict[int, _Stream] = {}
        self._blocks: list[_Block | None] = [None, None]
        self._resets: deque[_Stream] = deque()
        self._goaway: tuple[int, int, str] | None = None
        self._order: tuple[str, ...] | None = None
        self._paths: set[str] = set()
        self._deferred: list[_Stream] = []  # is it gRPC? Other streams may tell
        self._grpc_count = self._other_count = 0
        self._unsure: list[tuple[Request, list[Field]]] = []
        carry = connection.carry
        if carry.get("method") is not None:
            self._begin_upgraded(carry)

    def _begin_upgraded(self, carry: dict[str, Any]) -> None:
        """RFC 7540, section 3.2: the request that asked for the upgrade is stream 1, half closed."""
        stream = self._streams[1] = _Stream(1)
        stream.asked = [(":method", carry["method"]), (":path", carry["target"] or "/")]
        if host := carry["headers"].get("host"):
            stream.asked.append((":authority", host))
        stream.asked += [item for item in carry["headers"].items() if item[0] not in ("host", "upgrade")]
        stream.spans[CLIENT] = ScatteredSpan(carry["span"])
        stream.ended[CLIENT] = True

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return read_frame(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_frame(data, offset)

    # ---- frames ----------------------------------------------------------------------------------------------

    def on_frame(self, side: Side, frame: Any, span: Span) -> None:
        kind = frame.kind
        if kind == DATA:
            self._on_data(side, frame, span)
        elif kind == HEADERS:
            self._begin_block(side, frame, frame.payload, span)
        elif kind == CONTINUATION:
            self._continue_block(side, frame, span)
        elif kind == PUSH_PROMISE:
            self._begin_block(side, frame, frame.payload[4:], span)
        elif kind == RST_STREAM:
            self._on_reset(side, frame, span)
        elif kind == GOAWAY and side == SERVER and len(frame.payload) >= 8:
            payload = frame.payload
            last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
            self._goaway = last, int.from_bytes(payload[4:8], "big"), read_text(payload[8:], 256)

    def _on_reset(self, side: Side, frame: Frame, span: Span) -> None:
        stream = self._streams.get(frame.stream_id)
        if stream is None or stream.reset is not None:
            return
        stream.reset = _Reset(int.from_bytes(frame.payload[:4], "big"), side, span.first_ns, stream.ended[SERVER])
        # What the other side had sent before it knew is still to come.
        self._resets.append(stream)
        if len(self._resets) > MAX_RESET_STREAMS:
            oldest = self._resets.popleft()
            if self._streams.get(oldest.stream_id) is oldest:
                self._close(oldest)

    def _stream(self, stream_id: int) -> _Stream:
        stream = self._streams.get(stream_id)
        if stream is None:
            if len(self._streams) >= MAX_OPEN_STREAMS:
                self._close(next(iter(self._streams.values())))
            stream = self._streams[stream_id] = _Stream(stream_id)
        return stream

    def _on_data(self, side: Side, frame: Frame, span: Span) -> None:
        stream = self._stream(frame.stream_id)
        if stream.spans[side] is None:
            stream.counters[side].lose()
        stream.grow(side, span)
        stream.counters[side].feed(frame.data, frame.start, frame.end, frame.missing)
        if frame.flags & END_STREAM:
            self._end(stream, side)

    def _begin_block(self, side: Side, frame: Frame, payload: bytes, span: Span) -> None:
        self._blocks[side] = block = _Block(frame, payload, span)
        if frame.flags & END_HEADERS:
            self._finish_block(side, block)

    def _continue_block(self, side: Side, frame: Frame, span: Span) -> None:
        block = self._blocks[side]
        if block is None or block.frame.stream_id != frame.stream_id or block.size > MAX_BLOCK_BYTES:
            self._tables[side].lose()
            self._blocks[side] = None
            return
        if block.whole:
            block.parts.append(frame.payload)
            block.size += len(frame.payload)
        block.whole = block.whole and frame.whole
        block.span.extend(span)
        if frame.flags & END_HEADERS:
            self._finish_block(side, block)

    def _finish_block(self, side: Side, block: _Block) -> None:
        self._blocks[side] = None
        fields, sure, guessed = self._decode(side, b"".join(block.parts), block.whole)
        frame = block.frame
        if frame.kind == PUSH_PROMISE:
            promised = int.from_bytes(frame.payload[:4], "big") & 0x7FFFFFFF
            stream = self._stream(promised)
            stream.pushed, stream.asked, stream.sure, stream.guessed = True, fields, sure, guessed
            stream.grow(SERVER, block.span)
            stream.ended[CLIENT] = True
            return
        stream = self._stream(frame.stream_id)
        stream.grow(side, block.span)
        stream.sure = stream.sure and sure
        stream.guessed = stream.guessed or guessed
        if side == CLIENT:
            if stream.asked is None:
                stream.asked = fields
                if not self._tables[CLIENT].is_whole:
                    self._learn(fields)
        else:
            self._on_answer(stream, fields)
        if frame.flags & END_STREAM:
            self._end(stream, side)

    def _on_answer(self, stream: _Stream, fields: list[Field]) -> None:
        first = fields[0] if fields else None
        status = first[1] if isinstance(first, tuple) and first[0] == ":status" else None
        if status is not None and status[:1] == "1":
            stream.interim.append(int(status) if status.isdigit() else 0)
        elif stream.answered is None and (status is not None or stream.spans[CLIENT] is not None):
            stream.answered = fields
        else:
            stream.trailers = fields

    def _decode(self, side: Side, block: bytes, whole: bool) -> tuple[list[Field], bool, bool]:
        """(fields, whether all are sure, whether some are guessed) of a block; its insertions go into the table."""
        table = self._tables[side]
        instructions = read_block(block) if whole else read_prefix(block)
        if instructions is None:
            table.lose()
            return [], False, False
        fields, sure = table.fields(instructions, table.hole)
        if not sure:
            # Which size of the hole makes sense of this block? What agreed before is tried first.
            sizes = [n for n in table.holes() if n != table.hole]
            for hole in [table.hole, *sizes] if table.hole is not None else sizes:
                fields, _ = table.fields(instructions, hole)
                if is_plausible(fields, side == CLIENT):
                    table.hole = hole if len(table.holes()) > 1 else None
                    break
            else:
                table.hole = None
                fields, _ = table.fields(instructions, None)
        guessed = not sure and table.hole is not None
        table.apply(instructions, fields)
        if not whole:
            table.lose()
        if not sure:
            name_literals(fields)
        return fields, sure, guessed

    def _learn(self, fields: list[Field]) -> None:
        order = pseudo_order(fields)
        if order is not None:
            self._order = self._order or order
            path = as_headers(fields[: len(order)]).get(":path")
            if path is not None and len(self._paths) < 2:
                self._paths.add(path)

    def _end(self, stream: _Stream, side: Side) -> None:
        stream.ended[side] = True
        if (stream.ended[CLIENT] and stream.ended[SERVER]) or (side == SERVER and stream.spans[CLIENT] is None):
            self._close(stream)

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        self._tables[side].lose()
        self._blocks[side] = None
        for stream in self._streams.values():
            stream.counters[side].lose()

    def finish(self) -> None:
        for stream in list(self._streams.values()):
            self._close(stream)
        deferred, self._deferred = self._deferred, []
        for stream in deferred:
            self._close(stream, at_end=True)
        self._infer()

    # ---- rows ------------------------------------------------------------------------------------------------

    def _close(self, stream: _Stream, at_end: bool = False) -> None:
        """Make the row of a stream; at_end: all of the connection is known, nothing more can be learned."""
        self._streams.pop(stream.stream_id, None)
        request, response = stream.spans
        if request is None and response is None:
            return
        asked = as_headers(stream.asked or [])
        answered = as_headers(stream.answered or [])
        trailers = as_headers(stream.trailers)
        kind = asked.get("content-type") or answered.get("content-type")
        is_grpc, inferred = kind is not None and kind.startswith("application/grpc"), None
        if kind is None and not stream.sure:
            if not (_GRPC_HEADERS.isdisjoint(asked) and _GRPC_HEADERS.isdisjoint(answered | trailers)):
                is_grpc = True
            elif self._frames_messages(stream):
                is_grpc, inferred = True, "protocol"
            elif not at_end and len(self._deferred) < MAX_UNSURE_ROWS:
                self._deferred.append(stream)
                return
            elif self._grpc_count and not self._other_count:
                is_grpc, inferred = True, "protocol"
        if is_grpc:
            self._grpc_count += 1
            for counter in stream.counters:
                trailers.update(counter.trailers)
            row = grpc_row(asked.get(":path"), asked, answered, trailers, stream.counters)
        else:
            self._other_count += stream.sure
            if ":authority" in asked:
                asked["host"] = asked[":authority"]
            path = asked.get(":path")
            if path is None and asked.get(":method") == "CONNECT":
                path = asked.get(":authority")
            row = http_row(asked.get(":method"), path, answered.get(":status"), asked, answered)
        row.inferred = row.inferred or inferred or ("statement" if stream.guessed else None)
        row.stream_id = stream.stream_id
        self._tell_end(stream, row, asked)
        hidden = not stream.sure and stream.asked is not None and has_unknown(stream.asked)
        if hidden and stream.asked is not None and len(self._unsure) < MAX_UNSURE_ROWS:
            self._unsure.append((row, stream.asked))
        self.emit(row, request, response)

    def _frames_messages(self, stream: _Stream) -> bool:
        """Whether a stream whose content type was not seen is gRPC: all its DATA are gRPC messages, trailers follow."""
        if stream.sure or not has_unknown(stream.asked or []) or not stream.trailers:
            return False
        counters = stream.counters
        return all(c.ended for c in counters) and counters[CLIENT].count > 0 and counters[SERVER].count > 0

    def _tell_end(self, stream: _Stream, row: Request, asked: dict[str, str]) -> None:
        """How the stream ended where it did not simply end: pushed, reset, refused by GOAWAY, still open."""
        assert row.attributes is not None
        if stream.interim:
            row.attributes["interim"] = stream.interim
        if stream.pushed:
            row.attributes["pushed"] = True
            row.outcome = "one_way"
        if stream.reset is not None:
            self._tell_reset(stream, row, asked)
        elif not stream.ended[SERVER]:
            if stream.spans[SERVER] is not None:
                row.outcome = "truncated"
            if self._goaway is not None and stream.stream_id > self._goaway[0]:
                _, code, text = self._goaway
                row.attributes["goaway"] = error_name(code)
                row.is_error = True
                row.error_kind = "reset"
                row.error_message = ": ".join(x for x in ("GOAWAY " + error_name(code), text) if x)

    def _tell_reset(self, stream: _Stream, row: Request, asked: dict[str, str]) -> None:
        assert stream.reset is not None
        assert row.attributes is not None
        code, side, when_ns, answered = stream.reset
        row.attributes["reset"] = error_name(code)
        row.attributes["reset_by"] = "client" if side == CLIENT else "server"
        if answered or code == 0 or row.is_error:
            return  # answered before: the rest was not wanted any more
        row.is_error = True
        row.error_message = f"RST_STREAM {error_name(code)} by the {row.attributes['reset_by']}"
        limit, request = timeout_ns(asked.get("grpc-timeout")), stream.spans[CLIENT]
        if side == CLIENT and limit and request is not None and when_ns - request.first_ns >= limit * 0.9:
            row.error_kind = "timeout"
        else:
            row.error_kind = "client" if side == CLIENT else "reset"

    def _infer(self) -> None:
        """One path unknown, one path seen later on the same connection: they are the same, by inference."""
        if self._order is None or len(self._paths) != 1:
            return
        path = next(iter(self._paths))
        placed: list[tuple[Request, Unknown]] = []
        for row, fields in self._unsure:
            unknown = place_of_path(fields, self._order)
            if unknown is not None and row.statement is None:
                placed.append((row, unknown))
        if len({id(unknown) for _, unknown in placed}) != 1:
            return
        for row, _ in placed:
            row.statement, row.inferred = path, "statement"
            if row.protocol == "grpc":
                row.operation, row.resource = path, path.rpartition("/")[0].lstrip("/") or path
            else:
                row.resource = route_template(path)


def resolve(rows: list[Request], shared: dict[Any, Any]) -> None:
    """The second look at the routes of each host, when all are known."""
    resolve_routes(rows)
