"""ClickHouse packets from bytes: a number says the kind, the agreed revision which fields there are.

Source: src/Server/TCPHandler.cpp, src/Client/Connection.cpp, src/Interpreters/ClientInfo.cpp of the server.
"""

from __future__ import annotations

import re
from typing import Any, Final

from kubetape.analyze.protocols.clickhouse import types as t
from kubetape.analyze.protocols.clickhouse.columns import MAX_ROWS, skip_column
from kubetape.analyze.protocols.common.protobuf import read_varint
from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed, Sample

PORTS: Final = frozenset({9000})
MAX_NAME_BYTES: Final = 4096  # of names, users, settings
MAX_QUERY_BYTES: Final = 1 << 30
MAX_SETTINGS: Final = 4096
MAX_COLUMNS: Final = 10_000
MAX_MESSAGE_CHARS: Final = 1024
MAX_STACK_BYTES: Final = 1 << 20
# Revisions ever given out; 18.16, the last of the old ones in distributions, has 54412.
REVISIONS: Final = range(50_000, 56_000)
DEFAULT_REVISION: Final = 54_460  # where neither hello nor query was seen: what drivers of the last years speak

_CHECKSUM_BYTES: Final = 16
_METHODS: Final = frozenset({0x02, 0x82, 0x90})  # stored, LZ4, ZSTD
_FRAME_BYTES: Final = 9  # method and both sizes, counted in the compressed size
MAX_FRAME_BYTES: Final = 1 << 28
_INFLATE_BYTES: Final = 1 << 22  # a block's head is read from its first frame


class ShortError(Exception):
    """The bytes end in the packet."""


class WrongError(Exception):
    """These bytes are no such packet."""


class _Bytes:
    """Reads fields of data from `place` on."""

    __slots__ = ("data", "place")

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place

    def number(self, most: int = 1 << 64) -> int:
        value, place = read_varint(self.data, self.place, len(self.data))
        if place < 0:
            raise ShortError if len(self.data) - self.place < 10 else WrongError
        if value > most:
            raise WrongError
        self.place = place
        return value

    def take(self, size: int) -> bytes:
        end = self.place + size
        if end > len(self.data):
            raise ShortError
        raw = self.data[self.place : end]
        self.place = end
        return raw

    def byte(self, most: int = 255) -> int:
        value = self.take(1)[0]
        if value > most:
            raise WrongError
        return value

    def text(self, most: int = MAX_NAME_BYTES) -> bytes:
        return self.take(self.number(most))

    def name(self) -> str:
        raw = self.text()
        if any(c < 32 for c in raw):
            raise WrongError
        return read_name(raw)


def parse_client(data: bytes, offset: int, agreed: int | None, compressed: bool) -> Parsed:
    """The packet of a client at data[offset]; agreed: the revision both sides speak, None: not known."""
    reader = _Bytes(data, offset + 1)
    kind = data[offset]
    try:
        frame: Any
        if kind == t.C_HELLO:
            frame = _client_hello(reader)
        elif kind == t.C_QUERY:
            return _query(reader, offset, agreed)
        elif kind in (t.C_DATA, t.C_SCALAR):
            return _block(reader, offset, kind, agreed or DEFAULT_REVISION, compressed)
        elif kind in (t.C_CANCEL, t.C_PING, t.C_KEEP_ALIVE):
            frame = t.Simple(kind)
        elif kind == t.C_TABLES_STATUS:
            for _ in range(reader.number(MAX_SETTINGS)):
                reader.name(), reader.name()
            frame = t.Simple(kind)
        else:
            return INVALID
    except ShortError:
        return CUT
    except WrongError:
        return INVALID
    return reader.place - offset, frame


def parse_addendum(data: bytes, offset: int, revision: int) -> Parsed:
    """The key of quotas, since 54470 whether to send in chunks, since 54471 a version."""
    reader = _Bytes(data, offset)
    try:
        reader.name()
        if revision >= t.R_CHUNKS:
            reader.name(), reader.name()
        if revision >= t.R_PARALLEL_VERSION:
            reader.number(1 << 20)
    except ShortError:
        return CUT
    except WrongError:
        return INVALID
    return reader.place - offset, t.ADDENDUM


