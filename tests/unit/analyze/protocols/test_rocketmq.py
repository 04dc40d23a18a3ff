"""RocketMQ remoting: commands in both serialisations."""

from __future__ import annotations

import json
import random
from struct import pack
from typing import Any

from tests.unit.analyze.protocols.wire import Piece, brief, decode

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def frame(kind: int, header: bytes, body: bytes = b"") -> bytes:
    return pack(">II", 4 + len(header) + len(body), kind << 24 | len(header)) + header + body


def command(code: int, opaque: int, flag: int = 0, body: bytes = b"", remark: str = "", **fields: str) -> bytes:
    header: dict[str, Any] = {"code": code, "extFields": fields, "flag": flag, "language": "JAVA", "opaque": opaque}
    header.update(serializeTypeCurrentRPC="JSON", version=401, **({"remark": remark} if remark else {}))
    return frame(0, json.dumps(header).encode(), body)


def binary(code: int, opaque: int, flag: int = 0, remark: str = "", **fields: str) -> bytes:
    pairs = b"".join(pack(">h", len(k)) + k.encode() + pack(">i", len(v)) + v.encode() for k, v in fields.items())
    head = pack(">hBhiii", code, 0, 401, opaque, flag, len(remark)) + remark.encode()
    return frame(1, head + pack(">i", len(pairs)) + pairs)


def message(topic: str, properties: str) -> bytes:
    """One stored message: fixed fields, body, topic, properties."""
    head = pack(">IiiiqqiqQqQiq", 0xDAA320A7, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0, 0, 0) + pack(">i", 5) + b"hello"
    rest = head + bytes([len(topic)]) + topic.encode() + pack(">h", len(properties)) + properties.encode()
    return pack(">i", len(rest) + 4) + rest


def test_send_in_short_fields_with_a_trace() -> None:
    properties = f"traceparent\x01{TRACEPARENT}\x02UNIQ_KEY\x017F\x02"
    pieces: list[Piece] = [
        ("c", command(310, 5, body=b"hi", a="group", b="orders", e="3", i=properties)),
        ("s", command(0, 5, 1, queueId="3", msgId="0A60", queueOffset="27")),
    ]
    decoded = decode(pieces)
    assert decoded.protocol == "rocketmq"
    assert brief(decoded.rows, "operation", "resource", "status", "trace_id", "outcome") == [
        ("SEND_MESSAGE_V2", "orders", "0", "0af7651916cd43dd8448eb211c80319c", "complete")
    ]
    attributes = decoded.rows[0].attributes or {}
    assert (attributes["group"], attributes["queue_id"], attributes["message_id"]) == ("group", "3", "0A60")


def test_both_serialisations_and_both_ends_ask() -> None:
    pieces: list[Piece] = [
        ("c", binary(105, 1, topic="orders") + command(34, 2)),
        ("s", command(40, 7, 2, consumerGroup="group") + binary(17, 1, 1, "No topic route info")),
        ("s", command(0, 2, 1)),
    ]
    assert brief(decode(pieces).rows, "operation", "resource", "status", "error_kind", "outcome") == [
        ("GET_ROUTEINFO_BY_TOPIC", "orders", "17", "client", "complete"),
        ("HEART_BEAT", None, "0", None, "complete"),
        ("NOTIFY_CONSUMER_IDS_CHANGED", None, None, None, "one_way"),
    ]


def test_pull_carries_the_trace_of_its_first_message() -> None:
    found = command(0, 1, 1, message("orders", f"traceparent\x01{TRACEPARENT}\x02"), "FOUND")
    pieces: list[Piece] = [("c", command(11, 1, topic="orders")), ("s", found)]
    pieces += [("c", command(11, 2, topic="orders")), ("s", command(19, 2, 1, remark="OFFSET_OVERFLOW"))]
    assert brief(decode(pieces).rows, "status", "is_error", "span_id") == [
        ("0", False, "b7ad6b7169203331"),
        ("19", False, None),
    ]


def test_busy_broker_and_unknown_code() -> None:
    pieces: list[Piece] = [
        ("c", command(999, 1)),
        ("s", command(2, 1, 1, remark="[TIMEOUT_CLEAN_QUEUE]broker busy")),
    ]
    assert brief(decode(pieces).rows, "operation", "status", "error_kind", "error_message") == [
        ("999", "2", "server", "[TIMEOUT_CLEAN_QUEUE]broker busy")
    ]


def test_cut_body_gap_and_middle() -> None:
    big = command(310, 1, body=b"x" * 9000, b="big")
    pieces: list[Piece] = [
        ("c", big[300:]),
        ("c", big, 600),
        ("c", command(310, 2, b="lost"), 0),
        ("c", command(310, 3, b="next")),
        ("s", command(0, 1, 1) + command(0, 3, 1)),
    ]
    decoded = decode(pieces, from_start=False)
    assert decoded.protocol == "rocketmq"
    assert brief(decoded.rows, "resource", "outcome") == [("big", "complete"), ("next", "complete")]


def test_length_and_brace_alone_are_not_rocketmq() -> None:
    text = b'{"jsonrpc":"2.0","method":"a"}'
    assert decode([("c", frame(0, text)), ("s", frame(0, text))], server_port=9876).protocol != "rocketmq"
    rng = random.Random(5)
    noise = b"".join(pack(">II", 60, 1 << 24 | 40) + rng.randbytes(56) for _ in range(50))
    assert decode([("c", noise), ("s", noise)], from_start=False).protocol != "rocketmq"
