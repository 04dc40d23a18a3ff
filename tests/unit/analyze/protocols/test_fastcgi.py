"""FastCGI: a web server's requests to PHP, also multiplexed, cut and from the middle."""

from __future__ import annotations

from struct import pack

from tests.unit.analyze.protocols.wire import Piece, brief, decode

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, GET_VALUES, VALUES = 1, 2, 3, 4, 5, 6, 7, 9, 10


def record(kind: int, content: bytes, request_id: int = 1, padding: int = 0) -> bytes:
    return pack(">BBHHBx", 1, kind, request_id, len(content), padding) + content + bytes(padding)


def pairs(**values: str) -> bytes:
    packed = b""
    for name, value in values.items():
        raw = value.encode()
        packed += bytes([len(name)]) + (bytes([len(raw)]) if len(raw) < 128 else pack(">I", len(raw) | 1 << 31))
        packed += name.encode() + raw
    return packed


def ask(uri: str, request_id: int = 1, **more: str) -> bytes:
    params = pairs(REQUEST_METHOD="GET", SCRIPT_NAME="/index.php", REQUEST_URI=uri, HTTP_HOST="shop", **more)
    return (
        record(BEGIN, b"\0\1\1" + bytes(5), request_id)
        + record(PARAMS, params, request_id, 3)
        + record(PARAMS, b"", request_id)
        + record(STDIN, b"", request_id)
    )


def answer(head: bytes, request_id: int = 1, app: int = 0, protocol: int = 0, stderr: bytes = b"") -> bytes:
    said = record(STDERR, stderr, request_id) if stderr else b""
    return (
        said
        + record(STDOUT, head + b"\r\n\r\nbody", request_id, 5)
        + record(STDOUT, b"", request_id)
        + record(END, pack(">IB3x", app, protocol), request_id)
    )


OK = b"Content-Type: text/html"
DIALOGUE: list[Piece] = [
    ("c", ask("/cart/7?x=1")),
    ("s", answer(OK)),
    ("c", ask("/missing", more="y" * 200)),
    ("s", answer(b"Status: 404 Not Found\r\n" + OK)),
    ("c", ask("/boom")),
    ("s", answer(b"Status: 500 Oops\r\n" + OK, app=255, stderr=b"PHP message: undefined function")),
]
SHORT = ("operation", "resource", "status", "error_kind", "outcome")
ROWS = [
    ("GET", "/cart/{id}", "200", None, "complete"),
    ("GET", "/missing", "404", "client", "complete"),
    ("GET", "/boom", "500", "server", "complete"),
]


def test_requests_of_a_web_server() -> None:
    decoded = decode(DIALOGUE)
    assert decoded.protocol == "fastcgi"
    assert brief(decoded.rows, *SHORT) == ROWS
    assert decoded.rows[0].statement == "/cart/7?x=1"
    assert (decoded.rows[0].attributes or {})["host"] == "shop"
    assert decoded.rows[2].error_message == "PHP message: undefined function"


def test_two_requests_at_once() -> None:
    first, second = ask("/a"), ask("/b", 2)
    pieces: list[Piece] = [("c", first + second), ("s", answer(OK, 2) + answer(b"Status: 503 Busy\r\n" + OK, 1))]
    decoded = decode(pieces)
    assert brief(decoded.rows, "resource", "status") == [("/a", "503"), ("/b", "200")]
    assert [row.request.size for row in decoded.rows if row.request] == [len(second), len(first)]


def test_refused_and_aborted() -> None:
    refused = record(END, pack(">IB3x", 0, 2))
    pieces: list[Piece] = [("c", ask("/a")), ("s", refused), ("c", ask("/b") + record(ABORT, b""))]
    assert brief(decode(pieces).rows, "resource", "error_kind", "error_message", "outcome") == [
        ("/a", "server", "OVERLOADED", "complete"),
        ("/b", "client", "ABORT_REQUEST", "no_response"),
    ]


def test_trace_context_in_params() -> None:
    asked = ask("/a", HTTP_TRACEPARENT="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert decode([("c", asked), ("s", answer(OK))]).rows[0].trace_id == "0af7651916cd43dd8448eb211c80319c"


def test_start_in_the_middle_and_a_loss() -> None:
    assert brief(decode([("s", b"rest of it"), *DIALOGUE], from_start=False).rows, *SHORT) == ROWS
    lost: list[Piece] = [*DIALOGUE[:2], (*DIALOGUE[2][:2], 0), *DIALOGUE[3:]]
    rows = brief(decode(lost).rows, *SHORT)
    assert rows[0] == ROWS[0]
    assert rows[1] == (None, None, "404", "client", "no_request")
    assert rows[2] == ROWS[2]


def test_payload_limit() -> None:
    big = record(STDOUT, OK + b"\r\n\r\n" + b"x" * 9000) + record(END, bytes(8))
    decoded = decode([("c", ask("/a")), ("s", big, 1000), *DIALOGUE])
    assert brief(decoded.rows, "status")[0] == ("200",)
    assert brief(decoded.rows, *SHORT)[1:] == ROWS


def test_questions_about_the_application() -> None:
    question = record(GET_VALUES, pairs(FCGI_MPXS_CONNS=""), 0)
    reply = record(VALUES, pairs(FCGI_MPXS_CONNS="0"), 0)
    rows = decode([("c", question), ("s", reply)]).rows
    assert [(row.operation, row.attributes) for row in rows] == [("GET_VALUES", {"values": {"FCGI_MPXS_CONNS": "0"}})]