def _client_hello(reader: _Bytes) -> t.Hello:
    name, major, minor, revision = reader.name(), reader.number(10_000), reader.number(10_000), reader.number(1 << 20)
    if revision not in REVISIONS or not name:
        raise WrongError
    database, user = reader.name(), reader.name()
    reader.text()  # the password, which is not kept
    return t.Hello(name, f"{major}.{minor}", revision, database, user)


def _query(reader: _Bytes, offset: int, agreed: int | None) -> Parsed:
    """Query. Its fields are those of the agreed revision; where that is not known, of one with which it can be read."""
    start = reader.place
    last: type[Exception] = WrongError
    for revision in (agreed,) if agreed is not None else (None, *_STEPS):
        reader.place = start
        try:
            size, query = _query_of(reader, offset, revision)
        except (ShortError, WrongError) as error:
            last = type(error)
            continue
        if agreed is not None or all(c >= 32 or c in b"\t\r\n" for c in query.text[:64]):
            return size, query
        last = WrongError
    raise last


# Below the client's own, the agreed revision is the server's: of each step one that is as good as the others of it.
_STEPS: Final = (54_468, 54_459, 54_453, 54_449, 54_448, 54_442, 54_441, 54_429, 54_412, 54_372)


def _query_of(reader: _Bytes, offset: int, agreed: int | None) -> tuple[int, t.Query]:
    query_id = reader.name()
    revision, client, user, trace = agreed or DEFAULT_REVISION, "", "", None
    if revision >= t.R_CLIENT_INFO and reader.byte(2):
        user = reader.name()
        reader.name(), reader.name()  # id and address of the first query
        revision, client, trace = _client_info(reader, agreed)
    while _setting(reader, revision):
        pass
    if revision >= t.R_ROLES:
        reader.text()
    if revision >= t.R_SECRET:
        reader.text()
    reader.number(8)  # the stage up to which to process
    compressed = reader.number(1)
    size = reader.number(MAX_QUERY_BYTES)
    end = reader.place + size
    text = reader.data[reader.place : end]
    query = t.Query(query_id, text, bool(compressed), revision, client, user, trace)
    if end < len(reader.data) and revision >= t.R_PARAMETERS:
        reader.place = end
        while _setting(reader, revision):
            pass
        end = reader.place
    return end - offset, query


def _client_info(reader: _Bytes, agreed: int | None) -> tuple[int, str, tuple[str, str] | None]:
    """(revision, client, trace). Since 54449 a time stands before it: without `agreed` both ways are tried."""
    start = reader.place
    for timed in (False, True) if agreed is None else (agreed >= t.R_START_TIME,):
        reader.place = start + 8 * timed
        try:
            return _client_info_of(reader, agreed, timed)
        except (ShortError, WrongError):
            if timed or agreed is not None:
                raise
    raise WrongError


def _client_info_of(reader: _Bytes, agreed: int | None, timed: bool) -> tuple[int, str, tuple[str, str] | None]:
    interface = reader.byte(8)
    revision = agreed or DEFAULT_REVISION
    if interface == 1:
        reader.name(), reader.name()  # system user, host
        client = reader.name()
        major, minor, own = reader.number(10_000), reader.number(10_000), reader.number(1 << 20)
        client = f"{client} {major}.{minor}"
        revision = agreed or own
        if own not in REVISIONS or (agreed is None and timed != (own >= t.R_START_TIME)):
            raise WrongError
    elif interface == 2:
        reader.byte(4)
        client = reader.name()
        if revision >= t.R_FORWARDED:
            reader.text()
        if revision >= t.R_REFERER:
            reader.text()
    else:
        raise WrongError
    if revision >= t.R_QUOTA_KEY:
        reader.name()
    if revision >= t.R_DEPTH:
        reader.number(1 << 16)
    if revision >= t.R_PATCH and interface == 1:
        reader.number(1 << 20)
    trace = None
    if revision >= t.R_TELEMETRY and reader.byte(1):
        ids = reader.take(24)
        # Each half is a 64-bit number, little-endian.
        trace = (ids[7::-1].hex() + ids[15:7:-1].hex(), ids[23:15:-1].hex())
        reader.text()
        reader.byte()
    if revision >= t.R_PARALLEL:
        for _ in range(3):
            reader.number(1 << 32)
    if revision >= t.R_LINE_NUMBERS:
        reader.number(1 << 32), reader.number(1 << 32)
    if revision >= t.R_TOKEN and reader.byte(1):
        reader.text(1 << 16)
    return revision, client, trace


