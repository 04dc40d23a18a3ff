"""Kafka: frames written out by the protocol guide's layouts, and a few captured ones."""

from __future__ import annotations

import gzip
import random
from struct import pack
from typing import Any

import pytest

from kubetape.analyze.protocols.kafka import apis
from kubetape.analyze.protocols.kafka.records import read_records
from kubetape.analyze.protocols.kafka.schema import plan_of
from tests.unit.analyze.protocols.wire import Piece, brief, decode

# Captured: console producer 3.x, Produce version 9 to topic "zqy-test", and its response.
PRODUCE_9 = bytes.fromhex(
    "00000098000000090000002f0010636f6e736f6c652d70726f647563657200000001000005dc02097a71792d7465737402000000006400"
    "0000000000000000000057ffffffff023345f48e00000000000000000191ea86ee1d00000191ea86ee1dffffffffffffffffffffffffff"
    "ff000000014a000000013e7171717171717171717171717171717171717171717171717171717171717100000000"
)
PRODUCE_9_OK = bytes.fromhex(
    "000000370000002f0002097a71792d74657374020000000000000000000000000023ffffffffffffffff0000000000000010010000000000000000"
)
TOPIC_ID = bytes(range(16))
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def text(value: str | None, compact: bool = False) -> bytes:
    raw = (value or "").encode()
    if compact:
        return b"\0" if value is None else bytes([len(raw) + 1]) + raw
    return pack(">h", -1) if value is None else pack(">h", len(raw)) + raw


def request(key: int, version: int, correlation_id: int, body: bytes, client: str | None = "app") -> bytes:
    tags = b"\0" if version >= apis.APIS[key].flexible else b""
    frame = pack(">hhi", key, version, correlation_id) + text(client) + tags + body
    return pack(">i", len(frame)) + frame


def response(correlation_id: int, body: bytes, tags: bytes = b"") -> bytes:
    return pack(">ii", 4 + len(tags) + len(body), correlation_id) + tags + body


def heartbeat(correlation_id: int) -> bytes:
    return request(12, 0, correlation_id, text("group") + pack(">i", 1) + text("member"))


def produce(correlation_id: int, acks: int, records: bytes) -> bytes:
    partition = pack(">iii", 1, 0, len(records)) + records
    return request(0, 3, correlation_id, text(None) + pack(">hii", acks, 1500, 1) + text("orders") + partition)


def varint(value: int) -> bytes:
    value = value << 1 if value >= 0 else (value << 1) ^ -1
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def batch(headers: dict[str, bytes], compression: int = 0, count: int = 1) -> bytes:
    """A record batch of format 2 with one record."""
    pairs = b"".join(varint(len(k)) + k.encode() + varint(len(v)) + v for k, v in headers.items())
    record = b"\0" + varint(0) + varint(0) + varint(-1) + varint(2) + b"hi" + varint(len(headers)) + pairs
    records = varint(len(record)) + record
    if compression == 1:
        records = gzip.compress(records)
    head = pack(">ibIhiqqqhii", 0, 2, 0, compression, count - 1, 0, 0, -1, -1, -1, count)
    return pack(">qi", 0, len(head) + len(records)) + head + records


def test_captured_produce() -> None:
    decoded = decode([("c", PRODUCE_9), ("s", PRODUCE_9_OK)])
    assert decoded.protocol == "kafka"
    assert brief(decoded.rows, "operation", "resource", "status", "outcome") == [
        ("Produce", "zqy-test", "0", "complete")
    ]
    assert decoded.rows[0].attributes == {
        "acks": 1,
        "api_version": 9,
        "client_id": "console-producer",
        "correlation_id": 47,
        "record_count": 1,
    }


def test_responses_find_their_requests_by_correlation_id() -> None:
    pieces: list[Piece] = [
        ("c", heartbeat(1) + heartbeat(2)),
        ("s", response(2, pack(">h", 27))),
        ("s", response(1, pack(">h", 0))),
    ]
    assert brief(decode(pieces).rows, "operation", "status", "error_kind", "error_message") == [
        ("Heartbeat", "0", None, None),
        ("Heartbeat", "27", "client", "REBALANCE_IN_PROGRESS"),
    ]


