"""ZooKeeper packets from bytes: a length, then jute-encoded records (zookeeper.jute)."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.contract import CLIENT, CUT, INVALID, Parsed, Sample, Side
from kubetape.analyze.protocols.zookeeper.types import (
    CONNECT,
    CREATE_MODES,
    CREATES,
    ERRORS,
    MULTI,
    MULTI_READ,
    NOTIFICATION_XID,
    OPERATIONS,
    WATCHES,
    WITH_PATH,
    WORD,
    WORDS,
    Call,
    Reply,
    Text,
)

MAX_PACKET_BYTES: Final = 1 << 26  # jute.maxbuffer is 1 MiB unless raised
MAX_LISTED: Final = 32  # parts of a multi, paths of setWatches per row
_BODY_BYTES: Final = 1 << 16  # of a reply's body, what is looked at
_CHAIN: Final = 3

_I: Final = Struct(">i")
_II: Final = Struct(">ii")
_III: Final = Struct(">iii")
_IQI: Final = Struct(">iqi")
_CONNECT: Final = Struct(">iqiqi")  # protocolVersion, lastZxidSeen, timeOut, sessionId, passwd
_CONNECTED: Final = Struct(">iiqi")  # protocolVersion, timeOut, sessionId, passwd


def parse_packet(side: Side, data: bytes, offset: int) -> Parsed:
    """(size, Call) or (size, Reply)."""
    if len(data) - offset < 8:
        return CUT
    size = _I.unpack_from(data, offset)[0]
    if side == CLIENT:
        if size > MAX_PACKET_BYTES and data[offset : offset + 4] in WORDS:
            return parse_word(data, offset)
        return _parse_call(data, offset, size)
    return _parse_reply(data, offset, size)


def parse_word(data: bytes, offset: int) -> Parsed:
    """A four-letter word, with the line end that people's tools add."""
    end = offset + 4
    while end < len(data) and data[end] in b"\r\n":
        end += 1
    word = data[offset : offset + 4].decode("ascii")
    return end - offset, Call(0, WORD, None, {"word": word})


def parse_text(data: bytes, offset: int) -> Parsed:
    """All that stands there belongs to the answer to a word."""
    return len(data) - offset, Text(data[offset : offset + 256])


def _parse_call(data: bytes, offset: int, size: int) -> Parsed:
    if not 8 <= size <= MAX_PACKET_BYTES:
        return INVALID
    if is_connect(data, offset, size):
        return size + 4, _connect(data, offset, size)
    if len(data) - offset < 12:
        return CUT
    xid, op = _II.unpack_from(data, offset + 4)
    if op not in OPERATIONS:
        return INVALID
    end = min(offset + 4 + size, len(data))
    path, detail = _arguments(op, data, offset + 12, end)
    return size + 4, Call(xid, op, path, detail)


def is_connect(data: bytes, offset: int, size: int) -> bool:
    """ConnectRequest has no header: told by its fixed length and a 16-byte password."""
    return (
        size in (44, 45)
        and len(data) >= offset + 32
        and data[offset + 4 : offset + 8] == b"\0\0\0\0"
        and data[offset + 28 : offset + 32] == b"\0\0\0\x10"
    )


def _connect(data: bytes, offset: int, size: int) -> Call:
    _, zxid, timeout, session, _ = _CONNECT.unpack_from(data, offset + 4)
    detail: dict[str, Any] = {"asked_timeout_ms": timeout}
    if session:
        detail["renewed_session"] = f"0x{session & (1 << 64) - 1:x}"
    if zxid:
        detail["last_zxid"] = zxid
    if size == 45 and data[offset + 48 : offset + 49] == b"\1":
        detail["read_only"] = True
    return Call(0, CONNECT, None, detail)


def is_connected(data: bytes, offset: int, size: int) -> bool:
    """ConnectResponse: likewise."""
    return (
        size in (36, 37)
        and len(data) >= offset + 24
        and data[offset + 4 : offset + 8] == b"\0\0\0\0"
        and data[offset + 20 : offset + 24] == b"\0\0\0\x10"
    )


def _parse_reply(data: bytes, offset: int, size: int) -> Parsed:
    if not 16 <= size <= MAX_PACKET_BYTES:
        return INVALID
    if is_connected(data, offset, size):
        _, timeout, session, _ = _CONNECTED.unpack_from(data, offset + 4)
        facts = {"timeout_ms": timeout, "session": f"0x{session & (1 << 64) - 1:x}"}
        return size + 4, Reply(0, 0, 0, b"", facts)
    if len(data) - offset < 20:
        return CUT
    xid, zxid, error = _IQI.unpack_from(data, offset + 4)
    if error > 0 or error < -200 or zxid < -1:
        return INVALID
    end = min(offset + 4 + size, offset + 20 + _BODY_BYTES)
    return size + 4, Reply(xid, zxid, error, data[offset + 20 : end], None)


