"""HTTP/1.x: dialogues as clients and servers send them, whole, cut, with gaps and from the middle."""

from __future__ import annotations

import gzip

import pytest

from tests.unit.analyze.protocols.wire import Piece, brief, decode

GET = b"GET /users/42?x=1 HTTP/1.1\r\nHost: shop\r\nUser-Agent: curl/8\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
POST = b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc"
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nno cart"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;ext=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-Sum: 15\r\n\r\n"
)
KEEP_ALIVE: list[Piece] = [("c", GET), ("s", OK), ("c", POST), ("s", CREATED), ("c", GET), ("s", NOT_FOUND)]
SHORT = ("operation", "resource", "status", "outcome")
THREE = [
    ("GET", "/users/{id}", "200", "complete"),
    ("POST", "/orders", "201", "complete"),
    ("GET", "/users/{id}", "404", "complete"),
]


def rows(pieces: list[Piece], *names: str, from_start: bool = True) -> list[tuple[object, ...]]:
    decoded = decode(pieces, from_start=from_start)
    assert decoded.protocol == "http1"
    return brief(decoded.rows, *(names or SHORT))


def test_one_row_per_request() -> None:
    assert rows(KEEP_ALIVE) == THREE


def test_columns() -> None:
    row = decode(KEEP_ALIVE).rows[0]
    assert row.statement == "/users/42?x=1"
    assert row.attributes == {
        "host": "shop",
        "user_agent": "curl/8",
        "server": "nginx",
        "content_type": "text/plain",
    }
    assert row.request is not None
    assert row.response is not None
    assert (row.request.size, row.response.size) == (len(GET), len(OK))


def test_errors_tell_whose_and_what() -> None:
    body = b'{"message":"pool empty"}'
    busy = b"HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    pieces: list[Piece] = [("c", GET), ("s", NOT_FOUND), ("c", GET), ("s", busy)]
    assert rows(pieces, "is_error", "error_kind", "error_message") == [
        (True, "client", "Not Found: no cart"),
        (True, "server", "Busy: pool empty"),
    ]


