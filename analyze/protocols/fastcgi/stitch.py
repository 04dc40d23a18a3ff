"""FastCGI requests from records, paired by request id (specification 1.0, section 3.3)."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.protocols.common.http import MAX_ERROR_CHARS, http_row, resolve_routes
from kubetape.analyze.protocols.common.spans import ScatteredSpan
from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.contract import (
    SERVER,
    Connection,
    Decoder,
    Parsed,
    Request,
    Side,
)
from kubetape.analyze.protocols.fastcgi.parse import find_record, read_pairs, read_record
from kubetape.analyze.protocols.fastcgi.types import (
    ABORT_REQUEST,
    BEGIN_REQUEST,
    END_REQUEST,
    GET_VALUES,
    GET_VALUES_RESULT,
    PARAMS,
    PROTOCOL_STATUSES,
    ROLES,
    STDERR,
    STDOUT,
    Record,
)
from kubetape.analyze.streams import Span

MAX_PARAMS_BYTES: Final = 1 << 17  # web servers bound the headers they pass on to 8 to 64 KiB
MAX_OUTPUT_HEAD_BYTES: Final = 16 << 10  # of STDOUT: the response's headers
MAX_STDERR_BYTES: Final = 4096
MAX_OPEN_REQUESTS: Final = 65536  # ids have 16 bits


_DESCRIBED: Final = (
    ("SCRIPT_NAME", "script_name"),
    ("SCRIPT_FILENAME", "script"),
    ("REMOTE_ADDR", "remote_address"),
)


class _Exchange:
    """What was seen of one request id."""

    __slots__ = ("aborted", "end", "head", "lost", "params", "role", "spans", "stderr")

    def __init__(self) -> None:
        self.params = bytearray()
        self.head = bytearray()
        self.stderr = bytearray()
        self.spans: list[ScatteredSpan | None] = [None, None]
        self.role: int | None = None
        self.end: tuple[int, int] | None = None
        self.aborted = False
        self.lost = False


class FastCgiDecoder(Decoder):
    """One exchange per id; an id may be used again once its END_REQUEST was sent."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._open: dict[int, _Exchange] = {}
        self._values: Span | None = None

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return read_record(side, data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_record(side, data, offset)

    def on_frame(self, side: Side, frame: Any, span: Span) -> None:
        record: Record = frame
        if not record.request_id:
            self._on_management(record, span)
            return
        if record.kind == BEGIN_REQUEST:
            self._close(record.request_id)
        exchange = self._open.get(record.request_id)
        if exchange is None:
            if record.kind == ABORT_REQUEST or len(self._open) >= MAX_OPEN_REQUESTS:
                return
            exchange = self._open[record.request_id] = _Exchange()
        own = exchange.spans[side]
        if own is None:
            exchange.spans[side] = ScatteredSpan(span)
        else:
            own.extend(span)
        content = record.content
        if record.kind == BEGIN_REQUEST:
            exchange.role = int.from_bytes(content[:2], "big")
        elif record.kind == PARAMS:
            exchange.lost = exchange.lost or len(content) < record.length
            if len(exchange.params) < MAX_PARAMS_BYTES:
                exchange.params += content
        elif record.kind == STDOUT:
            if len(exchange.head) < MAX_OUTPUT_HEAD_BYTES:
                exchange.head += content[:MAX_OUTPUT_HEAD_BYTES]
        elif record.kind == STDERR:
            if len(exchange.stderr) < MAX_STDERR_BYTES:
                exchange.stderr += content[:MAX_STDERR_BYTES]
        elif record.kind == ABORT_REQUEST:
            exchange.aborted = True
        elif record.kind == END_REQUEST:
            if len(content) >= 5:
                exchange.end = int.from_bytes(content[:4], "big"), content[4]
            self._close(record.request_id)

    def _on_management(self, record: Record, span: Span) -> None:
        """Section 4: what an application can do; about the connection, not a request."""
        if record.kind == GET_VALUES:
            self._values = span
        elif record.kind == GET_VALUES_RESULT and self._values is not None:
            row = Request(operation="GET_VALUES", status="OK", attributes={"values": read_pairs(record.content)})
            self.emit(row, self._values, span)
            self._values = None

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        for exchange in self._open.values():
            exchange.lost = True

    def finish(self) -> None:
        for request_id in list(self._open):
            self._close(request_id)
        if self._values is not None:
            self.emit(Request(operation="GET_VALUES"), self._values, None)

    def _close(self, request_id: int) -> None:
        exchange = self._open.pop(request_id, None)
        if exchange is None:
            return
        request, response = exchange.spans
        params = read_pairs(bytes(exchange.params))
        asked = {
            name[5:].replace("_", "-").lower(): value for name, value in params.items() if name.startswith("HTTP_")
        }
        if params.get("CONTENT_TYPE"):
            asked["content-type"] = params["CONTENT_TYPE"]
        answered = _response_headers(bytes(exchange.head))
        target = params.get("REQUEST_URI") or params.get("SCRIPT_NAME") or None
        status = None
        if response is not None and (answered or exchange.head):
            status = answered.get("status", "200")[:3]
        row = http_row(params.get("REQUEST_METHOD"), target, status, asked, answered)
        self._tell(row, exchange, params)
        row.stream_id = request_id
        self.emit(row, request, response)

    def _tell(self, row: Request, exchange: _Exchange, params: dict[str, str]) -> None:
        assert row.attributes is not None
        for name, key in (
            ("SCRIPT_NAME", "script_name"),
            ("SCRIPT_FILENAME", "script"),
            ("REMOTE_ADDR", "remote_address"),
        ):
            if params.get(name):
                row.attributes[key] = params[name]
        if exchange.role is not None and exchange.role != 1:
            row.attributes["role"] = ROLES.get(exchange.role, str(exchange.role))
        stderr = " ".join(read_text(bytes(exchange.stderr), MAX_ERROR_CHARS).split())
        if stderr:
            row.attributes["stderr"] = stderr
        if exchange.aborted:
            row.attributes["aborted"] = True
        if exchange.end is None:
            if exchange.spans[SERVER] is not None:
                row.outcome = "truncated"
            if exchange.aborted:
                row.is_error, row.error_kind, row.error_message = True, "client", "ABORT_REQUEST"
            return
        application, protocol = exchange.end
        if application:
            row.attributes["app_status"] = application
        if protocol:
            row.is_error, row.error_kind = True, "server"
            row.error_message = PROTOCOL_STATUSES.get(protocol, str(protocol))
        elif row.is_error or application:
            row.is_error, row.error_kind = True, row.error_kind or "server"
            row.error_message = stderr or None


def _response_headers(head: bytes) -> dict[str, str]:
    """The headers at the beginning of STDOUT, as CGI writes them (RFC 3875, section 6)."""
    headers: dict[str, str] = {}
    for line in head.split(b"\n"):
        line = line.rstrip(b"\r")
        name, colon, value = line.partition(b":")
        if not line or not colon:
            break
        headers.setdefault(read_text(name.strip(), 128).lower(), read_text(value.strip(), 1024))
    return headers


def resolve(rows: list[Request], shared: dict[Any, Any]) -> None:
    """The second look at the routes of each host, when all are known."""
    resolve_routes(rows)
