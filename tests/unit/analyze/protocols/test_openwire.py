"""OpenWire: loose and tight encoding, responses by correlation id."""

from __future__ import annotations

from struct import pack

import pytest

from tests.unit.analyze.protocols.wire import Piece, brief, decode

CONNECTION_INFO, TEXT_MESSAGE, RESPONSE, EXCEPTION = 3, 28, 30, 31


def frame(body: bytes) -> bytes:
    return pack(">I", len(body)) + body


def hello(tight: bool) -> bytes:
    option = b"\x00\x14TightEncodingEnabled\x01" + bytes([tight])
    return frame(b"\x01ActiveMQ" + pack(">I", 12) + b"\x01" + pack(">I", len(option) + 4) + pack(">I", 1) + option)


def command(kind: int, number: int, required: bool, rest: bytes, tight: bool, answers: int | None = None) -> bytes:
    ids = pack(">I", number)
    correlation = b"" if answers is None else pack(">I", answers)
    if tight:
        return frame(bytes([kind, 1, required]) + ids + correlation + rest)
    return frame(bytes([kind]) + ids + bytes([required]) + correlation + rest)


def queue(name: bytes, tight: bool) -> bytes:
    mark = b"" if tight else b"\x01"
    return mark + b"\x64" + mark + pack(">H", len(name)) + name


@pytest.mark.parametrize("tight", [False, True])
def test_commands_are_paired_by_number(tight: bool) -> None:
    sent = [
        command(TEXT_MESSAGE, 5, True, queue(b"orders", tight), tight),
        command(TEXT_MESSAGE, 6, False, queue(b"logs", tight), tight),
        command(CONNECTION_INFO, 7, True, b"\x00" * 8, tight),
    ]
    error = b"\x01\x01\x00\x13java.lang.Security\x01\x00\x0enot authorized"
    answers = [
        command(EXCEPTION, 2, False, error, tight, answers=7),
        command(RESPONSE, 1, False, b"", tight, answers=5),
    ]
    pieces: list[Piece] = [("c", hello(tight)), ("s", hello(True)), ("c", b"".join(sent)), ("s", b"".join(answers))]
    decoded = decode(pieces)
    assert decoded.protocol == "openwire"
    assert brief(decoded.rows, "operation", "resource", "status", "outcome") == [
        ("WireFormatInfo", None, "OK", "complete"),
        ("ActiveMQTextMessage", "orders", "OK", "complete"),
        ("ActiveMQTextMessage", "logs", None, "one_way"),
        ("ConnectionInfo", None, "ExceptionResponse", "complete"),
    ]
    assert "not authorized" in str(next(r.error_message for r in decoded.rows if r.is_error))


def test_from_the_middle() -> None:
    sent = [command(TEXT_MESSAGE, n, True, queue(b"orders", False) + bytes(40), False) for n in range(9, 13)]
    answers = [command(RESPONSE, n, False, b"", False, answers=n) for n in range(9, 13)]
    sent[0] = sent[0][30:]
    pieces: list[Piece] = [piece for pair in zip(sent, answers, strict=True) for piece in zip("cs", pair, strict=True)]
    decoded = decode(pieces, from_start=False)
    assert decoded.protocol == "openwire"
    assert [r[0] for r in brief(decoded.rows, "outcome")].count("complete") == 3
