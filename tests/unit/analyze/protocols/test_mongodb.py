"""MongoDB: OP_MSG with sections, exhaust, compression, and the messages before it; BSON against pymongo's."""

from __future__ import annotations

import datetime
import json
import uuid
import zlib
from collections.abc import Mapping
from struct import pack
from typing import Any

import bson
import pyarrow as pa
import pytest
from bson import json_util
from hypothesis import given, settings
from hypothesis import strategies as st

from kubetape.analyze.protocols.common.text import MAX_STATEMENT_CHARS
from kubetape.analyze.protocols.mongodb.bson import document_text
from tests.unit.analyze.protocols.wire import Piece, brief, decode

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def frame(request_id: int, response_to: int, opcode: int, body: bytes) -> bytes:
    return pack("<iiii", 16 + len(body), request_id, response_to, opcode) + body


def msg(request_id: int, response_to: int, document: Mapping[str, Any], flags: int = 0, more: bytes = b"") -> bytes:
    return frame(request_id, response_to, 2013, pack("<I", flags) + b"\0" + bson.encode(document) + more)


def sequence(name: str, *documents: Mapping[str, Any]) -> bytes:
    body = name.encode() + b"\0" + b"".join(bson.encode(d) for d in documents)
    return b"\1" + pack("<i", len(body) + 4) + body


def query(request_id: int, space: str, document: Mapping[str, Any]) -> bytes:
    return frame(
        request_id, 0, 2004, pack("<i", 0) + space.encode() + b"\0" + pack("<ii", 0, 1) + bson.encode(document)
    )


def old_reply(request_id: int, response_to: int, *documents: Mapping[str, Any], flags: int = 8) -> bytes:
    head = pack("<iqii", flags, 0, 0, len(documents))
    return frame(request_id, response_to, 1, head + b"".join(bson.encode(d) for d in documents))


