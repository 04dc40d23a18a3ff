"""CQL envelopes to rows."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from kubetape.analyze.protocols.cassandra.bodies import Asked, Told, read_reply, read_request, table_of
from kubetape.analyze.protocols.cassandra.parse import (
    find_envelope,
    find_segment,
    header_fits,
    parse_envelope,
    read_header,
)
from kubetape.analyze.protocols.cassandra.segments import LZ4_HEADER, PLAIN_HEADER, header_kind, read_segment
from kubetape.analyze.protocols.cassandra.types import (
    AUTHENTICATE,
    BATCH,
    COMPRESSED,
    ERROR,
    ERRORS,
    EVENT,
    OPCODES,
    READY,
    STARTUP,
    Envelope,
    Segment,
)
from kubetape.analyze.protocols.common.spans import ScatteredSpan
from kubetape.analyze.protocols.common.text import cut_text
from kubetape.analyze.protocols.common.trace import read_sql_comment_trace, read_trace
from kubetape.analyze.protocols.contract import CUT, INVALID, SERVER, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.streams import Span

MAX_PENDING: Final = 1 << 15  # stream ids have 15 bits
KEPT_BODY_BYTES: Final = 1 << 16


class Prepared(NamedTuple):
    """A prepared statement: its CQL, keyspace.table, and the connection that was told its id."""

    cql: str
    table: str | None
    connection_id: int


class Unknown(NamedTuple):
    """A row that runs prepared statements not known when it was seen."""

    row: Request
    parts: list[str | bytes]
    server: tuple[str, int]
    keyspace: str | None


class _Partial:
    """An envelope that is spread over several segments."""

    __slots__ = ("body", "missing", "span")

    def __init__(self, body: bytes, missing: int, span: Span) -> None:
        self.body, self.missing, self.span = bytearray(body), missing, ScatteredSpan(span)


class CassandraDecoder(Decoder):
    """Key: the stream id. From v5 on, envelopes are taken out of segments once the server has said READY."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._pending: dict[int, tuple[int, Request, Span, Asked]] = {}
        self._keyspace: str | None = None
        self._codec: str | None = None
        self._segments = 0  # the size of segment headers once they are in use
        self._partial: list[_Partial | None] = [None, None]

    # ---- bytes -----------------------------------------------------------------------------------------------

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        if self._segments:
            if len(data) - offset < self._segments:
                return CUT
            kind = header_kind(data, offset)
            return read_segment(data, offset, kind) if kind else INVALID
        if not header_fits(side, data, offset) and (kind := header_kind(data, offset)):
            self._segments = kind
            return read_segment(data, offset, kind)
        return parse_envelope(side, data, offset, self._codec)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        place = -1 if self._segments else find_envelope(side, data, offset)
        if place >= 0 and data[place] & 0x7F != 5:
            return place
        # An envelope of v5 may stand alone (before READY) or inside a plain segment that began before it.
        found, kind = find_segment(data, offset, place if place >= 0 else len(data))
        if found >= 0:
            self._segments = kind
            return found
        return place

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        self._partial[side] = None

    def on_frame(self, side: Side, frame: Envelope | Segment, span: Span) -> None:
        if isinstance(frame, Envelope):
            self._on_envelope(side, frame, span)
        else:
            self._on_segment(side, frame, span)

    def _on_segment(self, side: Side, segment: Segment, span: Span) -> None:
        """Section 2.2: whole envelopes in a self-contained segment, else a piece of one."""
        partial = self._partial[side]
        if segment.whole:
            self._partial[side] = None
            place = 0
            while place < len(segment.payload) and header_fits(side, segment.payload, place):
                header = read_header(segment.payload, place)
                assert header is not None
                parsed = parse_envelope(side, segment.payload, place, None)
                if parsed.__class__ is not tuple:
                    break
                own = ScatteredSpan(span)
                own.own_bytes = parsed[0]
                self._on_envelope(side, parsed[1], own)
                place += parsed[0]
            return
        if partial is None:
            header = read_header(segment.payload, 0)
            if header is None or not header_fits(side, segment.payload, 0):
                return  # the rest of an envelope whose beginning was not seen
            missing = header[4] + header[5] - segment.size
            partial = self._partial[side] = _Partial(segment.payload[:KEPT_BODY_BYTES], missing, span)
        else:
            if len(partial.body) < KEPT_BODY_BYTES:
                partial.body += segment.payload
            partial.missing -= segment.size
            partial.span.extend(span)
        if partial.missing <= 0:
            self._partial[side] = None
            parsed = parse_envelope(side, bytes(partial.body), 0, None)
            if parsed.__class__ is tuple:
                self._on_envelope(side, parsed[1], partial.span)

    # ---- meaning ---------------------------------------------------------------------------------------------

    def _on_envelope(self, side: Side, envelope: Envelope, span: Span) -> None:
        if side == SERVER:
            self._on_reply(envelope, span)
        else:
            self._on_request(envelope, span)

    def _on_request(self, envelope: Envelope, span: Span) -> None:
        asked = read_request(envelope)
        row = Request(operation=OPCODES[envelope.opcode], stream_id=envelope.stream, statement=asked.statement)
        keyspace = asked.keyspace or self._keyspace
        if asked.statement is not None:
            row.resource = table_of(asked.statement, keyspace)
        if asked.parts:
            self._fill(row, asked.parts, keyspace)
        carriers = asked.carriers
        trace = read_trace(carriers) if carriers else None
        if trace is None and row.statement and ("/*" in row.statement or "--" in row.statement):
            trace = read_sql_comment_trace(row.statement)
        if trace is not None:
            row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
        if envelope.opcode == STARTUP:
            self._codec = asked.options.get("COMPRESSION", "").lower() or None
            asked.detail.update({name.lower(): value for name, value in asked.options.items()})
        asked.detail["version"] = envelope.version
        if envelope.flags & COMPRESSED:
            asked.detail["compressed"] = True
        row.attributes = asked.detail
        before = self._pending.pop(envelope.stream, None)
        if before is not None:
            self.emit(before[1], before[2], None)
        elif len(self._pending) >= MAX_PENDING:
            oldest = self._pending.pop(next(iter(self._pending)))
            self.emit(oldest[1], oldest[2], None)
        self._pending[envelope.stream] = (envelope.opcode, row, span, asked)

    def _on_reply(self, envelope: Envelope, span: Span) -> None:
        told = read_reply(envelope)
        if envelope.opcode == EVENT:
            row = Request(operation="EVENT", resource=told.table, outcome="one_way")
            row.attributes = {"event": told.event, **told.detail}
            self.emit(row, None, span)
            return
        opcode, row, request, asked = self._pending.pop(envelope.stream, None) or (
            -1,
            Request(stream_id=envelope.stream),
            None,
            None,
        )
        if told.detail:
            attributes: dict[str, Any] = row.attributes or {}
            attributes.update(told.detail)
            row.attributes = attributes
        row.rows_sent = told.rows
        if envelope.opcode == ERROR:
            self._tell_error(row, told)
        else:
            row.status = "OK"
        if told.table and not (row.resource and "." in row.resource):
            row.resource = told.table
        elif told.keyspace is not None:
            self._keyspace = told.keyspace
            row.resource = row.resource or told.keyspace
        if told.prepared_id is not None and asked is not None and asked.statement is not None:
            self._learn(told, asked.statement, row)
        if opcode == STARTUP and envelope.version == 5 and envelope.opcode in (READY, AUTHENTICATE):
            # Section 2.3.1: from here on both directions are framed.
            self._segments = LZ4_HEADER if self._codec == "lz4" else PLAIN_HEADER
        self.emit(row, request, span)

    @staticmethod
    def _tell_error(row: Request, told: Told) -> None:
        row.is_error = True
        if told.code is not None:
            row.status = f"0x{told.code:04x}"
            row.error_kind = ERRORS.get(told.code, "server")
            row.error_message = told.message
        else:
            row.error_kind = "server"

    # ---- prepared statements ---------------------------------------------------------------------------------

    @property
    def _server(self) -> tuple[str, int]:
        return self.connection.server_ip, self.connection.server_port

    def _learn(self, told: Told, cql: str, row: Request) -> None:
        assert told.prepared_id is not None
        table = told.table or row.resource
        key = _key(told.prepared_id, self._server)
        self.connection.shared[key] = Prepared(cql, table, self.connection.connection_id)
        attributes: dict[str, Any] = row.attributes or {}
        attributes["prepared_id"] = told.prepared_id.hex()
        row.attributes = attributes

    def _fill(self, row: Request, parts: list[str | bytes], keyspace: str | None) -> None:
        here = self.connection.connection_id
        if not fill(row, parts, self._server, keyspace, self.connection.shared, here):
            unknown: list[Unknown] = self.connection.shared.setdefault("unknown", [])
            unknown.append(Unknown(row, parts, self._server, keyspace))

    def finish(self) -> None:
        for _, row, request, _ in self._pending.values():
            self.emit(row, request, None)
        self._pending.clear()


