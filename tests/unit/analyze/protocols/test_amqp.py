"""AMQP 0-9-1: frames written by the specification's layouts."""

from __future__ import annotations

from struct import pack

from tests.unit.analyze.protocols.wire import Piece, brief, decode

HEADER = b"AMQP\0\0\x09\x01"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def method(channel: int, klass: int, number: int, arguments: bytes = b"") -> bytes:
    return frame(1, channel, pack(">HH", klass, number) + arguments)


def content(channel: int, body: bytes, headers: dict[str, str] | None = None, frames: int = 1) -> bytes:
    table = b"".join(short(k) + b"S" + pack(">I", len(v)) + v.encode() for k, v in (headers or {}).items())
    flags = 0xA000 if headers else 0x8000
    properties = short("text/plain") + (pack(">I", len(table)) + table if headers else b"")
    head = frame(2, channel, pack(">HHQH", 60, 0, len(body), flags) + properties)
    step = max(1, -(-len(body) // frames))
    return head + b"".join(frame(3, channel, body[i : i + step]) for i in range(0, len(body), step))


def publish(channel: int, exchange: str, key: str) -> bytes:
    return method(channel, 60, 40, pack(">H", 0) + short(exchange) + short(key) + b"\0")


def declare(queue: str, bits: int = 0) -> bytes:
    return method(1, 50, 10, pack(">H", 0) + short(queue) + bytes([bits]) + pack(">I", 0))


START = method(0, 10, 10, b"\0\x09" + pack(">I", 0) + pack(">I", 5) + b"PLAIN" + pack(">I", 5) + b"en_US")
START_OK = method(0, 10, 11, pack(">I", 0) + short("PLAIN") + pack(">I", 12) + b"\0guest\0guest" + short("en_US"))
OPEN, OPEN_OK = method(0, 10, 40, short("/prod") + b"\0\0"), method(0, 10, 41, b"\0")
DECLARE_OK = method(1, 50, 11, short("amq.gen-1") + pack(">II", 0, 0))

LOGIN: list[Piece] = [("c", HEADER), ("s", START), ("c", START_OK), ("c", OPEN), ("s", OPEN_OK)]


def test_login_is_rows_without_secrets() -> None:
    decoded = decode(LOGIN)
    assert decoded.protocol == "amqp"
    assert brief(decoded.rows, "operation", "resource", "status", "outcome") == [
        ("connection.start", None, "OK", "complete"),
        ("connection.open", "/prod", "OK", "complete"),
    ]
    assert "guest" not in repr(decoded.rows)


def test_content_belongs_to_its_method_also_between_other_channels() -> None:
    sent = publish(1, "ex", "key") + content(1, b"x" * 1000, {"traceparent": TRACEPARENT}, frames=3)
    other = publish(2, "", "queue")
    body = content(2, b"hello")
    cut = len(publish(1, "ex", "key"))
    pieces: list[Piece] = [("c", HEADER + sent[:cut] + other), ("s", frame(8, 0, b"")), ("c", sent[cut:] + body)]
    decoded = decode(pieces)
    assert brief(decoded.rows, "operation", "resource", "outcome", "trace_id") == [
        ("basic.publish", "ex/key", "one_way", "0af7651916cd43dd8448eb211c80319c"),
        ("basic.publish", "queue", "one_way", None),
    ]
    sizes = [row.request.size for row in decoded.rows if row.request]
    assert sizes == [len(sent), len(other) + len(body)]


def test_server_named_queue_and_no_wait() -> None:
    decoded = decode([*LOGIN, ("c", declare("")), ("s", DECLARE_OK), ("c", declare("mine", 1 << 4))])
    assert brief(decoded.rows[2:], "operation", "resource", "status", "outcome") == [
        ("queue.declare", "amq.gen-1", "OK", "complete"),
        ("queue.declare", "mine", None, "one_way"),
    ]


def test_close_of_a_channel_answers_the_method_it_blames() -> None:
    close = method(1, 20, 40, pack(">H", 404) + short("NOT_FOUND - no queue 'q'") + pack(">HH", 50, 10))
    decoded = decode([*LOGIN, ("c", declare("q", 1)), ("s", close), ("c", method(1, 20, 41))])
    assert brief(decoded.rows[2:], "operation", "status", "error_kind", "error_message", "outcome") == [
        ("queue.declare", "404", "client", "NOT_FOUND - no queue 'q'", "complete"),
        ("channel.close", "404", "client", "NOT_FOUND - no queue 'q'", "complete"),
    ]


def test_get_with_and_without_a_message() -> None:
    get = method(1, 60, 70, pack(">H", 0) + short("q") + b"\1")
    got = method(1, 60, 71, pack(">QB", 1, 0) + short("ex") + short("key") + pack(">I", 3)) + content(1, b"hi")
    decoded = decode([*LOGIN, ("c", get), ("s", got), ("c", get), ("s", method(1, 60, 72, b"\0"))])
    rows = decoded.rows[2:]
    assert brief(rows, "operation", "resource", "status") == [("basic.get", "q", "OK")] * 2
    assert rows[0].response is not None
    assert rows[0].response.size == len(got)
    assert (rows[1].attributes or {})["empty"] is True


def test_middle_of_a_stream_and_a_gap() -> None:
    deliver = method(1, 60, 60, short("tag") + pack(">QB", 1, 0) + short("ex") + short("key")) + content(1, b"body")
    ack = method(1, 60, 80, pack(">QB", 1, 0))
    pieces: list[Piece] = [("s", deliver[7:] + deliver), ("c", ack), ("s", deliver, 0), ("s", deliver), ("c", ack)]
    decoded = decode(pieces, from_start=False)
    assert decoded.protocol == "amqp"
    assert brief(decoded.rows, "operation", "outcome") == [
        ("basic.deliver", "one_way"),
        ("basic.ack", "one_way"),
        ("basic.deliver", "one_way"),
        ("basic.ack", "one_way"),
    ]


def test_body_cut_by_the_payload_limit_keeps_the_stream_in_step() -> None:
    sent = publish(1, "ex", "key") + content(1, b"x" * 9000)
    decoded = decode([("c", HEADER), ("c", sent, 200), ("c", publish(1, "ex", "b") + content(1, b"y"))])
    assert brief(decoded.rows, "resource") == [("ex/key",), ("ex/b",)]
    assert decoded.rows[0].request is not None
    assert decoded.rows[0].request.size == len(sent)


def test_amqp_1_0_is_something_else() -> None:
    opening = b"AMQP\x03\x01\x00\x00"
    sasl = bytes.fromhex("0000001a02010000005340c00d01e003b305504c41494e0441424344")
    assert decode([("c", opening), ("s", opening + sasl)], server_port=5672).protocol is None


def test_roles_by_who_may_send_what() -> None:
    deliver = method(1, 60, 60, short("tag") + pack(">QB", 1, 0) + short("ex") + short("key")) + content(1, b"body")
    decoded = decode([("c", deliver * 2), ("s", method(1, 60, 80, pack(">QB", 1, 0)))], from_start=False, known=False)
    assert (decoded.protocol, decoded.swapped) == ("amqp", True)
