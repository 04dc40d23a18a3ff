"""ClickHouse packets to rows."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.normalise.sql import digest
from kubetape.analyze.protocols.clickhouse import types as t
from kubetape.analyze.protocols.clickhouse.parse import (
    DEFAULT_REVISION,
    find_client,
    find_server,
    parse_addendum,
    parse_client,
    parse_server,
)
from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.common.trace import read_sql_comment_trace
from kubetape.analyze.protocols.contract import CLIENT, WAIT, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.streams import Span

# src/Common/ErrorCodes.cpp
_TIMEOUTS: Final = frozenset({159, 160, 209, 450, 473})
_SERVER_CODES: Final = frozenset(
    {3, 49, 74, 75, 76, 95, 96, 101, 102, 164, 173, 198, 202, 210, 225, 236, 241, 242, 243, 246, 252, 279, 286}
    | {298, 305, 319, 335, 425, 439, 499, 501, 574, 579, 598, 668, 692, 735, 999, 1000, 1001, 1002}
)
_HELLO, _PING = "Hello", "Ping"


class ClickHouseDecoder(Decoder):
    """Key: order; a connection has one query at a time, and a ping only between two."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._revision: int | None = None  # the agreed one
        self._client_revision = DEFAULT_REVISION
        self._compressed = False
        self._hello_open = self._addendum = False
        self._row: Request | None = None
        self._asked: Span | None = None
        self._answered: Span | None = None
        self._rows = self._written = self._inserted = self._read_rows = self._read_bytes = 0
        self._profiled: int | None = None

    # ---- bytes ---------------------------------------------------------------------------------------------

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        revision = DEFAULT_REVISION if self._revision is None else self._revision
        if side != CLIENT:
            known = self._client_revision if self._hello_open else revision
            return parse_server(data, offset, known, self._compressed)
        if self._hello_open and not self.at_end[1]:
            return WAIT  # what follows a hello depends on the server's
        if self._addendum:
            self._addendum = False
            return parse_addendum(data, offset, revision)
        return parse_client(data, offset, self._revision, self._compressed)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        if side != CLIENT:
            return find_server(data, offset)
        self._addendum = False
        if data[offset:] in (b"\x04", b"\x03"):
            return offset  # a ping or a cancel, alone
        return find_client(data, offset)

    # ---- frames --------------------------------------------------------------------------------------------

    def on_frame(self, side: Side, frame: Any, span: Span) -> None:
        if side == CLIENT:
            self._on_client(frame, span)
        else:
            self._on_server(frame, span)

    def _on_client(self, frame: Any, span: Span) -> None:
        if isinstance(frame, t.Hello):
            self._client_revision, self._hello_open = frame.revision, True
            row = Request(operation=_HELLO, resource=f"{frame.user}@{frame.database}")
            row.attributes = {"client": f"{frame.name} {frame.version}"}
            self._begin(row, span)
        elif isinstance(frame, t.Query):
            self._on_query(frame, span)
        elif isinstance(frame, t.Block):
            if self._row is not None and self._asked is not None and self._row.operation == "Query":
                self._inserted += frame.rows or 0
                self._asked.extend(span)
        elif isinstance(frame, t.Simple) and frame.kind != t.C_CANCEL:
            name = {t.C_PING: _PING, t.C_TABLES_STATUS: "TablesStatusRequest"}.get(frame.kind, "KeepAlive")
            self._begin(Request(operation=name), span)

    def _on_query(self, query: t.Query, span: Span) -> None:
        self._compressed = query.compressed
        if self._revision is None:
            self._revision = query.revision
        text = read_text(query.text)
        row = Request(operation="Query", statement=text, resource=digest(text, "clickhouse")[1] if text else None)
        row.attributes = {}
        if query.query_id:
            row.attributes["query_id"] = query.query_id
        if query.client:
            row.attributes["client"] = query.client
        if query.trace is not None:
            row.trace_id, row.span_id = query.trace
            row.attributes["trace_carrier"] = "client info"
        elif (trace := read_sql_comment_trace(text)) is not None:
            row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
            row.attributes["trace_carrier"] = trace.carrier
        self._begin(row, span)

    def _on_server(self, frame: Any, span: Span) -> None:
        if isinstance(frame, t.Hello):
            self._revision = min(frame.revision, self._client_revision)
            self._addendum = self._hello_open and self._revision >= t.R_ADDENDUM
            self._hello_open = False
            if self._row is not None and self._row.attributes is not None:
                self._row.attributes["server"] = f"{frame.name} {frame.version}"
        if self._answered is None:
            self._answered = span.copy()
        else:
            self._answered.extend(span)
        if isinstance(frame, t.Block):
            if frame.kind == t.S_DATA:
                self._rows += frame.rows or 0
        elif isinstance(frame, t.Progress):
            self._read_rows += frame.rows
            self._read_bytes += frame.size_bytes
            self._written += frame.written_rows
        elif isinstance(frame, t.Failure):
            self._hello_open = False
            self._end(frame)
        elif isinstance(frame, t.Hello):
            self._end(None)
        elif isinstance(frame, t.Simple):
            if frame.kind == t.S_PROFILE:
                self._profiled = frame.rows
            elif frame.kind in (t.S_END, t.S_PONG, t.S_TABLES_STATUS):
                self._end(None)

    def _begin(self, row: Request, span: Span) -> None:
        self._flush()
        self._row, self._asked = row, span.copy()

    def _end(self, failure: t.Failure | None) -> None:
        row = Request() if self._row is None else self._row
        row.status = "OK"
        if failure is not None:
            row.status, row.is_error, row.error_message = str(failure.code), True, failure.message or failure.name
            if failure.code in _TIMEOUTS:
                row.error_kind = "timeout"
            else:
                row.error_kind = "server" if failure.code in _SERVER_CODES else "client"
        self._finish_row(row)

    def _finish_row(self, row: Request) -> None:
        if row.operation in ("Query", None):
            if self._inserted or self._written:
                row.rows_affected = self._written or self._inserted
            elif row.status == "OK" and (self._profiled is not None or self._rows):
                row.rows_sent = self._rows if self._profiled is None else self._profiled
            if self._read_rows:
                row.attributes = {
                    **(row.attributes or {}),
                    "read_rows": self._read_rows,
                    "read_bytes": self._read_bytes,
                }
        self.emit(row, self._asked, self._answered)
        self._row = self._asked = self._answered = self._profiled = None
        self._rows = self._written = self._inserted = self._read_rows = self._read_bytes = 0

    def _flush(self) -> None:
        """What is open gets no (further) answer."""
        if self._row is not None:
            if self._answered is not None:
                self._row.outcome = "truncated"  # the end of the answer was not seen
            self._finish_row(self._row)
        elif self._answered is not None:
            self._finish_row(Request())

    def finish(self) -> None:
        self._flush()
