"""SIP messages from bytes (RFC 3261): text headers, a body of Content-Length bytes; keep-alives in between."""

from __future__ import annotations

import re
from typing import Final

from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.common.trace import CARRIERS
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed, Sample
from kubetape.analyze.protocols.sip.types import Message

MAX_HEADER_BYTES: Final = 1 << 16  # real stacks refuse at 8 to 64 KiB
MAX_KEEPALIVE_BYTES: Final = 5  # RFC 5626 sends CRLFs, phones also "hello", "jaK" or zeros

# Section 7.1: Method SP Request-URI SP SIP/2.0; 7.2: SIP/2.0 SP 3DIGIT SP reason.
_START: Final = re.compile(
    rb"(?:SIP/2\.0 ([1-6]\d\d)(?: ([^\r\n]{0,256}))?"
    rb"|([A-Z][A-Za-z0-9.!%*_+`'~-]{1,31}) ([A-Za-z][A-Za-z0-9+.-]{1,31}:[!-~\x80-\xff]{1,4096}) SIP/2\.0)\r?\n"
)
_NEXT: Final = re.compile(
    rb"(?:SIP/2\.0 [1-6]\d\d(?: [^\r\n]{0,256})?"
    rb"|(?<![!-~])[A-Z][A-Z]{1,31} [a-z][a-z0-9+.-]{1,31}:[!-~\x80-\xff]{1,4096} SIP/2\.0)"
    rb"\r?\n[A-Za-z-]{1,64}[ \t]{0,8}:"
)
_BODY: Final = re.compile(rb"\r?\n\r?\n")
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")
_BRANCH: Final = re.compile(r";\s*branch\s*=\s*([^;,\s]+)", re.IGNORECASE)

# Section 7.3.3 and the registry of compact forms.
_COMPACT: Final = {
    b"v": b"via",
    b"i": b"call-id",
    b"f": b"from",
    b"t": b"to",
    b"l": b"content-length",
    b"c": b"content-type",
    b"m": b"contact",
}
_KEPT: Final = frozenset(
    name.encode() for name in CARRIERS | {"from", "to", "user-agent", "server", "content-type", "warning"}
)
_NEEDED: Final = frozenset((b"via", b"call-id", b"cseq", b"content-length"))
_TEXT_START: Final = b"SIP/2.0 "


def parse_message(data: bytes, offset: int, datagram: bool) -> Parsed:
    """The message or keep-alive (frame None) at data[offset]."""
    if data[offset : offset + 1] in (b"\r", b"\n", b"\0"):
        size = _blank(data, offset)
        return size, None
    start = _START.match(data, offset)
    if start is None:
        if datagram and len(data) - offset <= MAX_KEEPALIVE_BYTES:
            return len(data) - offset, None
        return CUT if _may_begin(data, offset) else INVALID
    body = _BODY.search(data, start.end() - 1, start.end() + MAX_HEADER_BYTES)
    if body is None:
        if len(data) - start.end() > MAX_HEADER_BYTES:
            return INVALID
        if not datagram:
            return CUT
    end = len(data) if body is None else body.end()
    found, kept = _headers(data[start.end() : end if body is None else body.start()])
    number, _, method = found.get(b"cseq", "").partition(" ")
    if not number.isdigit() or len(number) > 10:
        number = "0"
    branch = _BRANCH.search(found.get(b"via", ""))
    length = found.get(b"content-length", "").strip()
    content = int(length) if length.isdigit() and len(length) < 9 else 0
    if start[1]:
        status, reason, verb, uri = int(start[1]), read_name(start[2] or b""), "", ""
    else:
        status, reason, verb, uri = 0, "", start[3].decode("ascii"), read_text(start[4])
    message = Message(
        verb,
        uri,
        status,
        reason,
        found.get(b"call-id", "").strip(),
        int(number),
        method.strip() or verb,
        branch[1] if branch else "",
        kept,
    )
    # A datagram is one message, whatever its header claims.
    return (len(data) - offset if datagram else end + content - offset), message


def find_message(data: bytes, offset: int) -> int:
    """Where a start line followed by a header stands; -1."""
    found = _NEXT.search(data, offset)
    return found.start() if found else -1


def _blank(data: bytes, offset: int) -> int:
    end = offset
    size = len(data)
    while end < size and data[end] in b"\r\n\0":
        end += 1
    return end - offset


def _may_begin(data: bytes, offset: int) -> bool:
    """The captured bytes end within what could still be a start line."""
    rest = data[offset : offset + 64]
    if data.find(b"\n", offset, offset + MAX_HEADER_BYTES) >= 0 or len(data) - offset > 4096:
        return False
    return rest.startswith(_TEXT_START[: len(rest)]) or re.match(rb"[A-Z]{2,32}( [a-z]+:|$)", rest) is not None


def _headers(block: bytes) -> tuple[dict[bytes, str], dict[str, str]]:
    """(what pairing needs, what rows tell); of repeated headers the first counts."""
    if b"\n " in block or b"\n\t" in block:
        block = _FOLD.sub(b" ", block)
    needed: dict[bytes, str] = {}
    kept: dict[str, str] = {}
    for line in block.split(b"\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            continue
        name = name.strip().lower()
        name = _COMPACT.get(name, name)
        if name in _NEEDED:
            needed.setdefault(name, read_name(value.strip()))
        elif name in _KEPT:
            kept.setdefault(name.decode(), read_name(value.strip()))
    return needed, kept


def detect(sample: Sample) -> float:
    """A start line at any of the places looked at; the one who asks first is the client."""
    client = _kinds([sample.client, *sample.client_runs])
    server = _kinds([sample.server, *sample.server_runs])
    if not client and not server:
        return 0.0
    if "request" in client and "response" in server:
        # Both may ask; the first message decides who is called client.
        return 0.97 if client[0] == "request" else 0.93
    if client and server:
        return 0.9
    return 0.85 if client[:1] == ["request"] or server[:1] == ["response"] else 0.7


def _kinds(heads: list[bytes]) -> list[str]:
    kinds = []
    for head in heads:
        start = _START.match(head) or _NEXT.search(head)
        if start:
            kinds.append("response" if start[0].startswith(_TEXT_START) else "request")
    return kinds