def read_string(data: bytes, offset: int, end: int) -> tuple[bytes, int]:
    """A jute string or buffer and the offset behind it; one that is cut runs to `end`."""
    if offset + 4 > end:
        return b"", end
    size = _I.unpack_from(data, offset)[0]
    if size < 0:
        return b"", offset + 4
    return data[offset + 4 : min(offset + 4 + size, end)], offset + 4 + size


def _arguments(op: int, data: bytes, offset: int, end: int) -> tuple[str | None, dict[str, Any]]:
    detail: dict[str, Any] = {}
    if op in WITH_PATH:
        raw, offset = read_string(data, offset, end)
        path = read_text(raw)
        if op in WATCHES:
            if data[offset : min(offset + 1, end)] == b"\1":
                detail["watch"] = True
        elif op == 5:
            size, offset = _buffer_size(data, offset, end)
            detail["data_bytes"] = size
            if offset + 4 <= end:
                detail["version"] = _I.unpack_from(data, offset)[0]
        elif op in CREATES:
            size, offset = _buffer_size(data, offset, end)
            detail["data_bytes"] = size
            offset = skip_acls(data, offset, end)
            if offset + 4 <= end:
                flags = _I.unpack_from(data, offset)[0]
                detail["mode"] = CREATE_MODES.get(flags, str(flags))
        elif op in (2, 13) and offset + 4 <= end:
            detail["version"] = _I.unpack_from(data, offset)[0]
        return path, detail
    if op in (MULTI, MULTI_READ):
        parts = _multi(data, offset, end)
        detail["operations"] = [f"{OPERATIONS.get(o, o)} {p}" for o, p in parts[:MAX_LISTED]]
        return (parts[0][1] if parts else None), detail
    if op == 100 and offset + 4 <= end:
        raw, _ = read_string(data, offset + 4, end)
        return read_name(raw), detail
    if op in (101, 105) and offset + 12 <= end:
        # relativeZxid, then vectors of paths: data, exist, child (and two more of setWatches2)
        count = max(0, _I.unpack_from(data, offset + 8)[0])
        detail["data_watches"] = count
    return None, detail


def _buffer_size(data: bytes, offset: int, end: int) -> tuple[int, int]:
    if offset + 4 > end:
        return 0, end
    size = max(0, _I.unpack_from(data, offset)[0])
    return size, offset + 4 + size


def skip_acls(data: bytes, offset: int, end: int) -> int:
    """Behind a vector of ACL: perms, scheme, id."""
    if offset + 4 > end:
        return end
    count = _I.unpack_from(data, offset)[0]
    offset += 4
    for _ in range(min(max(count, 0), 1024)):
        if offset >= end:
            return end
        _, offset = read_string(data, offset + 4, end)
        _, offset = read_string(data, offset, end)
    return offset


def _multi(data: bytes, offset: int, end: int) -> list[tuple[int, str]]:
    """(op, path) of the parts: MultiHeader {type, done, err} and the part's own record."""
    parts: list[tuple[int, str]] = []
    while offset + 9 <= end and not data[offset + 4] and len(parts) < MAX_LISTED:
        op = _I.unpack_from(data, offset)[0]
        raw, place = read_string(data, offset + 9, end)
        parts.append((op, read_text(raw)))
        if op in CREATES:
            _, place = _buffer_size(data, place, end)
            place = skip_acls(data, place, end) + (12 if op == 21 else 4)
        elif op == 5:
            _, place = _buffer_size(data, place, end)
            place += 4
        elif op in (2, 13):
            place += 4
        elif op in (4, 8):
            place += 1
        else:
            break
        offset = place
    return parts


def multi_error(body: bytes) -> int:
    """The error that made a multi fail; 0: none. The parts it rolled back say RuntimeInconsistency."""
    offset, end, found = 0, len(body), 0
    for _ in range(1024):
        if offset + 9 > end or body[offset + 4]:
            break
        op, error = _I.unpack_from(body, offset)[0], _I.unpack_from(body, offset + 5)[0]
        offset += 9
        if op == -1:
            error = _I.unpack_from(body, offset)[0] if offset + 4 <= end else error
            if error and (found in (0, -2)):
                found = error
            offset += 4
        elif op in CREATES:
            _, offset = read_string(body, offset, end)
            offset += 0 if op == 1 else 68  # Stat
        elif op == 5:
            offset += 68
        elif op == 4:
            _, offset = _buffer_size(body, offset, end)
            offset += 68
        elif op not in (2, 13):
            break
    return found


def read_event(body: bytes) -> tuple[int, int, str]:
    """WatcherEvent: type, state, path."""
    if len(body) < 8:
        return -1, 0, ""
    kind, state = _II.unpack_from(body, 0)
    raw, _ = read_string(body, 8, len(body))
    return kind, state, read_text(raw)


