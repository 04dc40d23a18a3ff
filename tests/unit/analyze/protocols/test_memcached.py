"""memcached: text, meta and binary protocol, over TCP and UDP."""

from __future__ import annotations

from struct import pack

from tests.unit.analyze.protocols.wire import brief, decode


def test_text_commands() -> None:
    asked = b"set user:7 0 0 2\r\nhi\r\nget user:7 user:8\r\nget user:9\r\nincr user:7 1\r\n"
    answers = b"STORED\r\nVALUE user:7 0 2\r\nhi\r\nEND\r\nEND\r\nCLIENT_ERROR cannot increment\r\n"
    decoded = decode([("c", asked), ("s", answers)])
    assert decoded.protocol == "memcached"
    assert brief(decoded.rows, "operation", "resource", "status", "rows_sent", "error_kind") == [
        ("set", "user:{id}", "STORED", None, None),
        ("get", "user:{id}", "VALUE", 1, None),
        ("get", "user:{id}", "END", 0, None),
        ("incr", "user:{id}", "CLIENT_ERROR", None, "client"),
    ]


def test_noreply_waits_for_nothing() -> None:
    asked = b"set a 0 0 1 noreply\r\nx\r\nget a\r\n"
    decoded = decode([("c", asked), ("s", b"VALUE a 0 1\r\nx\r\nEND\r\n")])
    assert brief(decoded.rows, "operation", "outcome") == [("set", "one_way"), ("get", "complete")]


def binary(magic: int, opcode: int, opaque: int, key: bytes = b"", value: bytes = b"", status: int = 0) -> bytes:
    extras = bytes(8) if (magic, opcode) == (0x80, 1) else bytes(4) if (magic, opcode, status) == (0x81, 0, 0) else b""
    total = len(extras) + len(key) + len(value)
    return pack(">BBHBBHIIQ", magic, opcode, len(key), len(extras), 0, status, total, opaque, 0) + extras + key + value


def test_binary_commands_are_paired_by_their_opaque() -> None:
    quiet = binary(0x80, 0x09, 1, b"a") + binary(0x80, 0x09, 2, b"b") + binary(0x80, 0x0A, 3)
    hit = binary(0x81, 0x09, 2, value=b"\x00\x00\x00\x00v") + binary(0x81, 0x0A, 3)
    missing = binary(0x81, 0x00, 4, value=b"Not found", status=1)
    decoded = decode([("c", quiet), ("s", hit), ("c", binary(0x80, 0x00, 4, b"c")), ("s", missing)])
    assert brief(decoded.rows, "operation", "resource", "status", "outcome") == [
        ("get", "a", "KEY_NOT_FOUND", "one_way"),
        ("get", "b", "NO_ERROR", "complete"),
        ("noop", None, "NO_ERROR", "complete"),
        ("get", "c", "KEY_NOT_FOUND", "complete"),
    ]
    assert decoded.rows[0].inferred == "status"


def test_meta_commands() -> None:
    decoded = decode([("c", b"ms k 2\r\nhi\r\nmg k v\r\nmg no v\r\n"), ("s", b"HD\r\nVA 2\r\nhi\r\nEN\r\n")])
    assert brief(decoded.rows, "operation", "status") == [("ms", "HD"), ("mg", "VA"), ("mg", "EN")]


def test_datagrams_carry_a_request_id() -> None:
    def head(number: int) -> bytes:
        return pack(">HHHH", number, 0, 1, 0)

    asked = [("c", head(n) + b"get k%d\r\n" % n) for n in (1, 2)]
    answers = [("s", head(n) + b"VALUE k%d 0 1\r\nx\r\nEND\r\n" % n) for n in (2, 1)]
    decoded = decode([*asked, *answers], datagrams=True)
    assert brief(decoded.rows, "statement", "status") == [("get k1", "VALUE"), ("get k2", "VALUE")]
