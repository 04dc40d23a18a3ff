"""LDAP: operations by message id, filters, security layers, StartTLS, CLDAP."""

from __future__ import annotations

import pytest

from kubetape.analyze.protocols.ldap.filters import filter_text
from tests.unit.analyze.protocols.wire import Piece, brief, decode


def ber(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    return bytes((tag, size) if size < 128 else (tag, 0x82, size >> 8, size & 255)) + content


def number(value: int, tag: int = 2) -> bytes:
    return ber(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def text(value: str, tag: int = 4) -> bytes:
    return ber(tag, value.encode())


def message(message_id: int, op: bytes, *controls: bytes) -> bytes:
    return ber(0x30, number(message_id), op, *controls)


def result(tag: int, code: int, matched: str = "", said: str = "", *more: bytes) -> bytes:
    return ber(tag, number(code, 10), text(matched), text(said), *more)


def search(message_id: int, base: str, filter_: bytes) -> bytes:
    numbers = number(2, 10) + number(0, 10) + number(0) + number(0) + ber(1, b"\0")
    return message(message_id, ber(0x63, text(base), numbers, filter_, ber(0x30, text("cn"))))


EQUAL = ber(0xA3, text("uid"), text("jo(e)"))
BIND = message(1, ber(0x60, number(3), text("cn=a"), text("secret", 0x80)))
BIND_OK = message(1, result(0x61, 0))
SEARCH = search(2, "dc=x", EQUAL)
ENTRY = message(2, ber(0x64, text("uid=joe,dc=x"), ber(0x30)))
REFERENCE = message(2, ber(0x73, text("ldap://other/")))
DONE = message(2, result(0x65, 0))
UNBIND = message(3, ber(0x42))
DIALOGUE: list[Piece] = [
    ("c", BIND),
    ("s", BIND_OK),
    ("c", SEARCH),
    ("s", ENTRY + REFERENCE),
    ("s", ENTRY + DONE),
    ("c", UNBIND),
]


def test_bind_search_unbind() -> None:
    decoded = decode(DIALOGUE)
    assert decoded.protocol == "ldap"
    assert brief(decoded.rows, "operation", "resource", "statement", "status", "outcome", "rows_sent") == [
        ("bindRequest", "cn=a", None, "0", "complete", None),
        ("searchRequest", "dc=x", r"(uid=jo\28e\29)", "0", "complete", 2),
        ("unbindRequest", None, None, None, "one_way", None),
    ]
    found = decoded.rows[1]
    assert found.response is not None
    assert found.response.size == 2 * len(ENTRY) + len(REFERENCE) + len(DONE)
    assert found.attributes == {
        "scope": "sub",
        "deref_aliases": "never",
        "requested": ["cn"],
        "reference_count": 1,
        "result": "success",
    }
    assert "secret" not in repr(decoded.rows)


def test_answers_out_of_order_and_abandoned() -> None:
    abandon = message(9, ber(0x50, b"\x07"))
    rows = decode(
        [
            ("c", search(7, "dc=a", EQUAL) + search(8, "dc=b", EQUAL)),
            ("s", message(8, result(0x65, 32, "dc=x", "no such"))),
            ("c", abandon),
        ]
    ).rows
    assert brief(rows, "operation", "resource", "status", "error_kind", "error_message", "outcome") == [
        ("searchRequest", "dc=a", None, None, None, "no_response"),
        ("searchRequest", "dc=b", "32", "client", "no such", "complete"),
        ("abandonRequest", None, None, None, None, "one_way"),
    ]


@pytest.mark.parametrize(
    ("request_op", "reply_tag", "operation", "resource", "statement"),
    [
        (ber(0x6E, text("cn=a"), ber(0x30, text("sn"), text("b"))), 0x6F, "compareRequest", "cn=a", "(sn=b)"),
        (text("cn=a", 0x4A), 0x6B, "delRequest", "cn=a", None),
        (
            ber(0x66, text("cn=a"), ber(0x30, ber(0x30, number(2, 10), ber(0x30, text("sn"))))),
            0x67,
            "modifyRequest",
            "cn=a",
            None,
        ),
        (
            ber(0x68, text("cn=a"), ber(0x30, ber(0x30, text("sn"), ber(0x31, text("b"))))),
            0x69,
            "addRequest",
            "cn=a",
            None,
        ),
        (ber(0x6C, text("cn=a"), text("cn=b"), ber(1, b"\xff")), 0x6D, "modDNRequest", "cn=a", None),
        (ber(0x77, text("1.3.6.1.4.1.4203.1.11.3", 0x80)), 0x78, "extendedReq", "WhoAmI", None),
    ],
)
def test_each_operation(
    request_op: bytes, reply_tag: int, operation: str, resource: str, statement: str | None
) -> None:
    rows = decode([("c", message(4, request_op)), ("s", message(4, result(reply_tag, 52)))]).rows
    assert brief(rows, "operation", "resource", "statement", "status", "error_kind") == [
        (operation, resource, statement, "52", "server")
    ]


def test_start_tls_hands_over_and_a_refusal_does_not() -> None:
    ask = message(1, ber(0x77, text("1.3.6.1.4.1.1466.20037", 0x80)))
    hello = b"\x16\x03\x01\x02\x00\x01" + b"x" * 60
    done = decode([("c", ask), ("s", message(1, result(0x78, 0))), ("c", hello)])
    assert done.rows[0].operation == "extendedReq"
    assert done.rows[0].resource == "StartTLS"
    assert done.unread_bytes == 0 or "tls" in done.protocols
    refused = decode([("c", ask), ("s", message(1, result(0x78, 2))), ("c", BIND), ("s", BIND_OK)])
    assert brief(refused.rows, "operation", "status") == [("extendedReq", "2"), ("bindRequest", "0")]


def test_security_layers() -> None:
    bind = message(1, ber(0x60, number(3), text(""), ber(0xA3, text("GSSAPI"), text("tok"))))
    signed = b"\x05\x04\x00\xff\x00\x0c\x00\x0c" + bytes(8) + b"c" * 12
    sealed = b"\x05\x04\x02\xff" + b"?" * 60

    def wrapped(token: bytes) -> bytes:
        return len(token).to_bytes(4, "big") + token

    start: list[Piece] = [("c", bind), ("s", BIND_OK)]
    rows = decode([*start, ("c", wrapped(signed + SEARCH)), ("s", wrapped(signed + ENTRY + DONE))]).rows
    assert brief(rows, "operation", "status", "rows_sent") == [
        ("bindRequest", "0", None),
        ("searchRequest", "0", 1),
    ]
    hidden = decode([*start, ("c", wrapped(sealed)), ("s", wrapped(sealed))])
    assert (len(hidden.rows), hidden.opaque_bytes, hidden.unread_bytes) == (1, len(wrapped(sealed)), 0)


def test_gap_and_start_in_the_middle() -> None:
    big = message(5, ber(0x64, text("cn=big"), ber(0x30, text("x" * 900))))
    rows = decode(
        [
            ("c", search(5, "dc=x", EQUAL)),
            ("s", big[:40]),
            ("s", big[40:], 0),
            ("s", message(5, result(0x65, 0))),
            ("c", BIND),
            ("s", BIND_OK),
        ]
    ).rows
    assert brief(rows, "operation", "status", "outcome") == [
        ("searchRequest", "0", "truncated"),
        ("bindRequest", "0", "complete"),
    ]
    middle: list[Piece] = [("c", SEARCH[9:] + BIND + UNBIND), ("s", ENTRY[5:] + ENTRY + DONE + BIND_OK)]
    rows = decode(middle, from_start=False).rows
    assert sorted(brief(rows, "operation", "status", "outcome"), key=str) == [
        ("bindRequest", "0", "complete"),
        ("searchRequest", "0", "no_request"),
        ("unbindRequest", None, "one_way"),
    ]


def test_server_hangs_up_with_a_notice() -> None:
    notice = message(0, result(0x78, 52, "", "bye", text("1.3.6.1.4.1.1466.20036", 0x8A)))
    rows = decode([("c", BIND), ("s", BIND_OK + notice)]).rows
    assert brief(rows, "operation", "resource", "status", "outcome") == [
        ("bindRequest", "cn=a", "0", "complete"),
        ("extendedResp", "NoticeOfDisconnection", "52", "one_way"),
    ]


def test_cldap_is_one_row_per_ping() -> None:
    decoded = decode([("c", SEARCH), ("s", ENTRY + DONE)], datagrams=True, known=False)
    assert decoded.protocol == "ldap"
    assert brief(decoded.rows, "operation", "status", "outcome") == [("searchRequest", "0", "complete")]


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (ber(0xA0, EQUAL, ber(0xA2, ber(0x87, b"mail"))), r"(&(uid=jo\28e\29)(!(mail=*)))"),
        (ber(0xA4, text("cn"), ber(0x30, text("a", 0x80), text("b", 0x81), text("c", 0x82))), "(cn=a*b*c)"),
        (ber(0xA4, text("cn"), ber(0x30, text("b", 0x81))), "(cn=*b*)"),
        (ber(0xA5, text("n"), text("5")), "(n>=5)"),
        (ber(0xA9, text("dn", 0x82), text("x", 0x83), ber(0x84, b"\xff")), "(dn:dn:=x)"),
        (ber(0xA3, text("guid"), ber(4, b"\x00\xff\x41")), r"(guid=\00\ffA)"),
        (ber(0xA3, text("cn"), text("Müller*")), r"(cn=Müller\2a)"),
    ],
)
def test_filters_as_text(encoded: bytes, expected: str) -> None:
    assert filter_text(encoded, 0, len(encoded)) == expected


def test_a_filter_nested_a_thousand_times_ends() -> None:
    nested = EQUAL
    for _ in range(1000):
        nested = ber(0xA2, nested)
    assert "…" in filter_text(nested, 0, len(nested))


def test_snmp_on_port_389_is_not_ldap() -> None:
    get = ber(0x30, number(1), text("public"), ber(0xA0, number(77), number(0), number(0), ber(0x30)))
    answer = get.replace(b"\xa0", b"\xa2", 1)
    decoded = decode([("c", get), ("s", answer)], datagrams=True, known=False, server_port=389)
    assert decoded.protocol != "ldap"
