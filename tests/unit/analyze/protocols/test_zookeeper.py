"""ZooKeeper: sessions, calls by xid, watch events, multis, four-letter words."""

from __future__ import annotations

from struct import pack

from tests.unit.analyze.protocols.wire import Piece, brief, decode


def packet(body: bytes) -> bytes:
    return pack(">i", len(body)) + body


def string(text: str) -> bytes:
    return pack(">i", len(text)) + text.encode()


def call(xid: int, op: int, body: bytes = b"") -> bytes:
    return packet(pack(">ii", xid, op) + body)


def reply(xid: int, error: int = 0, body: bytes = b"", zxid: int = 9) -> bytes:
    return packet(pack(">iqi", xid, zxid, error) + body)


ACL = pack(">ii", 1, 31) + string("world") + string("anyone")
CONNECT = packet(pack(">iqiqi", 0, 0, 10000, 0, 16) + bytes(16) + b"\0")
CONNECTED = packet(pack(">iiqi", 0, 10000, 0x1234, 16) + bytes(16) + b"\0")
CREATE = call(1, 1, string("/a") + string("data") + ACL + pack(">i", 3))
GET = call(2, 4, string("/a") + b"\1")
PING = call(-2, 11)
PONG = reply(-2)
EVENT = reply(-1, body=pack(">ii", 3, 3) + string("/a"), zxid=-1)
DIALOGUE: list[Piece] = [
    ("c", CONNECT),
    ("s", CONNECTED),
    ("c", CREATE + GET + PING),
    ("s", reply(1, body=string("/a0001")) + EVENT + PONG + reply(2, -101)),
    ("c", call(3, -11)),
    ("s", reply(3)),
]


def test_a_session() -> None:
    decoded = decode(DIALOGUE)
    assert decoded.protocol == "zookeeper"
    assert brief(decoded.rows, "operation", "resource", "status", "error_kind", "outcome") == [
        ("connect", None, "0", None, "complete"),
        ("create", "/a", "0", None, "complete"),
        ("getData", "/a", "-101", "client", "complete"),
        ("ping", None, "0", None, "complete"),
        ("notification", "/a", None, None, "one_way"),
        ("closeSession", None, "0", None, "complete"),
    ]
    attributes = {row.operation: row.attributes for row in decoded.rows}
    assert attributes["connect"] == {"asked_timeout_ms": 10000, "timeout_ms": 10000, "session": "0x1234"}
    assert attributes["create"] == {
        "data_bytes": 4,
        "mode": "ephemeral_sequential",
        "zxid": 9,
        "created": "/a0001",
    }
    assert attributes["notification"] == {"event": "nodeDataChanged", "state": "syncConnected"}


def test_an_expired_session_is_refused() -> None:
    expired = packet(pack(">iiqi", 0, 0, 0, 16) + bytes(16))
    rows = decode([("c", CONNECT), ("s", expired)]).rows
    assert brief(rows, "operation", "status", "error_message") == [("connect", "-112", "SessionExpired")]


def test_multi_tells_its_parts_and_the_error_that_undid_it() -> None:
    def head(op: int, done: bool, error: int = -1) -> bytes:
        return pack(">ibi", op, done, error)

    parts = head(1, False) + string("/t") + string("x") + ACL + pack(">i", 0)
    parts += head(13, False) + string("/b") + pack(">i", 7) + head(-1, True)
    undone = head(-1, False, 0) + pack(">i", -2) + head(-1, False, 0) + pack(">i", -103) + head(-1, True)
    rows = decode([("c", CONNECT), ("s", CONNECTED), ("c", call(5, 14, parts)), ("s", reply(5, 0, undone))]).rows
    assert brief(rows[1:], "operation", "resource", "status", "error_message") == [
        ("multi", "/t", "-103", "BadVersion")
    ]
    assert rows[1].attributes is not None
    assert rows[1].attributes["operations"] == ["create /t", "check /b"]


def test_four_letter_words() -> None:
    for word, answer in ((b"ruok", b"imok"), (b"mntr\n", b"zk_version\t3.8.0\nzk_avg_latency\t0\n")):
        decoded = decode([("c", word), ("s", answer[:3]), ("s", answer[3:])])
        assert brief(decoded.rows, "operation", "status", "outcome") == [(word[:4].decode(), "0", "complete")]
        assert (decoded.protocol, decoded.unread_bytes) == ("zookeeper", 0)
    refused = decode([("c", b"dump"), ("s", b"dump is not executed because it is not in the whitelist.\n")])
    assert brief(refused.rows, "operation", "status", "error_kind") == [("dump", "0", None)]


def test_start_in_the_middle_and_gap() -> None:
    middle: list[Piece] = [("c", CREATE[7:] + GET + PING), ("s", EVENT[9:] + reply(2, body=string("v")) + PONG)]
    decoded = decode(middle, from_start=False)
    assert brief(decoded.rows, "operation", "status", "outcome") == [
        ("getData", "0", "complete"),
        ("ping", "0", "complete"),
    ]
    big = reply(2, body=string("v" * 4000))
    lost: list[Piece] = [*DIALOGUE[:2], ("c", GET + PING), ("s", big[:100]), ("s", big[100:], 0), ("s", PONG)]
    assert brief(decode(lost).rows[1:], "operation", "status", "outcome") == [
        ("getData", "0", "truncated"),
        ("ping", "0", "complete"),
    ]


def test_unanswered_and_unasked() -> None:
    rows = decode([("c", CONNECT), ("s", CONNECTED + reply(8, -4)), ("c", GET)]).rows
    assert brief(rows[1:], "operation", "status", "error_kind", "outcome") == [
        (None, "-4", "server", "no_request"),
        ("getData", None, None, "no_response"),
    ]


def test_kafka_on_port_2181_is_not_zookeeper() -> None:
    metadata = packet(pack(">hhih", 3, 1, 3, 6) + b"client" + pack(">i", 0))
    versions = packet(pack(">hhih", 18, 0, 4, 6) + b"client")
    answer = packet(pack(">ii", 3, 0) + bytes(30))
    assert decode([("c", metadata + versions), ("s", answer)], server_port=2181).protocol != "zookeeper"
