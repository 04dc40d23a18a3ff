"""SIP: transactions over datagrams and streams."""

from __future__ import annotations

from tests.unit.analyze.protocols.wire import Piece, brief, decode


def _message(start: str, cseq: str, *extra: str, branch: str = "z9hG4bK1", body: str = "") -> bytes:
    lines = [start, f"Via: SIP/2.0/UDP 10.0.0.1:5060;branch={branch};rport", "From: <sip:a@x>;tag=1", "t: <sip:b@x>"]
    lines += ["i: call-1@x", f"CSeq: {cseq}", *extra, f"Content-Length: {len(body)}", "", body]
    return "\r\n".join(lines).encode()


INVITE = _message("INVITE sip:b@example.org SIP/2.0", "1 INVITE", "Content-Type: application/sdp", body="v=0\r\n")
TRYING = _message("SIP/2.0 100 Trying", "1 INVITE")
RINGING = _message("SIP/2.0 180 Ringing", "1 INVITE")
OK = _message("SIP/2.0 200 OK", "1 INVITE", "Server: box/1", body="v=0\r\no=-\r\n")
BUSY = _message("SIP/2.0 486 Busy Here", "1 INVITE")
ACK = _message("ACK sip:b@example.org SIP/2.0", "1 ACK", branch="z9hG4bK2")
BYE = _message("BYE sip:a@x SIP/2.0", "7 BYE", branch="z9hG4bK3")
BYE_OK = _message("SIP/2.0 200 OK", "7 BYE", branch="z9hG4bK3")

CALL = [("c", INVITE), ("s", TRYING), ("s", RINGING), ("s", OK), ("c", ACK), ("s", BYE), ("c", BYE_OK)]


def test_a_call_is_three_rows_whoever_hangs_up() -> None:
    for datagrams in (True, False):
        decoded = decode(CALL, datagrams=datagrams, known=not datagrams)
        assert (decoded.protocol, decoded.swapped) == ("sip", False)
        assert brief(decoded.rows, "operation", "resource", "status", "outcome") == [
            ("INVITE", "sip:b@example.org", "200", "complete"),
            ("ACK", "sip:b@example.org", None, "one_way"),
            ("BYE", "sip:a@x", "200", "complete"),
        ]
        first = decoded.rows[0]
        assert first.attributes is not None
        assert first.attributes["provisional"] == [100, 180]
        assert first.request is not None
        assert first.request.size == len(INVITE)
        assert first.response is not None
        assert first.response.size == len(OK)
        assert decoded.rows[-1].attributes == {
            "call_id": "call-1@x",
            "cseq": 7,
            "from": "<sip:a@x>;tag=1",
            "to": "<sip:b@x>",
            "sent_by": "server",
        }


def test_repeated_messages_belong_to_the_row_of_the_first() -> None:
    rows = decode([("c", INVITE), ("c", INVITE), ("s", TRYING), ("s", OK), ("s", OK), ("c", ACK)], datagrams=True).rows
    assert brief(rows, "operation", "status") == [("INVITE", "200"), ("ACK", None)]
    assert rows[0].attributes is not None
    assert (rows[0].attributes["retransmit_count"], rows[0].attributes["repeated_replies"]) == (1, 1)


def test_failures_tell_whose_fault() -> None:
    timeout = _message("SIP/2.0 408 Request Timeout", "1 INVITE")
    for reply, status, kind in (
        (BUSY, "486", "client"),
        (timeout, "408", "timeout"),
        (_message("SIP/2.0 503 Out", "1 INVITE"), "503", "server"),
        (_message("SIP/2.0 603 Decline", "1 INVITE"), "603", "client"),
    ):
        rows = decode([("c", INVITE), ("s", reply)], datagrams=True).rows
        assert brief(rows, "status", "is_error", "error_kind") == [(status, True, kind)]


def test_unanswered_and_unasked() -> None:
    assert brief(decode([("c", INVITE), ("s", RINGING)], datagrams=True).rows, "status", "outcome") == [
        (None, "no_response")
    ]
    rows = decode([("s", TRYING), ("s", OK)], datagrams=True).rows
    assert brief(rows, "operation", "status", "outcome") == [("INVITE", "200", "no_request")]


def test_stream_from_the_middle_and_over_a_gap() -> None:
    middle = [("c", INVITE[60:] + BYE), ("s", BYE_OK)]
    rows = decode(middle, from_start=False, only="sip").rows
    assert brief(rows, "operation", "status", "outcome") == [("BYE", "200", "complete")]
    body_cut: list[Piece] = [("c", INVITE, len(INVITE) - 3), ("c", BYE), ("s", OK), ("s", BYE_OK)]
    rows = decode(body_cut).rows
    assert brief(rows, "operation", "status", "outcome") == [
        ("INVITE", "200", "complete"),
        ("BYE", "200", "complete"),
    ]
    assert rows[0].request is not None
    assert rows[0].request.cut_bytes == 3


def test_keepalives_and_folded_headers() -> None:
    folded = OK.replace(b"From: <sip:a@x>;tag=1", b"From: <sip:a@x>\r\n ;tag=1")
    pings = [("c", b"\r\n\r\n"), ("s", b"\r\n"), ("c", INVITE), ("s", folded)]
    for datagrams in (True, False):
        decoded = decode(pings, datagrams=datagrams)
        assert decoded.unread_bytes == 0
        assert brief(decoded.rows, "operation", "status") == [("INVITE", "200")]


def test_http_and_rtsp_are_not_sip() -> None:
    http = [("c", b"GET / HTTP/1.1\r\nHost: sip\r\n\r\n"), ("s", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]
    rtsp = [("c", b"OPTIONS rtsp://x/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"), ("s", b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")]
    for dialogue in (http, rtsp):
        assert decode(dialogue, server_port=5060).protocol != "sip"
