"""gRPC as a real server and client speak it, through a recording proxy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from kubetape.analyze.protocols.contract import Request
from tests.unit.analyze.protocols.proxy import recorded
from tests.unit.analyze.protocols.wire import Piece, brief, decode

TRACE = "0af7651916cd43dd8448eb211c80319c"


def unary(request: bytes, context: Any) -> bytes:
    if request == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü")
    if request == b"slow":
        while context.is_active():
            time.sleep(0.01)
    return request * 2


def many(request: bytes, context: Any) -> Iterator[bytes]:
    yield from (b"%d" % n for n in range(3))
    if request == b"fail":
        context.abort(grpc.StatusCode.INTERNAL, "half way")


def gather(requests: Iterator[bytes], context: Any) -> bytes:
    return b"".join(requests)


def echo(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield from requests


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Many": grpc.unary_stream_rpc_method_handler(many),
    "Gather": grpc.stream_unary_rpc_method_handler(gather),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
}


@pytest.fixture(scope="module")
def conversation() -> list[Piece]:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Cart", HANDLERS)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with recorded(port) as proxy:
        with grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
            call = channel.unary_unary("/shop.Cart/Unary")
            assert call(b"x", metadata=[("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")]) == b"xx"
            for request, timeout in ((b"missing", 5), (b"slow", 0.2)):
                with pytest.raises(grpc.RpcError):
                    call(request, timeout=timeout)
            assert len(list(channel.unary_stream("/shop.Cart/Many")(b"ok"))) == 3
            with pytest.raises(grpc.RpcError):
                list(channel.unary_stream("/shop.Cart/Many")(b"fail"))
            assert channel.stream_unary("/shop.Cart/Gather")(iter([b"a", b"b"])) == b"ab"
            assert list(channel.stream_stream("/shop.Cart/Echo")(iter([b"a" * 40_000, b"b"])))[1] == b"b"
            with pytest.raises(grpc.RpcError):
                channel.unary_unary("/shop.Cart/Nothing")(b"")
        server.stop(0).wait()
    return proxy.pieces[0]


def rows_of(pieces: list[Piece], **options: Any) -> list[Request]:
    decoded = decode(pieces, **options)
    assert decoded.protocol == "http2"
    return sorted(decoded.rows, key=lambda row: row.stream_id or 0)


def test_each_call_is_a_row_with_its_status(conversation: list[Piece]) -> None:
    rows = rows_of(conversation)
    assert {row.protocol for row in rows} == {"grpc"}
    # Whether the server still told of the deadline, or the client's reset came first, is a race; the pieces'
    # times are not real ones, so that the reset does not look late.
    late = rows.pop(2)
    assert (late.operation, late.is_error) == ("/shop.Cart/Unary", True)
    assert (late.status, late.error_kind) in [("4", "timeout"), (None, "client")]
    assert [(row.operation, row.status, row.error_kind, row.error_message) for row in rows] == [
        ("/shop.Cart/Unary", "0", None, None),
        ("/shop.Cart/Unary", "5", "client", "no such thing: ü"),
        ("/shop.Cart/Many", "0", None, None),
        ("/shop.Cart/Many", "13", "server", "half way"),
        ("/shop.Cart/Gather", "0", None, None),
        ("/shop.Cart/Echo", "0", None, None),
        ("/shop.Cart/Nothing", "12", "server", "Method not found!"),
    ]
    assert {row.resource for row in rows} == {"shop.Cart"}
    assert (rows[0].trace_id, rows[0].span_id) == (TRACE, "b7ad6b7169203331")


def test_messages_are_counted_both_ways(conversation: list[Piece]) -> None:
    counts = [
        (row.attributes["request_messages"], row.attributes["response_messages"])
        for row in rows_of(conversation)
        if row.attributes is not None
    ]
    assert counts == [(1, 1), (1, 0), (1, 0), (1, 3), (1, 3), (2, 1), (2, 2), (1, 0)]


def test_sizes_count_only_the_streams_own_frames(conversation: list[Piece]) -> None:
    echo_row = rows_of(conversation)[6]
    assert echo_row.request is not None
    assert 40_000 < echo_row.request.size < 41_000


def test_payload_limit_keeps_every_call(conversation: list[Piece]) -> None:
    cut: list[Piece] = [(side, data, min(len(data), 2048)) for side, data, *_ in conversation]
    whole, limited = (brief(rows_of(p), "operation", "status") for p in (conversation, cut))
    assert limited == whole


def test_mid_stream_start_names_what_it_can(conversation: list[Piece]) -> None:
    """From the third call on: its path is a table entry of before the recording, later ones are literals."""
    answers = [n for n, piece in enumerate(conversation) if piece[0] == "s"]
    rows = rows_of(conversation[answers[3] :], from_start=False)
    assert {row.protocol for row in rows} == {"grpc"}
    assert [row.operation for row in rows if row.operation is not None] == [
        "/shop.Cart/Many",
        "/shop.Cart/Many",
        "/shop.Cart/Gather",
        "/shop.Cart/Echo",
        "/shop.Cart/Nothing",
    ]
