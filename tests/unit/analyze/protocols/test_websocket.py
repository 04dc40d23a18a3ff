"""WebSocket: the upgrade and the messages behind it."""

from __future__ import annotations

from struct import pack

from tests.unit.analyze.protocols.wire import Piece, brief, decode

UPGRADE: list[Piece] = [
    ("c", b"GET /chat?room=7 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ("s", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
]
MASK = b"\x01\x02\x03\x04"


def frame(opcode: int, payload: bytes, final: bool = True, masked: bool = False, rsv1: bool = False) -> bytes:
    first = opcode | final << 7 | rsv1 << 6
    size = len(payload)
    short = size if size < 126 else 126 if size < 65536 else 127
    head = bytes([first, short | masked << 7])
    head += pack(">H", size) if short == 126 else pack(">Q", size) if short == 127 else b""
    if not masked:
        return head + payload
    return head + MASK + bytes(b ^ MASK[n & 3] for n, b in enumerate(payload))


def client(opcode: int, payload: bytes, final: bool = True) -> Piece:
    return "c", frame(opcode, payload, final, masked=True)


TALK: list[Piece] = [
    client(1, b"hello there"),
    ("s", frame(1, b"welcome, you")),
    client(2, b"\x00" * 70000),
    ("s", frame(9, b"?")),
    client(10, b"?"),
    client(1, b"first ", final=False),
    client(9, b""),
    client(0, b"and last"),
    ("s", frame(8, pack(">H", 1011) + b"out of memory")),
]
MESSAGES = [
    ("text", "/chat?room=7", None, "one_way"),
    ("text", "/chat?room=7", None, "one_way"),
    ("binary", "/chat?room=7", None, "one_way"),
    ("ping", "/chat?room=7", None, "one_way"),
    ("pong", "/chat?room=7", None, "one_way"),
    ("text", "/chat?room=7", None, "one_way"),
    ("ping", "/chat?room=7", None, "one_way"),
    ("close", "/chat?room=7", "1011", "one_way"),
]
SHORT = ("operation", "resource", "status", "outcome")


def test_messages_after_the_upgrade() -> None:
    decoded = decode(UPGRADE + TALK)
    assert decoded.protocols == ["http1", "websocket"]
    assert brief(decoded.rows, "protocol", *SHORT) == [
        ("http1", "GET", "/chat", "101", "complete"),
        *(("websocket", *message) for message in MESSAGES),
    ]


def test_close_code_and_sender() -> None:
    rows = decode(UPGRADE + TALK).rows
    last = rows[-1]
    assert (last.is_error, last.error_kind, last.error_message) == (True, "server", "out of memory")
    assert (last.attributes or {})["sender"] == "server"
    assert last.request is None


def test_fragments_are_one_message() -> None:
    split = [row for row in decode(UPGRADE + TALK).rows if (row.attributes or {}).get("frames") == 2]
    assert [(row.attributes or {})["payload_bytes"] for row in split] == [14]


def test_payload_limit() -> None:
    cut: list[Piece] = [(side, data, min(len(data), 300)) for side, data, *_ in UPGRADE + TALK]
    assert [row[:3] for row in brief(decode(cut).rows, *SHORT)][1:] == [message[:3] for message in MESSAGES]


def test_lost_frame() -> None:
    pieces: list[Piece] = [*UPGRADE, client(1, b"one"), (*client(1, b"two")[:2], 0), client(1, b"three is here")]
    rows = [row for row in decode(pieces).rows if row.protocol == "websocket"]
    assert [(row.attributes or {})["payload_bytes"] for row in rows] == [3, 13]


def test_start_in_the_middle() -> None:
    decoded = decode([("c", b"\xff\xfe\x01"), *TALK], from_start=False)
    assert decoded.protocol == "websocket"
    assert [row[0] for row in brief(decoded.rows, *SHORT)] == [message[0] for message in MESSAGES]


def test_compressed_messages_are_told() -> None:
    rows = decode([*UPGRADE, ("s", frame(1, b"\x01\x02", rsv1=True))]).rows
    assert (rows[-1].attributes or {})["compressed"] is True


def test_tls_records_on_port_80() -> None:
    record = b"\x17\x03\x03\x00\x20" + bytes(32)
    decoded = decode([("c", record), ("s", record)] * 4, from_start=False, server_port=80)
    assert decoded.protocol == "tls"
