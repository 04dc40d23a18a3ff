"""Pulsar's commands to rows."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.protocols.common.text import read_name
from kubetape.analyze.protocols.common.trace import read_trace
from kubetape.analyze.protocols.contract import CLIENT, SERVER, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.pulsar import types as t
from kubetape.analyze.protocols.pulsar.parse import find_frame, parse_frame, read_message
from kubetape.analyze.protocols.pulsar.types import Frame, Kind
from kubetape.analyze.streams import Span

MAX_OPEN: Final = 1 << 14  # maxPendingMessages of a producer is 1000
MAX_IDS: Final = 1 << 16  # producers and consumers of a connection

_ORDERED: Final = frozenset({t.CONNECT, t.PING, t.AUTH_CHALLENGE})  # have no id: answered in order
_Key = tuple[Any, ...]


class PulsarDecoder(Decoder):
    """Key: who asked and the request id; messages: producer and sequence id; CONNECT and PING by order."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._open: dict[_Key, list[tuple[Request, Span]]] = {}
        self._count = 0
        self._topics: dict[tuple[str, int], str] = {}

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_frame(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_frame(data, offset)

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        """What is answered by order only is not paired over lost bytes."""
        asker: Side = SERVER if side == CLIENT else CLIENT
        for kind in _ORDERED:
            for row, span in self._open.pop((asker, kind), []):
                self._count -= 1
                self.emit(row, span, None)

    def on_frame(self, side: Side, frame: Frame, span: Span) -> None:
        kind = t.KINDS[frame.kind]
        if kind.answers:
            self._on_answer(SERVER if side == CLIENT else CLIENT, frame, kind, span)
            return
        row = Request(operation=kind.name, resource=self._resource(frame, kind))
        row.attributes = _attributes(frame, kind)
        if side != CLIENT:
            row.attributes["sent_by"] = "server"
        if frame.kind in (t.SEND, t.MESSAGE):
            self._read_message(row, frame)
        key = _key(side, frame, kind)
        if key is None:
            row.outcome = "one_way"
            self.emit(row, span, None)
            return
        if self._count >= MAX_OPEN:
            self._give_up(next(iter(self._open)))
        self._open.setdefault(key, []).append((row, span))
        self._count += 1

    def _resource(self, frame: Frame, kind: Kind) -> str | None:
        """The topic said, or that of the producer or consumer."""
        topic = frame.fields.get(kind.topic) if kind.topic else None
        name = read_name(topic) if isinstance(topic, bytes) else None
        for what, number in (("producer", kind.producer), ("consumer", kind.consumer)):
            number_ = frame.fields.get(number) if number else None
            if not isinstance(number_, int):
                continue
            if name is not None and frame.kind in (t.PRODUCER, t.SUBSCRIBE):
                if len(self._topics) >= MAX_IDS:
                    self._topics.clear()
                self._topics[what, number_] = name
            elif name is None:
                name = self._topics.get((what, number_))
        return name

    def _read_message(self, row: Request, frame: Frame) -> None:
        if not frame.metadata[1]:
            return
        count, carriers = read_message(frame)
        attributes = row.attributes = row.attributes or {}
        if count != 1:
            attributes["batch_count"] = count
        trace = read_trace(carriers) if carriers else None
        if trace is not None:
            row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id

    def _on_answer(self, asker: Side, frame: Frame, kind: Kind, span: Span) -> None:
        asked = t.KINDS.get(kind.answers)
        if kind.answers in _ORDERED:
            key: _Key = (asker, kind.answers)
        elif kind.sequence:
            key = (asker, "send", frame.fields.get(kind.producer, 0), frame.fields.get(kind.sequence, 0))
        else:
            key = (asker, "request", frame.fields.get(kind.request_id, 0))
        waiting = self._open.get(key)
        if waiting:
            row, request = waiting.pop(0)
            self._count -= 1
            if not waiting:
                del self._open[key]
        else:
            row, request = Request(operation=asked.name if asked else None), None
            row.resource = self._resource(frame, kind)
        _tell_status(row, frame, kind)
        if frame.kind == t.CONNECTED and isinstance(version := frame.fields.get(1), bytes):
            row.attributes = {**(row.attributes or {}), "server_version": read_name(version)}
        self.emit(row, request, span)

    def _give_up(self, key: _Key) -> None:
        for row, span in self._open.pop(key):
            self._count -= 1
            self.emit(row, span, None)

    def finish(self) -> None:
        for key in list(self._open):
            self._give_up(key)


def _key(side: Side, frame: Frame, kind: Kind) -> _Key | None:
    """None: nothing answers."""
    if frame.kind in _ORDERED:
        return side, frame.kind
    if frame.kind == t.SEND:
        return side, "send", frame.fields.get(kind.producer, 0), frame.fields.get(kind.sequence, 0)
    if side == SERVER and frame.kind in (t.CLOSE_PRODUCER, t.CLOSE_CONSUMER):
        return None  # the broker closes: the client looks the topic up again, and says nothing
    number = frame.fields.get(kind.request_id) if kind.request_id else None
    return None if number is None else (side, "request", number)


def _attributes(frame: Frame, kind: Kind) -> dict[str, Any]:
    """Ids and names; never authentication data."""
    fields = frame.fields
    found: dict[str, Any] = {}
    for name, number in (
        ("request_id", kind.request_id),
        ("producer_id", kind.producer),
        ("consumer_id", kind.consumer),
        ("sequence_id", kind.sequence),
    ):
        if number and isinstance(fields.get(number), int):
            found[name] = fields[number]
    texts = {t.CONNECT: ((1, "client_version"), (5, "auth_method")), t.SUBSCRIBE: ((2, "subscription"),)}
    for number, name in texts.get(frame.kind, ()):
        if isinstance(value := fields.get(number), bytes):
            found[name] = read_name(value)
    return found


def _tell_status(row: Request, frame: Frame, kind: Kind) -> None:
    """ServerError by its name; `OK` where there is none."""
    code = frame.fields.get(kind.error) if kind.error else None
    failed = kind.code and frame.fields.get(kind.code) == kind.failed
    if not isinstance(code, int) and not failed:
        row.status = "OK"
        return
    number = code if isinstance(code, int) else 0
    row.status = t.ERRORS[number] if number < len(t.ERRORS) else str(number)
    row.is_error = True
    row.error_kind = "server" if number in t.SERVER_FAULTS else "client"
    text = frame.fields.get(kind.message)
    row.error_message = read_name(text) if isinstance(text, bytes) and text else None
