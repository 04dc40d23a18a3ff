"""Dubbo messages to rows."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.protocols.common.trace import CARRIERS, read_trace
from kubetape.analyze.protocols.contract import CLIENT, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.dubbo.parse import find_message, parse_message
from kubetape.analyze.protocols.dubbo.types import CLIENT_FAULTS, OK, STATUSES, TIMEOUTS, Call, Reply
from kubetape.analyze.streams import Span

MAX_PENDING: Final = 1 << 16  # one connection carries all calls of an application; the oldest are given up

# Attachments that say who calls and how; the rest is the application's.
_NOTED: Final = {"group": "group", "timeout": "timeout_ms", "remote.application": "application", "generic": "generic"}
# Carriers without a form of their own: EagleEye, and what applications put in by hand.
_PLAIN_TRACE: Final = ("eagleeye-traceid", "traceid", "trace-id", "trace_id")
_PLAIN_SPAN: Final = ("eagleeye-rpcid", "spanid", "span-id", "span_id")


class DubboDecoder(Decoder):
    """Key: who asked, and the request id. Either end may ask (heartbeats, callbacks)."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._pending: dict[tuple[Side, int], tuple[Request, Span]] = {}

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_message(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_message(data, offset)

    def on_frame(self, side: Side, frame: Call | Reply, span: Span) -> None:
        if isinstance(frame, Call):
            self._on_call(side, frame, span)
        else:
            self._on_reply(side, frame, span)

    def _on_call(self, side: Side, call: Call, span: Span) -> None:
        attributes: dict[str, Any] = {"serialisation": call.serialisation}
        row = Request(operation=call.method or None, stream_id=call.call_id, attributes=attributes)
        if call.event is not None:
            row.operation = "heartbeat"
            if call.event != "heartbeat":
                attributes["event"] = call.event
        elif call.interface:
            versioned = call.version and call.version != "0.0.0"
            row.resource = f"{call.interface}:{call.version}" if versioned else call.interface
            row.inferred = "resource" if call.guessed else None
        if side != CLIENT:
            attributes["sent_by"] = "server"
        if call.dubbo_version:
            attributes["dubbo_version"] = call.dubbo_version
        if call.types:
            attributes["types"] = call.types
        for name, value in call.attachments.items():
            if name in _NOTED:
                attributes[_NOTED[name]] = value
        _read_trace(row, call.attachments)
        if not call.two_way:
            row.outcome = "one_way"
            self.emit(row, span, None)
            return
        key = (side, call.call_id)
        if key in self._pending:
            self.emit(*self._pending.pop(key), None)
        elif len(self._pending) >= MAX_PENDING:
            self.emit(*self._pending.pop(next(iter(self._pending))), None)
        self._pending[key] = (row, span)

    def _on_reply(self, side: Side, reply: Reply, span: Span) -> None:
        asker: Side = 1 if side == 0 else 0
        row, request = self._pending.pop((asker, reply.call_id), None) or (
            Request(operation="heartbeat" if reply.event else None, stream_id=reply.call_id),
            None,
        )
        row.status = str(reply.status)
        if reply.status != OK or reply.exception:
            row.is_error = True
            row.error_kind = error_kind(reply.status)
            row.error_message = reply.message or reply.exception or STATUSES.get(reply.status)
            if reply.exception:
                row.attributes = {**(row.attributes or {}), "exception": reply.exception}
        self.emit(row, request, span)

    def finish(self) -> None:
        for row, request in self._pending.values():
            self.emit(row, request, None)
        self._pending.clear()


def error_kind(status: int) -> str:
    """Whose fault a status tells of; an exception of the service comes with status 20 and is the server's."""
    return "timeout" if status in TIMEOUTS else "client" if status in CLIENT_FAULTS else "server"


def _read_trace(row: Request, attachments: dict[str, str]) -> None:
    if not attachments:
        return
    lowered = {name.lower(): value for name, value in attachments.items()}
    trace = read_trace({name: value for name, value in lowered.items() if name in CARRIERS})
    if trace is not None:
        row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
        return
    row.trace_id = next((lowered[name] for name in _PLAIN_TRACE if lowered.get(name)), None)
    if row.trace_id:
        row.span_id = next((lowered[name] for name in _PLAIN_SPAN if lowered.get(name)), None)
