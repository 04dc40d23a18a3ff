"""NATS: dialogues of the client protocol reference."""

from __future__ import annotations

import pytest

from tests.unit.analyze.protocols.wire import Piece, brief, decode

INFO = b'INFO {"server_id":"N1","version":"2.10.7","headers":true,"max_payload":1048576}\r\n'
CONNECT = b'CONNECT {"verbose":false,"name":"app","lang":"go","version":"1.25.0","user":"u","pass":"secret"}\r\n'
LOUD = CONNECT.replace(b"false", b"true")
HEADERS = b"NATS/1.0\r\nid: 7\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n"
LOGIN: list[Piece] = [("s", INFO), ("c", CONNECT + b"PING\r\n"), ("s", b"PONG\r\n")]


def hpub(subject: str, body: bytes) -> bytes:
    return f"HPUB {subject} {len(HEADERS)} {len(HEADERS) + len(body)}\r\n".encode() + HEADERS + body + b"\r\n"


def test_publication_and_delivery() -> None:
    pieces = [
        *LOGIN,
        ("c", b"SUB orders.* workers 9\r\n" + hpub("orders.new", b"PING\r\n")),
        ("s", b"MSG orders.new 9 _INBOX.1 5\r\nhello\r\n"),
        ("c", b"UNSUB 9 1\r\n"),
    ]
    decoded = decode(pieces)
    assert (decoded.protocol, decoded.unread_bytes) == ("nats", 0)
    assert brief(decoded.rows, "operation", "resource", "status", "outcome") == [
        ("CONNECT", None, None, "one_way"),
        ("PING", None, "OK", "complete"),
        ("SUB", "orders.*", None, "one_way"),
        ("HPUB", "orders.new", None, "one_way"),
        ("MSG", "orders.new", None, "one_way"),
        ("UNSUB", "orders.*", None, "one_way"),
    ]
    assert decoded.rows[3].trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert (decoded.rows[0].attributes or {})["server_version"] == "2.10.7"
    assert "secret" not in repr(decoded.rows)


def test_verbose_clients_get_an_answer_to_each_command() -> None:
    pieces: list[Piece] = [("s", INFO), ("c", LOUD), ("s", b"+OK\r\n"), ("c", b"SUB a 1\r\nPUB b 0\r\n\r\n")]
    decoded = decode([*pieces, ("s", b"-ERR 'Invalid Subject'\r\n+OK\r\n")])
    assert brief(decoded.rows, "operation", "status", "is_error", "outcome") == [
        ("CONNECT", "OK", False, "complete"),
        ("SUB", "Invalid Subject", True, "complete"),
        ("PUB", "OK", False, "complete"),
    ]


@pytest.mark.parametrize(
    ("text", "operation"),
    [('Permissions Violation for Publish to "a"', "PUB"), ('Permissions Violation for Subscription to "s"', "SUB")],
)
def test_error_goes_to_the_command_it_names(text: str, operation: str) -> None:
    pieces = [*LOGIN, ("c", b"SUB s 1\r\nPUB a 1\r\nx\r\nPUB z 1\r\ny\r\n"), ("s", f"-ERR '{text}'\r\n".encode())]
    failed = [row for row in decode(pieces).rows if row.is_error]
    assert [(row.operation, row.status, row.inferred) for row in failed] == [(operation, text, "status")]


def test_refused_login() -> None:
    rows = decode([("s", INFO), ("c", CONNECT), ("s", b"-ERR 'Authorization Violation'\r\n")]).rows
    assert brief(rows, "operation", "status", "error_kind") == [("CONNECT", "Authorization Violation", "client")]


def test_no_responders_is_an_error_of_the_reply() -> None:
    reply = b"HMSG _INBOX.1 2 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    row = decode([*LOGIN, ("s", reply)]).rows[-1]
    assert (row.operation, row.status, row.error_kind) == ("HMSG", "503", "server")


def test_payload_cut_and_gap() -> None:
    pieces = [
        *LOGIN,
        ("c", b"PUB big 9000\r\n" + b"x" * 9000 + b"\r\n", 40),
        ("c", b"PUB lost 3\r\nabc\r\n", 0),
        ("c", b"PUB next 3\r\nabc\r\nPING\r\n"),
        ("s", b"PONG\r\n"),
    ]
    assert brief(decode(pieces).rows[2:], "operation", "resource", "outcome") == [
        ("PUB", "big", "one_way"),
        ("PUB", "next", "one_way"),
        ("PING", None, "complete"),
    ]


def test_from_the_middle() -> None:
    pieces: list[Piece] = [
        ("c", b"ayload\r\nPUB a.b 3\r\nabc\r\nPUB a.c 3\r\nabc\r\n"),
        ("s", b"z\r\nMSG x 1 2\r\nhi\r\nMSG x 1 2\r\nho\r\n"),
    ]
    decoded = decode(pieces, from_start=False)
    assert decoded.protocol == "nats"
    assert brief(decoded.rows, "operation", "resource") == [
        ("PUB", "a.b"),
        ("PUB", "a.c"),
        ("MSG", "x"),
        ("MSG", "x"),
    ]


def test_tls_after_info_is_not_nats() -> None:
    wants = INFO.replace(b'"headers"', b'"tls_required":true,"headers"')
    hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
    assert [row.operation for row in decode([("s", wants), ("c", hello)]).rows if row.protocol == "nats"] == []


def test_words_alone_are_not_nats() -> None:
    assert decode([("c", b"PING\r\n"), ("s", b"+PONG\r\n")]).protocol != "nats"
    assert decode([("c", b"PING\r\n"), ("s", b"+OK\r\n")]).protocol != "nats"
    assert decode([("c", b"SUB me 1\r\n"), ("s", b"220 ftp ready\r\n")]).protocol != "nats"
