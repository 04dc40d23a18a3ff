"""Kafka's requests and responses to rows."""

from __future__ import annotations

import base64
from typing import Any, Final

from kubetape.analyze.protocols.common.text import cut_text
from kubetape.analyze.protocols.contract import CLIENT, SERVER, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.kafka import apis
from kubetape.analyze.protocols.kafka.errors import error_kind, error_name
from kubetape.analyze.protocols.kafka.parse import (
    find_request,
    find_response,
    parse_request,
    parse_response,
    read_request,
    read_response,
)
from kubetape.analyze.protocols.kafka.records import read_records
from kubetape.analyze.protocols.kafka.schema import Found
from kubetape.analyze.protocols.kafka.types import RequestFrame, ResponseFrame, Token
from kubetape.analyze.streams import Span

# max.in.flight is 5 by default, but a client may ask more; beyond this the oldest are given up.
MAX_OPEN: Final = 1 << 14
MAX_TOPICS: Final = 64  # named in one row
MAX_KNOWN_IDS: Final = 1 << 20  # topics of all clusters together
MAX_RESOURCE_CHARS: Final = 1024

# Messages in which a topic's name and its id stand side by side.
_TEACHING_RESPONSES: Final = frozenset(
    {apis.METADATA, apis.CREATE_TOPICS, apis.DELETE_TOPICS, apis.DESCRIBE_TOPIC_PARTITIONS}
)
_TEACHING_REQUESTS: Final = frozenset({apis.LEADER_AND_ISR, apis.UPDATE_METADATA})
_NO_ID: Final = bytes(16)
_TOPIC_RESOURCE: Final = 2  # of DescribeConfigs and its kin


class _Open:
    """A request without its response."""

    __slots__ = ("key", "row", "span", "version")

    def __init__(self, row: Request, span: Span, key: int, version: int) -> None:
        self.row, self.span, self.key, self.version = row, span, key, version


