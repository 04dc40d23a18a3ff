"""Pulsar: frames of the binary protocol."""

from __future__ import annotations

import random
from struct import pack

import pytest

from kubetape.analyze.protocols.common.protobuf import read_fields
from tests.unit.analyze.protocols.wire import Piece, brief, decode

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def fields(values: dict[int, int | str | bytes]) -> bytes:
    out = b""
    for number, value in values.items():
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(raw)) + raw
    return out


def frame(kind: int, values: dict[int, int | str | bytes], message: bytes = b"") -> bytes:
    inner = fields(values)
    command = b"\x08" + bytes([kind]) + varint(kind << 3 | 2) + varint(len(inner)) + inner
    return pack(">II", 4 + len(command) + len(message), len(command)) + command + message


def message(properties: bytes = b"", payload: bytes = b"hello", batch: int = 0) -> bytes:
    metadata = fields({1: "name", 2: 0, 3: 1}) + (fields({4: properties}) if properties and not batch else b"")
    if batch:
        metadata += fields({11: batch})
        single = fields({1: properties, 3: len(payload)})
        payload = pack(">I", len(single)) + single + payload
    return b"\x0e\x01" + bytes(4) + pack(">I", len(metadata)) + metadata + payload


TRACE = fields({1: "traceparent", 2: TRACEPARENT})
LOGIN: list[Piece] = [("c", frame(2, {1: "client-1", 4: 19})), ("s", frame(3, {1: "server-3", 2: 19}))]
PRODUCER: list[Piece] = [("c", frame(5, {1: "persistent://t/n/orders", 2: 7, 3: 1})), ("s", frame(17, {1: 1, 2: "p"}))]


@pytest.mark.parametrize("batch", [0, 5])
def test_messages_are_paired_by_producer_and_sequence(batch: int) -> None:
    sends = frame(6, {1: 7, 2: 0}, message(TRACE, batch=batch)) + frame(6, {1: 7, 2: 1}, message())
    failed = frame(8, {1: 7, 2: 1, 3: 2, 4: "disk"})
    decoded = decode([*LOGIN, *PRODUCER, ("c", sends), ("s", failed + frame(7, {1: 7, 2: 0}))])
    assert decoded.protocol == "pulsar"
    assert brief(decoded.rows, "operation", "resource", "status", "error_kind", "trace_id") == [
        ("CONNECT", None, "OK", None, None),
        ("PRODUCER", "persistent://t/n/orders", "OK", None, None),
        ("SEND", "persistent://t/n/orders", "OK", None, "0af7651916cd43dd8448eb211c80319c"),
        ("SEND", "persistent://t/n/orders", "PersistenceError", "server", None),
    ]


def test_consumer_gets_acknowledges_and_is_refused() -> None:
    pieces = [
        *LOGIN,
        ("c", frame(4, {1: "orders", 2: "sub", 3: 0, 4: 3, 5: 9}) + frame(11, {1: 3, 2: 1000})),
        ("s", frame(13, {1: 9}) + frame(9, {1: 3, 2: b"\x08\x01"}, message(TRACE))),
        ("c", frame(10, {1: 3, 2: 0}) + frame(23, {1: "secret", 2: 10})),
        ("s", frame(24, {3: 2, 4: 10, 6: 4, 7: "no rights"})),
        ("s", frame(18, {})),
        ("c", frame(19, {})),
    ]
    assert brief(decode(pieces).rows[1:], "operation", "resource", "status", "error_kind", "outcome") == [
        ("SUBSCRIBE", "orders", "OK", None, "complete"),
        ("FLOW", "orders", None, None, "one_way"),
        ("MESSAGE", "orders", None, None, "one_way"),
        ("ACK", "orders", None, None, "one_way"),
        ("LOOKUP", "secret", "AuthorizationError", "client", "complete"),
        ("PING", None, "OK", None, "complete"),
    ]


def test_cut_payload_gap_and_middle() -> None:
    big = frame(6, {1: 7, 2: 0}, message(payload=b"x" * 9000))
    pieces: list[Piece] = [
        ("c", big[200:]),
        ("c", big, 60),
        ("c", frame(6, {1: 7, 2: 1}, message()), 0),
        ("c", frame(6, {1: 7, 2: 2}, message())),
        ("s", frame(7, {1: 7, 2: 0}) + frame(7, {1: 7, 2: 1}) + frame(7, {1: 7, 2: 2})),
    ]
    decoded = decode(pieces, from_start=False)
    assert decoded.protocol == "pulsar"
    assert brief(decoded.rows, "operation", "outcome") == [
        ("SEND", "complete"),
        ("SEND", "complete"),
        ("SEND", "no_request"),
    ]


def test_authentication_data_is_not_kept() -> None:
    login = frame(2, {1: "client-1", 3: b"secret-token", 4: 19, 5: "token"})
    assert "secret" not in repr(decode([("c", login), LOGIN[1]]).rows)


def test_sizes_alone_are_not_pulsar() -> None:
    rng = random.Random(7)
    noise = b"".join(pack(">II", 60, 30) + b"\x08\x06" + rng.randbytes(54) for _ in range(30))
    assert decode([("c", noise), ("s", noise)]).protocol != "pulsar"
    assert read_fields(b"\x07\x00", 0, 2) is None
