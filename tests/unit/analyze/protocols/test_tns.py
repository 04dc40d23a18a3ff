"""Oracle TNS: connect, calls with their statement, errors."""

from __future__ import annotations

from struct import pack

from tests.unit.analyze.protocols.wire import Piece, brief, decode

DESCRIPTOR = b"(DESCRIPTION=(CONNECT_DATA=(SERVICE_NAME=shop)(CID=(PROGRAM=app)))(ADDRESS=(PROTOCOL=tcp)))"


def packet(kind: int, body: bytes) -> bytes:
    return pack(">HHBBH", 8 + len(body), 0, kind, 0, 0) + body


CONNECT = packet(1, pack(">HH", 315, 300) + bytes(46) + DESCRIPTOR)
ACCEPT = packet(2, pack(">HH", 315, 0) + bytes(12))


def call(statement: bytes) -> bytes:
    return packet(6, b"\x00\x00\x03\x5e\x05" + bytes(30) + bytes([len(statement)]) + statement + b"\x01\x01" + bytes(8))


def test_statements_and_their_errors() -> None:
    pieces: list[Piece] = [("c", CONNECT), ("s", ACCEPT)]
    pieces += [("c", call(b"SELECT name FROM product WHERE id = 7")), ("s", packet(6, b"\x00\x00\x10" + bytes(40)))]
    pieces += [("c", call(b"DELETE FROM nowhere"))]
    pieces += [("s", packet(6, b"\x00\x00\x04" + bytes(20) + b"\x29ORA-00942: table or view does not exist\n"))]
    decoded = decode(pieces)
    assert decoded.protocol == "tns"
    assert brief(decoded.rows, "operation", "resource", "statement", "status") == [
        ("Connect", "shop", DESCRIPTOR.decode(), "OK"),
        ("OALL8", "select name from product where id = ?", "SELECT name FROM product WHERE id = 7", "OK"),
        ("OALL8", "delete from nowhere", "DELETE FROM nowhere", "942"),
    ]
    assert [r.error_message for r in decoded.rows][-1] == "ORA-00942: table or view does not exist"


def test_a_refused_connect() -> None:
    refusal = packet(4, b"\x22\x00" + pack(">H", 40) + b"(DESCRIPTION=(ERR=12514)(VSNNUM=0)(CODE=12514))")
    decoded = decode([("c", CONNECT), ("s", refusal)])
    assert brief(decoded.rows, "operation", "resource", "status", "is_error") == [("Connect", "shop", "12514", True)]


def test_the_end_of_a_fetch_is_no_error() -> None:
    end = packet(6, b"\x00\x00\x04" + bytes(20) + b"\x19ORA-01403: no data found\n")
    decoded = decode([("c", CONNECT), ("s", ACCEPT), ("c", call(b"SELECT 1 FROM dual")), ("s", end)])
    assert [r.status for r in decoded.rows] == ["OK", "OK"]