# ---- boundaries and detection ------------------------------------------------------------------------------------


def find_packet(side: Side, data: bytes, offset: int) -> int:
    """Where a chain of packets of `side` begins; -1. Their lengths begin with a zero byte."""
    place = data.find(b"\0", offset)
    while place >= 0:
        if chain_length(side, data, place) > 0:
            return place
        place = data.find(b"\0", place + 1)
    return -1


def chain_length(side: Side, data: bytes, offset: int) -> int:
    """How many packets follow each other from offset on; 0: none, or bytes that do not fit."""
    check = _call_fits if side == CLIENT else _reply_fits
    for number in range(_CHAIN):
        if len(data) - offset < 20:
            short = side == CLIENT and len(data) - offset >= 12
            if not short:
                return number if data[offset : offset + 1] == b"\0" or offset >= len(data) else 0
        size = _I.unpack_from(data, offset)[0]
        if not 8 <= size <= MAX_PACKET_BYTES or not check(data, offset, size):
            return 0
        offset += 4 + size
        if offset >= len(data):
            # One packet to the very end of what there is; cut ones are weaker evidence.
            return number + 1 if offset == len(data) or number else 0
    return _CHAIN


def _call_fits(data: bytes, offset: int, size: int) -> bool:
    if is_connect(data, offset, size):
        return True
    xid, op = _II.unpack_from(data, offset + 4)
    if op in WITH_PATH:
        if size < 13 or xid < 0 or len(data) < offset + 17:
            return False
        path = _I.unpack_from(data, offset + 12)[0]
        return 0 < path <= size - 12 and data[offset + 16] == 0x2F
    if op in (11, -11, 107):
        return size == 8 and (xid == -2 or op != 11)
    if op == 100:
        return xid == -4 and size >= 20
    if op in (101, 105):
        return xid == -8 and size >= 28
    if op in (MULTI, MULTI_READ) and len(data) >= offset + 21 and size >= 17:
        inner = _I.unpack_from(data, offset + 12)[0]
        return inner in OPERATIONS and data[offset + 16] == 0 and data[offset + 17 : offset + 21] == b"\xff" * 4
    fits = size >= 12 and len(data) >= offset + 16
    return op == 102 and fits and _I.unpack_from(data, offset + 12)[0] == size - 12


def _reply_fits(data: bytes, offset: int, size: int) -> bool:
    if is_connected(data, offset, size):
        return True
    if size < 16 or len(data) < offset + 20:
        return False
    xid, zxid, error = _IQI.unpack_from(data, offset + 4)
    if xid < NOTIFICATION_XID and xid not in (-2, -4, -8):
        return False
    if error:
        return error in ERRORS and size == 16 and zxid >= 0
    if xid == NOTIFICATION_XID:
        return zxid == -1 and size >= 28
    # An epoch beyond 2^20 elections is no zxid.
    return 0 <= zxid < 1 << 52 and (xid >= 0 or size == 16 or xid == -8)


_ANSWERS: Final = (
    b"imok",
    b"Zookeeper version",
    b"zk_version",
    b"clientPort=",
    b"Environment:",
    b"This ZooKeeper instance",
    b"SessionTracker dump",
    b"rw",
    b"ro",
    b"null",
    b"Server stats reset",
    b"Connection stats reset",
)


def detect(sample: Sample) -> float:
    """A session's first packets, or chains of packets; a four-letter word with an answer to it."""
    client, server = sample.client, sample.server
    if client[:4] in WORDS and not client[4:].strip(b"\r\n"):
        told = server.startswith(_ANSWERS) or b" is not executed because it is not in the whitelist" in server
        return 0.9 if told else 0.3 if not server else 0.0
    asked = _score(CLIENT, client, sample.client_runs)
    answered = _score(1, server, sample.server_runs)
    if asked < 0 or answered < 0:
        return 0.0
    if asked and answered:
        return 0.97 if asked == 3 or answered == 3 else 0.9
    return {3: 0.85, 2: 0.65 if asked else 0.55, 1: 0.55 if asked else 0.4}.get(asked or answered, 0.0)


def _score(side: Side, first: bytes, runs: list[bytes]) -> int:
    """3: a session's beginning; 2: chains; 1: a single packet; 0: nothing; -1: others' bytes."""
    if not first:
        return 0
    if len(first) >= 24:
        size = _I.unpack_from(first, 0)[0]
        if (is_connect if side == CLIENT else is_connected)(first, 0, size):
            return 3
    best = max([chain_length(side, first, 0), *(chain_length(side, run, 0) for run in runs)])
    if best:
        return min(best, 2)
    place = find_packet(side, first, 1)
    return -1 if place < 0 else min(2, chain_length(side, first, place))
