"""CQL: envelopes by stream id, segments of v5, prepared statements, tables."""

from __future__ import annotations

from struct import pack
from typing import Any

import pyarrow as pa
import pytest

from kubetape.analyze.protocols.cassandra.bodies import table_of, used_keyspace
from kubetape.analyze.protocols.cassandra.segments import crc24
from tests.unit.analyze.protocols.wire import Piece, brief, decode

# Made by cassandra-driver 3.30.1 (SegmentCodec): a QUERY, a PREPARE and an EXECUTE in one segment, plain and LZ4.
PLAIN_SEGMENT = bytes.fromhex(
    "8f0002b316a305000001070000002a0000001c53454c45435420612046524f4d206b732e74205748455245206b3d3f0001000000040000"
    "00640500000209000000270000001f494e5345525420494e544f206b732e74202861292056414c55455320283f29000000000500000"
    "30a000000230010000102030405060708090a0b0c0d0e0f00026d6d0001000000010001000000013179e8d17c"
)
LZ4_SEGMENT = bytes.fromhex(
    "8d001e0104152fd8f23c05000001070000002a0000001c53454c45435420612046524f4d206b732e74205748455245206b3d3f00010000"
    "0004000000640500000209000000270000001f494e5345525420494e544f3100f1222861292056414c55455320283f290000000005000"
    "0030a000000230010000102030405060708090a0b0c0d0e0f00026d6d59008001000100000001311847d5eb"
)
# The same driver's BATCH of a text and a prepared statement, v4.
BATCH = bytes.fromhex(
    "040000090d0000004b000002000000001f494e5345525420494e544f20612e62202863292056414c55455320282573290001000000013"
    "10100106969696969696969696969696969696900010000000132000400"
)
MD5 = bytes(range(16))


