"""NATS commands to rows."""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Any, Final

from kubetape.analyze.protocols.common.text import cut_text
from kubetape.analyze.protocols.common.trace import read_trace
from kubetape.analyze.protocols.contract import CLIENT, SERVER, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.nats.parse import find_command, parse_command, read_headers
from kubetape.analyze.protocols.nats.types import Command
from kubetape.analyze.streams import Span

MAX_WAITING: Final = 1 << 14  # commands waiting for +OK or PONG
MAX_SUBJECTS: Final = 1 << 16  # subscriptions and last publications remembered

_CONNECT_KEPT: Final = ("name", "lang", "version", "user", "verbose", "headers", "protocol")
_INFO_KEPT: Final = (("version", "server_version"), ("server_name", "server_name"), ("cluster", "cluster"))
_VIOLATION: Final = re.compile(r"Permissions Violation for (Publish|Subscription) to \"([^\"]*)\"", re.IGNORECASE)


class NatsDecoder(Decoder):
    """Key: PING and PONG by order of either side; of a verbose client, +OK and -ERR by order; else nothing answers."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._info: dict[str, Any] = {}
        self._verbose = False
        self._waiting: deque[tuple[Request, Span]] = deque()
        self._pings: tuple[deque[tuple[Request, Span]], deque[tuple[Request, Span]]] = (deque(), deque())
        self._subjects: dict[str, str] = {}  # subscription id -> subject
        self._latest: dict[tuple[str, str], Request] = {}  # of (PUB or SUB, subject)
        self._last: Request | None = None

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_command(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_command(data, offset)

    def on_frame(self, side: Side, frame: Command, span: Span) -> None:
        verb = frame.verb
        if verb == "INFO":
            self._on_info(frame)
        elif verb == "PING":
            row = Request(operation="PING")
            if side != CLIENT:
                row.attributes = {"sent_by": "server"}
            _append(self, self._pings[side], row, span)
        elif verb == "PONG":
            self._on_pong(side, span)
        elif verb == "+OK":
            if self._waiting:
                row, request = self._waiting.popleft()
                row.status = "OK"
                self.emit(row, request, span)
        elif verb == "-ERR":
            self._on_error(frame.text.strip("'"), span)
        elif verb in ("MSG", "HMSG"):
            self._on_message(frame, span)
        else:
            self._on_command(frame, span)

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        """Order tells no more what answers what: who waits stays without an answer."""
        asker: Side = SERVER if side == CLIENT else CLIENT
        for queue in (self._pings[asker], *((self._waiting,) if side == SERVER else ())):
            while queue:
                row, request = queue.popleft()
                self.emit(row, request, None)

    def _on_info(self, frame: Command) -> None:
        """Belongs to the CONNECT after it; a server that wants TLS gets it as the client's next bytes."""
        self._info = _read_json(frame.text)
        client = self.connection.streams[CLIENT]
        if self._info.get("tls_required") and client.runs and client.runs[0].data.startswith(b"\x16\x03"):
            self.switch("detect")

    def _on_command(self, frame: Command, span: Span) -> None:
        verb, words = frame.verb, frame.words
        row = Request(operation=verb)
        self._last = row
        attributes: dict[str, Any] = {}
        if verb == "CONNECT":
            options = _read_json(frame.text)
            self._verbose = options.get("verbose") is True
            attributes = {k: _plain(options[k]) for k in _CONNECT_KEPT if options.get(k) not in (None, "")}
            attributes.update((to, _plain(self._info[k])) for k, to in _INFO_KEPT if self._info.get(k))
        elif verb == "SUB":
            row.resource = words[0]
            attributes["sid"] = words[-1]
            if len(words) > 2:
                attributes["queue_group"] = words[1]
            self._subjects[words[-1]] = words[0]
            self._remember("SUB", words[0], row)
        elif verb == "UNSUB":
            row.resource = self._subjects.get(words[0])
            attributes["sid"] = words[0]
        else:
            row.resource = words[0]
            attributes["payload_bytes"] = frame.payload_bytes
            if len(words) > (2 if verb == "PUB" else 3):
                attributes["reply_to"] = words[1]
            self._read_headers(row, frame)
            self._remember("PUB", words[0], row)
        row.attributes = attributes or None
        if self._verbose:
            _append(self, self._waiting, row, span)
        else:
            # What goes wrong is told by a later -ERR, if at all.
            row.outcome = "one_way"
            self.emit(row, span, None)

    def _on_message(self, frame: Command, span: Span) -> None:
        words = frame.words
        row = Request(operation=frame.verb, resource=words[0], outcome="one_way")
        row.attributes = {"sid": words[1], "payload_bytes": frame.payload_bytes, "sent_by": "server"}
        if len(words) > (3 if frame.verb == "MSG" else 4):
            row.attributes["reply_to"] = words[2]
        subject = self._subjects.get(words[1])
        if subject is not None and subject != words[0]:
            row.attributes["subscription"] = subject
        self._read_headers(row, frame)
        self.emit(row, span, None)

    def _read_headers(self, row: Request, frame: Command) -> None:
        if not frame.headers[1]:
            return
        status, carriers = read_headers(frame)
        trace = read_trace(carriers) if carriers else None
        if trace is not None:
            row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
        if status:
            # The server itself answers a request: 503 no responders, JetStream's 404, 408, 409; 100 is a heartbeat.
            code, _, text = status.partition(" ")
            row.status = code
            if code[:1] in ("4", "5"):
                row.is_error = True
                row.error_kind = "timeout" if code == "408" else "server" if code[0] == "5" else "client"
                row.error_message = text or ("no responders" if code == "503" else None)

    def _on_pong(self, side: Side, span: Span) -> None:
        asker: Side = SERVER if side == CLIENT else CLIENT
        if self._pings[asker]:
            row, request = self._pings[asker].popleft()
            row.status = "OK"
            self.emit(row, request, span)

    def _on_error(self, text: str, span: Span) -> None:
        """Of the command that waits; else of the one it names; else of the last one, which is then inferred."""
        if self._waiting:
            row, request = self._waiting.popleft()
            _tell_error(row, text)
            self.emit(row, request, span)
            return
        violation = _VIOLATION.search(text)
        named = self._latest.get(("PUB" if violation[1][0] in "Pp" else "SUB", violation[2])) if violation else None
        row_ = named or self._last
        if row_ is None or row_.is_error:
            row_ = Request(operation=None)
            _tell_error(row_, text)
            self.emit(row_, None, span)
            return
        _tell_error(row_, text)
        row_.inferred = "status"

    def _remember(self, kind: str, subject: str, row: Request) -> None:
        if len(self._latest) >= MAX_SUBJECTS:
            self._latest.clear()
        if len(self._subjects) >= MAX_SUBJECTS:
            self._subjects.clear()
        self._latest[kind, subject] = row

    def finish(self) -> None:
        for queue in (*self._pings, self._waiting):
            for row, request in queue:
                self.emit(row, request, None)
            queue.clear()


def _append(decoder: NatsDecoder, queue: deque[tuple[Request, Span]], row: Request, span: Span) -> None:
    if len(queue) >= MAX_WAITING:
        old, request = queue.popleft()
        decoder.emit(old, request, None)
    queue.append((row, span))


def _tell_error(row: Request, text: str) -> None:
    """Section -ERR of the client protocol; stale connections and slow consumers are the client's delay."""
    row.status = row.error_message = cut_text(text, 512)
    row.is_error = True
    low = text.lower()
    row.error_kind = (
        "timeout" if "timeout" in low or "stale" in low else "server" if "maximum conn" in low else "client"
    )


def _read_json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int) else cut_text(str(value), 256)
