"""DNS: messages as a resolver and its servers sent them."""

from __future__ import annotations

from struct import pack

from kubetape.analyze.protocols.dns.parse import parse_message
from kubetape.analyze.protocols.dns.records import read_name
from tests.unit.analyze.protocols.wire import Piece, brief, decode

A, NS, CNAME, SOA, AAAA, IXFR, AXFR = 1, 2, 5, 6, 28, 251, 252


def name(text: str) -> bytes:
    return b"".join(bytes([len(w)]) + w for w in text.encode().split(b".") if w) + b"\0"


def question(message_id: int, text: str, kind: int, flags: int = 0x0100) -> bytes:
    return pack(">6H", message_id, flags, 1, 0, 0, 0) + name(text) + pack(">HH", kind, 1)


def record(text: bytes, kind: int, value: bytes, ttl: int = 60) -> bytes:
    return text + pack(">HHIH", kind, 1, ttl, len(value)) + value


def answer(message_id: int, text: str, kind: int, *records: bytes, flags: int = 0x8180, extra: bytes = b"") -> bytes:
    head = pack(">6H", message_id, flags, 1, len(records), 0, 1 if extra else 0)
    return head + name(text) + pack(">HH", kind, 1) + b"".join(records) + extra


def tcp(message: bytes) -> bytes:
    return pack(">H", len(message)) + message


SOA_RECORD = record(b"\xc0\x0c", SOA, name("ns.z") + name("m.z") + bytes(20))
# OPT record: payload size 1232, extended code 1 (so 16 with the header's 0), no options.
OPT_BADVERS = b"\0" + pack(">HHIH", 41, 1232, 0x01000000, 0)
POINTER = b"\xc0\x0c"


def test_answer_gives_the_addresses_and_the_chain_of_names() -> None:
    alias = record(POINTER, CNAME, name("b.c"), ttl=300)
    address = record(name("b.c"), A, bytes([10, 0, 0, 7]), ttl=20)
    rows = decode([("c", question(7, "A.b.C", A)), ("s", answer(7, "a.b.c", A, alias, address))], datagrams=True).rows
    assert brief(rows, "operation", "resource", "status", "outcome") == [("A", "a.b.c", "NOERROR", "complete")]
    told = rows[0].attributes or {}
    assert (told["addresses"], told["cnames"], told["ttl"]) == (["10.0.0.7"], ["b.c"], 20)


def test_two_questions_at_once_cross_on_one_port() -> None:
    pieces = [
        ("c", question(1, "x.org", A)),
        ("c", question(2, "x.org", AAAA)),
        ("s", answer(2, "x.org", AAAA, flags=0x8183)),
        ("s", answer(1, "x.org", A)),
    ]
    assert brief(decode(pieces, datagrams=True).rows, "operation", "status", "error_kind", "is_error") == [
        ("A", "NOERROR", None, False),
        ("AAAA", "NXDOMAIN", "client", True),
    ]


def test_repeated_question_is_one_row_from_the_first_on() -> None:
    asked = question(9, "slow.org", A)
    rows = decode([("c", asked), ("c", asked), ("s", answer(9, "slow.org", A, flags=0x8182))], datagrams=True).rows
    assert brief(rows, "status", "error_kind") == [("SERVFAIL", "server")]
    assert rows[0].request is not None
    assert rows[0].request.first_ns == 1000
    assert (rows[0].attributes or {})["retransmit_count"] == 1


def test_unanswered_question_and_answer_to_nobody_are_rows() -> None:
    rows = decode([("c", question(1, "a.org", A)), ("s", answer(2, "b.org", A))], datagrams=True).rows
    assert brief(rows, "resource", "outcome") == [("a.org", "no_response"), ("b.org", "no_request")]


def test_truncated_answer_says_so() -> None:
    rows = decode([("c", question(1, "a.org", A)), ("s", answer(1, "a.org", A, flags=0x8380))], datagrams=True).rows
    assert "tc" in (rows[0].attributes or {})["flags"]


def test_extended_code_of_edns() -> None:
    answered = answer(1, "a.org", A, extra=OPT_BADVERS)
    rows = decode([("c", question(1, "a.org", A)), ("s", answered)], datagrams=True).rows
    assert brief(rows, "status") == [("BADVERS",)]


def test_stream_in_pieces_and_from_the_middle() -> None:
    first, second = tcp(question(1, "a.org", A)), tcp(question(2, "b.org", A))
    replies = tcp(answer(1, "a.org", A)) + tcp(answer(2, "b.org", A))
    pieces = [("c", first[:1]), ("c", first[1:] + second), ("s", replies)]
    assert brief(decode(pieces).rows, "resource", "status") == [("a.org", "NOERROR"), ("b.org", "NOERROR")]
    middle = [("c", first[9:] + second), ("s", replies[5:])]
    assert brief(decode(middle, from_start=False).rows, "resource", "outcome") == [("b.org", "complete")]