def short(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return pack(">H", len(raw)) + raw


def long(text: str) -> bytes:
    return pack(">I", len(text)) + text.encode()


def asks(stream: int, opcode: int, body: bytes = b"", version: int = 4, flags: int = 0) -> bytes:
    return pack(">BBhBI", version, flags, stream, opcode, len(body)) + body


def tells(stream: int, opcode: int, body: bytes = b"", version: int = 4, flags: int = 0) -> bytes:
    return pack(">BBhBI", 0x80 | version, flags, stream, opcode, len(body)) + body


def query(stream: int, cql: str, version: int = 4) -> bytes:
    return asks(stream, 7, long(cql) + pack(">HB", 6, 4) + pack(">I", 100), version)


def segment(payload: bytes, whole: bool = True) -> bytes:
    head = (len(payload) | whole << 17).to_bytes(3, "little")
    return head + crc24(head).to_bytes(3, "little") + payload + b"crc!"


STARTUP = asks(0, 1, pack(">H", 1) + short("CQL_VERSION") + short("3.4.5"))
READY = tells(0, 2)
VOID = pack(">I", 1)
ROWS = pack(">III", 2, 1, 2) + short("shop") + short("users") + short("a") + pack(">H", 9)
ROWS += short("b") + pack(">HHH", 0x21, 13, 9) + pack(">I", 3)
PREPARED = pack(">I", 4) + short(MD5) + pack(">III", 1, 1, 0) + short("shop") + short("users")
ERROR = pack(">I", 0x2200) + short("no such table")
DIALOGUE: list[Piece] = [
    ("c", STARTUP),
    ("s", READY),
    ("c", query(1, "SELECT a, b FROM shop.users") + asks(2, 9, long("UPDATE shop.users SET a=? WHERE b=?"))),
    ("s", tells(2, 8, PREPARED) + tells(1, 8, ROWS)),
    ("c", asks(3, 10, short(MD5) + pack(">HB", 1, 0)) + query(4, "SELECT x FROM nowhere")),
    ("s", tells(4, 0, ERROR) + tells(3, 8, VOID)),
    ("s", tells(-1, 12, short("SCHEMA_CHANGE") + short("CREATED") + short("TABLE") + short("shop") + short("new"))),
]


def test_a_session_of_v4() -> None:
    decoded = decode(DIALOGUE)
    assert decoded.protocol == "cassandra"
    assert brief(
        decoded.rows, "operation", "resource", "statement", "status", "error_kind", "rows_sent", "outcome"
    ) == [
        ("STARTUP", None, None, "OK", None, None, "complete"),
        ("QUERY", "shop.users", "SELECT a, b FROM shop.users", "OK", None, 3, "complete"),
        ("PREPARE", "shop.users", "UPDATE shop.users SET a=? WHERE b=?", "OK", None, None, "complete"),
        ("EXECUTE", "shop.users", "UPDATE shop.users SET a=? WHERE b=?", "OK", None, None, "complete"),
        ("QUERY", "nowhere", "SELECT x FROM nowhere", "0x2200", "client", None, "complete"),
        ("EVENT", "shop.new", None, None, None, None, "one_way"),
    ]
    assert decoded.rows[-1].attributes == {"event": "SCHEMA_CHANGE", "change": "CREATED"}
    assert decoded.rows[3].inferred is None


@pytest.mark.parametrize("packed", [False, True])
def test_segments_of_v5(packed: bool) -> None:
    options = [("COMPRESSION", "lz4")] if packed else []
    body = pack(">H", 1 + len(options)) + b"".join(short(a) + short(b) for a, b in [*options, ("CQL_VERSION", "3.4.5")])
    start: list[Piece] = [("c", asks(0, 1, body, 5)), ("s", tells(0, 2, version=5))]
    prepared = pack(">I", 4) + short(MD5) + short("mm") + pack(">III", 1, 1, 0) + short("ks") + short("t")
    answers = tells(1, 8, VOID, 5) + tells(2, 8, prepared, 5) + tells(3, 8, VOID, 5)
    asked = LZ4_SEGMENT if packed else PLAIN_SEGMENT
    if packed:
        block = pa.Codec("lz4_raw").compress(answers, asbytes=True)
        head = (len(block) | len(answers) << 17 | 1 << 34).to_bytes(5, "little")
        answered = head + crc24(head).to_bytes(3, "little") + block + b"crc!"
    else:
        answered = segment(answers)
    for pieces, from_start in (
        ([*start, ("c", asked), ("s", answered)], True),
        ([("c", asked), ("s", answered)] * 2, False),
    ):
        decoded = decode(pieces, from_start=from_start, only="cassandra")
        assert brief(decoded.rows, "operation", "resource", "statement", "status")[-3:] == [
            ("QUERY", "ks.t", "SELECT a FROM ks.t WHERE k=?", "OK"),
            ("PREPARE", "ks.t", "INSERT INTO ks.t (a) VALUES (?)", "OK"),
            ("EXECUTE", "ks.t", "INSERT INTO ks.t (a) VALUES (?)", "OK"),
        ]
        assert decoded.unread_bytes == 0


def test_an_envelope_in_many_segments_with_another_behind_a_gap() -> None:
    big = query(1, "SELECT a FROM ks.t WHERE k = '" + "x" * 300 + "'", 5)
    pieces = [segment(big[i : i + 100], False) for i in range(0, len(big), 100)]
    dialogue: list[Piece] = [("c", asks(0, 1, STARTUP[9:], 5)), ("s", tells(0, 2, version=5))]
    dialogue += [("c", piece) for piece in pieces]
    dialogue += [("s", segment(tells(1, 8, VOID, 5)))]
    rows = decode(dialogue).rows
    assert brief(rows[1:], "operation", "status", "outcome") == [("QUERY", "OK", "complete")]
    assert rows[1].statement is not None
    assert rows[1].statement.endswith("xx'")
    holes = [(*p, 0) if p[1] == pieces[1] else p for p in dialogue]
    holes += [("c", segment(query(2, "SELECT b FROM ks.t", 5))), ("s", segment(tells(2, 8, VOID, 5)))]
    rows = decode(holes).rows
    assert ("QUERY", "SELECT b FROM ks.t", "OK", "complete") in brief(
        rows, "operation", "statement", "status", "outcome"
    )


def test_prepared_elsewhere_or_later() -> None:
    run = asks(3, 10, short(MD5) + pack(">HB", 1, 0))
    shared: dict[str, dict[Any, Any]] = {}
    elsewhere = decode([("c", STARTUP + run), ("s", READY + tells(3, 8, VOID))], shared=shared)
    assert brief(elsewhere.rows, "operation", "statement") == [("STARTUP", None), ("EXECUTE", None)]
    shared = {"cassandra": {}}
    late: list[Piece] = [("c", STARTUP + run), ("s", READY + tells(3, 8, VOID)), *DIALOGUE[2:4]]
    rows = decode(late, shared=shared).rows
    execute = next(row for row in rows if row.operation == "EXECUTE")
    assert (execute.statement, execute.resource, execute.inferred) == (
        "UPDATE shop.users SET a=? WHERE b=?",
        "shop.users",
        "statement",
    )


def test_batches_name_their_statements() -> None:
    rows = decode([("c", STARTUP + BATCH), ("s", READY + tells(9, 8, VOID))]).rows
    assert brief(rows[1:], "operation", "resource", "statement", "status") == [
        ("BATCH", "a.b", "INSERT INTO a.b (c) VALUES (%s); <prepared " + b"i".hex() * 16 + ">", "OK")
    ]
    assert rows[1].attributes == {"batch": "logged", "statements": 2, "consistency": "QUORUM", "version": 4}


@pytest.mark.parametrize("codec", ["lz4", "snappy"])
def test_compressed_envelopes(codec: str) -> None:
    def squeeze(message: bytes) -> bytes:
        body = message[9:]
        packed: bytes = pa.Codec("lz4_raw" if codec == "lz4" else codec).compress(body, asbytes=True)
        if codec == "lz4":
            packed = pack(">I", len(body)) + packed
        return message[:1] + bytes((message[1] | 1,)) + message[2:5] + pack(">I", len(packed)) + packed

    cql = "SELECT a FROM shop.users WHERE b IN (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)"
    for head in ([], [("c", STARTUP), ("s", READY)]):
        pieces: list[Piece] = [*head, ("c", squeeze(query(1, cql)) * 1), ("s", squeeze(tells(1, 8, ROWS)))]
        rows = decode(pieces, from_start=bool(head), only="cassandra").rows
        assert brief(rows[-1:], "operation", "statement", "status", "rows_sent") == [("QUERY", cql, "OK", 3)]


def test_use_names_the_keyspace_of_what_follows() -> None:
    pieces: list[Piece] = [
        ("c", STARTUP + query(1, "USE shop")),
        ("s", READY + tells(1, 8, pack(">I", 3) + short("shop"))),
        ("c", query(1, "delete from Carts where id=1")),
        ("s", tells(1, 8, VOID)),
    ]
    assert brief(decode(pieces).rows[1:], "operation", "resource") == [("QUERY", "shop"), ("QUERY", "shop.carts")]


def test_trace_warnings_and_timeouts() -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    payload = pack(">H", 1) + short("traceparent") + long(f"00-{trace}-00f067aa0ba902b7-01")
    asked = asks(1, 7, payload + long("SELECT 1 FROM a.b") + pack(">HB", 1, 0), flags=4 | 2)
    timeout = b"u" * 16 + pack(">H", 1) + short("large") + pack(">I", 0x1200) + short("slow")
    rows = decode([("c", STARTUP + asked), ("s", READY + tells(1, 0, timeout, flags=2 | 8))]).rows
    assert brief(rows[1:], "trace_id", "status", "error_kind", "error_message") == [
        (trace, "0x1200", "timeout", "slow")
    ]
    assert rows[1].attributes is not None
    assert rows[1].attributes["warnings"] == ["large"]


def test_gap_and_start_in_the_middle() -> None:
    rows = tells(1, 8, ROWS + b"x" * 5000)
    lost: list[Piece] = [*DIALOGUE[:3], ("s", rows[:90]), ("s", rows[90:], 0), ("s", tells(2, 8, PREPARED))]
    assert brief(decode(lost).rows[1:], "operation", "status", "outcome") == [
        ("QUERY", "OK", "truncated"),
        ("PREPARE", "OK", "complete"),
    ]
    middle: list[Piece] = [("c", STARTUP[9:] + query(7, "SELECT a FROM b")), ("s", ROWS + tells(7, 8, VOID))]
    assert brief(decode(middle, from_start=False).rows, "operation", "status") == [("QUERY", "OK")]


def test_passwords_are_not_kept() -> None:
    rows = decode([("c", STARTUP + query(1, "CREATE ROLE joe WITH PASSWORD = 's''ecret'")), ("s", READY)]).rows
    assert rows[-1].statement == "CREATE ROLE joe WITH PASSWORD = '…'"


@pytest.mark.parametrize(
    ("cql", "keyspace", "expected"),
    [
        ('INSERT INTO "My ""Ks".t (a) VALUES (1)', None, 'My "Ks.t'),
        ("SELECT * FROM system.local", "shop", "system.local"),
        ("BEGIN BATCH UPDATE Users SET a=1; APPLY BATCH", "shop", "shop.users"),
        ("CREATE TABLE IF NOT EXISTS a.b (c int PRIMARY KEY)", None, "a.b"),
        ("CREATE INDEX IF NOT EXISTS i ON a.b (c)", None, "a.b"),
        ("TRUNCATE TABLE a.b", None, "a.b"),
        ("DROP KEYSPACE IF EXISTS Shop", "x", "shop"),
        ("LIST ROLES", "x", None),
    ],
)
def test_tables_of_statements(cql: str, keyspace: str | None, expected: str | None) -> None:
    assert table_of(cql, keyspace) == expected
    assert used_keyspace(cql) is None


def test_length_prefixed_noise_on_port_9042_is_not_cassandra() -> None:
    noise = pack(">BBhBI", 4, 0, 1, 7, 8) + b"\xff" * 8
    assert decode([("c", noise * 3), ("s", noise)], server_port=9042).protocol != "cassandra"
