"""Dubbo: calls by id, Hessian and JSON bodies, heartbeats, exceptions."""

from __future__ import annotations

import datetime
from struct import pack
from typing import Any

import pytest

from kubetape.analyze.protocols.dubbo.hessian import Hessian, HessianError, count_arguments
from tests.unit.analyze.protocols.wire import Piece, brief, decode

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def text(value: str) -> bytes:
    return (bytes((len(value),)) if len(value) < 32 else pack(">BH", 0x53, len(value))) + value.encode()


def mapping(**values: str) -> bytes:
    return b"H" + b"".join(text(k) + text(v) for k, v in values.items()) + b"Z"


def message(flags: int, status: int, call_id: int, body: bytes) -> bytes:
    return pack(">2sBBqI", b"\xda\xbb", flags, status, call_id, len(body)) + body


def call(
    call_id: int, method: str, version: str = "0.0.0", arguments: bytes = b"", types: str = "", **more: str
) -> bytes:
    body = text("2.0.2") + text("shop.api.Carts") + text(version) + text(method) + text(types) + arguments
    return message(0xC2, 0, call_id, body + mapping(path="shop.api.Carts", **more))


def answer(call_id: int, body: bytes = b"\x94" + b"\x91" + b"HZ", status: int = 20) -> bytes:
    return message(2, status, call_id, body)


