"""HTTP/2: streams and header tables, with the `hpack` package as the encoder of the dialogues."""

from __future__ import annotations

import random
from struct import pack

import hpack

from kubetape.analyze.protocols.http2.hpack import Table, read_block
from tests.unit.analyze.protocols.wire import Piece, brief, decode

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PUSH, GOAWAY, CONTINUATION = 0, 1, 3, 4, 5, 7, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 0x20
SHORT = ("operation", "statement", "status", "outcome", "stream_id")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + pack(">I", stream_id) + payload


class Peer:
    """Both ends with their tables."""

    def __init__(self) -> None:
        self.client, self.server = hpack.Encoder(), hpack.Encoder()

    def ask(self, stream_id: int, path: str, **more: str) -> Piece:
        fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "shop"), *more.items()]
        block = self.client.encode(fields)
        return "c", frame(HEADERS, END_STREAM | END_HEADERS, stream_id, block)

    def answer(self, stream_id: int, status: str, body: bytes = b"", **more: str) -> Piece:
        block = self.server.encode([(":status", status), *more.items()])
        return "s", frame(HEADERS, END_HEADERS, stream_id, block) + frame(DATA, END_STREAM, stream_id, body)


def opening() -> list[Piece]:
    return [("c", PREFACE + frame(SETTINGS, 0, 0)), ("s", frame(SETTINGS, 0, 0) + frame(SETTINGS, 1, 0))]


def test_streams_are_paired_by_id() -> None:
    peer = Peer()
    asks = [peer.ask(1, "/a/1"), peer.ask(3, "/b"), peer.ask(5, "/a/1", agent="x")]
    answers = [peer.answer(3, "503"), peer.answer(1, "200", b"body"), peer.answer(5, "404")]
    decoded = decode([*opening(), *asks, *answers])
    assert decoded.protocol == "http2"
    assert brief(decoded.rows, *SHORT, "resource", "error_kind") == [
        ("GET", "/a/1", "200", "complete", 1, "/a/{id}", None),
        ("GET", "/b", "503", "complete", 3, "/b", "server"),
        ("GET", "/a/1", "404", "complete", 5, "/a/{id}", "client"),
    ]


def test_continuation_padding_priority_and_trailers() -> None:
    peer = Peer()
    block = peer.client.encode([(":method", "POST"), (":path", "/long"), ("x", "y" * 300)])
    parts = (
        frame(HEADERS, PADDED | PRIORITY, 1, b"\x04" + bytes(5) + block[:50] + bytes(4))
        + frame(CONTINUATION, 0, 1, block[50:90])
        + frame(CONTINUATION, END_HEADERS, 1, block[90:])
        + frame(DATA, PADDED, 1, b"\x02abc\0\0")
        + frame(HEADERS, END_STREAM | END_HEADERS, 1, peer.client.encode([("checksum", "1")]))
    )
    reply = peer.answer(1, "200")
    assert brief(decode([*opening(), ("c", parts), reply]).rows, *SHORT) == [("POST", "/long", "200", "complete", 1)]


def test_interim_and_pushed() -> None:
    peer = Peer()
    ask = peer.ask(1, "/page")
    early = frame(HEADERS, END_HEADERS, 1, peer.server.encode([(":status", "103")]))
    promised = peer.server.encode([(":method", "GET"), (":scheme", "http"), (":path", "/style"), (":authority", "h")])
    push = frame(PUSH, END_HEADERS, 1, pack(">I", 2) + promised)
    rows = decode([*opening(), ask, ("s", early + push), peer.answer(1, "200"), peer.answer(2, "200")]).rows
    assert brief(rows, *SHORT) == [("GET", "/page", "200", "complete", 1), ("GET", "/style", "200", "one_way", 2)]
    assert (rows[0].attributes or {})["interim"] == [103]


def test_resets_and_goaway() -> None:
    peer = Peer()
    asks = [peer.ask(n, f"/{'abcd'[n // 2]}") for n in (1, 3, 5, 7)]
    pieces: list[Piece] = [
        *opening(),
        *asks,
        ("c", frame(RST, 0, 1, pack(">I", 8))),
        ("s", frame(RST, 0, 3, pack(">I", 7))),
        peer.answer(5, "200"),
        ("s", frame(GOAWAY, 0, 0, pack(">II", 5, 11) + b"calm down")),
    ]
    assert brief(decode(pieces).rows, "statement", "status", "error_kind", "error_message") == [
        ("/a", None, "client", "RST_STREAM CANCEL by the client"),
        ("/b", None, "reset", "RST_STREAM REFUSED_STREAM by the server"),
        ("/c", "200", None, None),
        ("/d", None, "reset", "GOAWAY ENHANCE_YOUR_CALM: calm down"),
    ]