FIND = msg(
    7,
    0,
    {
        "find": "users",
        "filter": {"age": {"$gt": 21}},
        "lsid": {"id": uuid.UUID(int=1).bytes},
        "$db": "shop",
        "comment": {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
    },
)
FOUND = msg(90, 7, {"cursor": {"firstBatch": [{"a": 1}, {"a": 2}], "id": 0, "ns": "shop.users"}, "ok": 1.0})
INSERT = msg(8, 0, {"insert": "users", "ordered": True, "$db": "shop"}, 0, sequence("documents", {"a": 1}, {"a": 2}))
INSERTED = msg(91, 8, {"n": 2, "ok": 1.0})
DIALOGUE: list[Piece] = [("c", FIND), ("s", FOUND), ("c", INSERT), ("s", INSERTED)]


def test_commands_with_sections() -> None:
    decoded = decode(DIALOGUE)
    assert decoded.protocol == "mongodb"
    assert brief(decoded.rows, "operation", "resource", "statement", "status", "rows_sent", "rows_affected") == [
        (
            "find",
            "shop.users",
            '{"find": "users", "filter": {"age": {"$gt": 21}}, "$db": "shop", "comment": '
            f'{{"traceparent": "00-{TRACE}-00f067aa0ba902b7-01"}}}}',
            "OK",
            2,
            None,
        ),
        (
            "insert",
            "shop.users",
            '{"insert": "users", "ordered": true, "$db": "shop", "documents": [{"a": 1}, {"a": 2}]}',
            "OK",
            None,
            2,
        ),
    ]
    assert (decoded.rows[0].trace_id, decoded.rows[0].span_id) == (TRACE, "00f067aa0ba902b7")
    assert decoded.rows[1].attributes == {"documents": 2}


@pytest.mark.parametrize(
    ("reply", "status", "kind", "message"),
    [
        ({"ok": 0.0, "errmsg": "no such", "code": 26, "codeName": "NamespaceNotFound"}, "26", "client", "no such"),
        ({"ok": 0.0, "errmsg": "slow", "code": 50}, "50", "timeout", "slow"),
        ({"ok": 0.0, "errmsg": "stepped down", "code": 10107}, "10107", "server", "stepped down"),
        ({"n": 0, "writeErrors": [{"index": 0, "code": 11000, "errmsg": "dup"}], "ok": 1.0}, "11000", "client", "dup"),
        ({"n": 1, "writeConcernError": {"code": 64, "errmsg": "waiting"}, "ok": 1.0}, "64", "timeout", "waiting"),
    ],
)
def test_failures(reply: Mapping[str, Any], status: str, kind: str, message: str) -> None:
    rows = decode([("c", INSERT), ("s", msg(1, 8, reply))]).rows
    assert brief(rows, "status", "is_error", "error_kind", "error_message") == [(status, True, kind, message)]


def test_unacknowledged_writes_and_exhaust_streams() -> None:
    fire = msg(5, 0, {"insert": "c", "$db": "d"}, flags=2, more=sequence("documents", {"a": 1}))
    hello = msg(6, 0, {"hello": 1, "maxAwaitTimeMS": 10000, "$db": "admin"}, flags=1 << 16)
    answers = [msg(100, 6, {"ok": 1}, flags=2), msg(101, 100, {"ok": 1}, flags=2), msg(102, 101, {"ok": 1})]
    rows = decode([("c", fire + hello), *(("s", answer) for answer in answers)]).rows
    assert brief(rows, "operation", "status", "outcome") == [
        ("insert", None, "one_way"),
        ("hello", "OK", "complete"),
        ("hello", "OK", "one_way"),
        ("hello", "OK", "one_way"),
    ]


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_compressed_messages(kind: int) -> None:
    def squeeze(message: bytes) -> bytes:
        _, request_id, response_to, opcode = (int.from_bytes(message[i : i + 4], "little") for i in (0, 4, 8, 12))
        body = message[16:]
        if kind == 2:
            packed = zlib.compress(body)
        elif kind:
            packed = pa.Codec("snappy" if kind == 1 else "zstd").compress(body, asbytes=True)
        else:
            packed = body
        return frame(request_id, response_to, 2012, pack("<iiB", opcode, len(body), kind) + packed)

    rows = decode([("c", squeeze(FIND)), ("s", squeeze(FOUND))]).rows
    assert brief(rows, "operation", "resource", "status", "rows_sent") == [("find", "shop.users", "OK", 2)]
    assert rows[0].attributes is not None
    assert rows[0].attributes["compressor"] == ["noop", "snappy", "zlib", "zstd"][kind]


def test_messages_of_old() -> None:
    insert = frame(3, 0, 2002, pack("<i", 0) + b"shop.old\0" + bson.encode({"x": 1}))
    update = frame(
        4, 0, 2001, pack("<i", 0) + b"shop.old\0" + pack("<i", 0) + bson.encode({"x": 1}) + bson.encode({"x": 2})
    )
    more = frame(9, 0, 2005, pack("<i", 0) + b"shop.old\0" + pack("<iq", 0, 77))
    kill = frame(10, 0, 2007, pack("<iiq", 0, 1, 77))
    comment = f"traceparent=00-{TRACE}-00f067aa0ba902b7-01"
    pieces: list[Piece] = [
        ("c", insert + query(5, "shop.$cmd", {"getlasterror": 1})),
        ("s", old_reply(50, 5, {"err": "E11000 dup", "code": 11000, "n": 0, "ok": 1.0})),
        (
            "c",
            update + query(6, "shop.old", {"$query": {"x": 1}, "$comment": comment}),
        ),
        ("s", old_reply(51, 6, {"ok": 0, "n": 3}, {"x": 1})),
        ("c", more + query(8, "shop.$cmd", {"$query": {"ping": 1}, "$readPreference": {"mode": "nearest"}})),
        ("s", old_reply(52, 9, flags=1) + old_reply(53, 8, {"ok": 1})),
        ("c", kill + query(11, "shop.old", {"$where": "!"})),
        ("s", old_reply(54, 11, {"$err": "bad", "code": 17287}, flags=2)),
    ]
    decoded = decode(pieces)
    assert brief(decoded.rows, "operation", "resource", "status", "rows_sent", "outcome") == [
        ("insert", "shop.old", "11000", None, "one_way"),
        ("getlasterror", "shop", "OK", 1, "complete"),
        ("update", "shop.old", None, None, "one_way"),
        ("query", "shop.old", "OK", 2, "complete"),
        ("getMore", "shop.old", "43", 0, "complete"),
        ("ping", "shop", "OK", 1, "complete"),
        ("killCursors", None, None, None, "one_way"),
        ("query", "shop.old", "17287", 1, "complete"),
    ]
    assert decoded.rows[0].inferred == "status"
    assert [row.trace_id for row in decoded.rows if row.operation == "query"] == [TRACE, None]


def test_credentials_are_not_kept() -> None:
    login = msg(1, 0, {"saslStart": 1, "mechanism": "PLAIN", "payload": b"\0joe\0secret", "$db": "admin"})
    create = msg(2, 0, {"createUser": "joe", "pwd": "secret", "$db": "admin"})
    rows = decode([("c", login + create), ("s", msg(9, 1, {"ok": 1}) + msg(10, 2, {"ok": 1}))]).rows
    assert [row.operation for row in rows] == ["saslStart", "createUser"]
    assert "secret" not in repr(rows)
    assert b"secret".hex() not in repr(rows)


def test_gaps_cuts_and_a_start_in_the_middle() -> None:
    big = msg(90, 7, {"cursor": {"firstBatch": [{"a": "x" * 5000}], "id": 0, "ns": "shop.users"}, "ok": 1.0})
    lost: list[Piece] = [("c", FIND), ("s", big[:300]), ("s", big[300:], 0), *DIALOGUE[2:]]
    rows = decode(lost).rows
    assert brief(rows, "operation", "status", "inferred", "outcome") == [
        ("find", "OK", "status", "truncated"),
        ("insert", "OK", None, "complete"),
    ]
    middle: list[Piece] = [("c", FIND[30:] + INSERT), ("s", FOUND[11:] + INSERTED)]
    assert brief(decode(middle, from_start=False).rows, "operation", "status") == [("insert", "OK")]
    unanswered = decode([("c", FIND + INSERT), ("s", INSERTED + msg(99, 6, {"ok": 1}))]).rows
    assert brief(unanswered, "operation", "outcome") == [
        ("find", "no_response"),
        ("insert", "complete"),
        (None, "no_request"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        1,
        1 << 40,
        1.5,
        True,
        None,
        'quo"te\n',
        {"a": [1, {"b": []}]},
        bson.ObjectId("55b0f4dcb643765eb250bef1"),
        bson.Decimal128("12.345"),
        bson.Decimal128("-1E+40"),
        bson.Decimal128("0.00001"),
        bson.Timestamp(5, 6),
        bson.Regex("^a", "i"),
        bson.MaxKey(),
        datetime.datetime(2024, 2, 29, 1, 2, 3, 456000, tzinfo=datetime.UTC),
        bson.Binary.from_uuid(uuid.UUID(int=99)),
    ],
)
def test_bson_as_text_agrees_with_pymongo(value: Any) -> None:
    raw = bson.encode({"v": value})
    options = json_util.RELAXED_JSON_OPTIONS.with_options(uuid_representation=bson.binary.UuidRepresentation.STANDARD)
    expected = json.loads(json_util.dumps({"v": bson.decode(raw)["v"]}, json_options=options))
    found = json.loads(document_text(raw, 0, len(raw)))
    if isinstance(value, bson.Binary):
        assert found == {"v": {"$uuid": str(value.as_uuid())}}
    else:
        assert found == expected


@given(st.binary(max_size=200), st.integers(0, 40))
@settings(deadline=None)
def test_any_bytes_are_text(raw: bytes, cut: int) -> None:
    data = (len(raw) + 5).to_bytes(4, "little") + raw + b"\0"
    assert len(document_text(data, 0, max(0, len(data) - cut))) <= MAX_STATEMENT_CHARS


def test_length_prefixed_noise_on_port_27017_is_not_mongodb() -> None:
    noise = pack("<iiii", 40, 1, 0, 2013) + b"\xff" * 24
    assert decode([("c", noise), ("s", noise)], server_port=27017).protocol != "mongodb"