# An object of class Item {name, next} whose next refers to itself, a fixed list of ints, a date.
ARGUMENTS = b"C" + text("shop.Item") + b"\x92" + text("name") + text("next") + b"\x60" + text("ä€") + b"Q\x90"
ARGUMENTS += b"\x7b\x90\xc8\x30\xd4\x00\x00" + b"J" + bytes(8)
TYPES = "Lshop/Item;[IJ"
THROWN = b"\x93C" + text("shop.NoStock") + b"\x91" + text("detailMessage") + b"\x60" + text("sold out") + b"HZ"
HEARTBEAT, BEAT_BACK = message(0xE2, 0, 9, b"N"), message(0x22, 20, 9, b"N")
DIALOGUE: list[Piece] = [
    ("c", call(1, "add", "1.2.0", ARGUMENTS, TYPES, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01", timeout="500")),
    ("c", call(2, "list")),
    ("s", answer(2)),
    ("s", answer(1, THROWN)),
    ("c", HEARTBEAT),
    ("s", BEAT_BACK),
]


def test_calls_answered_out_of_order() -> None:
    decoded = decode(DIALOGUE)
    assert decoded.protocol == "dubbo"
    assert brief(decoded.rows, "operation", "resource", "status", "is_error", "error_message", "trace_id") == [
        ("add", "shop.api.Carts:1.2.0", "20", True, "sold out", TRACE),
        ("list", "shop.api.Carts", "20", False, None, None),
        ("heartbeat", None, "20", False, None, None),
    ]
    thrown = next(row for row in decoded.rows if row.operation == "add")
    assert thrown.attributes == {
        "serialisation": "hessian2",
        "dubbo_version": "2.0.2",
        "types": TYPES,
        "timeout_ms": "500",
        "exception": "shop.NoStock",
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [(30, "timeout"), (31, "timeout"), (40, "client"), (60, "client"), (70, "server"), (100, "server")],
)
def test_errors_of_the_framework(status: int, kind: str) -> None:
    rows = decode([("c", call(1, "add")), ("s", answer(1, text("went wrong"), status))]).rows
    assert brief(rows, "status", "is_error", "error_kind", "error_message") == [(str(status), True, kind, "went wrong")]


def test_json_lines() -> None:
    body = b'"2.0.2"\n"shop.api.Carts"\n"1.0"\n"add"\n"I"\n5\n{"path":"x","sw8":"","traceId":"abc","spanId":"0.1"}\n'
    thrown = b'0\n{"@type":"shop.NoStock","message":"sold out"}\n'
    rows = decode([("c", message(0xC6, 0, 1, body)), ("s", message(6, 20, 1, thrown))]).rows
    assert brief(rows, "operation", "resource", "status", "error_message", "trace_id", "span_id") == [
        ("add", "shop.api.Carts:1.0", "20", "sold out", "abc", "0.1")
    ]


def test_other_serialisations_show_the_interface_only() -> None:
    body = b"\x01\x852.0.2\x8fshop.api.deep.Carts\x81x"
    rows = decode([("c", message(0xC8, 0, 1, body)), ("s", message(8, 20, 1, b"\x01\x02"))]).rows
    assert brief(rows, "operation", "resource", "inferred", "status") == [
        (None, "shop.api.deep.Carts", "resource", "20")
    ]


def test_one_way_and_calls_of_the_server() -> None:
    one_way = message(0x82, 0, 5, call(5, "log")[16:])
    pieces: list[Piece] = [
        ("c", one_way + call(6, "add")),
        ("s", message(0xE2, 0, 1, b"N") + answer(6)),
        ("c", BEAT_BACK),
    ]
    pieces[2] = ("c", message(0x22, 20, 1, b"N"))
    rows = decode(pieces).rows
    assert brief(rows, "operation", "status", "outcome") == [
        ("log", None, "one_way"),
        ("add", "20", "complete"),
        ("heartbeat", "20", "complete"),
    ]
    assert rows[-1].attributes == {"serialisation": "hessian2", "sent_by": "server"}


def test_gap_cut_and_start_in_the_middle() -> None:
    big = call(1, "upload", arguments=text("x" * 3000), types="Ljava/lang/String;")
    cut: list[Piece] = [("c", big, 100), ("c", call(2, "list")), ("s", answer(1)), ("s", answer(2))]
    rows = decode(cut).rows
    assert brief(rows, "operation", "resource", "status") == [
        ("upload", "shop.api.Carts", "20"),
        ("list", "shop.api.Carts", "20"),
    ]
    middle: list[Piece] = [("c", call(1, "add")[9:] + call(2, "list")), ("s", answer(1)[3:] + answer(2) + answer(7))]
    assert brief(decode(middle, from_start=False).rows, "operation", "status", "outcome") == [
        ("list", "20", "complete"),
        (None, "20", "no_request"),
    ]


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (b"\x00", ""),
        (b"R\x00\x02ab\x01c", "abc"),
        (b"\x31\x00" + b"x" * 256, "x" * 256),
        (b"\x02\xed\xa0\xbd\xed\xb8\x80", "\U0001f600"),
        (b"\x23abc", b"abc"),
        (b"A\x00\x01aB\x00\x01b", b"ab"),
        (b"\x80", -16),
        (b"\xbf", 47),
        (b"\xc0\x00", -2048),
        (b"\xd7\xff\xff", 262143),
        (b"I\xff\xff\xff\xff", -1),
        (b"\xd8", -8),
        (b"\xf0\x00", -2048),
        (b"\x3f\xff\xff", 262143),
        (b"Y\x00\x00\x00\x05", 5),
        (b"L" + b"\xff" * 8, -1),
        (b"K\x00\x00\x00\x01", 60000),
        (b"\x5b", 0.0),
        (b"\x5d\xff", -1.0),
        (b"\x5e\x00\x05", 5.0),
        (b"\x5f\x00\x00\x2f\xda", 12.25),
        (b"D" + pack(">d", 1.5), 1.5),
        (b"N", None),
        (b"T", True),
        (b"W\x91\x92Z", [1, 2]),
        (b"V\x01a\x92\x91\x92", [1, 2]),
        (b"M\x01t\x01a\x91Z", {"a": 1}),
    ],
)
def test_hessian_values(encoded: bytes, expected: Any) -> None:
    reader = Hessian(encoded, 0, len(encoded))
    assert reader.value() == expected
    assert reader.place == len(encoded)


def test_hessian_ends_where_bytes_do_not_fit() -> None:
    for damaged in (b"", b"\x05ab", b"H\x01a", b"\x60", b"X\xbf", b"\x57" * 500, b"G", b"V\x01aI\x7f\xff\xff\xff"):
        with pytest.raises(HessianError):
            Hessian(damaged, 0, len(damaged)).value()


def test_type_descriptors() -> None:
    assert [count_arguments(d) for d in ("", "I", "[[JZ", "Ljava/lang/String;[Lx;D", "Lbroken")] == [0, 1, 2, 3, 0]


def test_the_magic_alone_on_port_20880_is_not_dubbo() -> None:
    stamp = datetime.datetime(2024, 1, 1).isoformat().encode()
    noise = b"\xda\xbb" + stamp * 3
    assert decode([("c", noise), ("s", noise)], server_port=20880).protocol != "dubbo"
