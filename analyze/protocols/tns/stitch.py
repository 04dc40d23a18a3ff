"""TNS packets to rows."""

from __future__ import annotations

from typing import Final

from kubetape.analyze.normalise.sql import digest
from kubetape.analyze.protocols.contract import CLIENT, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.tns import types as t
from kubetape.analyze.protocols.tns.parse import (
    find_packet,
    parse_packet,
    read_connect,
    read_error,
    read_refusal,
    read_service,
    read_statement,
)
from kubetape.analyze.protocols.tns.types import Packet
from kubetape.analyze.streams import Span

_NO_MORE_ROWS: Final = "1403"  # ORA-01403 ends every fetch
_MAX_CALL_BYTES: Final = 1 << 16


class TnsDecoder(Decoder):
    """Key: order: the client waits for an answer before it calls again. Packets of one turn are one message."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._row: Request | None = None
        self._asked: Span | None = None
        self._call = b""
        self._answer: Span | None = None
        self._said = b""

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_packet(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_packet(data, offset)

    def on_frame(self, side: Side, frame: Packet, span: Span) -> None:
        if side == CLIENT:
            self._on_asked(frame, span)
        else:
            self._on_answered(frame, span)

    def _on_asked(self, frame: Packet, span: Span) -> None:
        if frame.kind == t.CONNECT:
            self._flush()
            version, descriptor = read_connect(frame)
            self._row = Request(operation="Connect", resource=read_service(descriptor), statement=descriptor or None)
            self._row.attributes = {"version": version}
            self._asked = span.copy()
            return
        if frame.kind != t.DATA:
            return  # markers interrupt; they ask nothing
        if self._row is None or self._answer is not None:
            self._flush()
            self._row, self._asked, self._call = Request(), span.copy(), b""
        elif self._asked is not None:
            self._asked.extend(span)
        if len(self._call) < _MAX_CALL_BYTES:
            self._call += frame.body[2:]  # behind the data flags

    def _on_answered(self, frame: Packet, span: Span) -> None:
        row = self._row
        if frame.kind == t.RESEND:
            return  # the client sends its CONNECT again
        if row is not None and row.operation == "Connect" and frame.kind in (t.ACCEPT, t.REFUSE, t.REDIRECT):
            row.status = "OK"
            if frame.kind == t.REFUSE:
                row.status, row.is_error, row.error_kind = read_refusal(frame) or "REFUSE", True, "server"
            elif frame.kind == t.REDIRECT:
                row.attributes = {**(row.attributes or {}), "redirected": True}
            self.emit(row, self._asked, span)
            self._row = self._asked = None
            return
        if frame.kind != t.DATA:
            return
        if row is None and self._answer is None:
            self._row = Request()
        if self._answer is None:
            self._answer = span.copy()
        else:
            self._answer.extend(span)
        if len(self._said) < _MAX_CALL_BYTES:
            self._said += frame.body[2:]

    def _flush(self) -> None:
        row, self._row = self._row, None
        if row is not None:
            if self._asked is not None and row.operation != "Connect":
                _tell_call(row, self._call)
            if self._answer is not None:
                _tell_status(row, self._said)
            self.emit(row, self._asked, self._answer)
        self._asked = self._answer = None
        self._call = self._said = b""

    def finish(self) -> None:
        self._flush()


def _tell_call(row: Request, call: bytes) -> None:
    kind = call[0] if call else 0
    row.operation = t.MESSAGES.get(kind, "Data")
    if kind in (t.CALL, t.PIGGYBACK) and len(call) > 1:
        row.operation = t.FUNCTIONS.get(call[1], row.operation)
    row.statement = read_statement(call)
    if row.statement:
        row.resource = digest(row.statement, "generic")[1]


def _tell_status(row: Request, said: bytes) -> None:
    error = read_error(said)
    row.status = "OK"
    if error is not None and error[0] != _NO_MORE_ROWS:
        row.status, row.error_message = error
        row.is_error, row.error_kind = True, "server"