def test_produce_without_acknowledgement_is_one_way() -> None:
    decoded = decode([("c", produce(1, 0, batch({}))), ("c", produce(2, 0, batch({})))])
    assert brief(decoded.rows, "operation", "resource", "outcome") == [("Produce", "orders", "one_way")] * 2


@pytest.mark.parametrize("compression", [0, 1])
def test_trace_of_the_first_record(compression: int) -> None:
    records = batch({"x": b"1", "traceparent": TRACEPARENT}, compression) + batch({}, count=5)
    row = decode([("c", produce(1, 1, records))]).rows[0]
    assert row.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert row.span_id == "b7ad6b7169203331"
    assert (row.attributes or {})["record_count"] == 6


def test_old_message_sets_are_counted() -> None:
    message = pack(">qi", 0, 14 + 4) + pack(">IbbiI", 0, 0, 0, -1, 4)[:14] + b"data"
    found = read_records(message * 3, 0, 3 * len(message))
    assert found is not None
    assert (found.records, found.magic, found.compression) == (3, 0, None)


def fetch_by_id(correlation_id: int) -> bytes:
    """Fetch version 13: topics by their id."""
    partition = pack(">iiqiqi", 0, -1, 5, -1, -1, 1 << 20) + b"\0"
    topic = TOPIC_ID + b"\x02" + partition + b"\0"
    body = pack(">iiiibii", -1, 500, 1, 1 << 20, 0, 0, 0) + b"\x02" + topic + b"\x01" + b"\x01" + b"\0"
    return request(1, 13, correlation_id, body)


def fetched(correlation_id: int, error: int = 0) -> bytes:
    return response(correlation_id, pack(">ihi", 0, error, 7) + b"\x01" + b"\0", tags=b"\0")


def metadata_names_it(correlation_id: int) -> tuple[bytes, bytes]:
    asked = request(3, 12, correlation_id, b"\x02" + bytes(16) + text("payments", True) + b"\0" + b"\1\0" + b"\0")
    topic = pack(">h", 0) + text("payments", True) + TOPIC_ID + b"\0" + b"\x01" + pack(">i", 0) + b"\0"
    body = pack(">i", 0) + b"\x01" + text("cluster", True) + pack(">i", 1) + b"\x02" + topic + b"\0"
    return asked, response(correlation_id, body, tags=b"\0")


def test_topic_ids_get_names_told_later_and_elsewhere() -> None:
    shared: dict[str, dict[Any, Any]] = {}
    asked, told = metadata_names_it(9)
    alone = decode([("c", fetch_by_id(1)), ("s", fetched(1))])
    assert brief(alone.rows, "operation", "resource", "status") == [("Fetch", None, "0")]
    assert (alone.rows[0].attributes or {})["topic_ids"] == ["AAECAwQFBgcICQoLDA0ODw"]
    decode([("c", asked), ("s", told)], shared=shared)
    later = decode([("c", fetch_by_id(1)), ("s", fetched(1))], shared=shared)
    assert brief(later.rows, "operation", "resource", "inferred") == [("Fetch", "payments", None)]


def test_first_error_of_a_fetch() -> None:
    pieces: list[Piece] = [("c", fetch_by_id(1)), ("s", fetched(1, 100))]
    assert brief(decode(pieces).rows, "status", "error_message") == [("100", "UNKNOWN_TOPIC_ID")]


def test_versions_response_of_an_old_broker_has_no_tags() -> None:
    asked = request(18, 3, 1, text("app", True) + text("1.0", True) + b"\0")
    refused = response(1, pack(">hihhh", 35, 1, 18, 0, 2))
    assert brief(decode([("c", asked), ("s", refused)]).rows, "operation", "status") == [("ApiVersions", "35")]


