"""Thrift: encodings, transports, pairing where all calls have the same id."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from struct import pack

import pytest

from tests.unit.analyze.protocols.wire import Piece, brief, decode

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALL, REPLY, EXCEPTION, ONEWAY = 1, 2, 3, 4

# Structs in the binary encoding: {1: i32 5, 2: map<string, list<i64>>}, {0: i32 5}, {}, an application exception,
# and a declared one.
ARGUMENTS = b"\x08\x00\x01" + pack(">i", 5) + b"\x0d\x00\x02\x0b\x0f" + pack(">i", 1) + pack(">i", 1) + b"k"
ARGUMENTS += b"\x0a" + pack(">iqq", 2, 1, 2) + b"\x00"
RESULT = b"\x08\x00\x00" + pack(">i", 5) + b"\x00"
VOID = b"\x00"
FAULT = b"\x0b\x00\x01" + pack(">i", 3) + b"no!" + b"\x08\x00\x02" + pack(">i", 1) + b"\x00"
DECLARED = b"\x0c\x00\x01\x08\x00\x01" + pack(">i", 4) + b"\x0b\x00\x02" + pack(">i", 4) + b"zero" + b"\x00\x00"

# Made by thrift 0.22 (TCompactProtocol, TFramedTransport): a call of Svc:add with every kind of value.
COMPACT = bytes.fromhex(
    "00000068822107075376633a6164641117000000000000f83f0b500189016bf61400be9a0cfcb418bacf24f8e930b6843df49e49b2b955"
    "f0d361aeee6dec887aaaa38601e8bd9201a6d89e01e4f2aa01a28db701e0a7c3019ec2cf01dcdcdb019af7e7011c0a092101020000"
)
COMPACT_REPLY = bytes.fromhex("0000000c") + b"\x82\x41\x07\x03add" + b"\x05\x00\x0a\x00\x00"


def strict(kind: int, name: str, body: bytes = VOID, sequence: int = 0) -> bytes:
    return pack(">BBBBi", 0x80, 1, 0, kind, len(name)) + name.encode() + pack(">i", sequence) + body


def old(kind: int, name: str, body: bytes = VOID, sequence: int = 0) -> bytes:
    return pack(">i", len(name)) + name.encode() + pack(">Bi", kind, sequence) + body


def framed(message: bytes) -> bytes:
    return pack(">i", len(message)) + message


def with_header(message: bytes, packed: bool, **info: str) -> bytes:
    def text(value: str) -> bytes:
        return bytes((len(value),)) + value.encode()

    head = b"\x00" + (b"\x01\x01" if packed else b"\x00")
    head += b"\x01" + bytes((len(info),)) + b"".join(text(k) + text(v) for k, v in info.items())
    head += b"\x00" * (-len(head) % 4)
    body = zlib.compress(message) if packed else message
    return framed(b"\x0f\xff\x00\x00" + pack(">iH", 1, len(head) // 4) + head + body)


DIALOGUE: list[Piece] = [
    ("c", strict(CALL, "add", ARGUMENTS)),
    ("s", strict(REPLY, "add", RESULT)),
    ("c", strict(ONEWAY, "log", ARGUMENTS) + strict(CALL, "ping")),
    ("s", strict(REPLY, "ping")),
]


@pytest.mark.parametrize("encode", [strict, old])
@pytest.mark.parametrize("wrap", [bytes, framed])
def test_binary_encodings_bare_and_framed(encode: Callable[..., bytes], wrap: Callable[[bytes], bytes]) -> None:
    decoded = decode(
        [
            ("c", wrap(encode(CALL, "Cart:add", ARGUMENTS, 3))),
            ("c", wrap(encode(ONEWAY, "Cart:log", ARGUMENTS, 4))),
            ("s", wrap(encode(REPLY, "add", RESULT, 3))),
        ]
    )
    assert (decoded.protocol, decoded.unread_bytes) == ("thrift", 0)
    assert brief(decoded.rows, "operation", "resource", "status", "outcome", "stream_id") == [
        ("add", "Cart", "OK", "complete", 3),
        ("log", "Cart", None, "one_way", 4),
    ]


def test_compact_encoding() -> None:
    decoded = decode([("c", COMPACT), ("s", COMPACT_REPLY)])
    assert (decoded.protocol, decoded.unread_bytes) == ("thrift", 0)
    assert brief(decoded.rows, "operation", "resource", "status") == [("add", "Svc", "OK")]
    assert decoded.rows[0].attributes == {"encoding": "compact", "transport": "framed"}
    bare = decode([("c", COMPACT[4:]), ("s", COMPACT_REPLY[4:])])
    assert brief(bare.rows, "operation", "status") == [("add", "OK")]


@pytest.mark.parametrize("packed", [False, True])
def test_header_transport_carries_a_trace(packed: bool) -> None:
    asked = with_header(strict(CALL, "add", ARGUMENTS), packed, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    rows = decode([("c", asked), ("s", with_header(strict(REPLY, "add", RESULT), packed))]).rows
    assert brief(rows, "operation", "status", "trace_id", "span_id") == [("add", "OK", TRACE, "00f067aa0ba902b7")]


def test_exceptions() -> None:
    internal = FAULT.replace(pack(">i", 1) + b"\x00", pack(">i", 6) + b"\x00")
    for body, kind, expected in (
        (FAULT, EXCEPTION, ("EXCEPTION", True, "client", "no!")),
        (internal, EXCEPTION, ("EXCEPTION", True, "server", "no!")),
        (DECLARED, REPLY, ("OK", True, "server", "zero")),
    ):
        rows = decode([("c", strict(CALL, "add", ARGUMENTS)), ("s", strict(kind, "add", body))]).rows
        assert brief(rows, "status", "is_error", "error_kind", "error_message") == [expected]


def test_replies_out_of_order_and_calls_without_one() -> None:
    rows = decode(
        [
            ("c", strict(CALL, "a", sequence=1) + strict(CALL, "b", sequence=2) + strict(CALL, "zip")),
            ("s", strict(REPLY, "b", sequence=2) + strict(REPLY, "a", sequence=1)),
            ("c", strict(CALL, "ping")),
            ("s", strict(REPLY, "ping") + strict(REPLY, "late")),
        ]
    ).rows
    assert brief(rows, "operation", "status", "outcome") == [
        ("a", "OK", "complete"),
        ("b", "OK", "complete"),
        ("zip", None, "no_response"),
        ("ping", "OK", "complete"),
        ("late", "OK", "no_request"),
    ]


def test_a_lost_reply_does_not_shift_those_behind_it() -> None:
    pieces: list[Piece] = []
    for number in range(5):
        pieces += [
            ("c", strict(CALL, "add", ARGUMENTS)),
            ("s", strict(REPLY, "add", RESULT), 0) if number == 2 else ("s", strict(REPLY, "add", RESULT)),
        ]
    rows = decode(pieces).rows
    assert brief(rows, "outcome") == [("complete",), ("complete",), ("no_response",), ("complete",), ("complete",)]
    assert all(r.response.first_ns - r.request.first_ns == 1000 for r in rows if r.response and r.request)


def test_start_in_the_middle() -> None:
    for wrap in (bytes, framed):
        asked, told = wrap(strict(CALL, "add", ARGUMENTS)), wrap(strict(REPLY, "add", RESULT))
        pieces: list[Piece] = [("c", asked[13:] + asked), ("s", told[9:] + told)]
        assert brief(decode(pieces, from_start=False).rows, "operation", "status") == [("add", "OK")]


def test_a_cut_frame_keeps_the_stream_in_step() -> None:
    big = framed(strict(CALL, "add", b"\x0b\x00\x01" + pack(">i", 4000) + b"x" * 4000 + b"\x00"))
    pieces: list[Piece] = [("c", big, 60), ("c", framed(strict(CALL, "ping", sequence=1)))]
    pieces += [("s", framed(strict(REPLY, "add"))), ("s", framed(strict(REPLY, "ping", sequence=1)))]
    assert brief(decode(pieces).rows, "operation", "status") == [("add", "OK"), ("ping", "OK")]


def test_numbers_that_look_like_a_version_on_port_9090_are_not_thrift() -> None:
    noise = b"\x80\x01\x00\x01" + pack(">i", 4) + b"\xff\xfe\xfd\xfc" + bytes(40)
    assert decode([("c", noise), ("s", noise)], server_port=9090).protocol != "thrift"