# Settings of revisions below 54429 have no length of their own: the name tells the type. These are not numbers.
_TEXT_SETTING: Final = re.compile(
    rb"(?:.*_(?:mode|method|algorithm|format|policy|directory|path|schema)|format_.*|date_time_.*|load_balancing|"
    rb"totals_mode|.*codec|insert_distributed_.*_mode)\Z"
)


def _setting(reader: _Bytes, revision: int) -> bool:
    """One setting; False: the empty name that ends them."""
    name = reader.text(256)
    if not name:
        return False
    if not all(c > 32 and c < 127 for c in name):
        raise WrongError
    if revision >= t.R_TEXT_SETTINGS:
        reader.number(255)
        reader.text(1 << 20)
    elif _TEXT_SETTING.match(name):
        reader.text(1 << 16)
    else:
        reader.number()
    return True


def parse_server(data: bytes, offset: int, revision: int, compressed: bool) -> Parsed:
    """The packet of a server at data[offset]."""
    reader = _Bytes(data, offset + 1)
    kind = data[offset]
    try:
        frame: Any
        if kind == t.S_HELLO:
            frame = _server_hello(reader, revision)
        elif kind in t.BLOCKS:
            # Logs and profile events are for the client's screen and never compressed (until 54481).
            return _block(reader, offset, kind, revision, compressed and kind not in (t.S_LOG, t.S_EVENTS))
        elif kind == t.S_EXCEPTION:
            frame = _exception(reader)
        elif kind == t.S_PROGRESS:
            frame = _progress(reader, revision)
        elif kind in (t.S_PONG, t.S_END):
            frame = t.Simple(kind)
        elif kind == t.S_PROFILE:
            frame = _profile(reader, revision)
        elif kind == t.S_COLUMNS:
            reader.name()
            reader.text(1 << 20)
            frame = t.Simple(kind)
        elif kind == t.S_TIMEZONE:
            reader.name()
            frame = t.Simple(kind)
        elif kind == t.S_TABLES_STATUS:
            for _ in range(reader.number(MAX_SETTINGS)):
                reader.name(), reader.name()
                if reader.byte(1):
                    reader.number(1 << 40)
                    if revision >= 54_467:  # whether the table only reads
                        reader.number(1)
            frame = t.Simple(kind)
        else:
            return INVALID
    except ShortError:
        return CUT
    except WrongError:
        return INVALID
    return reader.place - offset, frame


def _server_hello(reader: _Bytes, client_revision: int) -> t.Hello:
    """What stands in it depends on the revision of the client that was greeted."""
    name, major, minor, revision = reader.name(), reader.number(10_000), reader.number(10_000), reader.number(1 << 20)
    if revision not in REVISIONS or not name:
        raise WrongError
    agreed = min(client_revision, revision)
    patch = None
    try:
        if agreed >= t.R_PARALLEL_VERSION:
            reader.number(1 << 20)
        if agreed >= t.R_TIMEZONE:
            reader.name()
        if agreed >= t.R_DISPLAY_NAME:
            reader.name()
        if agreed >= t.R_PATCH:
            patch = reader.number(1 << 20)
        if agreed >= t.R_CHUNKS:
            reader.name(), reader.name()
        if agreed >= t.R_PASSWORD_RULES:
            for _ in range(reader.number(256)):
                reader.text(), reader.text()
        if agreed >= t.R_NONCE:
            reader.take(8)
        if agreed >= t.R_SERVER_SETTINGS:
            while _setting(reader, agreed):
                pass
        if agreed >= t.R_PLAN_VERSION:
            reader.number(1 << 20)
    except (WrongError, ShortError):
        # A newer server may say more: the hello is alone in what the server sends before it is asked.
        reader.place = len(reader.data)
    version = f"{major}.{minor}" if patch is None else f"{major}.{minor}.{patch}"
    return t.Hello(name, version, revision)


