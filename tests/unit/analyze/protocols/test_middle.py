"""Recordings that begin in the middle: what the last bytes of a connection still tell, and what lost ones leave."""

from __future__ import annotations

import pytest

from tests.unit.analyze.protocols import test_mysql, test_postgresql, test_tls
from tests.unit.analyze.protocols.wire import Piece, brief, decode

REFUSED: Piece = ("s", b"N")
STATISTICS: list[Piece] = [
    ("c", test_mysql.command(9)),
    ("s", test_mysql.packet(1, b"Uptime: 25  Threads: 1  Questions: 5")),
    ("c", test_mysql.command(1)),
]


@pytest.mark.parametrize(
    ("port", "pieces", "expected"),
    [
        (3306, STATISTICS, [("COM_STATISTICS", "OK"), ("COM_QUIT", None)]),
        (6379, [("c", b"PING\r\nGET k\r\n"), ("s", b"+PONG\r\n$1\r\n1\r\n")], [("PING", "OK"), ("GET", "OK")]),
        (4222, [("s", b"PING\r\n"), ("c", b"PONG\r\n")], [("PING", "OK")]),
        (1883, [("c", b"\xe0\x00")], [("DISCONNECT", None)]),
        (11211, [("c", b"quit\r\n")], [("quit", None)]),
        (8080, [("c", b"\x88\x80\1\2\3\4"), ("s", b"\x88\x00")], [("close", None), ("close", None)]),
        (5432, [REFUSED, *test_postgresql.LOGIN], [("Startup", "OK")]),
    ],
)
def test_the_end_of_a_connection(port: int, pieces: list[Piece], expected: list[tuple[str, str | None]]) -> None:
    decoded = decode(pieces, from_start=False, server_port=port)
    assert brief(decoded.rows, "operation", "status") == expected


@pytest.mark.parametrize("piece", [b"\xe0\x00", b"quit\r\n", b"\x01\x00\x00\x00\x01"])
def test_so_few_bytes_are_nothing_on_another_port(piece: bytes) -> None:
    assert decode([("c", piece)], from_start=False, server_port=4444).protocol is None


def test_a_login_that_was_lost() -> None:
    pieces = [test_mysql.HELLO[0], test_mysql.HELLO[2], ("c", test_mysql.command(3, b"SELECT 1"))]
    decoded = decode([*pieces, ("s", test_mysql.result(b"1"))])
    assert brief(decoded.rows, "operation", "status")[-1] == ("COM_QUERY", "OK")


def test_a_refusal_of_encryption_that_was_lost() -> None:
    asked = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
    decoded = decode([("c", asked), *test_postgresql.LOGIN])
    assert brief(decoded.rows, "operation", "outcome") == [("SSLRequest", "no_response"), ("Startup", "complete")]


def test_tls_behind_a_question_for_it() -> None:
    """The client is who says hello, whoever was seen first."""
    granted = bytes.fromhex("300c02010178070a010004000400")  # LDAP's answer to StartTLS
    pieces = [("s", granted), *test_tls.handshake(test_tls.V12).pieces]
    decoded = decode(pieces, from_start=False, known=False, server_port=389)
    assert brief(decoded.rows, "operation", "resource", "status") == [("handshake", "api.shop.test", "OK")]
