"""HTTP/1.x messages in bytes: heads, chunked bodies, and where the next message begins (RFC 9112).

Strategy: a head is found with `bytes.find`, and only the header lines that the analysis uses become strings;
lines repeat from message to message, so what a line says is remembered. Bodies are skipped by their declaration.
"""

from __future__ import annotations

import re
from typing import Final

from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.common.trace import CARRIERS
from kubetape.analyze.protocols.contract import Sample
from kubetape.analyze.protocols.http1.types import (
    CHUNKED,
    LENGTH,
    NO_BODY,
    UNKNOWN,
    UNTIL_CLOSE,
    Head,
)

MAX_HEAD_BYTES = 1 << 20  # servers refuse heads beyond 8 KiB to 1 MiB (nginx, Tomcat, IIS, Envoy)
MAX_TARGET_CHARS = 8192
MAX_VALUE_CHARS = 1024
MAX_LENGTH = 1 << 53  # a longer Content-Length is an attack on parsers
MAX_REMEMBERED_LINES = 4096
MAX_REMEMBERED_LINE_BYTES = 256
SAMPLE_BYTES = 2048  # of the body of a failed response

# Registered methods (IANA) and those that devices and WebDAV clients use.
METHODS: Final = frozenset(
    b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK "
    b"REPORT SEARCH BIND UNBIND REBIND ACL LINK UNLINK MERGE CHECKOUT CHECKIN UNCHECKOUT MKACTIVITY "
    b"MKCALENDAR MKREDIRECTREF MKWORKSPACE LABEL ORDERPATCH UPDATE UPDATEREDIRECTREF VERSION-CONTROL "
    b"BASELINE-CONTROL QUERY PRI M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE POLL BMOVE BCOPY BDELETE BPROPFIND "
    b"BPROPPATCH PURGE BAN LIST VIEW SOURCE RPC_IN_DATA RPC_OUT_DATA CCM_POST SSTP_DUPLEX_POST "
    b"BITS_POST DESCRIBE ANNOUNCE".split()
) - {b"PRI"}

WANTED: Final = CARRIERS | {
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "location",
    "nts",
    "retry-after",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "server",
    "soapaction",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-real-ip",
}
# Seen twice these say two things; of others the first is kept.
_JOINED: Final = {"connection", "content-length", "transfer-encoding", "upgrade", "sec-websocket-extensions"}

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}\Z")
_STATUS_LINE = re.compile(rb"HTTP/([01])\.(\d) +(\d{3})(?:[ \t]+(.*))?\s*\Z", re.DOTALL)
_REQUEST_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40})[ \t]+(.*?)[ \t]*(?:[ \t]HTTP/(\d+)\.(\d+))?\s*\Z", re.DOTALL
)
_HEADER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}[ \t]{0,8}:")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_CHUNK_SIZE = re.compile(rb"[ \t]{0,8}([0-9a-fA-F]{1,15})[ \t]{0,32}(?:;[^\n]{0,4096})?\r?\n")
_REQUEST_TAIL = re.compile(rb"([A-Z][A-Z_-]{1,31})[ \t]+(\S+)\Z")

_remembered: dict[bytes, tuple[str, str] | None] = {}


def _header(line: bytes) -> tuple[str, str] | None:
    """(name, value) of a header line that is wanted; name "" continues the line before; None: not wanted."""
    result: tuple[str, str] | None = None
    if line[:1] in (b" ", b"\t"):
        return "", read_text(line.strip(), MAX_VALUE_CHARS)
    raw_name, colon, raw_value = line.partition(b":")
    if colon:
        name = raw_name.strip().decode("latin-1").lower()
        if name in WANTED:
            result = name, read_text(raw_value.strip(), MAX_VALUE_CHARS)
    if len(line) <= MAX_REMEMBERED_LINE_BYTES:
        if len(_remembered) >= MAX_REMEMBERED_LINES:
            _remembered.clear()
        _remembered[line] = result
    return result


def read_headers(lines: list[bytes]) -> dict[str, str]:
    """The wanted headers of the lines of a head, folded lines joined (RFC 9112, section 5.2)."""
    headers: dict[str, str] = {}
    last = ""
    for line in lines:
        try:
            entry = _remembered[line]
        except KeyError:
            entry = _header(line)
        if entry is None:
            last = ""
            continue
        name, value = entry
        if name in headers:
            if name in _JOINED:
                headers[name] += ", " + value
        elif name:
            headers[name] = value
        elif last:
            headers[last] = f"{headers[last]} {value}".strip()[:MAX_VALUE_CHARS]
            continue
        last = name
    return headers


