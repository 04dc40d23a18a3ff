"""MySQL: logins, results, errors, prepared statements, starts in the middle."""

from __future__ import annotations

from struct import pack

from tests.unit.analyze.protocols.wire import Piece, brief, decode

CAPABILITIES = 0x0008A68D  # protocol 4.1, secure connection, plugin auth, connect with a schema; no deprecated EOF


def packet(number: int, body: bytes) -> bytes:
    return pack("<I", len(body))[:3] + bytes([number]) + body


def lenenc(raw: bytes) -> bytes:
    return bytes([len(raw)]) + raw


def column(name: bytes) -> bytes:
    fixed = b"\x0c" + pack("<HIBHB", 33, 100, 3, 0, 0) + b"\x00\x00"
    return b"".join(map(lenenc, (b"def", b"shop", b"t", b"t", name, name))) + fixed


EOF = b"\xfe" + pack("<HH", 0, 2)
OK = b"\x00\x01\x05" + pack("<HH", 2, 0)
GREETING = packet(
    0,
    b"\x0a10.11.6-MariaDB\x00" + pack("<I", 42) + b"saltsalt\x00" + pack("<H", CAPABILITIES & 0xFFFF)
    + b"\x21" + pack("<HH", 2, CAPABILITIES >> 16) + b"\x15" + bytes(10) + b"saltsaltsalt\x00mysql_native_password\x00",
)  # fmt: skip
LOGIN = packet(
    1, pack("<IIB", CAPABILITIES, 1 << 24, 33) + bytes(23) + b"app\x00" + lenenc(b"x" * 20) + b"shop\x00"
    + b"mysql_native_password\x00",
)  # fmt: skip
HELLO: list[Piece] = [("s", GREETING), ("c", LOGIN), ("s", packet(2, OK))]


def command(code: int, body: bytes = b"") -> bytes:
    return packet(0, bytes([code]) + body)


def result(*rows: bytes) -> bytes:
    bodies = [b"\x01", column(b"id"), EOF, *map(lenenc, rows), EOF]
    return b"".join(packet(n, body) for n, body in enumerate(bodies, 1))


def test_queries_and_their_errors() -> None:
    missing = packet(1, b"\xff" + pack("<H", 1146) + b"#42S02Table 'shop.x' doesn't exist")
    pieces = [*HELLO, ("c", command(3, b"SELECT id FROM t WHERE id IN (1, 2)")), ("s", result(b"1", b"2"))]
    pieces += [("c", command(3, b"SELECT * FROM x")), ("s", missing), ("c", command(14)), ("s", packet(1, OK))]
    decoded = decode(pieces)
    assert decoded.protocol == "mysql"
    assert brief(decoded.rows, "operation", "resource", "status", "rows_sent", "error_kind") == [
        ("LOGIN", "app@shop", "OK", None, None),
        ("COM_QUERY", "select id from t where id in(?+)", "OK", 2, None),
        ("COM_QUERY", "select * from x", "1146", None, "client"),
        ("COM_PING", None, "OK", None, None),
    ]


PREPARE = command(22, b"SELECT id FROM t WHERE id = ?")
PREPARED = b"".join(
    packet(n, body)
    for n, body in enumerate([b"\x00" + pack("<IHHBH", 9, 1, 1, 0, 0), column(b"?"), EOF, column(b"id"), EOF], 1)
)
EXECUTE = command(23, pack("<IBI", 9, 0, 1) + b"\x00\x01" + b"\x08\x00" + pack("<q", 7))
EXECUTED = b"".join(
    packet(n, b) for n, b in enumerate([b"\x01", column(b"id"), EOF, b"\x00\x00" + pack("<i", 7), EOF], 1)
)


def test_executions_carry_the_text_that_was_prepared_and_their_values() -> None:
    decoded = decode([*HELLO, ("c", PREPARE), ("s", PREPARED), ("c", EXECUTE), ("s", EXECUTED)])
    assert brief(decoded.rows, "operation", "statement", "parameters", "rows_sent")[1:] == [
        ("COM_STMT_PREPARE", "SELECT id FROM t WHERE id = ?", None, None),
        ("COM_STMT_EXECUTE", "SELECT id FROM t WHERE id = ?", "[7]", 1),
    ]


def test_a_prepare_on_another_connection_names_executions_seen_from_the_middle() -> None:
    shared: dict[str, dict[object, object]] = {}
    decode([*HELLO, ("c", PREPARE), ("s", PREPARED), ("c", EXECUTE), ("s", EXECUTED)], shared=shared)
    middle: list[Piece] = [("c", EXECUTE), ("s", EXECUTED)] * 3
    rows = decode(middle, from_start=False, shared=shared).rows
    assert len(rows) == 3
    assert {r.statement for r in rows} == {"SELECT id FROM t WHERE id = ?"}
    assert all(r.inferred is not None and "statement" in r.inferred for r in rows)


def test_a_long_result_that_was_cut_keeps_the_rows_behind_it() -> None:
    big = result(*[b"x" * 200] * 50)
    pieces = [*HELLO, ("c", command(3, b"SELECT id FROM t")), ("s", big, 300), ("c", command(14)), ("s", packet(1, OK))]
    rows = decode(pieces).rows
    assert brief(rows, "operation", "status")[1:] == [("COM_QUERY", "OK"), ("COM_PING", "OK")]
    assert rows[1].response is not None
    assert rows[1].response.size == len(big)
