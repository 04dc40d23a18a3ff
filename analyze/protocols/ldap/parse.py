"""LDAP messages from bytes (RFC 4511), bare or inside a SASL security layer that only signs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kubetape.analyze.protocols.common.text import cut_text, read_name, read_text
from kubetape.analyze.protocols.contract import CLIENT, CUT, INVALID, SERVER, Parsed, Sample, Side
from kubetape.analyze.protocols.ldap.ber import elements, integer, read_header
from kubetape.analyze.protocols.ldap.filters import escape, filter_text
from kubetape.analyze.protocols.ldap.types import OID_NAMES, REPLIES, REQUESTS, Message, Sealed

MAX_LISTED: Final = 32  # attribute names, referrals, controls per row
MAX_WRAPPED_BYTES: Final = 1 << 24  # SASL buffers are negotiated in 3 bytes (RFC 4752, section 3.1)
# The first byte of what else may stand behind an extended or a bind operation and its reply.
_FOLLOWS: Final = {0x77: (0x16,), 0x78: (0x16,), 0x60: (0,), 0x61: (0,)}
_CHAIN: Final = 3  # messages that must follow each other to believe a beginning

_SCOPES: Final = {0: "base", 1: "one", 2: "sub", 3: "children"}
_DEREF: Final = {0: "never", 1: "searching", 2: "finding", 3: "always"}
# The last three are Active Directory's own (MS-ADTS, section 5.1.1.1.3).
_AUTHENTICATIONS: Final = {
    0x80: "simple",
    0xA3: "sasl",
    0x89: "sicilyPackageDiscovery",
    0x8A: "sicilyNegotiate",
    0x8B: "sicilyResponse",
}
_CHANGES: Final = {0: "add", 1: "delete", 2: "replace", 3: "increment"}


def parse_message(side: Side, data: bytes, offset: int) -> Parsed:
    """(size, Message) of the message at data[offset]."""
    head = _head(data, offset)
    if head is None:
        return CUT if len(data) - offset < 16 and data[offset] == 0x30 else INVALID
    message_id, op, start, op_end, end = head
    if op == 0:
        return end - offset, Message(message_id, 0, {}, [])
    if op not in (REQUESTS if side == CLIENT else REPLIES):
        return INVALID
    reader = _READERS.get(op, _result if side == SERVER else None)
    detail: dict[str, Any] = {}
    if reader is not None:
        reader(detail, data, start, min(op_end, len(data)))
    controls = _controls(data, op_end, min(end, len(data))) if op_end < end else []
    return end - offset, Message(message_id, op, detail, controls)


def parse_wrapped(side: Side, data: bytes, offset: int) -> Parsed:
    """(size, list of Message, or Sealed) of a SASL buffer: 4 bytes of length, then a token of the mechanism."""
    if offset + 4 > len(data):
        return CUT
    length = int.from_bytes(data[offset : offset + 4], "big")
    if not 16 < length < MAX_WRAPPED_BYTES:
        return INVALID
    size = length + 4
    token = offset + 4
    end = min(token + length, len(data))
    for start in _signed_starts(data, token, end):
        messages = []
        place = start
        while place < end and data[place] == 0x30:
            parsed = parse_message(side, data, place)
            if parsed.__class__ is not tuple:
                break
            messages.append(parsed[1])
            place += parsed[0]
        if messages:
            return size, messages
    return size, Sealed(size)


def _signed_starts(data: bytes, token: int, end: int) -> list[int]:
    """Where the plain text stands in a token that does not encrypt."""
    if data[token : token + 2] == b"\x05\x04" and token + 16 <= end:
        # RFC 4121, 4.2.6.2: flags (0x02 sealed), filler, EC, RRC; with RRC the checksum was rotated to the front.
        if data[token + 2] & 2:
            return []
        rotated = int.from_bytes(data[token + 6 : token + 8], "big")
        return [token + 16 + rotated, token + 16]
    if data[token : token + 4] == b"\x01\0\0\0":
        return [token + 16]  # MS-NLMP, 2.2.2.9: version, checksum, sequence number
    if data[token : token + 1] == b"\x60" and (header := read_header(data, token)) is not None:
        # RFC 2743 framing of an RFC 1964 token: OID, then TOK_ID 02 01, SGN_ALG, SEAL_ALG (ff ff: none).
        mark = data.find(b"\x02\x01", header[1], header[1] + 24)
        if mark >= 0 and data[mark + 4 : mark + 6] == b"\xff\xff":
            return [mark + 32, mark + 24]
    return []


def _head(data: bytes, offset: int) -> tuple[int, int, int, int, int] | None:
    """(message id, operation's tag, its content's start and end, the message's end); operation 0: it was cut off."""
    header = read_header(data, offset)
    if header is None or header[0] != 0x30 or header[2] < 5:
        return None
    end = header[1] + header[2]
    number = read_header(data, header[1])
    if number is None or number[0] != 2 or not 1 <= number[2] <= 4:
        return None
    place = number[1] + number[2]
    message_id = integer(data, number[1], place)
    if message_id < 0:
        return None
    op = read_header(data, place)
    if op is not None and op[0] == 4:
        # RFC 1798: connectionless LDAP v2 names the user before the operation.
        place = op[1] + op[2]
        op = read_header(data, place)
    if op is None:
        return (message_id, 0, end, end, end) if place + 6 > len(data) and place + 2 <= end else None
    op_end = op[1] + op[2]
    if (op[0] not in REQUESTS and op[0] not in REPLIES) or op_end > end:
        return None
    if op_end < end and op_end < len(data) and data[op_end] != 0xA0:
        return None
    return message_id, op[0], op[1], op_end, end


def find_message(side: Side | None, data: bytes, offset: int) -> int:
    """Where a chain of messages (of `side`, if given) begins: _CHAIN of them, or until the bytes end; -1."""
    place = data.find(b"\x30", offset)
    while place >= 0:
        if _chain(side, data, place):
            return place
        place = data.find(b"\x30", place + 1)
    return -1


def _chain(side: Side | None, data: bytes, place: int) -> bool:
    allowed = None if side is None else REQUESTS if side == CLIENT else REPLIES
    before = 0
    for number in range(_CHAIN):
        head = _head(data, place)
        if head is None:
            # Behind a whole message: one cut in its header, TLS behind StartTLS, a security layer behind a bind.
            follows = _FOLLOWS.get(before, ())
            return number > 0 and (data[place] in follows or (len(data) - place < 8 and data[place] == 0x30))
        if (allowed is not None and head[1] not in allowed) or head[1] == 0:
            return number > 0 and head[1] == 0
        before, place = head[1], head[4]
        if place >= len(data):
            return True
    return True


# ---- what the operations say -----------------------------------------------------------------------------------

_Reader = Callable[[dict[str, Any], bytes, int, int], None]


def _bind(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    parts = list(elements(data, start, end))[:3]
    if len(parts) > 1:
        detail["version"] = integer(data, parts[0][1], parts[0][2])
        detail["dn"] = read_text(data[parts[1][1] : parts[1][2]])
    if len(parts) > 2:
        tag, low, high = parts[2]
        detail["authentication"] = _AUTHENTICATIONS.get(tag, f"0x{tag:02x}")
        if tag == 0x80:
            detail["anonymous"] = low == high
        elif tag == 0xA3:
            for _, name_start, name_end in elements(data, low, high):
                detail["mechanism"] = read_name(data[name_start:name_end])
                break


def _search(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    parts = list(elements(data, start, end))[:8]
    if parts:
        detail["dn"] = read_text(data[parts[0][1] : parts[0][2]])
    if len(parts) > 5:
        numbers = [integer(data, low, high) for _, low, high in parts[1:5]]
        detail["scope"] = _SCOPES.get(numbers[0], str(numbers[0]))
        detail["deref_aliases"] = _DEREF.get(numbers[1], str(numbers[1]))
        if numbers[2]:
            detail["size_limit"] = numbers[2]
        if numbers[3]:
            detail["time_limit_s"] = numbers[3]
    if len(parts) > 6:
        # The element is read with its tag: the filter's kind is in it.
        detail["filter"] = filter_text(data, parts[5][2], parts[6][2])
    if len(parts) > 7:
        names = _strings(data, parts[7][1], parts[7][2])
        if names:
            detail["requested"] = names


def _modify(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    parts = list(elements(data, start, end))[:2]
    if parts:
        detail["dn"] = read_text(data[parts[0][1] : parts[0][2]])
    if len(parts) > 1:
        changes = []
        for _, low, high in elements(data, parts[1][1], parts[1][2]):
            change = list(elements(data, low, high))[:2]
            if len(change) == 2:
                kind = integer(data, change[0][1], change[0][2])
                name = _strings(data, change[1][1], change[1][2])[:1]
                changes.append(f"{_CHANGES.get(kind, kind)} {''.join(name)}")
            if len(changes) >= MAX_LISTED:
                break
        detail["changes"] = changes


def _add(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    parts = list(elements(data, start, end))[:2]
    if parts:
        detail["dn"] = read_text(data[parts[0][1] : parts[0][2]])
    if len(parts) > 1:
        names: list[str] = []
        for _, low, high in elements(data, parts[1][1], parts[1][2]):
            names += _strings(data, low, high)[:1]
            if len(names) >= MAX_LISTED:
                break
        detail["added"] = names


def _delete(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    detail["dn"] = read_text(data[start:end])


def _modify_dn(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    parts = list(elements(data, start, end))[:4]
    for name, (tag, low, high) in zip(("dn", "new_rdn", "delete_old", "new_superior"), parts, strict=False):
        detail[name] = data[low:high] != b"\0" if tag == 1 else read_text(data[low:high])


def _compare(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    parts = list(elements(data, start, end))[:2]
    if parts:
        detail["dn"] = read_text(data[parts[0][1] : parts[0][2]])
    if len(parts) > 1:
        pair = list(elements(data, parts[1][1], parts[1][2]))[:2]
        if len(pair) == 2:
            left, right = (escape(data[low:high]) for _, low, high in pair)
            detail["filter"] = cut_text(f"({left}={right})")


def _abandon(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    detail["abandoned_id"] = integer(data, start, end)


def _extended(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    for tag, low, high in elements(data, start, end):
        if tag == 0x80:
            detail["oid"] = read_name(data[low:high])
        return


def _result(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    """LDAPResult (section 4.1.9): code, matched DN, message, referrals [3], the name [10] of an extension."""
    for number, (tag, low, high) in enumerate(elements(data, start, end)):
        if number == 0:
            if tag != 10:
                return
            detail["result"] = integer(data, low, high)
        elif number == 1:
            # Sicily's replies carry a token here.
            if b"=" in data[low:high] and (dn := read_text(data[low:high])).isprintable():
                detail["matched_dn"] = dn
        elif number == 2:
            detail["message"] = read_text(data[low:high]).rstrip("\0").removesuffix("\\x00")
        elif tag == 0xA3:
            detail["referrals"] = _strings(data, low, high)
        elif tag == 0x8A:
            detail["oid"] = read_name(data[low:high])
        if number > 8:
            return


def _entry(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    for _, low, high in elements(data, start, end):
        detail["dn"] = read_text(data[low:high])
        return


def _references(detail: dict[str, Any], data: bytes, start: int, end: int) -> None:
    detail["referrals"] = _strings(data, start, end)


_READERS: Final[dict[int, _Reader]] = {
    0x60: _bind,
    0x63: _search,
    0x66: _modify,
    0x68: _add,
    0x4A: _delete,
    0x6C: _modify_dn,
    0x6E: _compare,
    0x50: _abandon,
    0x77: _extended,
    0x64: _entry,
    0x73: _references,
}


def _strings(data: bytes, start: int, end: int) -> list[str]:
    found: list[str] = []
    for _, low, high in elements(data, start, end):
        found.append(read_name(data[low:high]))
        if len(found) >= MAX_LISTED:
            break
    return found


def _controls(data: bytes, start: int, end: int) -> list[str]:
    found: list[str] = []
    for _, low, high in elements(data, start, end):
        for _, one_start, one_end in elements(data, low, high):
            found += _strings(data, one_start, one_end)[:1]
            if len(found) >= MAX_LISTED:
                return found
    return found


def oid_name(oid: str) -> str:
    """The name of an extension known here, else its number."""
    return OID_NAMES.get(oid, oid)


# ---- detection ---------------------------------------------------------------------------------------------------


def detect(sample: Sample) -> float:
    """Requests from the client, replies from the server: chains of messages whose every length agrees."""
    client = _fits(CLIENT, sample.client, sample.client_runs)
    server = _fits(SERVER, sample.server, sample.server_runs)
    if client < 0 or server < 0 or client + server == 0:
        return 0.0
    if client and server:
        return 0.96 if client + server == 4 else 0.85
    return 0.8 if client + server == 2 else 0.55


def _fits(side: Side, first: bytes, runs: list[bytes]) -> int:
    """2: begins with messages; 1: messages further on; 0: nothing to see; -1: others' bytes."""
    if not first:
        return 0
    if _chain(side, first, 0):
        return 2
    if any(_chain(side, run, 0) for run in runs) or find_message(side, first, 1) >= 0:
        return 1
    return -1
