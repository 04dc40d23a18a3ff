"""Thrift messages to rows."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from kubetape.analyze.protocols.common.trace import read_trace
from kubetape.analyze.protocols.contract import CLIENT, SERVER, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.thrift.parse import find_message, parse_message
from kubetape.analyze.protocols.thrift.types import APPLICATION_EXCEPTIONS, CLIENT_FAULTS, EXCEPTION, ONEWAY, Message
from kubetape.analyze.streams import Span

MAX_PENDING: Final = 1 << 14  # calls under way on one connection; the oldest are given up


class ThriftDecoder(Decoder):
    """Key: the sequence id, the method's name and order, because many clients always send the same id.

    Behind a loss, a client that never had two calls under way is taken to have none but its last.
    """

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._pending: deque[tuple[Message, Request, Span]] = deque()
        self._pipelines = False
        self._lost = False

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_message(side, data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_message(side, data, offset)

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        if side == SERVER:
            self._lost = True

    def on_frame(self, side: Side, frame: Message, span: Span) -> None:
        if side == CLIENT:
            self._on_call(frame, span)
        else:
            self._on_reply(frame, span)

    def _on_call(self, message: Message, span: Span) -> None:
        row = Request(operation=message.method, resource=message.service, stream_id=message.sequence_id)
        row.attributes = {"encoding": message.encoding, "transport": message.transport}
        if message.headers and (trace := read_trace(message.headers)) is not None:
            row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
        if message.kind == ONEWAY:
            row.outcome = "one_way"
            self.emit(row, span, None)
            return
        if self._pending:
            if self._lost and not self._pipelines:
                self._give_up(len(self._pending))
            else:
                self._pipelines = True
        if len(self._pending) >= MAX_PENDING:
            self._give_up(1)
        self._pending.append((message, row, span))

    def _on_reply(self, message: Message, span: Span) -> None:
        row, request = self._take(message)
        self._lost = False  # a gap is known as soon as what stands before it was read
        if message.kind == EXCEPTION:
            code, text = message.failure or (None, None)
            row.status, row.is_error = "EXCEPTION", True
            row.error_kind = "client" if code in CLIENT_FAULTS else "server"
            row.error_message = text or APPLICATION_EXCEPTIONS.get(code or 0)
            self._note(row, "exception", APPLICATION_EXCEPTIONS.get(code or 0, str(code)))
        else:
            row.status = "OK"
            if message.failure is not None:
                # An exception that the method declares is a reply to Thrift, and a failure to the caller.
                row.is_error, row.error_kind = True, "server"
                row.error_message = message.failure[1]
                self._note(row, "exception", "declared")
        self.emit(row, request, span)

    def _take(self, reply: Message) -> tuple[Request, Span | None]:
        """The call that a reply belongs to: same id and method, the oldest of them."""
        for place, (call, row, span) in enumerate(self._pending):
            if call.sequence_id == reply.sequence_id and call.method == reply.method:
                del self._pending[place]
                return row, span
        row = Request(operation=reply.method, resource=reply.service, stream_id=reply.sequence_id)
        row.attributes = {"encoding": reply.encoding, "transport": reply.transport}
        return row, None

    def _give_up(self, count: int) -> None:
        for _ in range(count):
            _, row, span = self._pending.popleft()
            self.emit(row, span, None)

    @staticmethod
    def _note(row: Request, name: str, value: Any) -> None:
        row.attributes = {**(row.attributes or {}), name: value}

    def finish(self) -> None:
        self._give_up(len(self._pending))