def _exception(reader: _Bytes) -> t.Failure:
    code = int.from_bytes(reader.take(4), "little", signed=True)
    name = reader.name()
    if not name.startswith(("DB::", "Poco::", "std::", "Coordination::")) and not (name and code > 0):
        raise WrongError
    message = read_text(reader.text(1 << 24), MAX_MESSAGE_CHARS)
    failure = t.Failure(code, name, message.removeprefix(f"{name}: "))
    try:
        reader.text(MAX_STACK_BYTES)
        nested = reader.byte(1)
        if nested:
            _exception(reader)
    except ShortError:
        reader.place = len(reader.data)
    return failure


def _progress(reader: _Bytes, revision: int) -> t.Progress:
    rows, size = reader.number(), reader.number()
    reader.number()
    if revision >= t.R_TOTAL_BYTES:
        reader.number()
    written = 0
    if revision >= t.R_WRITTEN:
        written = reader.number()
        reader.number()
    if revision >= t.R_ELAPSED:
        reader.number()
    return t.Progress(rows, size, written)


def _profile(reader: _Bytes, revision: int) -> t.Simple:
    rows = reader.number()
    reader.number(), reader.number()
    reader.byte(1)
    reader.number()
    reader.byte(1)
    if revision >= t.R_AGGREGATION:
        reader.byte(1)
        reader.number()
    return t.Simple(t.S_PROFILE, rows)


# ---- blocks ----------------------------------------------------------------------------------------------------


def _block(reader: _Bytes, offset: int, kind: int, revision: int, compressed: bool) -> Parsed:
    """The name of a temporary table, then the block; where its end cannot be told it goes to the next packet."""
    reader.name()
    if compressed:
        return _compressed(reader, offset, kind, revision)
    rows, columns, end = walk_block(reader.data, reader.place, revision)
    if rows is None:
        raise ShortError if len(reader.data) - reader.place < 16 else WrongError
    if end < 0:
        following = find_server(reader.data, reader.place + 8) if kind in t.BLOCKS else -1
        end = len(reader.data) if following < 0 else following
        return end - offset, t.Block(kind, rows, columns, False)
    return end - offset, t.Block(kind, rows, columns, True)


def walk_block(data: bytes, place: int, revision: int) -> tuple[int | None, int | None, int]:
    """(rows, columns, end) of a block; rows None: none begins there; end -1: it cannot be told."""
    reader = _Bytes(data, place)
    try:
        if revision >= t.R_BLOCK_INFO:
            while (field := reader.number(3)) != 0:
                if field == 1:
                    reader.byte(1)
                elif field == 2:
                    reader.take(4)
                else:
                    for _ in range(reader.number(1 << 16)):
                        reader.take(4)
        columns, rows = reader.number(MAX_COLUMNS), reader.number(MAX_ROWS)
    except (ShortError, WrongError):
        return None, None, -1
    try:
        for _ in range(columns):
            reader.text()
            kind = reader.text(1 << 16).decode("utf-8", "replace")
            if revision >= t.R_CUSTOM_SERIALIZATION and reader.byte(1):
                return rows, columns, -1
            if rows:
                end = skip_column(data, reader.place, kind, rows)
                if end < 0:
                    return rows, columns, -1
                reader.place = end
    except ShortError:
        return rows, columns, -1
    except WrongError:
        return None, None, -1
    return rows, columns, reader.place


def frame_at(data: bytes, place: int) -> int:
    """The size of the compressed frame at data[place], checksum included; 0: there is none."""
    head = place + _CHECKSUM_BYTES
    if head + _FRAME_BYTES > len(data) or data[head] not in _METHODS:
        return 0
    packed = int.from_bytes(data[head + 1 : head + 5], "little")
    plain = int.from_bytes(data[head + 5 : head + 9], "little")
    if not _FRAME_BYTES <= packed <= MAX_FRAME_BYTES or not 0 < plain <= MAX_FRAME_BYTES:
        return 0
    return _CHECKSUM_BYTES + packed if packed - _FRAME_BYTES <= plain + plain // 100 + 64 else 0


