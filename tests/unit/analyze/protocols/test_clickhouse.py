"""ClickHouse's native protocol: bytes of a 18.16 server with its own and a Python client, and of newer revisions."""

from __future__ import annotations

from struct import pack

import pyarrow as pa

from kubetape.analyze.protocols.clickhouse.columns import skip_column
from tests.unit.analyze.protocols.wire import Piece, brief, decode

TRACE = "0af7651916cd43dd8448eb211c80319c"


def text(value: str) -> bytes:
    raw = value.encode()
    return varint(len(raw)) + raw


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


# clickhouse-driver 0.2.11 (54468) and a server 18.16 (54412), from a recording on the loopback.
HELLO = bytes.fromhex("0018436c69636b486f75736520707974686f6e2d647269766572140ac4a903000764656661756c7400")
GREETING = bytes.fromhex("000a436c69636b486f75736512108ca903074574632f55544302766d01")
INFO = bytes.fromhex(
    "000009302e302e302e303a300104726f6f7402766d18436c69636b486f75736520707974686f6e2d647269766572140ac4a903000200"
)
EMPTY = bytes.fromhex("0200010002ffffffff000000")
START: list[Piece] = [("c", HELLO), ("s", GREETING)]
ANSWER = bytes.fromhex(
    "0100010002ffffffff00020001310555496e74380327612706537472696e67"
    "0100010002ffffffff00020101310555496e7438010327612706537472696e670161"
    "0601011b000001" "03010100" "0100010002ffffffff000000" "05"
)  # fmt: skip


def query(statement: str) -> bytes:
    return b"\x01\x00\x01" + INFO + b"\x02\x00" + text(statement) + EMPTY


def failure(code: int, message: str) -> bytes:
    return b"\x02" + pack("<i", code) + text("DB::Exception") + text(f"DB::Exception: {message}") + text("0. x") + b"\0"


def test_queries_of_a_driver() -> None:
    statement = f"SELECT 1, 'a' /* traceparent='00-{TRACE}-b7ad6b7169203331-01' */"
    pieces = [*START, ("c", query(statement)), ("s", ANSWER), ("c", b"\x04"), ("s", b"\x04")]
    pieces += [("c", query("SELECT nope")), ("s", failure(47, "Unknown identifier: nope"))]
    decoded = decode(pieces)
    assert decoded.protocol == "clickhouse"
    assert decoded.unread_bytes == 0
    assert brief(decoded.rows, "operation", "resource", "status", "rows_sent", "error_kind", "trace_id") == [
        ("Hello", "default@", "OK", None, None, None),
        ("Query", "select ?, ?", "OK", 1, None, TRACE),
        ("Ping", None, "OK", None, None, None),
        ("Query", "select nope", "47", None, "client", None),
    ]
    assert decoded.rows[-1].error_message == "Unknown identifier: nope"


def test_rows_that_a_client_inserts() -> None:
    columns = bytes.fromhex("0100010002ffffffff00010001610655496e743332")
    block = bytes.fromhex("0200010002ffffffff00010301610655496e743332") + pack("<3I", 7, 8, 9)
    pieces: list[Piece] = [*START, ("c", query("INSERT INTO t (a) VALUES")), ("s", columns), ("c", block + EMPTY)]
    decoded = decode([*pieces, ("s", b"\x05")])
    row = decoded.rows[-1]
    assert (row.operation, row.status, row.rows_affected) == ("Query", "OK", 3)
    assert decoded.unread_bytes == 0


def compressed(kind: int, plain: bytes) -> bytes:
    packed = bytes(pa.Codec("lz4_raw").compress(plain, asbytes=True))
    frame = b"\x82" + pack("<II", 9 + len(packed), len(plain)) + packed
    return bytes([kind, 0]) + b"?" * 16 + frame


def test_compressed_blocks_of_several_frames() -> None:
    asked = b"\x01\x00\x01" + INFO + b"\x02\x01" + text("SELECT number FROM system.numbers LIMIT 4")
    block = bytes.fromhex("010002ffffffff000104066e756d6265720655496e743634") + pack("<4Q", *range(4))
    answer = compressed(1, block) + compressed(1, b"more of the same block")[2:] + b"\x05"
    decoded = decode([*START, ("c", asked + compressed(2, EMPTY[2:])), ("s", answer)])
    assert brief(decoded.rows, "operation", "status", "rows_sent")[1:] == [("Query", "OK", 4)]
    assert decoded.unread_bytes == 0