def _key(prepared_id: bytes, server: tuple[str, int]) -> tuple[Any, ...]:
    """Ids of 16 bytes are MD5 digests of keyspace and text: the same on every node. Others are the server's own."""
    return (prepared_id,) if len(prepared_id) == 16 else (prepared_id, server)


def fill(
    row: Request,
    parts: list[str | bytes],
    server: tuple[str, int],
    keyspace: str | None,
    shared: dict[Any, Any],
    here: int,
) -> bool:
    """Statement and resource of a row that runs prepared statements; False: some are not known (yet)."""
    texts: list[str] = []
    known = True
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            row.resource = row.resource or table_of(part, keyspace)
            continue
        prepared: Prepared | None = shared.get(_key(part, server))
        if prepared is None:
            known = False
            texts.append(f"<prepared {part.hex()}>")
            continue
        texts.append(prepared.cql)
        row.resource = row.resource or prepared.table
        if prepared.connection_id != here:
            row.inferred = "statement"
    if known or row.operation == OPCODES[BATCH]:
        row.statement = cut_text("; ".join(texts))
    return known


def resolve(rows: list[Request], shared: dict[Any, Any]) -> None:
    """Statements whose PREPARE was seen later or on another connection."""
    for unknown in shared.pop("unknown", []):
        if fill(unknown.row, unknown.parts, unknown.server, unknown.keyspace, shared, -1):
            unknown.row.inferred = "statement"
