"""ZMTP 3: greetings, commands, messages of several parts."""

from __future__ import annotations

from tests.unit.analyze.protocols.wire import Piece, brief, decode

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + bytes(32)


def command(name: bytes, body: bytes = b"") -> bytes:
    body = bytes([len(name)]) + name + body
    return bytes([4, len(body)]) + body


def ready(socket_type: bytes) -> bytes:
    return command(b"READY", b"\x0bSocket-Type" + len(socket_type).to_bytes(4, "big") + socket_type)


def message(*parts: bytes) -> bytes:
    return b"".join(bytes([p is not parts[-1], len(p)]) + p for p in parts)


def hello(client: bytes, server: bytes) -> list[Piece]:
    return [("c", GREETING), ("s", GREETING), ("c", ready(client)), ("s", ready(server))]


def test_a_request_socket_gets_its_replies() -> None:
    one, two = message(b"", b"first"), message(b"", b"second")
    decoded = decode([*hello(b"REQ", b"REP"), ("c", one), ("s", one), ("c", two)])
    assert decoded.protocol == "zmtp"
    assert brief(decoded.rows, "operation", "resource", "status", "outcome") == [
        ("READY", "REQ", "OK", "complete"),
        ("message", None, "OK", "complete"),
        ("message", None, None, "no_response"),
    ]


def test_published_messages_have_their_topic() -> None:
    subscribed = command(b"SUBSCRIBE", b"sports.") + message(b"\x01news")
    published = message(b"sports.tennis", b"6:4")
    decoded = decode([*hello(b"SUB", b"PUB"), ("c", subscribed), ("s", published)])
    assert brief(decoded.rows, "operation", "resource", "outcome")[1:] == [
        ("SUBSCRIBE", "sports.", "one_way"),
        ("SUBSCRIBE", "news", "one_way"),
        ("message", "sports.tennis", "one_way"),
    ]


def test_a_refused_handshake() -> None:
    refusal = command(b"ERROR", b"\x11Invalid client id")
    decoded = decode([("c", GREETING), ("s", GREETING), ("c", command(b"HELLO", b"\x01u\x01p")), ("s", refusal)])
    (row,) = decoded.rows
    assert (row.operation, row.status, row.error_kind, row.error_message) == (
        "HELLO", "ERROR", "client", "Invalid client id"
    )  # fmt: skip


def test_old_versions_are_not_guessed() -> None:
    assert decode([("c", b"\x01\x00\x06\x00hello"), ("s", b"\x01\x00\x06\x00world")]).protocol is None
