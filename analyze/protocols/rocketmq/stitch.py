"""RocketMQ commands to rows."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.protocols.common.text import cut_text
from kubetape.analyze.protocols.common.trace import CARRIERS, read_trace
from kubetape.analyze.protocols.contract import CLIENT, SERVER, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.rocketmq import types as t
from kubetape.analyze.protocols.rocketmq.parse import find_command, parse_command, read_first_message, read_properties
from kubetape.analyze.protocols.rocketmq.types import Command
from kubetape.analyze.streams import Span

MAX_OPEN: Final = 1 << 14  # long polls of all queues of a consumer; beyond it the oldest are given up

_GROUPS: Final = ("consumerGroup", "producerGroup", "group", "groupName")
_KEPT: Final = (("queueId", "queue_id"), ("queueOffset", "queue_offset"), ("msgId", "message_id"))


class RocketmqDecoder(Decoder):
    """Key: who asked, and the opaque number."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._open: dict[tuple[Side, int], tuple[Request, Span]] = {}

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_command(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_command(data, offset)

    def on_frame(self, side: Side, frame: Command, span: Span) -> None:
        if not frame.known:
            # The header was cut before it said what it is.
            return
        if frame.flag & t.RESPONSE_FLAG:
            self._on_response(SERVER if side == CLIENT else CLIENT, frame, span)
            return
        row = _request_row(frame)
        if side != CLIENT:
            row.attributes = {**(row.attributes or {}), "sent_by": "server"}
        if frame.flag & t.ONEWAY_FLAG:
            row.outcome = "one_way"
            self.emit(row, span, None)
            return
        key = (side, frame.opaque)
        old = self._open.pop(key, None)
        if old is None and len(self._open) >= MAX_OPEN:
            old = self._open.pop(next(iter(self._open)))
        if old is not None:
            self.emit(*old, None)
        self._open[key] = (row, span)

    def _on_response(self, asker: Side, frame: Command, span: Span) -> None:
        known = self._open.pop((asker, frame.opaque), None)
        row, request = known if known is not None else (Request(attributes={"opaque": frame.opaque}), None)
        row.status = str(frame.code)
        attributes = row.attributes = row.attributes or {}
        if frame.code in t.RESPONSES:
            attributes["status_name"] = t.RESPONSES[frame.code]
        if frame.code not in t.NO_ERRORS:
            row.is_error = True
            server = frame.code in t.SERVER_FAULTS
            row.error_kind = "timeout" if frame.code in t.TIMEOUTS else "server" if server else "client"
            row.error_message = cut_text(frame.remark or t.RESPONSES.get(frame.code, ""), 1024) or None
        for name, column in _KEPT:
            if name in frame.fields:
                attributes.setdefault(column, cut_text(frame.fields[name], 256))
        topic, carriers = read_first_message(frame)
        if topic and row.resource is None:
            row.resource = topic
        if carriers and row.trace_id is None:
            _tell_trace(row, carriers)
        self.emit(row, request, span)

    def finish(self) -> None:
        for row, span in self._open.values():
            self.emit(row, span, None)
        self._open.clear()


def _request_row(frame: Command) -> Request:
    fields = frame.fields
    row = Request(operation=t.REQUESTS.get(frame.code) or str(frame.code))
    short = frame.code in t.SHORT_FIELDS
    # SendMessageRequestHeaderV2: a producer group, b topic, e queue id, i properties.
    topic = fields.get("b") if short and "topic" not in fields else fields.get("topic") or fields.get("originTopic")
    row.resource = cut_text(topic, 512) if topic else None
    attributes: dict[str, Any] = {"opaque": frame.opaque}
    if frame.language:
        attributes["language"] = frame.language
    if frame.version:
        attributes["version"] = frame.version
    group = fields.get("a") if short else next((fields[name] for name in _GROUPS if name in fields), None)
    if group:
        attributes["group"] = cut_text(group, 512)
    queue = fields.get("e") if short else fields.get("queueId")
    if queue:
        attributes["queue_id"] = cut_text(queue, 32)
    if short and fields.get("m") == "true":
        attributes["batch"] = True
    row.attributes = attributes
    carriers = {name.lower(): value for name, value in fields.items() if name.lower() in CARRIERS}
    carriers.update(read_properties(fields.get("i" if short else "properties", "")))
    if carriers:
        _tell_trace(row, carriers)
    return row


def _tell_trace(row: Request, carriers: dict[str, str]) -> None:
    trace = read_trace(carriers)
    if trace is not None:
        row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
