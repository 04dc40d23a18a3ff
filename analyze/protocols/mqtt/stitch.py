"""MQTT control packets to rows."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.protocols.common.spans import ScatteredSpan
from kubetape.analyze.protocols.common.trace import read_trace
from kubetape.analyze.protocols.contract import CLIENT, SERVER, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.mqtt import types as t
from kubetape.analyze.protocols.mqtt.parse import (
    find_packet,
    packet_id,
    parse_packet,
    read_codes,
    read_connect,
    read_filters,
    read_publish,
)
from kubetape.analyze.protocols.mqtt.types import Packet
from kubetape.analyze.streams import Span

MAX_OPEN: Final = 1 << 16  # packet identifiers of both directions: the protocol allows no more

_Key = tuple[Side, int, int]


class _Open:
    """A packet whose last acknowledgement has not come; response: the ones that have."""

    __slots__ = ("qos", "request", "response", "row")

    def __init__(self, row: Request, request: Span | None, qos: int = 0) -> None:
        self.row, self.request, self.qos = row, request, qos
        self.response: Span | None = None


class MqttDecoder(Decoder):
    """Key: who sent it, packet type and packet identifier; CONNECT and PINGREQ by order."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._open: dict[_Key, list[_Open]] = {}
        self._count = 0
        self._version = 0
        self._aliases: dict[tuple[Side, int], str] = {}

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_packet(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_packet(data, offset)

    def on_frame(self, side: Side, frame: Packet, span: Span) -> None:
        kind = frame.kind
        if kind == t.PUBLISH:
            self._on_publish(side, frame, span)
        elif kind in t.ANSWERS:
            self._on_answer(side, frame, span)
        else:
            self._on_request(side, frame, span)

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        """A CONNECT or PINGREQ whose answer is lost must not take the next one: order tells no more."""
        asker: Side = SERVER if side == CLIENT else CLIENT
        for kind in (t.CONNECT, t.PINGREQ):
            for known in self._open.pop((asker, kind, 0), []):
                self._count -= 1
                self.emit(known.row, known.request, known.response)

    def _on_request(self, side: Side, frame: Packet, span: Span) -> None:
        row = Request(operation=t.NAMES[frame.kind])
        if side != CLIENT:
            row.attributes = {"sent_by": "server"}
        if frame.kind == t.CONNECT:
            row.attributes = read_connect(frame)
            self._version = {"5.0": 5, "3.1": 3}.get(str(row.attributes.get("version")), 4)
            self._remember((side, t.CONNECT, 0), _Open(row, span))
        elif frame.kind in (t.SUBSCRIBE, t.UNSUBSCRIBE):
            filters = read_filters(frame, self._version or _guess_version(frame))
            if filters:
                row.resource = filters[0]
            if len(filters) > 1:
                row.attributes = {**(row.attributes or {}), "filters": filters}
            self._remember((side, frame.kind, packet_id(frame)), _Open(row, span))
        elif frame.kind == t.PINGREQ:
            self._remember((side, t.PINGREQ, 0), _Open(row, span))
        else:
            # Nothing answers a DISCONNECT; AUTH is answered by another AUTH or by CONNACK.
            codes = read_codes(frame, self._version)
            if codes:
                _tell_code(row, codes[0], self._version)
            row.outcome = "one_way"
            self.emit(row, span, None)

    def _on_publish(self, side: Side, frame: Packet, span: Span) -> None:
        content = read_publish(frame, self._version)
        topic = content.topic
        if content.alias:
            # MQTT 5.0, section 3.3.2.3.4: an alias stands for the topic last sent with it.
            if topic:
                self._aliases[side, content.alias] = topic
            else:
                topic = self._aliases.get((side, content.alias), "")
        qos = frame.flags >> 1 & 3
        attributes: dict[str, Any] = {"qos": qos}
        if frame.flags & 1:
            attributes["retain"] = True
        if frame.flags & 8:
            attributes["dup"] = True
        if content.packet_id:
            attributes["packet_id"] = content.packet_id
        if side != CLIENT:
            attributes["sent_by"] = "server"
        row = Request(operation="PUBLISH", resource=topic or None, attributes=attributes)
        trace = read_trace(content.carriers) if content.carriers else None
        if trace is not None:
            row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
        if qos == 0:
            row.outcome = "one_way"
            self.emit(row, span, None)
        else:
            self._remember((side, t.PUBLISH, content.packet_id), _Open(row, span, qos))

    def _on_answer(self, side: Side, frame: Packet, span: Span) -> None:
        asker: Side = SERVER if side == CLIENT else CLIENT
        if frame.kind == t.PUBREL:
            # The sender's second step of QoS 2: it belongs to the row, and waits for PUBCOMP.
            return
        answered = t.ANSWERS[frame.kind]
        number = 0 if answered in (t.CONNECT, t.PINGREQ) else packet_id(frame)
        key = (asker, answered, number)
        known = self._take(key)
        if known is None:
            row = Request(operation=t.NAMES[answered])
            if asker != CLIENT:
                row.attributes = {"sent_by": "server"}
            known = _Open(row, None, 2)
        codes = read_codes(frame, self._version)
        bad = next((c for c in codes if c >= t.FAILURE or (c and answered == t.CONNECT)), None)
        if known.response is None:
            known.response = ScatteredSpan(span)
        else:
            known.response.extend(span)
        if bad is not None:
            _tell_code(known.row, bad, self._version)
        else:
            known.row.status = known.row.status or "OK"
        if answered == t.SUBSCRIBE and codes:
            known.row.attributes = {**(known.row.attributes or {}), "granted": codes[:64]}
        if frame.kind == t.PUBREC and bad is None:
            self._remember(key, known, first=True)
        else:
            self.emit(known.row, known.request, known.response)

    def _take(self, key: _Key) -> _Open | None:
        waiting = self._open.get(key)
        if not waiting:
            return None
        known = waiting.pop(0)
        self._count -= 1
        if not waiting:
            del self._open[key]
        return known

    def _remember(self, key: _Key, known: _Open, first: bool = False) -> None:
        if self._count >= MAX_OPEN:
            old = self._take(next(iter(self._open)))
            if old is not None:
                self.emit(old.row, old.request, old.response)
        waiting = self._open.setdefault(key, [])
        waiting.insert(0 if first else len(waiting), known)
        self._count += 1

    def finish(self) -> None:
        for waiting in self._open.values():
            for known in waiting:
                self.emit(known.row, known.request, known.response)
        self._open.clear()


def _guess_version(frame: Packet) -> int:
    """Of a connection whose CONNECT was not seen: whether a property length or a topic filter's length comes first."""
    # Read as 3.1.1, an empty property list makes the first filter empty or too long.
    plain = read_filters(frame, 4)
    return 4 if plain and all(plain) else 5


def _tell_code(row: Request, code: int, version: int) -> None:
    row.status = "OK" if code == 0 else str(code)
    old_refusal = code < t.FAILURE and row.operation == "CONNECT"
    if code >= t.FAILURE or (old_refusal and code):
        row.is_error = True
        fault = code == 3 if old_refusal else code in t.SERVER_FAULTS
        row.error_kind = "server" if fault else "client"
        row.error_message = (t.RETURN_CODES if old_refusal else t.REASONS).get(code)
        if code == 0x8D:
            row.error_kind = "timeout"
        if row.operation == "SUBSCRIBE" and version < 5:
            # The one failure code there is; brokers answer so where access is denied.
            row.error_kind, row.error_message = "client", "subscription refused"