def test_gap_in_a_stream_loses_only_what_it_hit() -> None:
    asked = [tcp(question(n, f"n{n}.org", A)) for n in range(4)]
    replies = b"".join(tcp(answer(n, f"n{n}.org", A)) for n in range(4))
    pieces: list[Piece] = [("c", asked[0]), ("c", asked[1], 0), ("c", asked[2] + asked[3]), ("s", replies)]
    assert brief(decode(pieces).rows, "resource", "outcome") == [
        ("n0.org", "complete"),
        ("n2.org", "complete"),
        ("n3.org", "complete"),
        ("n1.org", "no_request"),
    ]


def test_zone_transfer_is_one_row_over_all_its_messages() -> None:
    address = record(POINTER, A, bytes([10, 0, 0, 1]))
    parts = [answer(5, "z", AXFR, SOA_RECORD, address), answer(5, "z", AXFR, address), answer(5, "z", AXFR, SOA_RECORD)]
    pieces = [("c", tcp(question(5, "z", AXFR, 0))), *(("s", tcp(p)) for p in parts)]
    rows = decode(pieces).rows
    assert brief(rows, "operation", "rows_sent", "outcome") == [("AXFR", 4, "complete")]
    assert rows[0].response is not None
    assert rows[0].response.size == sum(len(p) + 2 for p in parts)
    assert brief(decode(pieces[:3]).rows, "outcome") == [("truncated",)]


def test_update_and_notify_are_named_by_what_they_do() -> None:
    added = record(name("h.z"), A, bytes([10, 0, 0, 9]))
    update = pack(">6H", 3, 5 << 11, 1, 0, 1, 0) + name("z") + pack(">HH", SOA, 1) + added
    refused = pack(">6H", 3, 0x8000 | 5 << 11 | 9, 1, 0, 0, 0) + name("z") + pack(">HH", SOA, 1)
    rows = decode([("c", update), ("s", refused)], datagrams=True).rows
    assert brief(rows, "operation", "resource", "status") == [("UPDATE", "z", "NOTAUTH")]
    assert (rows[0].attributes or {})["updates"][0]["data"] == "10.0.0.9"


def test_error_without_question_is_found_by_id() -> None:
    refused = pack(">6H", 8, 0x8005, 0, 0, 0, 0)
    rows = decode([("c", question(8, "a.org", A)), ("s", refused)], datagrams=True).rows
    assert brief(rows, "resource", "status") == [("a.org", "REFUSED")]


def test_names() -> None:
    loop = b"\x01a\xc0\x00"
    assert read_name(loop, 0, 0, len(loop)) is None
    assert read_name(b"\x03a.b\x02\xff\x00\x00", 0, 0, 8) == ("a\\.b.\\255\\000", 8)
    assert read_name("\x06Büro\x00".encode(), 0, 0, 8) is None  # the length counts bytes
    assert read_name("\x05Büro\x00".encode(), 0, 0, 7) == ("Büro", 7)
    assert read_name(b"\x3f" + b"a" * 63 + b"\x3f" + b"b" * 63 + b"\xc0\x00", 0, 0, 130) is None


def test_records_of_a_loop_of_pointers_take_linear_time() -> None:
    chain = b"".join(pack(">H", 0xC000 | 12 + 2 * i) for i in range(120))
    message = pack(">6H", 1, 0x8000, 1, 0, 0, 0) + chain + pack(">HH", A, 1)
    parsed = parse_message(message, 0, len(message), len(message))
    assert parsed is not None
    assert not parsed.whole


def test_netbios_names_are_not_dns() -> None:
    # NBNS name query for "FRED": RFC 1002, section 4.2.12
    asked = question(1, "EGFCEFEECACACACACACACACACACACACA", 32)
    assert decode([("c", asked)], datagrams=True, server_port=137).protocol is None


def test_other_datagrams_on_port_53_are_not_dns() -> None:
    assert decode([("c", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")], datagrams=True, server_port=53).protocol != "dns"
    assert decode([("c", b"\0" * 40), ("s", b"\xff" * 40)], datagrams=True, server_port=53).protocol != "dns"


def test_odd_port_and_roles_by_content() -> None:
    found = decode([("c", answer(1, "a.org", A)), ("s", question(1, "a.org", A))], datagrams=True, known=False)
    assert (found.protocol, found.swapped) == ("dns", True)