def test_cancelled_call_was_late_or_not_wanted() -> None:
    """Pieces are 1000 ns apart: the first call's deadline had passed when its client gave up."""
    peer = Peer()
    grpc = {"content-type": "application/grpc"}
    pieces: list[Piece] = [
        *opening(),
        peer.ask(1, "/s.A/B", **grpc, **{"grpc-timeout": "1u"}),
        ("c", frame(RST, 0, 1, pack(">I", 8))),
        peer.ask(3, "/s.A/B", **grpc, **{"grpc-timeout": "1S"}),
        ("c", frame(RST, 0, 3, pack(">I", 8))),
    ]
    assert brief(decode(pieces).rows, "protocol", "error_kind", "outcome") == [
        ("grpc", "timeout", "no_response"),
        ("grpc", "client", "no_response"),
    ]


def test_upgrade_from_http1() -> None:
    peer = Peer()
    ask = b"GET /up HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    pieces: list[Piece] = [("c", ask), ("s", switch), *opening(), peer.answer(1, "200"), peer.ask(3, "/next")]
    decoded = decode([*pieces, peer.answer(3, "204")])
    assert decoded.protocols == ["http1", "http2"]
    found = brief(decoded.rows, "protocol", "operation", "statement", "status")
    assert sorted(found, key=str) == [
        ("http1", "GET", "/up", "101"),
        ("http2", "GET", "/next", "204"),
        ("http2", "GET", "/up", "200"),
    ]


def long_talk(peer: Peer) -> list[Piece]:
    pieces: list[Piece] = []
    for n in range(1, 21, 2):
        pieces += [peer.ask(n, f"/thing/{n}"), peer.answer(n, "200", b"x" * 50)]
    return pieces


def test_start_in_the_middle() -> None:
    """What a block spells out is known; what it takes from the unseen table is not, and nothing is invented."""
    pieces = [*opening(), *long_talk(Peer())]
    rows = brief(decode(pieces[10:], from_start=False).rows, *SHORT)
    assert rows == [("GET", f"/thing/{n}", "200", "complete", n) for n in range(9, 21, 2)]
    peer = Peer()
    repeated = [*opening(), *(piece for n in range(1, 9, 2) for piece in (peer.ask(n, "/same"), peer.answer(n, "200")))]
    assert (
        brief(decode(repeated[6:], from_start=False).rows, "operation", "statement", "status")
        == [("GET", None, "200")] * 2
    )


def test_one_path_learned_later_is_inferred_earlier() -> None:
    peer = Peer()
    pieces = [*opening(), *(piece for n in (1, 3, 5) for piece in (peer.ask(n, "/same"), peer.answer(n, "200")))]
    peer.client.header_table_size = 0  # the encoder forgets, and spells everything out again
    peer.client.header_table_size = 4096
    pieces += [peer.ask(7, "/same"), peer.answer(7, "200")]
    rows = brief(decode(pieces[4:], from_start=False).rows, "statement", "inferred")
    assert rows == [("/same", "statement"), ("/same", "statement"), ("/same", None)]


def test_lost_request_leaves_the_table_uncertain() -> None:
    """Two insertions are lost; the entries behind the hole are found again, and said to be inferred."""
    peer = Peer()
    first, lost, later = peer.ask(1, "/one"), peer.ask(3, "/two", color="red"), peer.ask(5, "/one")
    pieces: list[Piece] = [*opening(), first, peer.answer(1, "200"), (*lost[:2], 0), peer.answer(3, "200"), later]
    rows = brief(decode([*pieces, peer.answer(5, "200")]).rows, "operation", "statement", "status", "inferred")
    assert rows[0] == ("GET", "/one", "200", None)
    assert rows[1] == (None, None, "200", None)
    assert rows[2][:1] == ("GET",)
    assert rows[2][1] is None or rows[2][3] == "statement"


def test_payload_limit() -> None:
    peer = Peer()
    big: Piece = (*peer.answer(1, "200", b"x" * 9000)[:2], 300)
    pieces: list[Piece] = [*opening(), peer.ask(1, "/big"), big, peer.ask(3, "/next"), peer.answer(3, "200")]
    assert brief(decode(pieces).rows, *SHORT[:3]) == [("GET", "/big", "200"), ("GET", "/next", "200")]


def test_tables_agree_with_another_implementation() -> None:
    chance = random.Random(3)
    encoder, table = hpack.Encoder(), Table(from_start=True)
    for turn in range(400):
        fields = [
            (":method", chance.choice(["GET", "POST"])),
            (":path", f"/{chance.randrange(40)}"),
            (f"x-{chance.randrange(50)}", chance.choice(["", "v", "ü", "w" * chance.randrange(90)])),
        ]
        if turn % 50 == 25:
            encoder.header_table_size = chance.choice([0, 100, 1000, 4096])
        instructions = read_block(encoder.encode(fields, huffman=turn % 3 > 0))
        assert instructions is not None
        found, sure = table.fields(instructions, None)
        table.apply(instructions, found)
        assert sure
        assert found == fields


def test_frames_of_nine_bytes_that_are_not_http2() -> None:
    """CQL has headers of nine bytes too."""
    query = b"\x04\x00\x00\x01\x07" + pack(">I", 18) + pack(">I", 11) + b"SELECT x, y" + b"\0\1\0"
    reply = b"\x84\x00\x00\x01\x08" + pack(">I", 4) + pack(">I", 1)
    assert decode([("c", query), ("s", reply)] * 8, from_start=False, server_port=8082).protocol != "http2"