def _compressed(reader: _Bytes, offset: int, kind: int, revision: int) -> Parsed:
    data, first = reader.data, reader.place
    size = frame_at(data, first)
    if not size:
        raise ShortError if first + _CHECKSUM_BYTES + _FRAME_BYTES > len(data) else WrongError
    end = first + size
    while end < len(data) and (size := frame_at(data, end)):
        end += size
    rows, columns, _ = walk_block(_inflate(data, first), 0, revision)
    return end - offset, t.Block(kind, rows, columns, True)


def _inflate(data: bytes, place: int) -> bytes:
    """The contents of a frame; b"" where they cannot be had."""
    head = place + _CHECKSUM_BYTES
    packed = int.from_bytes(data[head + 1 : head + 5], "little")
    plain = int.from_bytes(data[head + 5 : head + 9], "little")
    body = data[head + _FRAME_BYTES : head + packed]
    if data[head] == 0x02:
        return body
    if plain > _INFLATE_BYTES or len(body) < packed - _FRAME_BYTES:
        return b""
    import pyarrow as pa

    try:
        codec = pa.Codec("lz4_raw" if data[head] == 0x82 else "zstd")
        return bytes(codec.decompress(body, plain))
    except (pa.ArrowException, OSError, ValueError):
        return b""


# ---- beginnings ------------------------------------------------------------------------------------------------

_QUERY_START: Final = re.compile(rb"\x01(?:\x00|[\x01-\x7f][ -~]{1,127}?)[\x01\x02]", re.DOTALL)
# An empty name, the block's info (no overflow, no bucket); or an exception with its name.
_BLOCK_START: Final = re.compile(
    rb"[\x01\x07\x08\x0a\x0e]\x00\x01[\x00\x01]\x02\xff\xff\xff\xff\x00|\x02[\x00-\xff]{4}[\x05-\x7f](?:DB|Poco|std|Coord)",
    re.DOTALL,
)
MAX_TRIES: Final = 4096


def query_at(data: bytes, place: int) -> t.Query | None:
    """The query that begins at data[place], if it surely is one."""
    if place >= len(data) or data[place] != t.C_QUERY:
        return None
    parsed = parse_client(data, place, None, False)
    if not isinstance(parsed, tuple):
        return None
    query: t.Query = parsed[1]
    head = query.text[:64]
    return query if query.client and head and all(c >= 32 or c in b"\t\r\n" for c in head) else None


def find_client(data: bytes, offset: int) -> int:
    """Where a query, or a hello, begins; -1."""
    for number, match in enumerate(_QUERY_START.finditer(data, offset)):
        if number >= MAX_TRIES:
            return -1
        if query_at(data, match.start()) is not None:
            return match.start()
    return -1


def find_server(data: bytes, offset: int) -> int:
    """Where a block with the usual info, or an exception, begins; -1."""
    found = _BLOCK_START.search(data, offset)
    return -1 if found is None else found.start()


def detect(sample: Sample) -> float:
    """Hellos with a revision that was given out; in the middle queries with their client's, blocks, exceptions."""
    asked, answered = _hello(sample.client, True), _hello(sample.server, False)
    if asked and (answered or not sample.server):
        return 0.97 if answered else 0.9
    if asked:
        return 0.9 if sample.server[:1] == b"\x02" and find_server(sample.server, 0) == 0 else 0.0
    query = any(find_client(head, 0) >= 0 for head in (sample.client, *sample.client_runs))
    block = any(find_server(head, 0) >= 0 for head in (sample.server, *sample.server_runs))
    if query:
        return 0.95 if block else 0.75
    if sample.from_start and sample.client:
        return 0.0
    # Between queries a client sends single bytes: pings and cancels.
    return 0.55 if block and all(head[:1] in (b"\x02", b"\x03", b"\x04", b"") for head in (sample.client,)) else 0.0


def _hello(data: bytes, client: bool) -> bool:
    if data[:1] != b"\x00":
        return False
    reader = _Bytes(data, 1)
    try:
        if client:
            _client_hello(reader)
            return True
        name = reader.name()
        reader.number(10_000), reader.number(10_000)
        return bool(name) and reader.number(1 << 20) in REVISIONS
    except (ShortError, WrongError):
        return False
