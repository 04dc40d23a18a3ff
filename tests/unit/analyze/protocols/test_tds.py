"""TDS: batches, calls, logins, errors, encryption."""

from __future__ import annotations

from struct import pack

from tests.unit.analyze.protocols.wire import Piece, brief, decode

HEADERS = pack("<IIH", 22, 18, 2) + bytes(12)


def packet(kind: int, body: bytes, status: int = 1) -> bytes:
    return pack(">BBHHBB", kind, status, 8 + len(body), 0, 1, 0) + body


def batch(text: str) -> bytes:
    return packet(1, HEADERS + text.encode("utf-16-le"))


def done(rows: int) -> bytes:
    return b"\xfd" + pack("<HHQ", 0x10, 0xC1, rows)


def error(number: int, level: int, text: str) -> bytes:
    body = pack("<iBBH", number, 1, level, len(text)) + text.encode("utf-16-le") + b"\x00\x00" + pack("<I", 1)
    return b"\xaa" + pack("<H", len(body)) + body + b"\xfd" + pack("<HHQ", 2, 0, 0)


def option(encryption: int) -> bytes:
    return b"\x00" + pack(">HH", 11, 6) + b"\x01" + pack(">HH", 17, 1) + b"\xff" + bytes(6) + bytes([encryption])


def login(user: str, database: str) -> bytes:
    texts = [user.encode("utf-16-le"), database.encode("utf-16-le")]
    head = bytearray(94)
    head[40:44] = pack("<HH", 94, len(user))
    head[68:72] = pack("<HH", 94 + len(texts[0]), len(database))
    whole = bytes(head) + b"".join(texts)
    return packet(16, pack("<I", len(whole)) + whole[4:])


HELLO: list[Piece] = [("c", packet(18, option(0))), ("s", packet(4, option(2)))]


def test_batches() -> None:
    pieces = [*HELLO, ("c", login("app", "shop")), ("s", packet(4, b"\xad" + bytes(20) + done(0)))]
    pieces += [("c", batch("SELECT name FROM product WHERE id = 7")), ("s", packet(4, b"\x81" + bytes(30) + done(1)))]
    pieces += [("c", batch("SELEC")), ("s", packet(4, error(102, 15, "Incorrect syntax near 'SELEC'.")))]
    decoded = decode(pieces)
    assert decoded.protocol == "tds"
    assert brief(decoded.rows, "operation", "resource", "status", "rows_sent", "error_kind") == [
        ("PreLogin", None, "OK", None, None),
        ("Login", "app@shop", "OK", None, None),
        ("SQLBatch", "select name from product where id = ?", "OK", 1, None),
        ("SQLBatch", "selec", "102", None, "client"),
    ]


def test_a_statement_executed_by_number_of_the_procedure() -> None:
    text = "UPDATE stock SET quantity = @q WHERE id = @id".encode("utf-16-le")
    parameter = b"\x00\x00\xe7" + pack("<H", 8000) + bytes(5) + pack("<H", len(text)) + text
    call = packet(3, HEADERS + pack("<HHH", 0xFFFF, 10, 0) + parameter)
    decoded = decode([*HELLO, ("c", call), ("s", packet(4, b"\xff" + pack("<HHQ", 0x11, 0xC5, 3)))])
    row = decoded.rows[-1]
    assert (row.operation, row.statement, row.attributes) == (
        "RPC", "UPDATE stock SET quantity = @q WHERE id = @id", {"procedure": "Sp_ExecuteSql"}
    )  # fmt: skip
    assert row.rows_affected == 3


def test_a_message_of_several_packets() -> None:
    whole = HEADERS + ("SELECT '" + "x" * 3000 + "'").encode("utf-16-le")
    parts = packet(1, whole[:4000], status=0) + packet(1, whole[4000:])
    rows = decode([*HELLO, ("c", parts), ("s", packet(4, done(1)))]).rows
    assert brief(rows, "operation", "resource")[-1] == ("SQLBatch", "select ?")


def test_encryption_is_said() -> None:
    hello: list[Piece] = [("c", packet(18, option(1))), ("s", packet(4, option(1)))]
    decoded = decode(
        [*hello, ("c", packet(18, b"\x16\x03\x01" + bytes(200))), ("s", packet(18, b"\x16\x03\x03" + bytes(90)))]
    )
    assert decoded.protocol == "tds"
    assert decoded.opaque_bytes > 200