class KafkaDecoder(Decoder):
    """Key: the correlation id; SASL tokens without headers in their order."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._open: dict[int, list[_Open]] = {}
        self._open_count = 0
        self._tokens: list[_Open] = []
        self._raw_sasl = False
        self._all_ids: set[int] | None = None

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        if side == SERVER:
            if self._tokens and len(data) - offset >= 4:
                size = int.from_bytes(data[offset : offset + 4], "big")
                return (size + 4, Token(size)) if size < 1 << 20 else parse_response(data, offset)
            return parse_response(data, offset)
        parsed = parse_request(data, offset)
        if self._raw_sasl and len(data) - offset >= 4 and not isinstance(parsed, tuple):
            size = int.from_bytes(data[offset : offset + 4], "big")
            if size < 1 << 20:
                return size + 4, Token(size)
        return parsed

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        if side == CLIENT:
            return find_request(data, offset)
        return find_response(data, offset, self._known_ids().__contains__)

    def _known_ids(self) -> set[int]:
        """The correlation ids of all requests of the connection, also of those that come later."""
        if self._all_ids is None:
            ids: set[int] = set()
            for run in self.connection.streams[CLIENT].runs:
                place = find_request(run.data, 0)
                while 0 <= place < len(run.data):
                    parsed = parse_request(run.data, place)
                    if isinstance(parsed, tuple):
                        ids.add(parsed[1].correlation_id)
                        place += parsed[0]
                    else:
                        place = find_request(run.data, place + 1)
            self._all_ids = ids
        return self._all_ids

    def on_frame(self, side: Side, frame: RequestFrame | ResponseFrame | Token, span: Span) -> None:
        if isinstance(frame, RequestFrame):
            self._on_request(frame, span)
        elif isinstance(frame, ResponseFrame):
            self._on_response(frame, span)
        elif side == CLIENT:
            row = Request(operation="SaslAuthenticate", attributes={"raw": True})
            self._tokens.append(_Open(row, span, -1, 0))
        else:
            token = self._tokens.pop(0)
            token.row.status = "0"
            self.emit(token.row, token.span, span)

    def _on_request(self, frame: RequestFrame, span: Span) -> None:
        api = apis.APIS.get(frame.key)
        attributes: dict[str, Any] = {"api_version": frame.version, "correlation_id": frame.correlation_id}
        if frame.client_id is not None:
            attributes["client_id"] = frame.client_id
        row = Request(operation=api.name if api else f"ApiKey{frame.key}", attributes=attributes)
        self._raw_sasl = self._raw_sasl and frame.key == apis.SASL_HANDSHAKE
        found = read_request(frame)
        if found is not None:
            if frame.key in _TEACHING_REQUESTS:
                self._learn(found)
            _name_topics(row, found)
            for name in ("group", "txn", "mechanism", "software", "software_version"):
                value = found.first(name)
                if value is not None:
                    attributes[{"txn": "transactional_id"}.get(name, name)] = value
            if found.records:
                _read_records(row, found, frame.data)
            if frame.key == apis.PRODUCE:
                acks = found.first("acks")
                if acks is not None:
                    attributes["acks"] = acks
                if acks == 0:
                    # Nothing answers: the protocol guide, Produce API.
                    row.outcome = "one_way"
                    self.emit(row, span, None)
                    return
            if frame.key == apis.FETCH and (found.first("replica") or -1) >= 0:
                attributes["replica_id"] = found.first("replica")
        if self._open_count >= MAX_OPEN:
            self._give_up(next(iter(self._open)))
        self._open.setdefault(frame.correlation_id, []).append(_Open(row, span, frame.key, frame.version))
        self._open_count += 1

    def _on_response(self, frame: ResponseFrame, span: Span) -> None:
        waiting = self._open.get(frame.correlation_id)
        if not waiting:
            row = Request(attributes={"correlation_id": frame.correlation_id})
            self.emit(row, None, span)
            return
        known = waiting.pop(0)
        self._open_count -= 1
        if not waiting:
            del self._open[frame.correlation_id]
        row = known.row
        # The header of this one response has no tags, so that every client can read it (KIP-511).
        found = read_response(frame, known.key, known.version, known.key != apis.API_VERSIONS)
        if found is not None:
            if known.key in _TEACHING_RESPONSES:
                self._learn(found)
            if row.resource is None and not (row.attributes or {}).get("topic_ids"):
                _name_topics(row, found)
            if found.records:
                _read_records(row, found, frame.data)
            _tell_status(row, found)
            if known.key == apis.SASL_HANDSHAKE and known.version == 0 and row.status == "0":
                self._raw_sasl = True
        self.emit(row, known.span, span)

    def finish(self) -> None:
        for correlation_id in list(self._open):
            self._give_up(correlation_id)
        for token in self._tokens:
            self.emit(token.row, token.span, None)
        self._tokens.clear()

    def _give_up(self, correlation_id: int) -> None:
        for known in self._open.pop(correlation_id):
            self._open_count -= 1
            self.emit(known.row, known.span, None)

    def _learn(self, found: Found) -> None:
        """Names of topic ids, for every connection of the analysis: ids are unique in the world."""
        names, ids = found.values.get("topic", []), found.values.get("topic_id", [])
        for name, topic_id in zip(names, ids, strict=False):
            if name and topic_id != _NO_ID and len(self.connection.shared) < MAX_KNOWN_IDS:
                self.connection.shared[topic_id] = name


def _name_topics(row: Request, found: Found) -> None:
    """resource: the topics by name; those told by id only wait for `resolve`."""
    names = [name for name in found.values.get("topic", ()) if name]
    if not names and "kind" in found.values:
        pairs = zip(found.values["kind"], found.values.get("name", []), strict=False)
        names = [name for kind, name in pairs if kind == _TOPIC_RESOURCE and name]
    if names:
        _set_resource(row, names)
    ids = [topic_id for topic_id in found.values.get("topic_id", ()) if topic_id != _NO_ID]
    if ids and not names and row.attributes is not None:
        row.attributes["topic_ids"] = [_id_text(i) for i in dict.fromkeys(ids)][:MAX_TOPICS]


def _set_resource(row: Request, names: list[str]) -> None:
    unique = list(dict.fromkeys(names))
    row.resource = cut_text(",".join(unique[:MAX_TOPICS]), MAX_RESOURCE_CHARS)
    if len(unique) > MAX_TOPICS and row.attributes is not None:
        row.attributes["topic_count"] = len(unique)


def _id_text(topic_id: bytes) -> str:
    """As Kafka's own tools print it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(topic_id).rstrip(b"=").decode("ascii")


def _read_records(row: Request, found: Found, data: bytes) -> None:
    """Records of all partitions counted; compression and trace of the first that tell."""
    attributes = row.attributes if row.attributes is not None else {}
    row.attributes = attributes
    total: int | None = 0
    for start, end in found.records:
        records = read_records(data, start, end)
        if records is None:
            continue
        total = None if total is None or records.records is None else total + records.records
        if records.compression:
            attributes.setdefault("compression", records.compression)
        if records.trace is not None and row.trace_id is None:
            row.trace_id, row.span_id = records.trace.trace_id, records.trace.span_id
            row.parent_span_id = records.trace.parent_span_id
    if total:
        attributes["record_count"] = total


def _tell_status(row: Request, found: Found) -> None:
    if found.errors:
        code = found.errors[0]
        row.status = str(code)
        row.is_error, row.error_kind = True, error_kind(code)
        row.error_message = found.first("message") or error_name(code)
        if len(found.errors) > 1 and row.attributes is not None:
            row.attributes["error_codes"] = sorted(set(found.errors))
            row.attributes["error_count"] = len(found.errors)
    elif found.coded or found.complete:
        row.status = "0"


def resolve(rows: list[Request], shared: dict[Any, Any]) -> None:
    """Topic ids to names, wherever in the recording the name was told: an id names one topic for ever (KIP-516)."""
    texts = {_id_text(topic_id): name for topic_id, name in shared.items()}
    for row in rows:
        ids = (row.attributes or {}).get("topic_ids")
        if ids and row.resource is None:
            names = [texts[i] for i in ids if i in texts]
            if names:
                _set_resource(row, names)
