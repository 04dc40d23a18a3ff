"""PostgreSQL: simple and extended queries, pipelines with errors, COPY, refusals of encryption."""

from __future__ import annotations

from struct import pack

from tests.unit.analyze.protocols.wire import Piece, brief, decode


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + pack(">I", len(body) + 4) + body


def query(text: bytes) -> bytes:
    return message(b"Q", text + b"\x00")


def failure(state: bytes, text: bytes) -> bytes:
    return message(b"E", b"SERROR\x00C" + state + b"\x00M" + text + b"\x00\x00")


READY = message(b"Z", b"I")
COLUMN = message(b"T", pack(">H", 1) + b"id\x00" + pack(">IHIhih", 0, 0, 23, 4, -1, 0))
ROW = message(b"D", pack(">HI", 1, 1) + b"7")
USER = b"user\x00app\x00database\x00s\x00\x00"
STARTUP = pack(">II", 8 + len(USER), 196608) + USER
LOGIN: list[Piece] = [("c", STARTUP), ("s", message(b"R", pack(">I", 0)) + READY)]


def done(tag: bytes) -> bytes:
    return message(b"C", tag + b"\x00")


def test_simple_queries() -> None:
    pieces = [*LOGIN, ("c", query(b"SELECT id FROM t WHERE id = 7")), ("s", COLUMN + ROW + done(b"SELECT 1") + READY)]
    pieces += [("c", query(b"SELEC")), ("s", failure(b"42601", b"syntax error") + READY)]
    decoded = decode(pieces)
    assert decoded.protocol == "postgresql"
    assert brief(decoded.rows, "operation", "resource", "status", "rows_sent", "error_kind") == [
        ("Startup", "app@s", "OK", None, None),
        ("Query", "select id from t where id = ?", "OK", 1, None),
        ("Query", "selec", "42601", None, "client"),
    ]


def test_executions_carry_the_text_that_was_parsed_and_their_values() -> None:
    parse = message(b"P", b"s1\x00SELECT id FROM t WHERE id = $1\x00" + pack(">H", 0))
    bind = message(b"B", b"\x00s1\x00" + pack(">HHI", 0, 1, 1) + b"7" + pack(">H", 0))
    execute = message(b"E", b"\x00" + pack(">I", 0))
    sync = message(b"S")
    answer = message(b"2") + ROW + done(b"SELECT 1") + READY
    pieces = [*LOGIN, ("c", parse + bind + execute + sync), ("s", message(b"1") + answer)]
    pieces += [("c", bind + execute + sync), ("s", answer)]
    rows = decode(pieces).rows[1:]
    assert brief(rows, "operation", "statement", "status", "rows_sent") == [
        ("Execute", "SELECT id FROM t WHERE id = $1", "OK", 1),
        ("Execute", "SELECT id FROM t WHERE id = $1", "OK", 1),
    ]
    assert {r.parameters for r in rows} == {'["7"]'}


def test_behind_an_error_everything_up_to_sync_is_skipped() -> None:
    parse = message(b"P", b"\x00INSERT INTO t VALUES (1)\x00" + pack(">H", 0))
    step = parse + message(b"B", b"\x00\x00" + pack(">HHH", 0, 0, 0)) + message(b"E", b"\x00" + pack(">I", 0))
    pieces = [*LOGIN, ("c", step + step + message(b"S"))]
    pieces += [("s", message(b"1") + message(b"2") + failure(b"23505", b"duplicate key") + READY)]
    pieces += [("c", query(b"SELECT 1")), ("s", COLUMN + ROW + done(b"SELECT 1") + READY)]
    rows = decode(pieces).rows
    assert next(r.status for r in rows if r.operation == "Execute") == "23505"
    assert brief(rows, "operation", "status")[-1] == ("Query", "OK")


def test_copy_belongs_to_its_query() -> None:
    into = message(b"d", b"1\n") + message(b"d", b"2\n") + message(b"c")
    pieces = [*LOGIN, ("c", query(b"COPY t FROM STDIN")), ("s", message(b"G", pack(">BHH", 0, 1, 0)))]
    pieces += [("c", into), ("s", done(b"COPY 2") + READY)]
    row = decode(pieces).rows[-1]
    assert (row.operation, row.status, row.rows_affected) == ("Query", "OK", 2)
    assert row.attributes is not None
    assert row.attributes["copy_in_bytes"] == 4


def test_refused_encryption_and_a_cancellation() -> None:
    pieces: list[Piece] = [("c", pack(">II", 8, 80877103)), ("s", b"N"), *LOGIN]
    assert brief(decode(pieces).rows, "operation", "outcome")[0] == ("SSLRequest", "complete")
    cancel = decode([("c", pack(">IIII", 16, 80877102, 17, 99))], only="postgresql")
    assert brief(cancel.rows, "operation", "outcome") == [("CancelRequest", "one_way")]
