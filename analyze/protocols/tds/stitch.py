"""TDS messages to rows."""

from __future__ import annotations

from typing import Final

from kubetape.analyze.normalise.sql import digest
from kubetape.analyze.protocols.common.trace import read_sql_comment_trace
from kubetape.analyze.protocols.contract import CLIENT, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.tds import types as t
from kubetape.analyze.protocols.tds.parse import (
    find_packet,
    parse_packet,
    read_answer,
    read_batch,
    read_call,
    read_login5,
    read_login7,
    read_prelogin,
    read_query5,
)
from kubetape.analyze.protocols.tds.types import Packet
from kubetape.analyze.streams import Span

MAX_MESSAGE_BYTES: Final = 1 << 16  # kept of a message: what statement and errors need
# Numbers of the server's own troubles ([MS-SQL] severities 17 to 25 say the same); of deadlocks and timeouts.
_SERVER_LEVEL: Final = 17
_TIMEOUTS: Final = frozenset({-2, 1222, 3617})
_DEADLOCK: Final = 1205


class TdsDecoder(Decoder):
    """Key: order; the client waits for the answer. Packets of one message are put together."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._parts: list[tuple[int, bytes, Span] | None] = [None, None]
        self._open: tuple[Request, Span] | None = None
        self._offered: int | None = None

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_packet(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_packet(data, offset)

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        self._parts[side] = None

    def on_frame(self, side: Side, frame: Packet, span: Span) -> None:
        waiting = self._parts[side]
        if waiting is None:
            kind, body, span = frame.kind, frame.body[:MAX_MESSAGE_BYTES], span.copy()
        else:
            # Of a login of TDS 5 the second packet has another type. The end of an answer holds its counts: keep both.
            kind, before, whole = waiting
            body = before + frame.body
            if len(body) > MAX_MESSAGE_BYTES:
                body = body[: MAX_MESSAGE_BYTES // 2] + body[-MAX_MESSAGE_BYTES // 2 :]
            whole.extend(span)
            span = whole
        if not frame.last:
            self._parts[side] = (kind, body, span)
            return
        self._parts[side] = None
        if side == CLIENT:
            self._on_asked(kind, body, span)
        else:
            self._on_answered(body, span)

    def _on_asked(self, kind: int, body: bytes, span: Span) -> None:
        if kind == t.ATTENTION:
            return  # cancels; the answer ends early
        self._flush()
        row = Request(operation=t.OPERATIONS.get(kind, str(kind)))
        if kind == t.PRELOGIN:
            self._offered = read_prelogin(body)
        elif kind == t.LOGIN7:
            user, database, program = read_login7(body)
            row.resource = f"{user}@{database}" if database else user
            row.attributes = {"program": program} if program else None
        elif kind == t.OLD_LOGIN:
            user, program = read_login5(body)
            row.resource = user
            row.attributes = {"program": program} if program else None
        elif kind in (t.SQL_BATCH, t.QUERY5):
            row.statement = read_batch(body) if kind == t.SQL_BATCH else read_query5(body)
            row.resource = digest(row.statement, "tds")[1] if row.statement else None
        elif kind == t.RPC:
            name, statement = read_call(body)
            row.statement = statement or name
            row.resource = digest(statement, "tds")[1] if statement else name
            row.attributes = {"procedure": name}
        if row.statement and (trace := read_sql_comment_trace(row.statement)) is not None:
            row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
            row.attributes = {**(row.attributes or {}), "trace_carrier": trace.carrier}
        self._open = (row, span)

    def _on_answered(self, body: bytes, span: Span) -> None:
        if self._open is None:
            row, request = Request(), None
        else:
            row, request = self._open
            self._open = None
        if row.operation == "PreLogin":
            row.status = "OK"
            answered = read_prelogin(body)
            self.emit(row, request, span)
            if answered in (1, 3) and self._offered is not None:
                # All of the connection goes through TLS from here on, its handshake inside of PRELOGIN packets.
                self.switch("opaque")
            return
        answer = read_answer(body)
        row.status = "OK"
        if answer.error is not None:
            number, text = answer.error
            row.status, row.error_message, row.is_error = str(number), text or None, True
            if number in _TIMEOUTS:
                row.error_kind = "timeout"
            else:
                row.error_kind = "server" if answer.severity >= _SERVER_LEVEL or number == _DEADLOCK else "client"
        if answer.rows is not None and row.operation in ("SQLBatch", "RPC"):
            if row.resource and row.resource.startswith(("select", "with", "exec")):
                row.rows_sent = answer.rows
            else:
                row.rows_affected = answer.rows
        self.emit(row, request, span)

    def _flush(self) -> None:
        if self._open is not None:
            self.emit(*self._open, None)
            self._open = None

    def finish(self) -> None:
        self._flush()
