"""MongoDB messages to rows."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.protocols.common.trace import read_sql_comment_trace, read_trace
from kubetape.analyze.protocols.contract import Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.mongodb.parse import find_message, parse_message
from kubetape.analyze.protocols.mongodb.types import SERVER_CODES, TIMEOUT_CODES, Answer, Command
from kubetape.analyze.streams import Span

CURSOR_NOT_FOUND: Final = 43
MAX_PENDING: Final = 1 << 14  # a connection serves one operation at a time, a proxy's a few; the oldest are given up


class MongoDecoder(Decoder):
    """Key: responseTo of the reply is requestID of the request; replies of an exhaust stream answer each other."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._pending: dict[int, tuple[Request, Span]] = {}
        self._streams: dict[int, Request] = {}  # requestID of the last reply of a stream -> the row that opened it
        self._last_write: Request | None = None

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_message(side, data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_message(side, data, offset)

    def on_frame(self, side: Side, frame: Command | Answer, span: Span) -> None:
        if isinstance(frame, Command):
            self._on_command(frame, span)
        else:
            self._on_answer(frame, span)

    def _on_command(self, command: Command, span: Span) -> None:
        row = Request(operation=command.name, resource=command.resource, statement=command.statement)
        row.stream_id = command.request_id & 0xFFFFFFFF
        row.attributes = command.detail or None
        if command.comment:
            trace = read_trace(command.comment)
            if trace is None and "" in command.comment:
                text = command.comment[""]
                trace = read_trace({"traceparent": text}) or read_sql_comment_trace(f"/*{text}*/")
            if trace is not None:
                row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
        if command.one_way:
            row.outcome = "one_way"
            self.emit(row, span, None)
            if command.detail.get("legacy"):
                self._last_write = row
            return
        if command.request_id in self._pending:
            self.emit(*self._pending.pop(command.request_id), None)
        elif len(self._pending) >= MAX_PENDING:
            self.emit(*self._pending.pop(next(iter(self._pending))), None)
        self._pending[command.request_id] = (row, span)

    def _on_answer(self, answer: Answer, span: Span) -> None:
        row, request = self._pending.pop(answer.response_to, (None, None))
        if row is None:
            row = Request(stream_id=answer.response_to & 0xFFFFFFFF)
            opener = self._streams.pop(answer.response_to, None)
            if opener is not None:
                # What a server sends on its own once asked to (exhaust) waits for nothing.
                row.operation, row.resource, row.outcome = opener.operation, opener.resource, "one_way"
                row.attributes = {"exhaust": True}
        else:
            opener = None
        if answer.more:
            if len(self._streams) >= MAX_PENDING:
                self._streams.pop(next(iter(self._streams)))
            self._streams[answer.request_id] = opener or row
        self._tell(row, answer)
        self.emit(row, request, span)

    def _tell(self, row: Request, answer: Answer) -> None:
        detail = answer.detail
        query_failed = detail.pop("query_failure", False)
        if row.operation in ("query", "getMore") and (row.attributes or {}).get("legacy") and not query_failed:
            # The first document is one of the collection: its fields are data.
            answer = answer._replace(ok=answer.code != CURSOR_NOT_FOUND, affected=None)
            detail = {}
        failed = detail.pop("write_errors", None) or detail.pop("write_concern_error", None)
        last_error = detail.pop("last_error", None)
        row.rows_sent, row.rows_affected = answer.rows, answer.affected
        if answer.ok is False or failed:
            code, message = (answer.code, answer.message) if answer.ok is False else failed
            row.is_error = True
            row.status = "ERROR" if code is None else str(code)
            row.error_kind = error_kind(code)
            row.error_message = message
        elif answer.ok:
            row.status = "OK"
        elif answer.rows is not None or answer.affected is not None:
            # The end, with `ok`, was cut off; only a success has results.
            row.status, row.inferred = "OK", "status"
        if row.operation in ("getLastError", "getlasterror") and self._last_write is not None:
            self._tell_write(self._last_write, answer, last_error)
            self._last_write = None
        if detail:
            attributes: dict[str, Any] = row.attributes or {}
            attributes.update(detail)
            row.attributes = attributes

    @staticmethod
    def _tell_write(write: Request, answer: Answer, last_error: str | None) -> None:
        """Before 2.6 a write had no reply: the getLastError behind it tells how it went."""
        if last_error:
            write.is_error = True
            write.status = "ERROR" if answer.code is None else str(answer.code)
            write.error_kind, write.error_message = error_kind(answer.code), last_error
        elif answer.ok:
            write.status, write.rows_affected = "OK", answer.affected
        write.inferred = "status" if write.status else None

    def finish(self) -> None:
        for row, request in self._pending.values():
            self.emit(row, request, None)
        self._pending.clear()


def error_kind(code: int | None) -> str:
    """Whose fault an error code tells of."""
    if code in TIMEOUT_CODES:
        return "timeout"
    return "server" if code is None or code in SERVER_CODES else "client"
