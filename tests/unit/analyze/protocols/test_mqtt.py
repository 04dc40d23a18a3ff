"""MQTT: packets written by the specifications' layouts."""

from __future__ import annotations

import random

import pytest

from tests.unit.analyze.protocols.wire import Piece, brief, decode

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def text(value: str) -> bytes:
    return len(value).to_bytes(2, "big") + value.encode()


def packet(first: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([first]) + length + bytes([size]) + body


def connect(version: int = 4) -> bytes:
    name = text("MQIsdp") if version == 3 else text("MQTT")
    properties = b"\0" if version == 5 else b""
    return packet(0x10, name + bytes([version, 0xC2]) + b"\0\x3c" + properties + text("me") + text("u") + text("pass"))


def publish(topic: str, qos: int = 0, number: int = 1, body: bytes = b"hello", properties: bytes = b"") -> bytes:
    return packet(0x30 | qos << 1, text(topic) + (number.to_bytes(2, "big") if qos else b"") + properties + body)


def ack(first: int, number: int, code: bytes = b"") -> bytes:
    return packet(first, number.to_bytes(2, "big") + code)


CONNACK = packet(0x20, b"\0\0")
PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x62, 0x70


@pytest.mark.parametrize(("version", "code", "kind"), [(3, 5, "client"), (4, 3, "server"), (5, 0x87, "client")])
def test_login_and_its_refusal(version: int, code: int, kind: str) -> None:
    refused = packet(0x20, bytes([0, code]) + (b"\0" if version == 5 else b""))
    decoded = decode([("c", connect(version)), ("s", refused)])
    assert decoded.protocol == "mqtt"
    assert brief(decoded.rows, "operation", "status", "error_kind", "outcome") == [
        ("CONNECT", str(code), kind, "complete")
    ]
    assert "pass" not in repr(decoded.rows)


def test_each_quality_of_service_has_its_chain() -> None:
    pieces: list[Piece] = [
        ("c", connect()),
        ("s", CONNACK),
        ("c", publish("a", 0) + publish("b", 1, 1) + publish("c", 2, 2)),
        ("s", ack(PUBREC, 2) + ack(PUBACK, 1)),
        ("c", ack(PUBREL, 2)),
        ("s", publish("d", 1, 1) + ack(PUBCOMP, 2)),
        ("c", ack(PUBACK, 1)),
    ]
    rows = decode(pieces).rows
    assert brief(rows, "operation", "resource", "status", "outcome") == [
        ("CONNECT", None, "OK", "complete"),
        ("PUBLISH", "a", None, "one_way"),
        ("PUBLISH", "b", "OK", "complete"),
        ("PUBLISH", "c", "OK", "complete"),
        ("PUBLISH", "d", "OK", "complete"),
    ]
    exactly_once = next(row for row in rows if row.resource == "c")
    assert exactly_once.response is not None
    assert exactly_once.response.size == 8  # PUBREC and PUBCOMP, not what came between


def test_subscriptions() -> None:
    asked = packet(0x82, b"\0\x05" + text("x/#") + b"\1" + text("y") + b"\2")
    pieces: list[Piece] = [("c", connect()), ("s", CONNACK), ("c", asked), ("s", ack(0x90, 5, b"\1\x80"))]
    rows = decode(pieces).rows[1:]
    assert brief(rows, "operation", "resource", "status", "error_kind") == [("SUBSCRIBE", "x/#", "128", "client")]
    assert (rows[0].attributes or {}) == {"filters": ["x/#", "y"], "granted": [1, 128]}


def test_alias_and_trace_of_version_5() -> None:
    properties = b"\x23\0\x07" + b"\x26" + text("traceparent") + text(TRACEPARENT)
    named = publish("metrics", properties=bytes([len(properties)]) + properties)
    alias = publish("", properties=b"\3\x23\0\x07")
    rows = decode([("c", connect(5)), ("s", packet(0x20, b"\0\0\0")), ("c", named + alias)]).rows[1:]
    assert brief(rows, "resource", "trace_id") == [
        ("metrics", "0af7651916cd43dd8448eb211c80319c"),
        ("metrics", None),
    ]


def test_server_disconnects_with_a_reason() -> None:
    rows = decode([("c", connect(5)), ("s", packet(0x20, b"\0\0\0")), ("s", packet(0xE0, b"\x8e"))]).rows
    assert brief(rows, "operation", "status", "error_message")[-1] == ("DISCONNECT", "142", "session taken over")


def test_big_payload_cut_and_gap() -> None:
    pieces: list[Piece] = [
        ("c", connect()),
        ("s", CONNACK),
        ("c", publish("big", 1, 1, b"x" * 70000), 100),
        ("s", ack(PUBACK, 1)),
        ("c", publish("lost", 1, 2), 0),
        ("c", publish("next", 1, 3) + publish("last", 1, 4)),
        ("s", ack(PUBACK, 2) + ack(PUBACK, 3) + ack(PUBACK, 4)),
    ]
    assert brief(decode(pieces).rows[1:], "resource", "outcome") == [
        ("big", "complete"),
        ("next", "complete"),
        ("last", "complete"),
        (None, "no_request"),
    ]


def test_from_the_middle() -> None:
    pieces: list[Piece] = [("c", publish("sensors/one", 1, 7)[5:] + publish("sensors/two", 1, 8))]
    pieces += [("s", ack(PUBACK, 7) + ack(PUBACK, 8)), ("c", b"\xc0\0"), ("s", b"\xd0\0")]
    decoded = decode([*pieces, ("c", publish("sensors/two", 1, 9)), ("s", ack(PUBACK, 9))], from_start=False)
    assert decoded.protocol == "mqtt"
    assert ("PUBLISH", "sensors/two", "complete") in brief(decoded.rows, "operation", "resource", "outcome")


def test_first_bytes_alone_are_not_mqtt() -> None:
    assert decode([("c", b"\x10\x0c\x00\x04MQTX\x04\x02\x00\x3c\x00\x00")]).protocol != "mqtt"
    rng = random.Random(3)
    for _ in range(200):
        client, server = rng.randbytes(80), rng.randbytes(80)
        assert decode([("c", client), ("s", server)], server_port=1883, from_start=False).protocol != "mqtt"