def test_sasl_tokens_without_headers() -> None:
    """A handshake of version 0 is followed by bare tokens, then requests as ever; tokens are secret."""
    token = pack(">i", 12) + b"\0user\0secret"
    pieces: list[Piece] = [
        ("c", request(17, 0, 1, text("PLAIN"))),
        ("s", response(1, pack(">hi", 0, 1) + text("PLAIN"))),
        ("c", token),
        ("s", pack(">i", 0)),
        ("c", heartbeat(2)),
        ("s", response(2, pack(">h", 0))),
    ]
    rows = decode(pieces).rows
    assert brief(rows, "operation", "status", "outcome") == [
        ("SaslHandshake", "0", "complete"),
        ("SaslAuthenticate", "0", "complete"),
        ("Heartbeat", "0", "complete"),
    ]
    assert "secret" not in repr(rows)


def test_unknown_version_and_api_keep_their_pairing() -> None:
    pieces: list[Piece] = [
        ("c", heartbeat(1)),
        ("s", response(1, b"\0\0")),
        ("c", request(12, 40, 2, b"\xff" * 9)),
        ("s", response(2, b"\xff" * 9)),
        ("c", pack(">ihhih", 12, 200, 1, 3, -1) + b"ab"),
        ("s", response(3, b"?")),
    ]
    assert brief(decode(pieces).rows, "operation", "status", "outcome") == [
        ("Heartbeat", "0", "complete"),
        ("Heartbeat", None, "complete"),
        ("ApiKey200", None, "complete"),
    ]


def test_cut_bodies_leave_the_stream_in_step() -> None:
    big = produce(1, 1, batch({"traceparent": TRACEPARENT}) + bytes(5000))
    answered = response(1, pack(">i", 1) + text("orders") + pack(">iihqq", 1, 0, 6, -1, -1) + pack(">i", 0))
    pieces: list[Piece] = [
        ("c", big, 200),
        ("s", answered, 24),
        ("c", heartbeat(2)),
        ("s", response(2, pack(">h", 0))),
    ]
    rows = decode(pieces).rows
    assert brief(rows, "operation", "resource", "outcome") == [
        ("Produce", "orders", "complete"),
        ("Heartbeat", None, "complete"),
    ]
    assert rows[0].trace_id == "0af7651916cd43dd8448eb211c80319c"


def test_from_the_middle_and_over_a_gap() -> None:
    asked = [heartbeat(n) for n in range(1, 6)]
    answers = [response(n, pack(">h", 0)) for n in range(1, 6)]
    pieces: list[Piece] = [
        ("c", asked[0][7:]),
        ("s", answers[0][3:]),
        ("c", asked[1]),
        ("s", answers[1]),
        ("c", asked[2], 0),
        ("s", answers[2], 0),
        ("c", asked[3] + asked[4]),
        ("s", answers[3] + answers[4]),
    ]
    decoded = decode(pieces, from_start=False)
    assert decoded.protocol == "kafka"
    assert brief(decoded.rows, "operation", "outcome") == [("Heartbeat", "complete")] * 3


def test_roles_are_found_by_content() -> None:
    decoded = decode([("s", heartbeat(1)), ("c", response(1, pack(">h", 0)))], known=False)
    assert (decoded.protocol, decoded.swapped) == ("kafka", True)


def test_length_prefixed_bytes_are_not_kafka() -> None:
    # ZooKeeper: connect, then getData "/a" with xid 1.
    connect = pack(">iiqiqi", 44, 0, 0, 30000, 0, 16) + bytes(16)
    get = pack(">iiii", 15, 1, 4, 2) + b"/a\0"
    assert decode([("c", connect + get), ("s", pack(">iii", 36, 0, 30000) + bytes(28))]).protocol != "kafka"
    rng = random.Random(1)
    noise = b"".join(pack(">i", 60) + rng.randbytes(60) for _ in range(50))
    assert decode([("c", noise), ("s", noise)]).protocol != "kafka"


def test_every_version_of_every_api_has_a_plan_where_a_layout_is_written() -> None:
    for key, api in apis.APIS.items():
        for version in range(api.latest + 1):
            assert (plan_of(key, version, False) is not None) == (key in apis.REQUESTS)
            assert (plan_of(key, version, True) is not None) == (key in apis.RESPONSES)