def request_line(line: bytes, strict: bool) -> tuple[str, str, int] | None:
    """(method, target, minor version) of a request line without its line end.

    strict: only with a version HTTP/1.x. Else also lines that servers answer with 400 or as HTTP/0.9.
    Minor version -1: HTTP/0.9.
    """
    parts = line.split(b" ")
    if len(parts) == 3 and parts[0] in METHODS and parts[2] in (b"HTTP/1.1", b"HTTP/1.0"):
        return parts[0].decode(), read_text(parts[1], MAX_TARGET_CHARS), parts[2][7] - 48
    found = _REQUEST_LINE.match(line[: MAX_TARGET_CHARS * 4])
    if found is None:
        return None
    method, target, major, minor = found.groups()
    if major is None:
        if strict or method.upper() not in METHODS:
            return None
        return method.decode(), read_text(target, MAX_TARGET_CHARS), -1
    if (strict or method not in METHODS) and (major not in (b"0", b"1") or len(minor) > 1):
        return None
    if major == b"2" and method == b"PRI":
        return None
    return method.decode(), read_text(target, MAX_TARGET_CHARS), 1 if minor == b"1" else 0


def read_head(data: bytes, offset: int, is_request: bool, strict: bool) -> tuple[Head, int] | None:
    """(head, index behind it) of the message that begins at `offset`; None: no head begins here.

    A head whose end was not captured is `cut`; the index is then the end of the data.
    """
    while data[offset : offset + 1] in (b"\r", b"\n"):
        offset += 1
    line_end = data.find(b"\n", offset, offset + MAX_HEAD_BYTES)
    first_line = data[offset:line_end] if line_end >= 0 else data[offset : offset + MAX_HEAD_BYTES]
    crlf = first_line[-1:] == b"\r"
    if crlf:
        first_line = first_line[:-1]
    head = _request(first_line, strict, line_end < 0) if is_request else _response(first_line)
    if head is None:
        return None
    if head.minor_version < 0 and line_end >= 0:
        return head, line_end + 1
    end = -1
    if line_end >= 0:
        if crlf:
            end = data.find(b"\r\n\r\n", line_end - 1, line_end + MAX_HEAD_BYTES)
            body_start = end + 4
        if end < 0 and (blank := _BLANK_LINE.search(data, line_end, line_end + MAX_HEAD_BYTES)):
            end, body_start = blank.start(), blank.end()
    if end < 0:
        end = body_start = len(data)
        head.cut = True
        head.body = UNKNOWN
    if 0 <= line_end < end:
        block = data[line_end + 1 : end]
        lines = block.split(b"\r\n") if crlf else [x.rstrip(b"\r") for x in block.split(b"\n")]
        if head.cut:
            lines.pop()  # who knows how it goes on
        head.headers = read_headers(lines)
    return head, body_start


def _request(line: bytes, strict: bool, open_ended: bool) -> Head | None:
    if open_ended:
        # The line's end was not captured: a method and the beginning of a target are enough.
        method, _, target = line.partition(b" ")
        if method not in METHODS or target[:1] not in (b"/", b"h", b"*") or len(line) < 16:
            return None
        target = target.partition(b" ")[0]
        return Head(method.decode(), read_text(target, MAX_TARGET_CHARS), 0, "")
    found = request_line(line, strict)
    if found is None:
        return None
    head = Head(found[0], found[1], 0, "")
    head.minor_version = found[2]
    return head


def _response(line: bytes) -> Head | None:
    if line[:5] != b"HTTP/":
        return None
    found = _STATUS_LINE.match(line[:1024])
    if found is None:
        return None
    head = Head(None, None, int(found[3]), read_text(found[4] or b"", 128).strip())
    head.minor_version = found[2][0] - 48
    return head


def frame_body(head: Head, request_method: str | None) -> None:
    """Decide how the body of a head is framed: RFC 9112, section 6.3, in its order.

    request_method: of the request that a response answers, None where it was not seen.
    """
    if head.cut:
        return
    status, headers = head.status, head.headers
    is_response = head.method is None
    if is_response and (status < 200 or status in (204, 304) or request_method == "HEAD"):
        return
    if is_response and request_method == "CONNECT" and status < 300:
        return
    coding = headers.get("transfer-encoding")
    if coding is not None and coding.lower() != "identity":
        last = coding.rpartition(",")[2].strip().lower()
        head.body = CHUNKED if last == "chunked" else UNTIL_CLOSE if is_response else NO_BODY
        return
    text = headers.get("content-length")
    if text is not None:
        length = text.partition(",")[0].strip()  # repeated equal values count once
        if length.isascii() and length.isdigit() and len(length) < 17 and int(length) < MAX_LENGTH:
            head.body, head.length = LENGTH, int(length)
            return
    head.body = UNTIL_CLOSE if is_response else NO_BODY


# What `walk_chunks` found at the place where it stopped.
ENDED: Final = 0  # the last chunk and its trailers
CONTINUES: Final = 1  # a chunk header belongs there
LOST: Final = 2  # something that is no chunk header