def new_hello(revision: int) -> list[Piece]:
    """As since 54458: the client adds to its hello when it has the server's."""
    head = b"\x00" + text("ClickHouse client") + varint(24) + varint(3) + varint(revision)
    greeting = b"\x00" + text("ClickHouse") + varint(24) + varint(3) + varint(54_468) + text("UTC") + text("ch-0")
    greeting += varint(2) + varint(0) + bytes(8)  # patch, password rules, nonce
    return [("c", head + text("shop") + text("app") + text("secret")), ("s", greeting), ("c", text(""))]


def new_query(revision: int, statement: str, trace: bytes = b"\x00") -> bytes:
    info = b"\x01" + text("app") + text("q-1") + text("[::1]:7") + pack("<q", 1_700_000_000_000_000) + b"\x01"
    info += text("me") + text("host") + text("ClickHouse client") + varint(24) + varint(3) + varint(revision)
    info += text("") + varint(0) + varint(2) + trace + b"\x00\x00\x00"
    settings = text("max_threads") + b"\x00" + text("4") + text("")
    return b"\x01" + text("q-1") + info + settings + text("") + b"\x02\x00" + text(statement) + text("")


PROGRESS = b"\x03" + varint(500) + varint(4000) + varint(500) + varint(0) + b"\x00\x00" + varint(12_345)


def test_revisions_with_addendum_settings_and_telemetry() -> None:
    ids = bytes.fromhex(TRACE)
    carried = b"\x01" + ids[7::-1] + ids[:7:-1] + bytes.fromhex("b7ad6b7169203331")[::-1] + text("") + b"\x01"
    pieces = [*new_hello(54_468), ("c", new_query(54_468, "SELECT sum(x) FROM t", carried) + EMPTY)]
    decoded = decode([*pieces, ("s", PROGRESS + bytes.fromhex("0100010002ffffffff000000") + b"\x05")])
    assert decoded.unread_bytes == 0
    assert brief(decoded.rows, "operation", "resource", "status", "trace_id", "span_id") == [
        ("Hello", "app@shop", "OK", None, None),
        ("Query", "select sum(x) from t", "OK", TRACE, "b7ad6b7169203331"),
    ]
    assert decoded.rows[1].attributes == {
        "client": "ClickHouse client 24.3", "query_id": "q-1", "read_bytes": 4000, "read_rows": 500,
        "trace_carrier": "client info",
    }  # fmt: skip


def test_in_the_middle_of_a_connection() -> None:
    """The query's own client info tells the revision; a server older than the client is found by trying."""
    for asked in (new_query(54_468, "SELECT 1"), query("SELECT 1")):
        pieces: list[Piece] = [("s", b"ut of a block\x05"), ("c", asked), ("s", ANSWER)]
        decoded = decode(pieces, from_start=False)
        assert decoded.protocol == "clickhouse"
        assert brief(decoded.rows, "operation", "statement", "status")[-1] == ("Query", "SELECT 1", "OK")


def test_refused_logins_and_servers_in_trouble() -> None:
    rows = decode([("c", HELLO), ("s", failure(192, "Unknown user nobody"))]).rows
    assert brief(rows, "operation", "status", "error_kind") == [("Hello", "192", "client")]
    rows = decode([*START, ("c", query("SELECT 1")), ("s", failure(241, "Memory limit exceeded"))]).rows
    assert brief(rows, "status", "error_kind")[-1] == ("241", "server")


def test_an_answer_without_its_end() -> None:
    decoded = decode([*START, ("c", query("SELECT 1, 'a'")), ("s", ANSWER[:-1])])
    assert brief(decoded.rows, "operation", "outcome", "status")[-1] == ("Query", "truncated", None)


def test_sizes_of_columns() -> None:
    def size(kind: str, rows: int, raw: bytes) -> int:
        return skip_column(raw + b"next", 0, kind, rows)

    assert size("Nullable(UInt16)", 3, bytes(9)) == 9
    assert size("Array(String)", 2, pack("<QQ", 1, 3) + b"\x01a\x02bb\x00") == 16 + 6
    keys = pack("<QQQ", 1, 1 << 9, 2) + b"\x01a\x01b" + pack("<Q", 3) + b"\0\1\0"
    assert size("LowCardinality(Nullable(String))", 3, keys) == len(keys)
    assert size("Map(String, Tuple(x Decimal(9, 3), y Enum8('a,(' = 1)))", 1, pack("<Q", 1) + b"\x01k" + bytes(5)) == 15
    assert size("DateTime64(3, 'UTC')", 2, bytes(16)) == 16
    assert size("AggregateFunction(sum, UInt8)", 1, bytes(9)) == -1
