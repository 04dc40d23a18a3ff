"""AMQP frames to rows."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.protocols.amqp.parse import find_frame, method_id, parse_frame, read_arguments, read_header
from kubetape.analyze.protocols.amqp.types import (
    BODY,
    HEADER,
    HEARTBEAT,
    METHODS,
    SERVER_FAULTS,
    SUCCESS,
    Frame,
    Method,
)
from kubetape.analyze.protocols.common.spans import ScatteredSpan
from kubetape.analyze.protocols.common.trace import read_trace
from kubetape.analyze.protocols.contract import CLIENT, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.streams import Span

# Synchronous methods wait for each other on a channel; more than these wait only where answers were lost.
MAX_WAITING: Final = 1 << 12
MAX_CHANNELS: Final = 1 << 16

_KEPT: Final = frozenset(
    {"consumer_tag", "delivery_tag", "mechanism", "mechanisms", "message_count", "consumer_count", "prefetch_count"}
    | {"heartbeat", "frame_max", "channel_max", "type", "source"}
)
_MESSAGE: Final = frozenset(
    {"content_type", "correlation_id", "reply_to", "message_id", "type", "expiration", "app_id"}
)


class _Content:
    """A method whose message is not complete: `span` grows by its frames."""

    __slots__ = ("answer_to", "left", "row", "span")

    def __init__(self, row: Request, span: Span, answer_to: Span | None) -> None:
        self.row, self.span, self.answer_to = row, span, answer_to
        self.left = -1  # bytes of the body still to come; -1 before the header


class AmqpDecoder(Decoder):
    """Key: who asked, channel and method, in order; content frames belong to the method before on the channel."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._waiting: dict[tuple[Side, int], list[tuple[str, Request, Span]]] = {}
        self._content: dict[tuple[Side, int], _Content] = {}

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_frame(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_frame(data, offset)

    def on_frame(self, side: Side, frame: Frame, span: Span) -> None:
        if frame.kind in (HEADER, BODY):
            self._on_content(side, frame, span)
        elif frame.kind not in (0, HEARTBEAT):
            self._end_content((side, frame.channel))
            method = METHODS.get(method_id(frame.data, frame.start))
            if method is not None:
                arguments = read_arguments(method.layout, frame.data, frame.start + 4, frame.end)
                if method.answers:
                    self._on_answer(side, frame.channel, method, arguments, span)
                else:
                    self._on_method(side, frame.channel, method, arguments, span)

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        """Content frames behind a gap may belong to another method."""
        for key in [k for k in self._content if k[0] == side]:
            self._end_content(key)

    def _on_method(self, side: Side, channel: int, method: Method, arguments: dict[str, Any], span: Span) -> None:
        row = Request(operation=method.name, stream_id=channel, resource=_resource(method.name, arguments))
        attributes = {name: value for name, value in arguments.items() if name in _KEPT and value != ""}
        if side != CLIENT:
            attributes["sent_by"] = "server"
        for name in ("exchange", "routing_key"):
            if arguments.get(name) and method.name.startswith(("queue.", "exchange.")):
                attributes[name] = arguments[name]
        if arguments.get("redelivered"):
            attributes["redelivered"] = True
        row.attributes = attributes or None
        if "code" in arguments:
            _tell_code(row, int(arguments["code"]), str(arguments.get("text", "")))
            if method.name.endswith(".close"):
                self._fail(side, channel, method, arguments, span)
        if method.content:
            row.outcome = "one_way"
            self._begin_content((side, channel), _Content(row, ScatteredSpan(span), None))
        elif not method.waits or arguments.get("nowait"):
            row.outcome = "one_way"
            self.emit(row, span, None)
        else:
            waiting = self._waiting.setdefault((side, channel), [])
            waiting.append((method.name, row, span))
            if len(waiting) > MAX_WAITING:
                _, old, old_span = waiting.pop(0)
                self.emit(old, old_span, None)

    def _on_answer(self, side: Side, channel: int, method: Method, arguments: dict[str, Any], span: Span) -> None:
        asker: Side = 1 if side == 0 else 0
        waiting = self._waiting.get((asker, channel), [])
        place = next((i for i, (name, _, _) in enumerate(waiting) if name == method.answers), -1)
        request: Span | None
        if place >= 0:
            _, row, request = waiting.pop(place)
        else:
            row, request = Request(operation=method.answers, stream_id=channel), None
        row.status = row.status or "OK"
        if row.attributes is None:
            row.attributes = {}
        row.attributes.update((name, value) for name, value in arguments.items() if name in _KEPT and value != "")
        if method.name == "queue.declare-ok" and not row.resource:
            # The server chose the name.
            row.resource = str(arguments.get("queue", "")) or None
        if method.name == "basic.get-empty":
            row.attributes["empty"] = True
        if method.content:
            row.attributes.update(
                (name, arguments[name]) for name in ("exchange", "routing_key") if arguments.get(name)
            )
            self._begin_content((side, channel), _Content(row, ScatteredSpan(span), request))
        else:
            self.emit(row, request, span)

    def _fail(self, side: Side, channel: int, method: Method, arguments: dict[str, Any], span: Span) -> None:
        """A close that names a method answers it; so do closes what else waits on the channel or the connection."""
        asker: Side = 1 if side == 0 else 0
        code = int(arguments["code"])
        blamed = METHODS.get((int(arguments.get("class", 0)), int(arguments.get("method", 0))))
        waiting = self._waiting.get((asker, channel), [])
        for name, row, request in list(waiting):
            if blamed is not None and name == blamed.name:
                waiting.remove((name, row, request))
                _tell_code(row, code, str(arguments.get("text", "")))
                self.emit(row, request, span)
                return

    def _begin_content(self, key: tuple[Side, int], content: _Content) -> None:
        if len(self._content) >= MAX_CHANNELS:
            self._end_content(next(iter(self._content)))
        self._content[key] = content

    def _on_content(self, side: Side, frame: Frame, span: Span) -> None:
        key = (side, frame.channel)
        content = self._content.get(key)
        if content is None:
            return
        content.span.extend(span)
        if frame.kind == HEADER:
            content.left, properties, carriers = read_header(frame.data, frame.start, frame.end)
            row = content.row
            attributes = row.attributes = row.attributes or {}
            attributes["body_bytes"] = content.left
            attributes.update((name, value) for name, value in properties.items() if name in _MESSAGE and value != "")
            trace = read_trace(carriers) if carriers else None
            if trace is not None:
                row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
        elif content.left > 0:
            content.left -= frame.end - frame.start
        if content.left == 0:
            self._end_content(key)

    def _end_content(self, key: tuple[Side, int]) -> None:
        content = self._content.pop(key, None)
        if content is None:
            return
        if content.left != 0 and content.row.outcome == "one_way":
            content.row.attributes = content.row.attributes or {}
            content.row.attributes["incomplete"] = True
        if content.row.outcome == "one_way":
            self.emit(content.row, content.span, None)
        else:
            self.emit(content.row, content.answer_to, content.span)

    def finish(self) -> None:
        for key in list(self._content):
            self._end_content(key)
        for waiting in self._waiting.values():
            for _, row, span in waiting:
                self.emit(row, span, None)
        self._waiting.clear()


def _resource(name: str, arguments: dict[str, Any]) -> str | None:
    """exchange/routing key of messages (the default exchange has no name), else what the method is about."""
    area = name.partition(".")[0]
    if name in ("basic.publish", "basic.deliver", "basic.return"):
        parts = [arguments.get("exchange"), arguments.get("routing_key")]
        return "/".join(str(p) for p in parts if p) or None
    if area in ("queue", "basic"):
        return str(arguments.get("queue", "")) or None
    if area == "exchange":
        return str(arguments.get("exchange", "")) or None
    if name == "connection.open":
        return str(arguments.get("vhost", "")) or None
    return None


def _tell_code(row: Request, code: int, text: str) -> None:
    if code == SUCCESS:
        row.status = "OK"
        return
    row.status = str(code)
    row.is_error = True
    row.error_kind = "server" if code in SERVER_FAULTS else "client"
    row.error_message = text or None
