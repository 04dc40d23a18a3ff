"""OpenWire commands to rows."""

from __future__ import annotations

from typing import Final

from kubetape.analyze.protocols.contract import CLIENT, SERVER, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.openwire import types as t
from kubetape.analyze.protocols.openwire.parse import find_command, parse_command, read_destination, read_error
from kubetape.analyze.protocols.openwire.types import Command
from kubetape.analyze.streams import Span

MAX_OPEN: Final = 1 << 14  # asynchronous sends of a producer wait for nothing; synchronous ones are one a session


class OpenwireDecoder(Decoder):
    """Key: who asked, and the command id, which the response names as its correlation id."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._offers: list[bool | None] = [None, None]
        self._hello: tuple[Request, Span, Side] | None = None
        self._open: dict[tuple[Side, int], tuple[Request, Span]] = {}

    @property
    def _tight(self) -> bool | None:
        """Tight encoding is spoken where both sides offer it."""
        if None in self._offers:
            return None
        return all(self._offers)

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_command(data, offset, self._tight)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_command(data, offset, self._tight)

    def on_frame(self, side: Side, frame: Command, span: Span) -> None:
        if frame.kind == t.WIREFORMAT_INFO:
            self._on_wireformat(side, frame, span)
        elif frame.kind in t.RESPONSES:
            self._on_response(SERVER if side == CLIENT else CLIENT, frame, span)
        else:
            self._on_command(side, frame, span)

    def _on_wireformat(self, side: Side, frame: Command, span: Span) -> None:
        """Both sides say once what they can: one row."""
        self._offers[side] = frame.tight_offered
        if self._hello is not None and self._hello[2] != side:
            row, request, _ = self._hello
            self._hello = None
            row.status = "OK"
            self.emit(row, request, span)
            return
        row = Request(operation="WireFormatInfo", attributes={"version": frame.version})
        self._hello = (row, span, side)

    def _on_command(self, side: Side, frame: Command, span: Span) -> None:
        row = Request(operation=t.NAMES[frame.kind])
        destination = read_destination(frame.body)
        if destination is not None:
            row.resource = destination[1]
            row.attributes = {"destination_kind": destination[0]}
        if side == SERVER:
            row.attributes = {**(row.attributes or {}), "sent_by": "server"}
        if not frame.response_required:
            row.outcome = "one_way"
        # A broker may answer the farewell although nobody waits.
        if row.outcome and frame.kind != t.SHUTDOWN_INFO:
            self.emit(row, span, None)
            return
        key = (side, frame.command_id)
        old = self._open.pop(key, None)
        if old is None and len(self._open) >= MAX_OPEN:
            old = self._open.pop(next(iter(self._open)))
        if old is not None:
            self.emit(*old, None)
        self._open[key] = (row, span)

    def _on_response(self, asker: Side, frame: Command, span: Span) -> None:
        row, request = self._open.pop((asker, frame.correlation_id), (Request(), None))
        row.status, row.outcome = "OK", None
        if frame.kind == t.EXCEPTION_RESPONSE:
            row.status, row.is_error, row.error_kind = "ExceptionResponse", True, "server"
            row.error_message = read_error(frame)
        self.emit(row, request, span)

    def finish(self) -> None:
        if self._hello is not None:
            self.emit(self._hello[0], self._hello[1], None)
        for row, span in self._open.values():
            self.emit(row, span, None)
        self._open.clear()
