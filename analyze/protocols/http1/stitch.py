"""HTTP/1.x requests from heads and bodies: responses answer requests in their order (RFC 9112, section 9.3.2)."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from ipaddress import ip_address
from typing import Any

from kubetape.analyze.protocols.common.http import describe_error, http_row, resolve_routes
from kubetape.analyze.protocols.contract import (
    CLIENT,
    CUT,
    INVALID,
    SERVER,
    Connection,
    Decoder,
    Parsed,
    Request,
    Side,
)
from kubetape.analyze.protocols.http1.parse import (
    CONTINUES,
    ENDED,
    SAMPLE_BYTES,
    find_request,
    find_response,
    frame_body,
    read_head,
    walk_chunks,
)
from kubetape.analyze.protocols.http1.turns import read_turns
from kubetape.analyze.protocols.http1.types import (
    CHUNKED,
    LAST_PART,
    LENGTH,
    MORE_PART,
    UNKNOWN,
    UNTIL_CLOSE,
    BodyPart,
    Head,
)
from kubetape.analyze.protocols.turns import Plain, Turns
from kubetape.analyze.streams import Span

# A client that pipelines more than this many requests is not seen answered: half of the connection is missing.
MAX_PENDING = 10_000

# What the next bytes of a direction are.
_HEAD = 0
_CHUNKS = 1
_ADRIFT = 2  # somewhere in a body whose end is not known: until the next head
_TO_THE_END = 3
_AWAITED = 4  # the body of a request that asked for 100 (Continue) first


class _Exchange:
    """A request and what was seen of its answer."""

    __slots__ = ("head", "interim", "span")

    def __init__(self, head: Head, span: Span) -> None:
        self.head, self.span = head, span
        self.interim: list[int] = []


class Http1Decoder(Decoder):
    """Pairs by order on the connection; after lost bytes by time: a response answers the latest request before it."""

    READS_TURNS = True

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._state = [_HEAD, _HEAD]
        self._awaited = Head(None, None, 0, "")
        self._waiting: deque[_Exchange] = deque()
        self._open_request: _Exchange | None = None
        self._open_response: tuple[_Exchange | None, Head, Span] | None = None
        self._lost_answers = False
        self._run_index = [0, 0]

    # ---- bytes ---------------------------------------------------------------------------------------------

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        state = self._state[side]
        if state != _HEAD:
            part = self._rest_of_body(side, state, data, offset)
            if part is not None:
                return part
        if data[offset] in b"\r\n" and not data[offset : offset + 64].strip(b"\r\n"):
            # Line ends behind a body: old clients add them to POST (RFC 9112, section 2.2).
            return len(data[offset : offset + 64]), LAST_PART
        strict = not (side == CLIENT and self.connection.from_start)
        found = read_head(data, offset, side == CLIENT, strict)
        if found is None:
            if len(data) - offset < 16 and not data.find(b"\n", offset) >= 0:
                return CUT
            return INVALID
        head, place = found
        if self.connection.datagrams:
            return len(data) - offset, head
        frame_body(head, self._waiting[0].head.method if side == SERVER and self._waiting else None)
        end = self._body_end(side, head, data, place)
        if head.status >= 400:
            head.sample = data[place : min(end, place + SAMPLE_BYTES)]
        return end - offset, head

    def _body_end(self, side: Side, head: Head, data: bytes, place: int) -> int:
        """Where the frame of a head ends; sets what comes next in this direction."""
        body = head.body
        if body == LENGTH:
            if side == CLIENT and head.length and "expect" in head.headers:
                self._state[side], self._awaited, head.complete = _AWAITED, head, False
                return place
            return place + head.length
        if body == CHUNKED:
            if side == CLIENT and "expect" in head.headers:
                self._state[side], self._awaited, head.complete = _AWAITED, head, False
                return place
            end, how = walk_chunks(data, place)
            if how != ENDED:
                self._state[side] = _CHUNKS if how == CONTINUES else _ADRIFT
                head.complete = False
            return end
        if body == UNKNOWN:
            self._state[side], head.complete = _ADRIFT, False
            return place
        if body == UNTIL_CLOSE:
            if data.startswith(b"HTTP/1.", place) and find_response(data, place) == place:
                return place  # the answer to a HEAD that was not seen
            self._state[side], head.complete = _TO_THE_END, False
            return self._next_head_at_chunk(side, data, place)
        return place

    def _rest_of_body(self, side: Side, state: int, data: bytes, offset: int) -> Parsed | None:
        """A further part of a body; None: a head begins here after all."""
        if state == _CHUNKS:
            end, how = walk_chunks(data, offset)
            if how == ENDED:
                self._state[side] = _HEAD
                return end - offset, LAST_PART
            if how == CONTINUES:
                return end - offset, MORE_PART
            state = self._state[side] = _ADRIFT
        if state == _AWAITED:
            self._state[side] = _HEAD
            if find_request(data[offset : offset + 16384], 0) == 0:
                return None  # refused before the body was sent
            if self._awaited.body == LENGTH:
                return self._awaited.length, LAST_PART
            self._state[side] = _CHUNKS
            return self._rest_of_body(side, _CHUNKS, data, offset)
        if state == _ADRIFT:
            found = find_request(data, offset) if side == CLIENT else find_response(data, offset)
        else:
            found = self._next_head_at_chunk(side, data, offset)
            if found == len(data):
                found = -1
        if found < 0:
            return len(data) - offset, MORE_PART
        self._state[side] = _HEAD
        return None if found == offset else (found - offset, LAST_PART)

    def _next_head_at_chunk(self, side: Side, data: bytes, place: int) -> int:
        """The next head in a body without declared end, if one begins with a socket call or segment; else the end."""
        find = find_request if side == CLIENT else find_response
        starts = self.connection.streams[side].chunk_starts()
        while (found := find(data, place)) >= 0:
            position = self._position(side, data) + found
            near = bisect_left(starts, position)
            if near < len(starts) and starts[near] == position:
                return found
            place = found + 8
        return len(data)

    def _position(self, side: Side, data: bytes) -> int:
        """The stream position of data[0]."""
        runs = self.connection.streams[side].runs
        index = self._run_index[side]
        while index < len(runs) and runs[index].data is not data:
            index += 1
        if index >= len(runs):
            return 0
        self._run_index[side] = index
        return runs[index].position

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        if self._state[side] in (_ADRIFT, _TO_THE_END):
            return offset
        return find_request(data, offset) if side == CLIENT else find_response(data, offset)

    # ---- many turns at once ----------------------------------------------------------------------------------

    def at_rest(self) -> bool:
        return (
            self._state == [_HEAD, _HEAD] and not self._waiting and not self._lost_answers and not self._open_response
        )

    def read_turns(self, turns: Turns) -> Plain | None:
        plain = read_turns(turns)
        if plain is not None:
            self._open_request = None
        return plain

    # ---- frames ----------------------------------------------------------------------------------------------

    def on_frame(self, side: Side, frame: Any, span: Span) -> None:
        if side == CLIENT:
            if frame.__class__ is BodyPart:
                if self._open_request is not None:
                    self._open_request.span.extend(span)
                return
            exchange = _Exchange(frame, span)
            self._open_request = None if frame.complete else exchange
            if self._is_notice(frame):
                self._emit(exchange, None, None, "one_way")
                return
            self._waiting.append(exchange)
            if len(self._waiting) > MAX_PENDING:
                self._emit(self._waiting.popleft(), None, None)
        elif frame.__class__ is BodyPart:
            if self._open_response is not None:
                self._open_response[2].extend(span)
                if frame.last:
                    self._close_response()
        else:
            self._close_response()
            self._on_response(frame, span)

    def _on_response(self, head: Head, span: Span) -> None:
        exchange = self._answered(span)
        if head.status < 200 and head.status != 101:
            if exchange is not None:
                exchange.interim.append(head.status)
                self._waiting.appendleft(exchange)
            return
        if head.complete:
            self._emit(exchange, head, span)
        else:
            self._open_response = exchange, head, span
        if head.status == 101:
            self._upgrade(exchange, head, span)
        elif exchange is not None and exchange.head.method == "CONNECT" and head.status < 300:
            self.switch("detect")

    def _answered(self, span: Span) -> _Exchange | None:
        """The request that a response which begins with `span` answers."""
        waiting = self._waiting
        if not waiting:
            return None
        if self._lost_answers:
            self._lost_answers = False
            while len(waiting) > 1 and waiting[1].span.first_ns <= span.first_ns:
                self._emit(waiting.popleft(), None, None)
        return waiting.popleft()

    def _upgrade(self, exchange: _Exchange | None, head: Head, span: Span) -> None:
        """RFC 9110, section 7.8: from here on the connection speaks what the response names."""
        name = head.headers.get("upgrade", "").lower()
        target = exchange.head.target if exchange is not None else None
        if "websocket" in name:
            self.switch("websocket", target=target, extensions=head.headers.get("sec-websocket-extensions", ""))
        elif name.startswith("h2c") and exchange is not None:
            self.switch(
                "http2",
                method=exchange.head.method,
                target=target,
                headers=exchange.head.headers,
                span=exchange.span,
                settings=exchange.head.headers.get("http2-settings", ""),
            )
        else:
            self.switch("detect")

    def _is_notice(self, head: Head) -> bool:
        """SSDP over UDP (UPnP Device Architecture, section 1): advertisements, and searches to a multicast group."""
        if not self.connection.datagrams:
            return False
        return head.method == "NOTIFY" or ip_address(self.connection.server_ip).is_multicast

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        if self._state[side] in (_CHUNKS, _AWAITED):
            self._state[side] = _ADRIFT
        if side == SERVER and self._is_lost(position):
            self._lost_answers = True

    def _is_lost(self, position: int) -> bool:
        """Whether bytes were lost there; what the payload policy cut lies within one message."""
        for start, end, lost in self.connection.streams[SERVER].gaps:
            if start <= position < end:
                return lost
        return True

    def finish(self) -> None:
        self._close_response()
        for exchange in self._waiting:
            self._emit(exchange, None, None)
        self._waiting.clear()

    # ---- rows ------------------------------------------------------------------------------------------------

    def _close_response(self) -> None:
        if self._open_response is None:
            return
        exchange, head, span = self._open_response
        self._open_response = None
        if head.body == UNTIL_CLOSE and self._state[SERVER] == _TO_THE_END and self.at_end[SERVER]:
            # Bytes behind the last captured one belong to it too.
            stream = self.connection.streams[SERVER]
            span = stream.span(span.start, max(span.end, stream.first_position + stream.total_bytes))
        self._emit(exchange, head, span)

    def _emit(
        self, exchange: _Exchange | None, answer: Head | None, span: Span | None, outcome: str | None = None
    ) -> None:
        asked = exchange.head if exchange is not None else None
        row = http_row(
            asked.method if asked else None,
            asked.target if asked else None,
            str(answer.status) if answer else None,
            asked.headers if asked else {},
            answer.headers if answer else {},
        )
        row.outcome = outcome
        if answer is not None and row.is_error:
            row.error_message = describe_error(answer.reason, answer.headers, answer.sample)
        if exchange is not None and exchange.interim:
            assert row.attributes is not None
            row.attributes["interim"] = exchange.interim
        self.emit(row, exchange.span if exchange is not None else None, span)


def resolve(rows: list[Request], shared: dict[Any, Any]) -> None:
    """The second look at the routes of each host, when all are known."""
    resolve_routes(rows)