def test_message_of_a_compressed_error() -> None:
    body = gzip.compress(b'{"error": {"message": "pool is empty"}}')
    head = (
        b"HTTP/1.1 500 Oops\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    )
    assert rows([("c", GET), ("s", head % len(body) + body)], "error_kind", "error_message") == [
        ("server", "Oops: pool is empty")
    ]


def test_pipelined_requests_are_answered_in_order() -> None:
    assert rows([("c", GET + POST + GET), ("s", OK), ("s", CREATED + NOT_FOUND)]) == THREE


def test_chunked_with_extension_and_trailers() -> None:
    assert rows([("c", GET), ("s", CHUNKED), ("c", POST), ("s", CREATED)])[1] == THREE[1]


def test_chunks_in_pieces() -> None:
    pieces: list[Piece] = [
        ("c", GET),
        *(("s", CHUNKED[n : n + 1]) for n in range(len(CHUNKED))),
        ("c", POST),
        ("s", CREATED),
    ]
    assert rows(pieces)[1] == THREE[1]


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5000\r\n\r\n"),
        (b"DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),  # line ends of LF only
        (b"GET", b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nok"),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (b"PROPFIND", b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_where_a_body_ends(method: bytes, answer: bytes) -> None:
    ask = method + b" /a HTTP/1.1\r\nHost: x\r\n\r\n"
    assert rows([("c", ask), ("s", answer), ("c", POST), ("s", CREATED)])[1] == THREE[1]


def test_interim_answers_belong_to_the_final_one() -> None:
    ask = b"PUT /f HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    decoded = decode([("c", ask), ("s", b"HTTP/1.1 100 Continue\r\n\r\n"), ("c", b"body"), ("s", CREATED)])
    assert [(row.status, (row.attributes or {}).get("interim")) for row in decoded.rows] == [("201", [100])]
    assert decoded.rows[0].request is not None
    assert decoded.rows[0].request.size == len(ask) + 4


def test_body_refused_before_it_was_sent() -> None:
    ask = b"PUT /f HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4000\r\n\r\n"
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    assert rows([("c", ask), ("s", refused), ("c", GET), ("s", OK)])[1] == THREE[0]


def test_answer_until_close() -> None:
    old = b"HTTP/1.0 200 OK\r\n\r\n"
    decoded = decode([("c", GET), ("s", old), ("s", b"x" * 100), ("s", b"y" * 100, 10)])
    assert [row.response.size for row in decoded.rows if row.response] == [len(old) + 200]


def test_absolute_form_and_connect() -> None:
    proxied = b"GET http://shop:81/a/7?q HTTP/1.1\r\nHost: shop\r\n\r\n"
    tunnel = b"CONNECT shop:443 HTTP/1.1\r\nHost: shop:443\r\n\r\n"
    pieces: list[Piece] = [
        ("c", proxied),
        ("s", OK),
        ("c", tunnel),
        ("s", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("c", b"\x16\x03"),
    ]
    assert rows(pieces, "operation", "resource") == [("GET", "/a/{id}"), ("CONNECT", "shop:443")]
    assert decode(pieces).opaque_bytes == 2


def test_old_and_broken_requests() -> None:
    assert rows([("c", b"GET /old\r\n"), ("s", b"HTTP/1.0 200 OK\r\n\r\nhi")])[0][:2] == ("GET", "/old")
    assert rows([("c", b"get /x HTTP/1.1\r\n\r\n"), ("s", b"HTTP/1.1 400 Bad Request\r\n\r\n")])[0][2] == "400"


def test_unanswered_and_orphans() -> None:
    assert rows([("c", GET)])[0][3] == "no_response"
    assert rows([("s", OK), ("c", POST), ("s", CREATED)], from_start=False) == [
        (None, None, "200", "no_request"),
        THREE[1],
    ]


def test_start_within_a_body() -> None:
    pieces: list[Piece] = [("s", b"\r\n\r\nrest of a body, HTTP/1.1 in it"), *KEEP_ALIVE]
    assert rows(pieces, from_start=False) == THREE


def test_lost_request_and_lost_answer() -> None:
    """Nothing shifts: after a loss an answer belongs to the latest request before it."""
    lost_request: list[Piece] = [*KEEP_ALIVE[:2], ("c", POST, 0), *KEEP_ALIVE[3:]]
    assert rows(lost_request) == [THREE[0], (None, None, "201", "no_request"), THREE[2]]
    lost_answer: list[Piece] = [*KEEP_ALIVE[:3], ("s", CREATED, 0), *KEEP_ALIVE[4:]]
    assert rows(lost_answer) == [THREE[0], ("POST", "/orders", None, "no_response"), THREE[2]]


def test_payload_limit_in_a_chunked_body() -> None:
    answer = CHUNKED.replace(b"A\r\n0123456789", b"4000\r\n" + b"x" * 0x4000)
    pieces: list[Piece] = [("c", GET), ("s", answer, 60), ("c", POST), ("s", CREATED)]
    assert [row[:3] for row in rows(pieces)] == [THREE[0][:3], THREE[1][:3]]


def test_head_longer_than_the_payload_limit() -> None:
    ask = b"GET /a HTTP/1.1\r\nHost: h\r\nCookie: " + b"c" * 500 + b"\r\n\r\n"
    assert [row[:3] for row in rows([("c", ask, 100), ("s", OK), ("c", POST), ("s", CREATED)])] == [
        ("GET", "/a", "200"),
        THREE[1][:3],
    ]


def test_trace_context() -> None:
    trace = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    ask = GET.replace(b"User-Agent", trace + b"User-Agent")
    assert rows([("c", ask), ("s", OK)], "trace_id", "span_id") == [
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    ]


def test_id_given_by_the_server() -> None:
    assert rows([("c", GET), ("s", OK.replace(b"Server: nginx", b"X-Request-Id: r-1"))], "trace_id") == [("r-1",)]


def test_route_with_many_values_is_one_route() -> None:
    pieces: list[Piece] = []
    for n in range(80):
        word = "".join(chr(97 + int(d)) for d in f"{n:03d}")
        pieces += [("c", b"GET /item/%s HTTP/1.1\r\nHost: shop\r\n\r\n" % word.encode()), ("s", OK)]
    assert {row[0] for row in rows(pieces, "resource")} == {"/item/{*}"}


def test_discovery_over_udp() -> None:
    notify = b"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNTS: ssdp:alive\r\n\r\n"
    decoded = decode([("c", notify), ("c", notify)], datagrams=True, known=False, server_port=1900)
    assert brief(decoded.rows, "operation", "outcome") == [("NOTIFY", "one_way")] * 2


@pytest.mark.parametrize(
    "pieces",
    [
        [("c", b"REGISTER sip:a SIP/2.0\r\nVia: x\r\n\r\n"), ("s", b"SIP/2.0 200 OK\r\n\r\n")],
        [("c", b"*1\r\n$4\r\nPING\r\n"), ("s", b"+PONG\r\n")],
        [("c", b"GET key\r\n"), ("s", b"VALUE key 0 1\r\na\r\nEND\r\n")],
    ],
    ids=["sip_on_port_80", "redis_on_port_80", "memcached_on_port_80"],
)
def test_other_protocols_on_port_80(pieces: list[Piece]) -> None:
    assert decode(pieces, server_port=80).protocol != "http1"