def walk_chunks(data: bytes, place: int) -> tuple[int, int]:
    """(index, ENDED | CONTINUES | LOST) behind the chunks that begin at `place`; the index may lie past the data."""
    size = len(data)
    match = _CHUNK_SIZE.match
    while place < size:
        found = match(data, place)
        if found is None:
            if size - place < 16 and data.find(b"\n", place) < 0:
                return size, LOST  # a cut chunk header
            return place, LOST
        length = int(found[1], 16)
        place = found.end()
        if length == 0:
            return _skip_trailers(data, place), ENDED
        place += length
        if place >= size:
            return place + 2, CONTINUES
        if data[place] == 13:
            place += 2
        elif data[place] == 10:
            place += 1
        else:
            return place, LOST
    return place, CONTINUES


def _skip_trailers(data: bytes, place: int) -> int:
    while True:
        line_end = data.find(b"\n", place, place + MAX_HEAD_BYTES)
        if line_end < 0:
            return len(data) if len(data) - place < 2 else place
        line = data[place:line_end]
        if line in (b"", b"\r"):
            return line_end + 1
        if _HEADER_LINE.match(line) is None:
            return place  # the server forgot the last line end
        place = line_end + 1


def find_request(data: bytes, offset: int) -> int:
    """The index of the next request head: a request line with HTTP/1.x, and a header line or the end behind it."""
    place = offset
    while (mark := data.find(b" HTTP/1.", place)) >= 0:
        line_end = data.find(b"\n", mark, mark + 16)
        if line_end > 0 and line_end - mark <= 11 and _head_follows(data, line_end + 1):
            start = max(place, data.rfind(b"\n", place, mark) + 1, mark - MAX_TARGET_CHARS)
            line = data[start:mark]
            found = _REQUEST_TAIL.search(line) if len(line) < 64 or b" " in line else None
            if found is not None and (method := _known_suffix(found[1])):
                return start + found.end(1) - len(method)
        place = mark + 8
    return -1


def _known_suffix(word: bytes) -> bytes:
    """The longest known method that `word` ends with: a body without a line end may stand before it."""
    for start in range(len(word)):
        if word[start:] in METHODS:
            return word[start:]
    return b""


def find_response(data: bytes, offset: int) -> int:
    """The index of the next response head: a status line and a header line, or the end, behind it."""
    place = offset
    while (mark := data.find(b"HTTP/1.", place)) >= 0:
        line_end = data.find(b"\n", mark, mark + 256)
        if (
            line_end > 0
            and data[mark + 8 : mark + 9] == b" "
            and _STATUS_LINE.match(data[mark:line_end]) is not None
            and _head_follows(data, line_end + 1)
        ):
            return mark
        place = mark + 7
    return -1


def _head_follows(data: bytes, place: int) -> bool:
    if place >= len(data) or data.startswith((b"\r\n", b"\n"), place):
        return True
    found = _HEADER_LINE.match(data, place)
    return found is not None or len(data) - place < 32


# ---- detection ---------------------------------------------------------------------------------------------


def detect(sample: Sample) -> float:
    """Requests on one side and responses on the other; what a client sends first tells more than later bytes."""
    if sample.client.startswith(b"PRI * HTTP/2"):
        return 0.0
    asks = _asks(sample)
    answers = find_response(sample.server, 0) == 0 or (
        not (sample.from_start and sample.server) and _any_response(sample)
    )
    if asks and answers:
        return 0.97
    if asks:
        if not sample.server:
            return 0.8
        # A server that says no HTTP: bytes of a body, if the requests begin where something begins.
        begins = any(find_request(run, 0) == 0 for run in (sample.client, *sample.client_runs))
        return 0.6 if begins else 0.4
    if answers:
        return 0.75 if not sample.client else 0.5
    if sample.from_start and not sample.datagrams and find_response(sample.server, 0) == 0:
        return 0.5
    return 0.0


def _asks(sample: Sample) -> bool:
    head = sample.client[:MAX_TARGET_CHARS]
    if find_request(head, 0) == 0:
        return True
    line_end = head.find(b"\n")
    if sample.from_start and line_end > 0:
        # Unusual methods and lines that a server answers with an error.
        line = head[:line_end].rstrip(b"\r")
        if request_line(line, True) is not None:
            return True
        found = request_line(line, False)
        return found is not None and find_response(sample.server, 0) == 0
    if sample.from_start and sample.client:
        # The request line itself is longer than what was captured.
        return _request(head, True, True) is not None and find_response(sample.server, 0) == 0
    return any(find_request(run, 0) >= 0 for run in (sample.client, *sample.client_runs))


def _any_response(sample: Sample) -> bool:
    return any(find_response(run, 0) >= 0 for run in (sample.server, *sample.server_runs))
