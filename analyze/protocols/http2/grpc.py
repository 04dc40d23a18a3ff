"""gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md): messages in DATA frames, the status in the trailers."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

from kubetape.analyze.protocols.common.text import cut_text, read_name
from kubetape.analyze.protocols.common.trace import read_trace
from kubetape.analyze.protocols.contract import Request

PREFIX_BYTES: Final = 5  # a byte of flags, four of length
COMPRESSED: Final = 0x01
TRAILERS: Final = 0x80  # gRPC-Web puts its trailers into the body
MAX_TRAILER_BYTES: Final = 4096

# Codes (grpc/doc/statuscodes.md) that blame the caller, and those that say time is up.
_CLIENT_CODES: Final = {"1", "3", "5", "6", "7", "9", "10", "11", "16"}
_TIMEOUT_CODES: Final = {"4"}
# What a client makes of an HTTP status without grpc-status (grpc/doc/http-grpc-status-mapping.md).
_OF_HTTP_STATUS: Final = {
    "400": "13",
    "401": "16",
    "403": "7",
    "404": "12",
    "429": "14",
    "502": "14",
    "503": "14",
    "504": "14",
}
_TIMEOUT_UNITS: Final = {"H": 3600e9, "M": 60e9, "S": 1e9, "m": 1e6, "u": 1e3, "n": 1.0}


class MessageCounter:
    """Counts the messages of one direction of a stream from its DATA payloads.

    valid: all prefixes seen were prefixes. sure: no prefix was missed; else `count` is a lower bound.
    trailers: headers that gRPC-Web sent in the body.
    """

    __slots__ = ("_left", "_prefix", "compressed", "count", "sure", "trailers", "valid")

    def __init__(self, from_start: bool = True) -> None:
        self.count, self.compressed, self.sure, self.valid = 0, False, from_start, True
        self._left, self._prefix = 0, b""
        self.trailers: dict[str, str] = {}

    def feed(self, data: bytes, place: int, end: int, missing: int) -> None:
        """A payload data[place:end]; `missing` further bytes of it were not captured."""
        while self.sure and self.valid:
            if self._left:
                taken = min(self._left, end - place)
                place += taken
                self._left -= taken
                if self._left:
                    taken = min(self._left, missing)
                    self._left -= taken
                    missing -= taken
            if place >= end:
                break
            more = data[place : min(end, place + PREFIX_BYTES - len(self._prefix))]
            self._prefix += more
            place += len(more)
            if len(self._prefix) < PREFIX_BYTES:
                break
            flags, self._left = self._prefix[0], int.from_bytes(self._prefix[1:], "big")
            self._prefix = b""
            if flags & ~(COMPRESSED | TRAILERS):
                self.valid = False
            elif flags & TRAILERS:
                self._read_trailers(data[place : min(end, place + self._left, place + MAX_TRAILER_BYTES)])
            else:
                self.count += 1
                self.compressed = self.compressed or flags & COMPRESSED != 0
        if missing:
            self.sure = False

    def lose(self) -> None:
        """Frames of this direction may be missing."""
        self.sure = False

    @property
    def ended(self) -> bool:
        """Whether the messages seen fill the payloads exactly."""
        return self.sure and self.valid and not self._left and not self._prefix

    def _read_trailers(self, block: bytes) -> None:
        for line in block.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon:
                self.trailers[read_name(name.strip()).lower()] = read_name(value.strip())


def grpc_row(
    path: str | None,
    asked: dict[str, str],
    answered: dict[str, str],
    trailers: dict[str, str],
    counters: tuple[MessageCounter, MessageCounter],
) -> Request:
    """A row as PROTOCOLS.md has it for gRPC; asked, answered, trailers: headers, names in lower case."""
    attributes: dict[str, Any] = {}
    row = Request(protocol="grpc", operation=path, statement=path, attributes=attributes)
    if path is not None:
        row.resource = path.rpartition("/")[0].lstrip("/") or path
    http_status = answered.get(":status")
    message = trailers.get("grpc-message") or answered.get("grpc-message")
    row.status = trailers.get("grpc-status") or answered.get("grpc-status")
    if row.status is None and http_status not in (None, "200"):
        row.status, row.inferred = _OF_HTTP_STATUS.get(str(http_status), "2"), "status"
        message = message or f"HTTP status {http_status}"
    if row.status not in (None, "0"):
        row.is_error = True
        row.error_kind = (
            "client" if row.status in _CLIENT_CODES else "timeout" if row.status in _TIMEOUT_CODES else "server"
        )
        # Percent-encoded UTF-8 by the specification.
        row.error_message = cut_text(unquote(message)) if message else None
    for name, key in (
        (":authority", "host"),
        ("user-agent", "user_agent"),
        ("content-type", "content_type"),
        ("grpc-encoding", "grpc_encoding"),
        ("grpc-timeout", "grpc_timeout"),
    ):
        if name in asked:
            attributes[key] = asked[name]
    if http_status not in (None, "200"):
        attributes["http_status"] = http_status
    for counter, key in zip(counters, ("request_messages", "response_messages"), strict=True):
        attributes[key if counter.sure else key + "_at_least"] = counter.count
    trace = (read_trace(asked) if asked else None) or (read_trace(answered) if answered else None)
    if trace is not None:
        row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
        attributes["trace_carrier"] = trace.carrier
    return row


def timeout_ns(text: str | None) -> int | None:
    """The value of grpc-timeout, `100m`, in nanoseconds; None: absent or malformed."""
    if not text or text[-1] not in _TIMEOUT_UNITS or not text[:-1].isdigit() or len(text) > 9:
        return None
    return int(int(text[:-1]) * _TIMEOUT_UNITS[text[-1]])
